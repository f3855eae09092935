"""Run loggers: options, the real packages on the disk alone, resuming, and failures."""

from __future__ import annotations

import importlib.util
import json
import struct
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from loguru import logger

from tests.runs import STEPS, command, error_lines
from yolox.core.loggers import (
    RUN_IDS_FILE,
    MlflowOptions,
    Outcome,
    Pictures,
    RunInfo,
    RunLoggers,
    WandbOptions,
)
from yolox.jobs.train import choose_logger
from yolox.tools import train
from yolox.utils.errors import UserError
from yolox.utils.extras import import_extra

BLOCK = 32768  # bytes, of a file of W&B
CURVES = {
    "train/total_loss", "train/iou_loss", "train/l1_loss", "train/conf_loss", "train/cls_loss",
    "train/lr", "train/images_per_second", "val/AP50-95", "val/AP50",
}  # fmt: skip
needs = {
    name: pytest.mark.skipif(importlib.util.find_spec(name) is None, reason=f"needs {name}")
    for name in ("wandb", "mlflow")
}


# --------------------------------------------------------------------------------------- options


def _read(name: str, *pairs: str) -> Any:
    chosen, rest = choose_logger(name, pairs)
    assert chosen is not None
    return chosen.options, rest  # type: ignore[attr-defined]


@needs["wandb"]
def test_official_pairs_are_options_and_the_rest_are_fields() -> None:
    options, rest = _read(
        "wandb", "max_epoch", "2", "wandb-project", "P", "wandb-run_name", "n", "wandb-id", "7",
        "wandb-log_checkpoints", "True", "wandb-num_eval_images", "3", "wandb-tags", "a,b",
        "wandb-val_dataset", "x", "seed", "1",
    )  # fmt: skip
    assert options == WandbOptions(
        project="P", name="n", id="7", log_checkpoints=True, num_eval_images=3, tags=("a", "b")
    )
    assert rest == ["max_epoch", "2", "seed", "1"]


@needs["mlflow"]
def test_mlflow_pairs_are_options() -> None:
    options, rest = _read("mlflow", "mlflow-experiment", "E", "mlflow-log-checkpoints", "true")
    assert options == MlflowOptions(experiment_name="E", log_checkpoints=True)
    assert rest == []


@needs["wandb"]
def test_every_wrong_option_is_told_at_once() -> None:
    pairs = ("wandb-projekt", "P", "wandb-num_eval_images", "many", "wandb-log_checkpoints", "2")
    with pytest.raises(UserError) as told:
        choose_logger("wandb", pairs)
    text = str(told.value)
    assert "unknown option wandb-projekt: did you mean wandb-project?" in text
    assert "wandb-num_eval_images takes an integer, got 'many'" in text
    assert "wandb-log_checkpoints takes True or False, got '2'" in text
    with pytest.raises(UserError, match="wandb-project has no value"):
        choose_logger("wandb", ("wandb-project",))
    with pytest.raises(UserError, match="at least 0"):
        choose_logger("wandb", ("wandb-num_eval_images", "-1"))


def test_options_of_a_logger_that_is_not_asked_for_are_refused() -> None:
    with pytest.raises(UserError, match="wandb-project is of the logger wandb, and this one is t"):
        choose_logger("tensorboard", ("wandb-project", "P"))


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_package_that_is_not_installed_is_one_line(
    name: str, own_exp: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    assert command(train.main, "-f", own_exp, "-l", name) == 1
    (error,) = error_lines(capsys.readouterr().err)
    assert f"the logger {name} needs {name}, not installed here: pip install {name}" in error
    assert not (own_exp.parent / "out").exists()


def test_a_folder_of_the_package_s_name_is_not_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "logger_of_nobody").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match="not installed here: pip install logger_of_nobody"):
        import_extra("logger_of_nobody", "-l nobody")
    (tmp_path / "broken_one.py").write_text("import nowhere_to_be_found")
    with pytest.raises(UserError, match="installed but broken"):
        import_extra("broken_one", "-l broken")


# -------------------------------------------------------------------------------------- failures


