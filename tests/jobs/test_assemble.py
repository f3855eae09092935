"""Exps by file and name, and the trainer built from one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from loguru import logger

from tests.helpers import SPECS, shared
from tests.runs import REPO, new_trainer, read
from yolox.data import DataError
from yolox.exp import Exp, ExpError, get_exp
from yolox.jobs.train import TrainOptions
from yolox.models import load_model
from yolox.utils.checkpoint import CheckpointError
from yolox.utils.errors import UserError


@pytest.mark.parametrize("name", sorted(SPECS))
def test_built_in_recipes_describe_the_seven_models(name: str) -> None:
    exp = get_exp(None, name)
    spec, expected = exp.model_spec(), SPECS[name]
    for field in ("architecture", "depth", "width", "depthwise", "act", "input_size"):
        assert getattr(spec, field) == getattr(expected, field), field
    assert exp.exp_name == name.replace("-", "_")
    assert get_exp(exp_name=name.replace("-", "_")).exp_name == exp.exp_name


@pytest.mark.parametrize("file", sorted((REPO / "exps").rglob("*.py")), ids=lambda p: p.stem)
def test_every_exp_file_loads_and_checks(file: Path) -> None:
    exp = get_exp(file)
    assert isinstance(exp, Exp)
    exp.check()
    with torch.device("meta"):
        exp.get_model()


def test_an_exp_file_need_not_be_in_the_current_folder(
    tiny_exp: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert get_exp(str(tiny_exp)).exp_name == "tiny"


@pytest.mark.parametrize("pins", [True, False])
def test_batches_are_pinned_for_the_device_that_trains(
    tiny_exp: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pins: bool
) -> None:
    asked = []
    monkeypatch.setattr(
        "yolox.jobs.train.assemble.pins_memory", lambda device: asked.append(device.type) or pins
    )
    assert new_trainer(tiny_exp, tmp_path).train_loader.pin_memory == pins  # type: ignore[attr-defined]
    assert asked == ["cpu"]


@pytest.mark.parametrize(
    ("content", "file", "words"),
    [
        (None, "none.py", "no Exp file at"),
        ("x = 1\n", "empty.py", "no class Exp"),
        ("class Exp: pass\n", "exp.yaml", ".py"),
        ("class Exp:\n    pass\n", "other.py", "subclass"),
    ],
)
def test_exp_files_that_cannot_be(
    tmp_path: Path, content: str | None, file: str, words: str
) -> None:
    path = tmp_path / file
    if content is not None:
        path.write_text(content)
    with pytest.raises(ExpError) as caught:
        get_exp(path)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)


def test_names_that_are_none() -> None:
    with pytest.raises(ExpError, match="nearest: yolox-tiny"):
        get_exp(None, "yolox-tinny")
    with pytest.raises(ExpError, match="a file, `exp_file`, or a built-in model, `exp_name`"):
        get_exp()


def test_weights_of_another_number_of_classes_are_transferred(
    tiny_exp: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = load_model(trained / "best_ckpt.pth")
    path = tmp_path / "two.pth"
    state = {
        name: value[:2] if name.startswith("head.cls_preds") else value
        for name, value in source.content["model"].items()
    }
    torch.save({"model": state}, path)
    trainer = new_trainer(tiny_exp, tmp_path, options=TrainOptions(checkpoint=path))
    assert trainer.resume is None
    assert trainer.spec.num_classes == 3
    for name, value in trainer.model.state_dict().items():
        if not name.startswith("head.cls_preds"):
            assert torch.equal(value, state[name]), name
    assert trainer.model.head.cls_preds[0].out_channels == 3


def test_official_coco_weights_start_a_run(tiny_exp: Path, tmp_path: Path) -> None:
    path = shared("weights/yolox_nano_coco.pth")
    fields = {"depthwise": True, "width": 0.25, "max_epoch": 1}
    trainer = new_trainer(tiny_exp, tmp_path, options=TrainOptions(checkpoint=path), **fields)
    theirs = load_model(path).content["model"]
    own = trainer.model.state_dict()
    same = [name for name in own if torch.equal(own[name], theirs[name])] if theirs else []
    differ = sorted(set(own) - set(same))
    assert differ == sorted(name for name in own if name.startswith("head.cls_preds"))
    trainer.train()
    assert load_model(tmp_path / "tiny" / "latest_ckpt.pth").spec.num_classes == 3


def test_weights_of_another_model_are_refused(
    tiny_exp: Path, trained: Path, tmp_path: Path
) -> None:
    options = TrainOptions(checkpoint=trained / "best_ckpt.pth")
    with pytest.raises(CheckpointError, match="another model"):
        new_trainer(tiny_exp, tmp_path, options=options, width=0.25)


@pytest.mark.parametrize(
    ("act", "finetune_act", "expected"),
    [
        (None, "mish", "mish"),
        ("relu", "mish", "relu"),
        (None, "", "silu"),
        ("silu", "mish", "silu"),
    ],
)
def test_activation_of_a_fine_tuning(
    tiny_exp: Path, pruned: Path, tmp_path: Path, act: str | None, finetune_act: str, expected: str
) -> None:
    trainer = new_trainer(
        tiny_exp,
        tmp_path,
        options=TrainOptions(checkpoint=pruned, act=act),
        finetune_act=finetune_act,
    )
    kinds = {"mish": torch.nn.Mish, "relu": torch.nn.ReLU, "silu": torch.nn.SiLU}
    assert trainer.resume is None
    assert trainer.spec.act == expected
    assert sum(isinstance(m, kinds[expected]) for m in trainer.model.modules()) == 74
    assert sum(isinstance(m, tuple(kinds.values())) for m in trainer.model.modules()) == 74


def test_fine_tuning_starts_from_the_pruned_weights_anew(
    tiny_exp: Path, pruned: Path, tmp_path: Path
) -> None:
    trainer = new_trainer(tiny_exp, tmp_path, options=TrainOptions(checkpoint=pruned))
    content = read(pruned)
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(value, content["model"][name]), name
    assert trainer.pruning == content["pruning"]
    assert not trainer.optimizer.state
    assert trainer.ema is not None
    assert trainer.ema.updates == 0
    in_groups = [p for group in trainer.optimizer.param_groups for p in group["params"]]
    assert {id(p) for p in in_groups} == {id(p) for p in trainer.model.parameters()}
    assert all(p.requires_grad for p in in_groups)
    assert trainer.settings.output_dir == tmp_path / "tiny_finetune"


def test_an_activation_given_for_a_new_model_is_its_own(tiny_exp: Path, tmp_path: Path) -> None:
    trainer = new_trainer(tiny_exp, tmp_path, options=TrainOptions(act="lrelu"))
    assert trainer.spec.act == "lrelu"
    assert any(isinstance(m, torch.nn.LeakyReLU) for m in trainer.model.modules())


def test_a_pruned_model_keeps_its_classes(tiny_exp: Path, pruned: Path, tmp_path: Path) -> None:
    options = TrainOptions(checkpoint=pruned)
    with pytest.raises(UserError, match=r"triangle, square, circle"):
        new_trainer(
            tiny_exp, tmp_path, options=options, class_names=("triangle", "square", "circle")
        )


def test_batch_size_of_the_command_line_wins(tiny_exp: Path, tmp_path: Path) -> None:
    trainer = new_trainer(tiny_exp, tmp_path, options=TrainOptions(batch_size=3))
    assert trainer.recipe["batch_size"] == 3
    assert trainer.schedule.lr == pytest.approx(3 * 0.01 / 64)
    assert len(trainer.train_loader) == 3


def test_a_cap_on_objects_is_told_and_none_is_the_default(tiny_exp: Path, tmp_path: Path) -> None:
    told: list[str] = []
    sink = logger.add(told.append, format="{message}")
    try:
        new_trainer(tiny_exp, tmp_path / "all")
        assert not any("max_labels" in line for line in told)
        trainer = new_trainer(tiny_exp, tmp_path / "capped", max_labels=1)
    finally:
        logger.remove(sink)
    dataset = trainer.train_loader.dataset  # type: ignore[union-attr]
    counts = [len(dataset.dataset.labels(i)) for i in range(len(dataset))]
    full = sum(count > 1 for count in counts)
    assert full
    words = (
        f"max_labels keeps 1 objects of an image: {sum(counts) - len(counts):,} of "
        f"{sum(counts):,} objects are cut each epoch, of {full} images"
    )
    assert sum(words in line for line in told) == 1
    assert trainer.recipe["max_labels"] == 1
    assert next(iter(trainer.train_loader))[1].shape[1] == 1
    with pytest.raises(ExpError, match="max_labels must be at least 0: -1"):
        new_trainer(tiny_exp, tmp_path / "negative", max_labels=-1)


def test_a_run_with_nothing_to_learn_stops_before_it_begins(
    tiny_exp: Path, devkit: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(devkit, tmp_path / "bare"))
    for path in (folder / "VOC2007" / "Annotations").iterdir():
        path.write_text("<annotation></annotation>")
    with pytest.raises(DataError, match="9 training images have nothing to learn"):
        new_trainer(
            tiny_exp, tmp_path / "out", data_dir=str(folder), class_names=("circle",), num_classes=1
        )
    assert not (tmp_path / "out").exists()
