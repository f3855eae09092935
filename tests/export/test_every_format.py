"""Every format, dense and pruned, silu and mish: its own runtime computes what PyTorch does."""

from __future__ import annotations

import dataclasses
import functools
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.grids import covering
from tests.helpers import SPECS
from tests.pruning.helpers import enliven, random_plan
from tests.runs import command, error_lines, opinionated
from yolox.export import FORMATS, ExportSettings, export_model, fold_focus, open_exported
from yolox.export.settings import PACKAGES, SUFFIXES
from yolox.models import LoadedModel, build_model, checkpoint_payload, load_model
from yolox.pruning import apply_plan, trace_groups
from yolox.tools import demo, eval, export
from yolox.utils.checkpoint import save_checkpoint

for package in {name for names in PACKAGES.values() for name in names}:
    pytest.importorskip(package, reason="needs the export extra", exc_type=ImportError)

SIZE = (64, 96)
SMALL = {"num_classes": 3, "class_names": ("a", "b", "c"), "input_size": SIZE}
KINDS = {"nano": SPECS["yolox-nano"], "slim": dataclasses.replace(SPECS["yolox-s"], width=0.125)}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str, bool], Path]:
    """Makes a checkpoint of lively random weights."""
    folder = tmp_path_factory.mktemp("checkpoints")

    @functools.cache
    def make(kind: str, act: str, pruned: bool) -> Path:
        spec = dataclasses.replace(KINDS[kind], act=act, **SMALL)
        model: Any = enliven(build_model(spec)).eval()
        history = []
        if pruned:
            groups = trace_groups(model, torch.rand(1, 3, 64, 64))
            plan = random_plan(groups, random.Random(0), share=0.5)
            model = apply_plan(model, groups, plan)
            history.append({"plan": plan.to_dict()})
        path = folder / f"{kind}_{act}_{pruned}.pth"
        save_checkpoint(path, checkpoint_payload(model, spec, history))
        return path

    return make


def images(count: int) -> Tensor:
    return 255 * torch.rand(count, 3, *SIZE, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("form", "kind", "act", "pruned"),
    # Every two of format, kind, activation and state meet.
    covering(FORMATS, ("nano", "slim"), ("silu", "mish"), (False, True)),
)
def test_the_runtime_computes_what_the_checkpoint_does(
    form: str,
    kind: str,
    act: str,
    pruned: bool,
    checkpoint: Callable[[str, str, bool], Path],
    tmp_path: Path,
) -> None:
    loaded: LoadedModel = load_model(checkpoint(kind, act, pruned))
    output = tmp_path / f"model{SUFFIXES[form][0]}"
    settings = ExportSettings(format=form, size=SIZE, decode=True)
    parity = export_model(loaded, output, settings, [images(1)])
    assert parity.unmatched == 0
    assert parity.detections > 0
    assert sorted(p.suffix for p in tmp_path.iterdir()) == sorted(SUFFIXES[form])
    # Opened anew, on images that it was not compared on, beside the model itself.
    exported = open_exported(output, threads=1)
    assert exported.info.class_names == ("a", "b", "c")
    assert exported.info.pruned is pruned
    x = images(3)
    with torch.no_grad():
        torch.testing.assert_close(exported(x), loaded.model(x), rtol=2e-3, atol=2e-2)


@pytest.mark.parametrize("pruned", [False, True])
def test_the_folded_stem_is_the_same_function(
    pruned: bool, checkpoint: Callable[[str, str, bool], Path]
) -> None:
    model: nn.Module = load_model(checkpoint("nano", "silu", pruned)).model.double()
    x = images(2).double()
    folded = fold_focus(model)
    assert any(getattr(m, "kernel_size", None) == (6, 6) for m in folded.modules())
    with torch.no_grad():
        torch.testing.assert_close(folded(x), model(x), rtol=1e-9, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMATS)
def test_a_file_is_evaluated_and_detects_in_place_of_its_checkpoint(
    form: str, tiny_exp: Path, trained: Path, devkit: Path, tmp_path: Path
) -> None:
    output = tmp_path / f"model{SUFFIXES[form][0]}"
    # Squares of the finest grid, none of which suppresses another.
    best = opinionated(trained / "best_ckpt.pth", tmp_path / "sure.pth", (2.0, -9.0, -9.0))
    words = ("-c", best, "--format", form, "--output-name", output, "--nms", 0.65, "-f", tiny_exp)
    assert command(export.main, *words) == 0
    found = {}
    for name, path in (("file", output), ("checkpoint", best)):
        out = tmp_path / f"{name}.json"
        words = ("-c", path, "--save-detections", out, "--conf", 0.1, "-f", tiny_exp)
        assert command(eval.main, *words) == 0
        found[name] = out.read_text()
    assert found["file"].count("bbox") == found["checkpoint"].count("bbox") == 3 * 8 * 8
    folder = devkit / "VOC2007" / "JPEGImages"
    pictures = tmp_path / "seen"
    assert command(demo.main, "-c", output, "--path", folder, "--save_dir", pictures) == 0
    assert len(list(pictures.iterdir())) == 12


@pytest.mark.parametrize("form", FORMATS)
def test_damaged_and_missing_files_are_told(
    form: str, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / f"model{SUFFIXES[form][0]}"
    assert command(demo.main, "-c", path, "--path", trained) == 1
    (error,) = error_lines(capsys.readouterr().err)
    assert "model" in error
    for suffix in SUFFIXES[form]:
        path.with_suffix(suffix).write_bytes(b"no model")
    assert command(demo.main, "-c", path, "--path", trained) == 1
    (error,) = error_lines(capsys.readouterr().err)
    assert str(path) in error
    assert "Traceback" not in error