class _Fake:
    """A logger that remembers what it was told, and fails at a call of its choice."""

    name, advice = "fake curves", "mend it"
    errors: tuple[type[Exception], ...] = (RuntimeError,)
    num_pictures = 1

    def __init__(self, fails: str = "") -> None:
        self.fails = fails
        self.told: list[str] = []

    def _do(self, what: str) -> None:
        self.told.append(what)
        if what == self.fails:
            raise RuntimeError("no\nnetwork")

    def start(self, run: RunInfo) -> None:
        self._do("start")

    def scalars(self, iteration: int, values: Mapping[str, float]) -> None:
        self._do("scalars")

    def histogram(self, iteration: int, name: str, values: Any) -> None:
        self._do("histogram")

    def pictures(self, iteration: int, pictures: Pictures) -> None:
        assert list(pictures) == ["a"]
        self._do("pictures")

    def best_checkpoint(self, file: Path) -> None:
        self._do("best_checkpoint")

    def finish(self, outcome: Outcome) -> None:
        self._do(f"finish {outcome}")


ALL = ["start", "scalars", "histogram", "pictures", "best_checkpoint", "finish finished"]


@pytest.fixture
def warnings() -> Iterator[list[str]]:
    """Warnings that are logged."""
    told: list[str] = []
    sink = logger.add(told.append, level="WARNING", format="{message}")
    yield told
    logger.remove(sink)


@pytest.mark.parametrize("fails", ALL)
def test_a_logger_that_fails_is_left_out(fails: str, tmp_path: Path, warnings: list[str]) -> None:
    bad, good = _Fake(fails), _Fake()
    with RunLoggers([bad, good], RunInfo(folder=tmp_path, fields={}, resumed=False)) as loggers:
        loggers.scalars(1, {"a": 1.0})
        loggers.histogram(1, "h", torch.ones(3))
        picture = np.zeros((2, 2, 3), np.uint8)
        loggers.pictures(1, {"a": picture, "b": picture})
        loggers.best_checkpoint(tmp_path / "best.pth")
    assert good.told == ALL
    assert bad.told == [*ALL[: ALL.index(fails) + 1], "finish failed"]
    assert warnings == [
        "no more fake curves (no network): training continues without them; mend it\n"
    ]


@pytest.mark.parametrize(
    ("error", "outcome"), [(KeyboardInterrupt, "stopped"), (ValueError, "failed")]
)
def test_the_end_of_a_run_is_told(error: type[BaseException], outcome: str, tmp_path: Path) -> None:
    fake = _Fake()
    info = RunInfo(folder=tmp_path, fields={}, resumed=False)
    with pytest.raises(error), RunLoggers([fake], info):
        raise error
    assert fake.told == ["start", f"finish {outcome}"]


def test_ids_are_of_resumed_runs_alone(tmp_path: Path) -> None:
    new = RunInfo(folder=tmp_path, fields={}, resumed=False)
    new.keep_ids("one", {"id": "7"})
    new.keep_ids("two", {"id": "8"})
    assert new.ids("one") == {}
    resumed = RunInfo(folder=tmp_path, fields={}, resumed=True)
    with RunLoggers([_Fake()], resumed):
        assert (resumed.ids("one"), resumed.ids("two"), resumed.ids("x")) == (
            {"id": "7"}, {"id": "8"}, {},
        )  # fmt: skip
    with RunLoggers([_Fake()], new):
        assert resumed.ids("one") == {}


# --------------------------------------------------------------------------------- real packages


def _train(
    exp: Path, output: Path, name: str, epochs: int, *more: str, resume: bool = False
) -> int:
    flags = ("--resume",) if resume else ()
    return command(
        train.main, *flags, "-f", exp, "--precision", "fp32", "-l", name,
        "output_dir", output, "max_epoch", epochs, "no_aug_epochs", 0, *more,
    )  # fmt: skip


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """W&B writes below the test's folder alone, and does not use the network."""
    for variable in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(variable, str(tmp_path / "home" / variable))
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.setenv("WANDB_FINISH_TIMEOUT", "60")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_MODE", "offline")
    for variable in ("WANDB_DIR", "WANDB_PROJECT", "WANDB_RUN_ID", "WANDB_NAME"):
        monkeypatch.delenv(variable, raising=False)


def _records(folder: Path) -> list[Any]:
    """What W&B's own file of an offline run holds, a log in the format of LevelDB."""
    from wandb.proto.wandb_internal_pb2 import Record

    (file,) = folder.glob("*.wandb")
    data, at, message = file.read_bytes(), 7, b""
    records = []
    while at + 7 <= len(data):
        if (left := BLOCK - at % BLOCK) < 7:
            at += left
            continue
        _, length, part = struct.unpack_from("<IHB", data, at)
        at += 7 + length
        message += data[at - length : at]
        if part in (1, 4):  # whole, or the last part
            records.append(Record.FromString(message))
            message = b""
    return records


