"""ONNX files of every kind of checkpoint compute what PyTorch does, or are not kept."""

from __future__ import annotations

import dataclasses
import functools
import json
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.helpers import SPECS
from tests.pruning.helpers import enliven, random_plan
from tests.runs import command, error_lines, tree
from yolox.export import OnnxSettings, Parity, export_onnx, measure_parity, onnx, parity
from yolox.export.parity import count_unmatched
from yolox.models import ModelSpec, build_model, checkpoint_payload, load_model
from yolox.pruning import apply_plan, trace_groups
from yolox.tools import export_onnx as tool
from yolox.utils.boxes import postprocess
from yolox.utils.checkpoint import file_digest, save_checkpoint

ort = pytest.importorskip("onnxruntime", reason="needs the export extra", exc_type=ImportError)
pytest.importorskip("onnxscript", reason="needs the export extra", exc_type=ImportError)

SIZE = (64, 64)
NAMES = ("cat", "Hund", "猫")
SMALL = {"num_classes": 3, "class_names": NAMES, "input_size": SIZE}
MODELS: dict[str, ModelSpec] = {
    "nano": dataclasses.replace(SPECS["yolox-nano"], **SMALL),
    "slim": dataclasses.replace(SPECS["yolox-s"], width=0.125, **SMALL),
}
PRUNINGS = {"dense": 0, "pruned": 1, "twice": 2}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Makes a checkpoint of lively random weights, pruned at random as often as its state says."""
    folder = tmp_path_factory.mktemp("checkpoints")

    @functools.cache
    def make(kind: str = "slim", act: str = "silu", state: str = "dense") -> Path:
        spec = dataclasses.replace(MODELS[kind], act=act)
        model: Any = enliven(build_model(spec)).eval()
        history = []
        for turn in range(PRUNINGS[state]):
            groups = trace_groups(model, torch.rand(1, 3, *SIZE))
            plan = random_plan(groups, random.Random(turn), share=0.5)
            model = apply_plan(model, groups, plan)
            history.append({"plan": plan.to_dict()})
        path = folder / f"{kind}_{act}_{state}.pth"
        save_checkpoint(path, checkpoint_payload(model, spec, history))
        return path

    return make


def session(path: Path) -> Any:
    return ort.InferenceSession(path, providers=["CPUExecutionProvider"])


def images(count: int) -> Tensor:
    return 255 * torch.rand(count, 3, *SIZE, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def reference(path: Path, x: Tensor, *, decode: bool = True) -> Tensor:
    """Straight from the model, by other means than the exporter's."""
    model = load_model(path).model
    if decode:
        return model(x)
    raw = model.raw(x).raw_BAK
    return torch.cat((raw[..., :4], 1 / (1 + (-raw[..., 4:]).exp())), dim=-1)


# Every pair of model, activation and state is there.
@pytest.mark.parametrize(
    ("kind", "act", "state"),
    [
        ("nano", "silu", "dense"),
        ("nano", "mish", "pruned"),
        ("nano", "silu", "twice"),
        ("slim", "mish", "dense"),
        ("slim", "silu", "pruned"),
        ("slim", "mish", "twice"),
    ],
)
def test_a_file_computes_what_the_checkpoint_does(
    kind: str, act: str, state: str, checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    source = checkpoint(kind, act, state)
    loaded = load_model(source)
    assert len(loaded.pruning) == PRUNINGS[state]
    before = {name: value.clone() for name, value in loaded.model.state_dict().items()}
    output = tmp_path / "model.onnx"
    settings = OnnxSettings(size=SIZE, decode=True, slim=state != "dense")
    found = export_onnx(loaded, output, settings, [images(1)])
    assert all(torch.equal(value, before[k]) for k, value in loaded.model.state_dict().items())
    assert list(tree(tmp_path)) == ["model.onnx"]
    assert found.images == 1
    assert found.detections > 0
    assert found.unmatched == 0

    x = images(2)[1:]
    got = torch.from_numpy(session(output).run(None, {"images": x.numpy()})[0])
    expected = reference(source, x)
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-3)
    ours, theirs = (postprocess(p, 3, 0.3, 0.45)[0] for p in (expected, got))
    assert count_unmatched(ours, theirs) == 0


