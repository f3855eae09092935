"""One set of defaults: a command without flags does what its Python call does without arguments."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import yolox
import yolox.api
from tests.export.helpers import write_checkpoint
from tests.runs import command
from yolox.data.contact_sheet import record_tiles
from yolox.data.doctor import inspect_images
from yolox.jobs.evaluate import evaluate
from yolox.jobs.evaluate_files import EvalSettings
from yolox.jobs.measure import MeasureSettings
from yolox.jobs.quantize import QuantizeJob, QuantizeSettings, calibration_images
from yolox.jobs.sensitivity import SensitivitySettings
from yolox.jobs.train import TrainOptions, official_args
from yolox.predict import Detector
from yolox.tools import bench, compare, demo, eval, export, quantize, sensitivity
from yolox.tools.flags import check_data as check_data_flags
from yolox.tools.flags import eval as eval_flags
from yolox.tools.flags import finetune as finetune_flags
from yolox.tools.flags import train as train_flags
from yolox.utils.errors import UserError

SIZE = (64, 64)


def noted(monkeypatch: pytest.MonkeyPatch, where: Any, job: str) -> dict[str, Any]:
    """The arguments, its defaults among them, that a job is called with; it is not done."""
    found: dict[str, Any] = {}
    signature = inspect.signature(getattr(where, job))

    def note(*args: object, **options: object) -> None:
        bound = signature.bind(*args, **options)
        bound.apply_defaults()
        found.update(bound.arguments)
        raise UserError("noted")

    monkeypatch.setattr(where, job, note)
    return found


def defaults(call: Callable[..., object]) -> dict[str, Any]:
    """Of a function's arguments, those that have one."""
    parameters = inspect.signature(call).parameters.items()
    return {name: p.default for name, p in parameters if p.default is not p.empty}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a slim model. Not to be written to."""
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"), "slim", "relu", "dense")


@pytest.mark.parametrize("flags", [train_flags, finetune_flags])
def test_defaults_of_train(flags: Any) -> None:
    args = vars(flags.make_parser().parse_args([]))
    options = vars(official_args(TrainOptions(), devices=None))
    # Made of -l and the words after it, tensorboard alone by default.
    assert options.pop("run_logger") is None
    assert {name: args[name] for name in options} == options
    python = defaults(yolox.api.train)
    named = {"checkpoint": "ckpt", "name": "experiment_name", "teacher": "distill"}
    assert {name: args[named.get(name, name)] for name in python} == python


def test_defaults_of_evaluate() -> None:
    args = eval_flags.make_parser().parse_args([])
    settings = eval.eval_settings(args, torch.device("cpu"), Path("eval"))
    assert settings == EvalSettings()
    python = defaults(evaluate)
    assert python
    assert {name: getattr(settings, name) for name in python} == python


def test_defaults_of_compare(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of_command = noted(monkeypatch, compare, "compare")
    assert command(compare.main, "-c", source, "--no-eval") == 1
    python = defaults(yolox.compare)
    assert {name: of_command[name] for name in python} == python


def test_defaults_of_export(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime", reason="needs the export extra", exc_type=ImportError)
    of_command = noted(monkeypatch, export, "export_checkpoint")
    of_python = noted(monkeypatch, yolox.api, "export_checkpoint")
    output = tmp_path / "m.onnx"
    assert command(export.main, "-c", source, "-o", output) == 1
    with pytest.raises(UserError, match="noted"):
        yolox.export_model(source, output)
    assert of_command["settings"] == of_python["settings"]
    assert list(of_command["images"]) == list(of_python["images"])


def test_defaults_of_quantize(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: dict[str, Any] = {}

    def job(**arguments: Any) -> None:
        made.update(arguments)
        raise UserError("noted")

    for name in ("require_packages", "ap_evaluation"):
        monkeypatch.setattr(quantize, name, lambda *_: None)
    counts: list[int] = []
    monkeypatch.setattr(quantize, "calibration_images", lambda _, count: counts.append(count))
    monkeypatch.setattr(quantize, "QuantizeJob", job)
    assert command(quantize.main, "-c", source, "-n", "yolox-nano", "num_classes", 3) == 1
    assert made["settings"] == QuantizeSettings()
    assert counts == [defaults(calibration_images)["count"]]
    python = defaults(QuantizeJob)
    assert {name: made[name] for name in python} == python


def test_defaults_of_predict(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = noted(monkeypatch, demo, "load")
    (tmp_path / "a.png").touch()
    assert command(demo.main, "-c", source, tmp_path) == 1
    python = defaults(yolox.load)
    assert {name: opened[name] for name in python} == python
    asked: dict[str, Any] = {}

    class Noting:
        def frames(self, source: object, **options: object) -> list[object]:
            asked.update(options)
            return []

    monkeypatch.setattr(demo, "load", lambda *_, **__: Noting())
    assert command(demo.main, "-c", source, tmp_path, "--save_dir", tmp_path / "out") == 0
    python = defaults(Detector.predict)
    assert asked
    assert asked == {name: python[name] for name in asked}


def test_defaults_of_bench(monkeypatch: pytest.MonkeyPatch) -> None:
    called = noted(monkeypatch, bench, "measure_models")
    assert command(bench.main, "a.pth") == 1
    settings: MeasureSettings = called["settings"]
    assert settings.cases(SIZE) == MeasureSettings().cases(SIZE)
    for name in ("memory", "image", "conf", "nms", "runs", "warmup", "at_most"):
        assert getattr(settings, name) == getattr(MeasureSettings(), name), name


def test_defaults_of_sensitivity(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called = noted(monkeypatch, sensitivity, "analyse")
    assert command(sensitivity.main, "-c", source, "-n", "yolox-nano") == 1
    assert called["settings"] == SensitivitySettings()


def test_check_data() -> None:
    args = check_data_flags.make_parser().parse_args([])
    assert args.workers == defaults(inspect_images)["workers"]
    assert not defaults(record_tiles)  # what is drawn is the command's to say
