"""The typed recipe: fields from text, checks, and what it builds."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.runs import write_exp
from yolox.data import DataError
from yolox.exp import Exp, ExpError, VOCExp, get_exp


class _Own(VOCExp):
    """With fields of its own, declared and not."""

    ratio: float | None

    def __init__(self) -> None:
        super().__init__()
        self.ratio = None
        self.extra = 3
        self.flag = False
        self.anchors = (1.5, 2.5)
        self.names = ["a"]


# ------------------------------------------------------------------------------------------ merge


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("ema", "False", False),
        ("ema", "false", False),
        ("ema", "True", True),
        ("enable_mixup", "TRUE", True),
        ("max_epoch", "12", 12),
        ("seed", "0", 0),
        ("multiscale_range", "-3", -3),
        ("width", "0.25", 0.25),
        ("width", "1", 1.0),
        ("basic_lr_per_img", "1e-4", 1e-4),
        ("warmup_epochs", "5", 5.0),
        ("act", "mish", "mish"),
        ("exp_name", "12", "12"),
        ("exp_name", "True", "True"),
        ("data_dir", "", ""),
        ("input_size", "320,320", (320, 320)),
        ("input_size", "(320, 416)", (320, 416)),
        ("input_size", "[320,416]", (320, 416)),
        ("mosaic_scale", "(0.5, 1.5)", (0.5, 1.5)),
        ("mosaic_scale", "1,2", (1.0, 2.0)),
        ("random_size", "()", ()),
        ("random_size", "10,20", (10, 20)),
        ("class_names", "cat,dog", ("cat", "dog")),
        ("class_names", "('traffic light', \"dog\")", ("traffic light", "dog")),
        ("class_names", "cat", ("cat",)),
        ("class_names", "()", ()),
        ("train_sets", "2007/trainval,2012/trainval", ("2007/trainval", "2012/trainval")),
        ("ratio", "0.5", 0.5),
        ("ratio", "None", None),
        ("extra", "7", 7),
        ("flag", "true", True),
        ("anchors", "3,4", (3.0, 4.0)),
        ("names", "x,y", ["x", "y"]),
    ],
)
def test_merge_reads_a_text_as_its_field_s_type(key: str, text: str, value: Any) -> None:
    exp = _Own()
    exp.merge([key, text])
    found = getattr(exp, key)
    assert found == value
    assert type(found) is type(value)
    if isinstance(value, (tuple, list)):
        assert [type(item) for item in found] == [type(item) for item in value]


@pytest.mark.parametrize(
    ("key", "text", "expected"),
    [
        ("ema", "yes", "True or False"),
        ("ema", "1", "True or False"),
        ("ema", "", "True or False"),
        ("max_epoch", "1.5", "an integer"),
        ("max_epoch", "ten", "an integer"),
        ("max_epoch", "True", "an integer"),
        ("width", "wide", "a number"),
        ("input_size", "320", "2 integers"),
        ("input_size", "320,320,3", "2 integers"),
        ("input_size", "()", "2 integers"),
        ("input_size", "320,a", "2 integers"),
        ("mosaic_scale", "0.5;1.5", "2 numbers"),
        ("random_size", "1.5,2", "a list of integers"),
        ("extra", "x", "an integer"),
        ("flag", "2", "True or False"),
        ("ratio", "x", ""),
    ],
)
def test_merge_names_key_type_and_text_of_a_wrong_value(key: str, text: str, expected: str) -> None:
    exp = _Own()
    before = vars(exp).copy()
    with pytest.raises(ExpError) as caught:
        exp.merge([key, text])
    message = str(caught.value)
    assert key in message
    assert repr(text) in message
    assert expected in message
    assert vars(exp) == before


def test_merge_collects_all_problems_and_sets_nothing() -> None:
    exp = VOCExp()
    with pytest.raises(ExpError) as caught:
        exp.merge(["max_epoch", "3", "max_epochs", "3", "ema", "perhaps", "zzzzzz", "1"])
    message = str(caught.value)
    assert "unknown Exp key 'max_epochs'; did you mean max_epoch" in message
    assert "ema takes True or False, got 'perhaps'" in message
    assert "unknown Exp key 'zzzzzz'" in message
    assert exp.max_epoch == 300


def test_merge_needs_pairs() -> None:
    with pytest.raises(ExpError, match="'width' has no value"):
        VOCExp().merge(["max_epoch", "3", "width"])


@pytest.mark.parametrize("key", ["merge", "get_model", "__class__", "field_types"])
def test_methods_are_no_fields(key: str) -> None:
    with pytest.raises(ExpError, match="unknown Exp key"):
        VOCExp().merge([key, "1"])


def test_merge_of_nothing_changes_nothing() -> None:
    exp = VOCExp()
    before = vars(exp).copy()
    exp.merge([])
    assert vars(exp) == before


def test_two_recipes_share_no_state() -> None:
    first, second = VOCExp(), VOCExp()
    first.merge(["class_names", "a,b", "width", "0.5"])
    assert second.class_names == ()
    assert second.width == 1.0


# ------------------------------------------------------------------------------------------ check


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("input_size", (100, 96)),
        ("test_size", (0, 64)),
        ("test_size", (64, -64)),
        ("max_epoch", 0),
        ("batch_size", 0),
        ("accumulate", 0),
        ("print_interval", 0),
        ("eval_interval", 0),
        ("no_aug_epochs", 301),
        ("no_aug_epochs", -1),
        ("basic_lr_per_img", 0.0),
        ("basic_lr_per_img", float("nan")),
        ("class_names", ("a", "b", "a")),
        ("act", "gelu"),
        ("finetune_act", "gelu"),
        ("architecture", "resnet"),
        ("depth", -1.0),
        ("width", 0.0),
        ("seed", -1),
        ("random_size", (3,)),
        ("random_size", (9, 3)),
        ("multiscale_range", -9),
        ("ema_decay", 1.5),
        ("momentum", -1.0),
        ("data_num_workers", -1),
        ("input_size", 320),
        ("input_size", (320,)),
        ("input_size", (640.0, 640.0)),
        ("input_size", "ab"),
        ("max_epoch", "5"),
        ("max_epoch", 1.5),
        ("no_aug_epochs", "5"),
        ("batch_size", True),
        ("flip_prob", True),
        ("enable_mixup", "no"),
        ("class_names", "dog"),
        ("data_dir", 3),
        ("sparsity_warmup", "much"),
        ("mosaic_scale", (2.0, 0.1)),
        ("mosaic_scale", (0.5,)),
        ("mixup_scale", (0.0, 0.0)),
        ("mixup_scale", (-1.0, 1.0)),
        ("degrees", -5.0),
        ("translate", -0.1),
        ("shear", -2),
        ("warmup_lr", -1.0),
        ("scheduler", "multistep"),
        ("milestones", (0,)),
    ],
)
def test_check_names_what_cannot_work(key: str, value: Any) -> None:
    exp = VOCExp()
    exp.check()
    setattr(exp, key, value)
    with pytest.raises(ExpError, match=key):
        exp.check()


def test_check_lists_every_problem() -> None:
    exp = VOCExp()
    exp.max_epoch, exp.input_size, exp.basic_lr_per_img = 0, (100, 100), -1.0
    with pytest.raises(ExpError) as caught:
        exp.check()
    for key in ("max_epoch", "input_size", "basic_lr_per_img"):
        assert key in str(caught.value)
    exp.max_epoch, exp.input_size, exp.mosaic_scale = "5", 320, (2.0, 0.1)  # type: ignore[assignment]
    with pytest.raises(ExpError) as caught:
        exp.check()
    for text in (
        "max_epoch must be an integer: '5'",
        "input_size must be 2 integers, as in 320,320: 320",
        "mosaic_scale must be two rising numbers above 0: (2.0, 0.1)",
        "basic_lr_per_img must be positive: -1.0",
    ):
        assert text in str(caught.value)


def test_check_takes_what_is_as_good() -> None:
    """A list, a path, a whole number for another, numbers of NumPy."""
    exp = VOCExp()
    exp.input_size, exp.degrees = [64, np.int64(96)], 5  # type: ignore[assignment]
    exp.data_dir, exp.width = Path("data"), np.float32(0.5)  # type: ignore[assignment]
    exp.mosaic_scale, exp.enable_mixup = (1, 1), 0  # type: ignore[assignment]
    exp.check()
    assert exp.input_size == (64, 96)
    assert [type(value) for value in (*exp.input_size, exp.width)] == [int, int, float]
    assert "max_epoch" not in vars(exp)


def test_values_of_another_type_are_refused_where_they_are_given() -> None:
    with pytest.raises(ExpError) as caught:
        get_exp("voc", input_size=320, max_epoch="5", seed=None, test_size=[64, 64])
    assert str(caught.value) == (
        "input_size takes 2 integers, as in 320,320, got 320; max_epoch takes an integer, got '5'"
    )
    assert get_exp("voc", test_size=[64, 64]).test_size == (64, 64)


def test_a_name_beside_a_file_or_a_layout_is_the_run_s(own_exp: Path) -> None:
    for file in (own_exp, "voc"):
        exp = get_exp(file, exp_name="my_run")
        assert exp.exp_name == "my_run"
        assert "exp_name" in exp.given
    assert get_exp(own_exp, "yolox-s").exp_name == "tiny"  # as official scripts call it
    assert get_exp("voc", exp_name="yolox_nano").width == 0.25
    with pytest.raises(ExpError, match="no built-in Exp 'my_run'"):
        get_exp(exp_name="my_run")


def test_multistep_lowers_the_rate_at_its_milestones() -> None:
    exp = VOCExp()
    exp.merge(["scheduler", "multistep", "milestones", "4,6.5", "max_epoch", "10"])
    exp.merge(["no_aug_epochs", "0"])
    exp.check()
    schedule = exp.get_lr_scheduler(1.0, 10)
    rates = [schedule(iteration) for iteration in (1, 39, 40, 64, 65, 100)]
    assert rates == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
    exp.merge(["milestones", "10,12"])
    with pytest.raises(ExpError, match=r"none is before max_epoch 10: set some"):
        exp.check()


# ----------------------------------------------------------------------------------- what it builds


@pytest.mark.parametrize(
    ("fields", "sizes"),
    [
        ({"multiscale_range": 0}, [(640, 640)]),
        ({"multiscale_range": 1}, [(608, 608), (640, 640), (672, 672)]),
        ({"input_size": (64, 64), "multiscale_range": 5}, [(32 * n, 32 * n) for n in range(1, 8)]),
        ({"input_size": (192, 256), "multiscale_range": 1}, [(160, 224), (192, 256), (224, 288)]),
        ({"random_size": (10, 12)}, [(320, 320), (352, 352), (384, 384)]),
        ({"input_size": (320, 640), "random_size": (10, 10)}, [(320, 640)]),
    ],
)
def test_train_sizes(fields: dict[str, Any], sizes: list[tuple[int, int]]) -> None:
    exp = VOCExp()
    for key, value in fields.items():
        setattr(exp, key, value)
    assert list(exp.train_sizes()) == sizes


def test_optimizer_and_schedule_follow_the_recipe() -> None:
    exp = VOCExp()
    exp.depth, exp.width = 0.33, 0.125
    exp.merge(["basic_lr_per_img", "0.001", "momentum", "0.8", "weight_decay", "0.01"])
    exp.merge(["max_epoch", "10", "no_aug_epochs", "2", "warmup_epochs", "1", "warmup_lr", "0.001"])
    optimizer = exp.get_optimizer(16, exp.get_model())
    assert {group["lr"] for group in optimizer.param_groups} == {0.016}
    assert {group["momentum"] for group in optimizer.param_groups} == {0.8}
    assert {group["nesterov"] for group in optimizer.param_groups} == {True}
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.0, 0.01}
    schedule = exp.get_lr_scheduler(0.016, 5)
    assert schedule(5) == pytest.approx(0.016)
    assert 0.001 < schedule(1) < schedule(4) < 0.016
    assert schedule(40) == schedule(50) == pytest.approx(0.05 * 0.016)
    assert schedule(39) > schedule(40)


def test_an_unknown_scheduler_is_refused() -> None:
    exp = VOCExp()
    exp.merge(["scheduler", "step"])
    with pytest.raises(ExpError, match=r"one of yoloxwarmcos.*: 'step'"):
        exp.check()


def test_a_warm_up_longer_than_the_run_is_cut() -> None:
    exp = VOCExp()
    exp.merge(["max_epoch", "3", "no_aug_epochs", "1", "warmup_epochs", "5"])
    schedule = exp.get_lr_scheduler(1.0, 10)
    assert schedule(20) == 1.0
    assert schedule(19) < 1.0


def test_model_spec_describes_the_model() -> None:
    exp = VOCExp()
    exp.merge(["depth", "0.33", "width", "0.125", "act", "relu", "class_names", "a,b"])
    exp.merge(["num_classes", "2", "test_size", "64,96"])
    spec = exp.model_spec()
    assert (spec.num_classes, spec.class_names, spec.input_size) == (2, ("a", "b"), (64, 96))
    model = exp.get_model()
    assert model.head.cls_preds[0].out_channels == 2
    assert sum(isinstance(m, torch.nn.ReLU) for m in model.modules()) > 50


@pytest.fixture
def exp(tiny_exp: Path) -> Exp:
    return get_exp(tiny_exp)


def test_calibration_batches_are_drawn_by_the_seed(exp: Exp) -> None:
    first, second = exp.calibration_batches(5, 2), exp.calibration_batches(5, 2)
    assert [len(images) for images, _ in first] == [2, 2, 1]
    for (images, targets), (again, same) in zip(first, second, strict=True):
        assert images.shape[1:] == (3, 64, 64)
        assert images.dtype == targets.dtype == torch.float32
        assert targets.shape[2] == 5
        assert (targets[..., 3:].amin(-1) > 0).any(dim=1).all()
        assert torch.equal(images, again)
        assert torch.equal(targets, same)
    exp.seed = 1
    other = exp.calibration_batches(5, 2)
    assert any(
        not torch.equal(a[0], b[0]) for a, b in zip(first, other, strict=True)
    )  # fmt: skip


def test_calibration_takes_no_more_images_than_there_are(exp: Exp) -> None:
    batches = exp.calibration_batches(1000, 4)
    assert sum(len(images) for images, _ in batches) == 9
    assert exp.calibration_batches(0, 4) == []


def test_calibration_sees_every_object_and_no_cap(exp: Exp) -> None:
    exp.max_labels = 1
    ((_, targets),) = exp.calibration_batches(1000, 9)
    dataset = exp.get_dataset()
    counts = sorted(len(dataset.labels(i)) for i in range(len(dataset)))
    found = (targets[..., 3] > 0).sum(dim=1)
    assert sorted(found.tolist()) == counts
    assert targets.shape == (9, counts[-1], 5)


def test_calibration_leaves_out_images_without_objects(devkit: Path, tmp_path: Path) -> None:
    copy = tmp_path / "VOCdevkit"
    shutil.copytree(devkit, copy)
    empty = "<annotation><size><width>96</width><height>96</height></size></annotation>"
    (copy / "VOC2007" / "Annotations" / "demo_00003.xml").write_text(empty)
    exp = get_exp(write_exp(tmp_path / "e.py", copy, tmp_path / "out"))
    assert sum(len(images) for images, _ in exp.calibration_batches(100, 4)) == 8


def test_loaders_follow_the_recipe(exp: Exp) -> None:
    loader = exp.get_data_loader(4)
    images, targets, _, ids = next(iter(loader))
    assert images.shape == (4, 3, 64, 64)
    assert targets.shape[::2] == (4, 5)
    assert targets[..., 3].amax(dim=0).all()  # no row is padding of all images
    assert np.asarray(ids).size == 4
    evaluated = [int(i) for *_, ids in exp.get_eval_loader(2) for i in ids]
    assert evaluated == [0, 1, 2]


# ---------------------------------------------------------------------------------------- classes


def _devkit(devkit: Path, folder: Path) -> Path:
    return Path(shutil.copytree(devkit, folder / "VOCdevkit"))


def test_there_are_no_more_loader_processes_than_the_cores_of_this_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("yolox.exp.yolox_base.cores", lambda: 2)
    assert [VOCExp().num_workers(), get_exp("voc", data_num_workers=1).num_workers()] == [2, 1]


def test_classes_come_from_the_file_beside_the_data(exp: Exp) -> None:
    exp.resolve_classes()
    assert exp.class_names == ("circle", "square", "triangle")
    assert exp.num_classes == 3


def test_classes_come_from_the_annotations_where_there_is_no_file(
    devkit: Path, tmp_path: Path
) -> None:
    copy = _devkit(devkit, tmp_path)
    (copy / "classes.txt").unlink()
    exp = get_exp(write_exp(tmp_path / "e.py", copy, tmp_path / "out"))
    exp.resolve_classes()
    assert exp.class_names == ("circle", "square", "triangle")


def test_the_person_s_own_order_of_classes_wins(exp: Exp) -> None:
    exp.merge(["class_names", "triangle,circle,square"])
    exp.resolve_classes()
    assert exp.class_names == ("triangle", "circle", "square")
    assert exp.num_classes == 3
    by_name = dict(zip(exp.get_dataset().class_names, range(3), strict=True))
    assert by_name["triangle"] == 0


def test_a_class_missing_in_the_list_is_named_with_its_count(exp: Exp) -> None:
    exp.merge(["class_names", "circle,square"])
    with pytest.raises(DataError, match=r"'triangle': \d+ objects"):
        exp.get_dataset()


def test_splits_need_a_year_where_folders_have_one(exp: Exp) -> None:
    exp.merge(["train_sets", "trainval"])
    with pytest.raises(DataError, match="year/split"):
        exp.resolve_classes()
    for name in ("a/2007/trainval", "2007/"):
        exp.merge(["train_sets", name])
        with pytest.raises(ExpError, match="year/split"):
            exp.resolve_classes()


def test_splits_alone_where_the_folder_has_no_year(exp: Exp, devkit: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(devkit / "VOC2007", tmp_path / "export")
    exp.merge(["data_dir", str(folder), "train_sets", "trainval", "val_sets", "test"])
    exp.resolve_classes()
    assert exp.num_classes == 3
    assert len(exp.get_dataset()) == 9
