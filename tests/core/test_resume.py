"""A run that was stopped and resumed has the bits of the one that never was."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from loguru import logger

from tests.runs import STEPS, differences, new_trainer, read
from yolox.core.saving import CheckpointFolder
from yolox.core.signals import Interrupted
from yolox.exp import get_exp
from yolox.jobs.train import TrainOptions
from yolox.utils.checkpoint import CheckpointError
from yolox.utils.ema import ModelEMA

# What random choices there are: sizes of multi-scale training, mosaic, mixup, colours.
VARIED: dict[str, Any] = {"multiscale_range": 1, "max_epoch": 3, "no_aug_epochs": 1}


Straight = Callable[[dict[str, Any]], Path]


class _Stopped(Exception):
    pass


@pytest.fixture(autouse=True)
def slow_average(monkeypatch: pytest.MonkeyPatch) -> None:
    """An average that remembers: that of a run's first updates is the weights themselves."""
    monkeypatch.setattr(ModelEMA, "decay", 0.9)


@pytest.fixture(scope="module")
def straight_run(tiny_exp: Path, tmp_path_factory: pytest.TempPathFactory) -> Straight:
    """The folder of a run with some fields that was never stopped, once for all tests."""
    runs: dict[str, Path] = {}

    def run(fields: dict[str, Any]) -> Path:
        name = repr(fields)
        if name not in runs:
            runs[name] = tmp_path_factory.mktemp("straight")
            _train(tiny_exp, runs[name], **fields)
        return runs[name] / "tiny"

    return run


def _train(exp: Path, output: Path, **fields: Any) -> dict[str, Any]:
    trainer = new_trainer(exp, output, **{**VARIED, **fields})
    trainer.train()
    return read(output / "tiny" / "latest_ckpt.pth")


def _train_in_two(exp: Path, output: Path, stop_after: int, **fields: Any) -> dict[str, Any]:
    fields = {**VARIED, **fields}
    trainer = new_trainer(exp, output, **fields)
    calls = 0

    def stop(*_: object) -> None:
        nonlocal calls
        calls += trainer.model.training
        if calls > stop_after * STEPS + 1:  # in the middle of an epoch
            raise _Stopped

    trainer.model.register_forward_pre_hook(stop)
    with pytest.raises(_Stopped):
        trainer.train()
    assert read(output / "tiny" / "latest_ckpt.pth")["train"]["epoch"] == stop_after
    torch.manual_seed(99)  # a new process starts from anything
    trainer = new_trainer(exp, output, options=TrainOptions(resume=True), **fields)
    trainer.train()
    return read(output / "tiny" / "latest_ckpt.pth")


@pytest.mark.parametrize(
    ("stop_after", "fields"),
    [
        (1, {"precision": "fp32"}),
        (2, {"precision": "bf16", "accumulate": 2}),
        (2, {"precision": "fp32", "ema": False}),
        (1, {"precision": "fp32", "data_num_workers": 1}),
    ],
    ids=["plain", "bf16, accumulated", "without EMA", "with a worker"],
)
def test_resumed_run_has_the_bits_of_the_straight_one(
    straight_run: Straight,
    tiny_exp: Path,
    tmp_path: Path,
    stop_after: int,
    fields: dict[str, Any],
) -> None:
    straight = read(straight_run(fields) / "latest_ckpt.pth")
    resumed = _train_in_two(tiny_exp, tmp_path / "resumed", stop_after, **fields)
    assert straight["train"]["epoch"] == 3
    if fields.get("data_num_workers"):
        # Starting workers draws from torch's generator, which decides nothing in an epoch.
        del straight["train"]["torch_rng"], resumed["train"]["torch_rng"]
    assert differences(straight, resumed) == []
    folders = straight_run(fields), tmp_path / "resumed" / "tiny"
    assert differences(*(read(folder / "best_ckpt.pth") for folder in folders)) == []


def _stop_inside(exp: Path, output: Path, number: int, **fields: Any) -> dict[str, Any]:
    """Train until Ctrl-C comes in a step's forward pass; what is saved then."""
    trainer = new_trainer(exp, output, **{**VARIED, **fields})
    calls = 0

    def interrupt(*_: object) -> None:
        nonlocal calls
        calls += trainer.model.training
        if calls == number:
            os.kill(os.getpid(), signal.SIGINT)

    handler = signal.getsignal(signal.SIGINT)
    trainer.model.register_forward_pre_hook(interrupt)
    with pytest.raises(Interrupted, match=r"continues in epoch 2 after iteration \d of 3"):
        trainer.train()
    assert signal.getsignal(signal.SIGINT) == handler
    torch.manual_seed(99)
    return read(output / "tiny" / "latest_ckpt.pth")