@needs["wandb"]
def test_wandb_gets_the_run_and_its_second_half(
    tiny_exp: Path, tmp_path: Path, offline: None
) -> None:
    import wandb

    options = (
        "wandb-project", "P", "wandb-log_checkpoints", "True", "wandb-num_eval_images", "2",
        "sparsity", "1e-4",
    )  # fmt: skip
    output = tmp_path / "out"
    assert _train(tiny_exp, output, "wandb", 1, *options) == 0
    ids = json.loads((output / "tiny" / RUN_IDS_FILE).read_text())["wandb"]
    assert ids["project"] == "P"
    assert _train(tiny_exp, output, "wandb", 2, "sparsity", "1e-4", resume=True) == 0
    wandb.teardown()
    assert json.loads((output / "tiny" / RUN_IDS_FILE).read_text())["wandb"] == ids
    runs = sorted((output / "tiny" / "wandb").glob(f"offline-run-*-{ids['id']}"))
    assert len(runs) == 2
    halves = [_records(folder) for folder in runs]
    keys: list[set[str]] = []
    iterations = []
    for records in halves:
        (run,) = {(r.run.run_id, r.run.project) for r in records if r.HasField("run")}
        assert run == (ids["id"], "P")
        items = [
            {i.key or i.nested_key[0]: i.value_json for i in r.history.item}
            for r in records
            if r.HasField("history")
        ]
        keys.append(set().union(*items))
        iterations.append([int(i["iteration"]) for i in items if "train/lr" in i])
    assert iterations == [[1, 2, 3], [4, 5, 6]]
    assert keys[0] >= CURVES | {"val/detections", "gamma"}
    config = {i.key: i.value_json for r in halves[0] for i in r.config.update}
    config |= {i.key: i.value_json for r in halves[0] for i in r.run.config.update}
    assert config["width"] == "0.125"
    assert config["batch_size"] == "4"
    images = list((runs[0] / "files" / "media" / "images" / "val").glob("*"))
    assert len(images) == 2
    artifacts = [r.artifact for r in halves[0] if r.HasField("artifact")]
    assert any(a.type == "model" and "best" in a.aliases for a in artifacts)
    assert not any(r.HasField("artifact") for r in halves[1])


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where MLflow keeps runs: files below the test's folder."""
    uri = (tmp_path / "mlruns").as_uri()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "E")
    monkeypatch.setenv("MLFLOW_TAGS", '{"made": "by a test"}')
    for variable in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID"):
        monkeypatch.delenv(variable, raising=False)
    return uri


@needs["mlflow"]
def test_mlflow_gets_the_run_and_its_second_half(
    tiny_exp: Path, tmp_path: Path, store: str
) -> None:
    from mlflow import MlflowClient

    options = ("mlflow-log_checkpoints", "True", "mlflow-num_eval_images", "2", "sparsity", "1e-4")
    output = tmp_path / "out"
    assert _train(tiny_exp, output, "mlflow", 1, *options) == 0
    client = MlflowClient(tracking_uri=store)
    found = client.get_experiment_by_name("E")
    assert found is not None
    (run,) = client.search_runs([found.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "tiny"
    assert run.data.tags["made"] == "by a test"
    assert run.data.params["width"] == "0.125"
    assert run.data.params["batch_size"] == "4"
    assert set(run.data.metrics) >= CURVES | {"gamma/quantile_50"}
    (best,) = client.list_artifacts(run.info.run_id, "checkpoints")
    assert best.path == "checkpoints/best_ckpt.pth"
    pictures = client.list_artifacts(run.info.run_id, "images")
    assert sum(file.path.endswith(".png") for file in pictures) == 2

    assert _train(tiny_exp, output, "mlflow", 2, "sparsity", "1e-4", resume=True) == 0
    (run,) = client.search_runs([found.experiment_id])
    assert run.info.status == "FINISHED"
    rates = client.get_metric_history(run.info.run_id, "train/lr")
    assert [metric.step for metric in rates] == list(range(1, 2 * STEPS + 1))


@needs["mlflow"]
def test_a_server_that_is_not_there_does_not_end_a_training(
    tiny_exp: Path, tmp_path: Path, store: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("mlflow-tracking_uri", "http://127.0.0.1:9")
    assert _train(tiny_exp, tmp_path, "mlflow", 1, *options) == 0
    log = capsys.readouterr().err
    (warning,) = [line for line in log.splitlines() if " WARNING " in line]
    assert "no more MLflow curves" in warning
    assert (tmp_path / "tiny" / "best_ckpt.pth").is_file()
    assert (tmp_path / "tiny" / "tensorboard").is_dir()