def test_any_batch_size_own_names_and_what_the_file_says(
    checkpoint: Callable[..., Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source = checkpoint("slim", "relu")
    output = tmp_path / "deep" / "m.onnx"
    line = "--dynamic --no-onnxsim --input x --output y --tsize 32 96 -o 19 --conf 0.2 --nms 0.6"
    args = ("-c", source, "--output-name", output, *line.split())
    assert command(tool.main, *args) == 0
    out, err = capfd.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 3
    assert "4 images: boxes differ by at most" in err
    assert list(tree(tmp_path)) == ["deep/m.onnx"]
    assert output.stat().st_mode & 0o777 == source.stat().st_mode & 0o777

    run = session(output)
    (given,), (made,) = run.get_inputs(), run.get_outputs()
    assert (given.name, given.type, given.shape[1:]) == ("x", "tensor(float)", [3, 32, 96])
    assert (made.name, made.shape[1:]) == ("y", [63, 8])
    assert given.shape[0] == made.shape[0] == "batch"
    x = images(5).reshape(5, 3, 128, 32)[:, :, :96].transpose(2, 3).contiguous()
    for part in (x, x[:1]):
        got = torch.from_numpy(run.run(None, {"x": part.numpy()})[0])
        expected = reference(source, part, decode=False)
        torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-3)

    facts = run.get_modelmeta().custom_metadata_map
    assert json.loads(facts["class_names"]) == list(NAMES)
    assert json.loads(facts["input_size"]) == [32, 96]
    assert json.loads(facts["strides"]) == [8, 16, 32]
    assert [facts[f"input_{k}"] for k in ("color", "layout", "range", "normalized")] == [
        "BGR", "NCHW", "[0, 255]", "false",
    ]  # fmt: skip
    assert facts["letterbox_value"] == "114"
    assert facts["decoded"] == facts["pruned"] == "false"
    assert (facts["conf_threshold"], facts["nms_threshold"]) == ("0.2", "0.6")
    assert facts["checkpoint_sha256"] == file_digest(source)


def test_a_file_that_computes_something_else_is_not_kept(
    checkpoint: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fuse = onnx.fuse_model

    def spoilt(model: torch.nn.Module) -> torch.nn.Module:
        fused = fuse(model)
        with torch.no_grad():
            fused.get_parameter("model.head.cls_preds.1.bias")[2] += 0.1
        return fused

    monkeypatch.setattr(onnx, "fuse_model", spoilt)
    old = tmp_path / "m.onnx"
    old.write_bytes(b"what was there")
    before = tree(tmp_path)
    args = ("-c", checkpoint(), "--output-name", old, "--batch-size", 2)
    assert command(tool.main, *args) == 1
    (error,) = error_lines(capsys.readouterr().err)
    assert "does not compute what PyTorch does" in error
    assert "scores differ by" in error
    assert tree(tmp_path) == before


def test_parity_tells_each_kind_of_difference() -> None:
    base = torch.tensor([[[20.0, 20, 10, 10, 0.9, 0.8, 0.1], [50, 50, 9, 9, 0.9, 0.1, 0.7]]])

    def measure(other: Tensor) -> Parity:
        runs = (lambda _: base, lambda _: other)
        options: dict[str, Any] = {"num_classes": 2, "conf": 0.3, "nms": 0.45}
        return measure_parity(*runs, [torch.zeros(1, 3, 32, 32)], decode=lambda x: x, **options)

    assert measure(base).problem == ""
    assert measure(base).detections == 2
    moved = base.clone()
    moved[0, 0, 0] += 1
    assert measure(moved).box_abs == 1
    assert measure(moved).box_rel == pytest.approx(1 / 50)
    assert "boxes" in measure(moved).problem
    assert "scores" not in measure(moved).problem
    swapped = base.clone()
    swapped[0, 1, 5:] = base[0, 1, 5:].flip(0)
    assert measure(swapped).unmatched == 2
    assert "scores" in measure(swapped).problem
    assert "2 of 2 detections" in measure(swapped).problem
    broken = base.clone()
    broken[0, 0, 4] = torch.nan
    assert measure(broken).score_abs == torch.inf
    assert "scores" in measure(broken).problem
    with pytest.raises(ValueError, match="expected"):
        measure(base[:, :1])
    assert parity.TOLERANCE < 1 / 50


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("-c none.pth", ["no checkpoint at none.pth"]),
        ("-c BEST --tsize 50", ["32", "50"]),
        ("-c BEST --tsize 64 64 64", ["--tsize", "64 64 64"]),
        ("-c BEST --output-name folder", ["folder", "is a folder"]),
        ("-c BEST --output-name BEST", ["is the checkpoint itself"]),
        ("-c BEST -o 11", ["opset", "at least 18", "11"]),
        ("-c BEST --input a --output a", ["names that differ", "'a'"]),
        ("-c BEST --path nowhere", ["no image at nowhere"]),
        ("-c BEST --batch-size 0", ["--batch-size", "at least 1"]),
        ("-f none.py", ["no Exp file at none.py"]),
    ],
)
def test_bad_input(
    line: str,
    words: list[str],
    checkpoint: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    source = checkpoint()
    before = tree(source.parent)
    assert command(tool.main, *line.replace("BEST", str(source)).split()) == 1
    err = capsys.readouterr().err
    assert len(error_lines(err)) == 1
    assert "Traceback" not in err
    for word in words:
        assert word in err
    assert tree(tmp_path) == {}
    assert tree(source.parent) == before


def test_without_a_checkpoint_the_exp_s_best_is_looked_for(
    own_exp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(tool.main, "-f", own_exp) == 1
    assert str(Path("out") / "tiny" / "best_ckpt.pth") in capsys.readouterr().err


def test_missing_packages_are_named_with_the_line_that_installs_them(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    assert command(tool.main, "-c", tmp_path / "none.pth") == 1
    (error,) = error_lines(capsys.readouterr().err)
    assert "onnxscript" in error
    assert 'pip install "yolox-with-pruning[export]"' in error