@pytest.mark.parametrize(
    ("in_epoch", "done", "fields"),
    [
        (1, 1, {"precision": "bf16"}),
        (1, 2, {"precision": "fp32", "accumulate": 2}),  # the half of an update is not saved
        (3, 3, {"precision": "fp32", "data_num_workers": 1}),
        (2, 2, {"retake_statistics": True}),
        (3, 3, {"sparsity": 0.01}),  # statistics are retaken then too
    ],
    ids=["bf16", "accumulated", "last, with a worker", "statistics", "last, with a penalty"],
)
def test_a_run_stopped_inside_an_epoch_has_the_bits_of_the_straight_one(
    straight_run: Straight, tiny_exp: Path, tmp_path: Path, in_epoch: int, done: int,
    fields: dict[str, Any],
) -> None:  # fmt: skip
    straight = read(straight_run(fields) / "latest_ckpt.pth")
    stopped = _stop_inside(tiny_exp, tmp_path / "resumed", STEPS + in_epoch, **fields)
    assert stopped["train"]["epoch"] == 1
    kept = done if {"retake_statistics", "sparsity"} & set(fields) else 0
    assert stopped["train"]["position"] == {"iteration": done, "iterations": 3, "recent": kept}
    resuming = {**VARIED, **fields}
    new_trainer(
        tiny_exp, tmp_path / "resumed", options=TrainOptions(resume=True), **resuming
    ).train()
    resumed = read(tmp_path / "resumed" / "tiny" / "latest_ckpt.pth")
    if fields.get("data_num_workers"):  # as above
        del straight["train"]["torch_rng"], resumed["train"]["torch_rng"]
    assert differences(straight, resumed) == []


def test_a_killed_run_continues_from_where_it_was_saved_last(
    straight_run: Straight, tiny_exp: Path, tmp_path: Path
) -> None:
    straight = read(straight_run({"precision": "fp32"}) / "latest_ckpt.pth")
    options = TrainOptions(save_every=1e-9)
    trainer = new_trainer(tiny_exp, tmp_path / "killed", options=options, **VARIED)
    calls = 0

    def kill(*_: object) -> None:
        nonlocal calls
        calls += trainer.model.training
        if calls == 2:  # within the first epoch
            trainer.folder.finish_position()
            raise _Stopped

    trainer.model.register_forward_pre_hook(kill)
    with pytest.raises(_Stopped):
        trainer.train()
    saved = read(tmp_path / "killed" / "tiny" / "latest_ckpt.pth")["train"]
    assert (saved["epoch"], saved["position"]["iteration"]) == (0, 1)
    new_trainer(tiny_exp, tmp_path / "killed", options=TrainOptions(resume=True), **VARIED).train()
    assert differences(straight, read(tmp_path / "killed" / "tiny" / "latest_ckpt.pth")) == []


def test_a_position_in_an_epoch_of_another_length_begins_the_epoch_anew(
    tiny_exp: Path, tmp_path: Path
) -> None:
    _stop_inside(tiny_exp, tmp_path, STEPS + 1)
    lines: list[str] = []
    sink = logger.add(lines.append, level="WARNING", format="{message}")
    options = TrainOptions(resume=True, batch_size=2)
    trainer = new_trainer(tiny_exp, tmp_path, options=options, **VARIED)
    seen: list[int] = []
    trainer.model.register_forward_pre_hook(lambda *_: seen.append(trainer.model.training))
    trainer.train()
    logger.remove(sink)
    assert sum(seen) == 2 * 5
    assert any(
        "after iteration 1 of 3, and an epoch has 5 now, 1 to an update" in line for line in lines
    )


def test_a_position_that_cannot_be_written_is_a_warning(
    tiny_exp: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise CheckpointError("the disk is full")

    real = CheckpointFolder.write_position

    def full(self: CheckpointFolder, *args: Any) -> None:
        with monkeypatch.context() as patch:
            patch.setattr("yolox.core.saving.save_checkpoint", fail)
            real(self, *args)
            self.finish_position()

    monkeypatch.setattr(CheckpointFolder, "write_position", full)
    lines: list[str] = []
    sink = logger.add(lines.append, level="WARNING", format="{message}")
    options = TrainOptions(save_every=1e-9)
    new_trainer(tiny_exp, tmp_path, options=options, **{**VARIED, "max_epoch": 1}).train()
    logger.remove(sink)
    assert sum("the position in epoch 1 is not saved, training continues" in x for x in lines) == 3
    assert read(tmp_path / "tiny" / "latest_ckpt.pth")["train"]["epoch"] == 1


def test_average_and_weights_being_trained_are_not_the_same(tiny_exp: Path, tmp_path: Path) -> None:
    """Else the comparisons above would prove less than they say."""
    content = _train(tiny_exp, tmp_path, max_epoch=1)
    assert len(differences(content["model"], content["train"]["raw_model"])) > 100


def test_a_seed_decides_a_run(tiny_exp: Path, tmp_path: Path) -> None:
    runs = [
        _train(tiny_exp, tmp_path / str(number), max_epoch=2, seed=seed)
        for number, seed in enumerate((7, 7, 8))
    ]
    assert differences(runs[0], runs[1]) == []
    assert len(differences(runs[0]["model"], runs[2]["model"])) > 100


def test_a_finished_run_resumed_stays_as_it_is(
    tiny_exp: Path, tmp_path: Path
) -> None:  # fmt: skip
    before = _train(tiny_exp, tmp_path, max_epoch=1)
    options = TrainOptions(resume=True)
    trainer = new_trainer(tiny_exp, tmp_path, options=options, **VARIED | {"max_epoch": 1})
    trainer.train()
    assert differences(before, read(tmp_path / "tiny" / "latest_ckpt.pth")) == []


def test_restored_trainer_holds_the_average_and_the_weights(tiny_exp: Path, tmp_path: Path) -> None:
    content = _train(tiny_exp, tmp_path, max_epoch=1)
    trainer = new_trainer(
        tiny_exp, tmp_path, options=TrainOptions(resume=True), max_epoch=1, no_aug_epochs=1
    )
    trainer.train()
    assert trainer.ema is not None
    assert differences(dict(trainer.ema.ema.state_dict()), content["model"]) == []
    assert differences(dict(trainer.model.state_dict()), content["train"]["raw_model"]) == []
    assert trainer.ema.updates == STEPS


def test_resume_goes_on_in_the_folder_of_the_file(
    tiny_exp: Path, trained: Path, tmp_path: Path
) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(trained, moved)
    options = TrainOptions(resume=True, checkpoint=moved / "latest_ckpt.pth")
    trainer = new_trainer(tiny_exp, tmp_path / "unused", options=options, max_epoch=3)
    assert trainer.settings.output_dir == moved
    trainer.train()
    assert read(moved / "latest_ckpt.pth")["train"]["epoch"] == 3
    assert not (tmp_path / "unused").exists()


def test_resume_needs_a_training_state(tiny_exp: Path, trained: Path, tmp_path: Path) -> None:
    options = TrainOptions(resume=True, checkpoint=trained / "best_ckpt.pth")
    with pytest.raises(CheckpointError, match=r"no training state.*latest_ckpt\.pth"):
        new_trainer(tiny_exp, tmp_path, options=options)


def test_a_resumed_run_keeps_its_activation(tiny_exp: Path, tmp_path: Path) -> None:
    _train(tiny_exp, tmp_path, max_epoch=1)
    with pytest.raises(CheckpointError, match="trained with silu, and continues with it"):
        new_trainer(tiny_exp, tmp_path, options=TrainOptions(resume=True, act="mish"))


def test_a_state_of_another_model_is_refused(tiny_exp: Path, tmp_path: Path) -> None:
    _train(tiny_exp, tmp_path, max_epoch=1)
    trainer = new_trainer(tiny_exp, tmp_path, options=TrainOptions(resume=True), **VARIED)
    assert trainer.resume is not None
    raw = trainer.resume["train"]["raw_model"]
    raw["head.stems.0.conv.weight"] = raw["head.stems.0.conv.weight"][:3]
    with pytest.raises(CheckpointError, match="another model or optimizer"):
        trainer.train()


def test_a_model_of_other_channels_saved_without_provenance_is_fine_tuned_and_resumed_so(
    tiny_exp: Path, pruned: Path, tmp_path: Path
) -> None:
    content = read(pruned)
    content["pruning"] = []
    source = tmp_path / "own.pth"
    torch.save(content, source)
    options = TrainOptions(checkpoint=source)
    trainer = new_trainer(tiny_exp, tmp_path, options=options, **VARIED)
    assert trainer.recipe["fine_tuning"] is True
    assert trainer.recipe["ema_decay"] < get_exp(tiny_exp).ema_decay
    trainer.train()
    options = TrainOptions(resume=True, name="tiny_finetune")
    again = new_trainer(tiny_exp, tmp_path, options=options, **VARIED)
    assert again.recipe == trainer.recipe


def test_pruned_run_resumes_to_the_same_bits(tiny_exp: Path, pruned: Path, tmp_path: Path) -> None:
    fields = {**VARIED, "max_epoch": 2}
    contents = []
    for name, stop in (("straight", False), ("resumed", True)):
        output = tmp_path / name
        options = TrainOptions(checkpoint=pruned)
        trainer = new_trainer(tiny_exp, output, options=options, **fields)
        assert trainer.resume is None
        latest = output / "tiny_finetune" / "latest_ckpt.pth"
        if stop:

            def second_epoch(model: torch.nn.Module, _: object, latest: Path = latest) -> None:
                if model.training and latest.exists():
                    raise _Stopped

            trainer.model.register_forward_pre_hook(second_epoch)
            with pytest.raises(_Stopped):
                trainer.train()
            options = TrainOptions(checkpoint=latest, resume=True)
            trainer = new_trainer(tiny_exp, output, options=options, **fields)
            assert trainer.spec.act == "mish"
        trainer.train()
        contents.append(read(latest))
    assert differences(*contents) == []
    assert "channels" in contents[0]
