"""Models and data that name their classes in another order, or not at all."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from tests.helpers import shared
from tests.runs import command, new_trainer
from yolox.core.distill import load_teacher
from yolox.data import COCO_CLASSES, VOC_CLASSES
from yolox.exp import Exp, YOLOExp
from yolox.exp.follow import follow_checkpoint
from yolox.jobs.train import TrainOptions
from yolox.models import ModelSpec, build_model, checkpoint_payload, load_model
from yolox.tools import compare, demo, prunmodel, report
from yolox.tools import eval as evaluate
from yolox.utils.checkpoint import CheckpointError, save_checkpoint
from yolox.utils.errors import UserError
from yolox.utils.logger import setup_logger

Capture = pytest.CaptureFixture[str]
Make = Callable[..., Path]

SMALL: dict[str, Any] = {"depth": 0.33, "width": 0.125, "input_size": (64, 64)}


@pytest.fixture(autouse=True)
def _log() -> None:
    """To standard error, as in a command."""
    setup_logger()


@pytest.fixture
def make_set(tmp_path: Path) -> Make:
    """A YOLO set of four pictures, an object each of the first classes that are named."""

    def make(names: Sequence[str], objects: Sequence[str]) -> Path:
        folder = tmp_path / f"data_{len(list(tmp_path.glob('data_*')))}"
        for part in ("images", "labels"):
            (folder / part).mkdir(parents=True)
        pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
        for i in range(4):
            cv2.imwrite(str(folder / f"images/{i}.png"), pixels)
            index = names.index(objects[i % len(objects)])
            (folder / f"labels/{i}.txt").write_text(f"{index} 0.5 0.5 0.4 0.4\n")
        content = {"train": "images", "val": "images", "names": list(names)}
        (folder / "data.yaml").write_text(json.dumps(content))
        return folder

    return make


@pytest.fixture
def make_model(tmp_path: Path) -> Make:
    """A checkpoint of an untrained model; without names it is as official ones are."""

    def make(count: int, names: Sequence[str] = ()) -> Path:
        torch.manual_seed(count)
        spec = ModelSpec(num_classes=count, class_names=tuple(names), **SMALL)
        model = build_model(spec)
        path = tmp_path / f"model_{count}_{len(list(tmp_path.glob('*.pth')))}.pth"
        payload = checkpoint_payload(model, spec)
        save_checkpoint(path, payload if names else {"model": payload["model"]})
        return path

    return make


def _exp(data: Path, *pairs: str) -> Exp:
    exp = YOLOExp()
    exp.put(data_dir=str(data), data_num_workers=0, input_size=(64, 64), multiscale_range=0)
    exp.put(max_epoch=1, no_aug_epochs=0, warmup_epochs=0, batch_size=2)
    exp.put(depth=0.33, width=0.125, test_size=(64, 64))
    exp.merge(pairs)
    return exp


def _followed(exp: Exp, path: Path) -> Exp:
    return follow_checkpoint(exp, load_model(path).spec, path)


def _ids(exp: Exp) -> list[int]:
    loader = exp.get_evaluator(1).dataloader
    return [int(sample.classes[0]) for sample in loader.dataset.samples]


# ------------------------------------------------------------------------------ without names


@pytest.mark.parametrize(
    ("known", "names"),
    [
        (COCO_CLASSES, sorted(COCO_CLASSES)),
        (COCO_CLASSES, [name.upper().replace(" ", "_") for name in COCO_CLASSES[::-1]]),
        (COCO_CLASSES, ["dog", "bicycle", "person"]),
        (VOC_CLASSES, VOC_CLASSES[::-1]),
        (VOC_CLASSES, ["Person", "TV monitor"]),
    ],
)
def test_known_classes_are_matched_by_name(
    known: Sequence[str], names: list[str], make_set: Make, make_model: Make, capsys: Capture
) -> None:
    exp = _exp(make_set(names, names[:2]))
    followed = _followed(exp, make_model(len(known)))
    assert exp.class_names == ()
    assert followed.num_classes == len(known)
    assert set(names) <= set(followed.class_names)
    plain = [name.lower().replace("_", "").replace(" ", "") for name in followed.class_names]
    assert plain == [name.replace(" ", "") for name in known]
    expected = [followed.class_names.index(names[i % 2]) for i in range(4)]
    assert _ids(followed) == expected
    log = capsys.readouterr().err
    assert f"does not name its {len(known)} classes: they are taken as" in log
    assert "class_names NAME,NAME" in log


def test_the_usual_order_needs_no_word(make_set: Make, make_model: Make, capsys: Capture) -> None:
    exp = _exp(make_set(COCO_CLASSES, ["dog"]))
    assert _ids(_followed(exp, make_model(80))) == [16] * 4
    assert "name" not in capsys.readouterr().err


def test_other_classes_are_taken_in_the_data_s_order_with_the_line_that_sets_another(
    make_set: Make, make_model: Make, capsys: Capture
) -> None:
    data, model = make_set(["b, c", "a", "d's"], ["a", "d's"]), make_model(3)
    assert _ids(_followed(_exp(data), model)) == [1, 2, 1, 2]
    (line,) = [row for row in capsys.readouterr().err.splitlines() if "WARNING" in row]
    assert "they are taken in the data's order" in line
    words = shlex.split(line[line.index("class_names") :])
    assert _ids(_followed(_exp(data, *words), model)) == [1, 2, 1, 2]
    words[1] = """a,"b, c","d's\""""
    assert _ids(_followed(_exp(data, *words), model)) == [0, 2, 0, 2]
    assert "WARNING" not in capsys.readouterr().err


def test_one_class_has_one_order(make_set: Make, make_model: Make, capsys: Capture) -> None:
    _followed(_exp(make_set(["a"], ["a"])), make_model(1))
    assert "WARNING" not in capsys.readouterr().err


def test_the_command_line_says_another_order_and_an_exp_file_that_of_the_data(
    make_set: Make, make_model: Make
) -> None:
    names = sorted(COCO_CLASSES)
    data, model = make_set(names, ["dog"]), make_model(80)
    assert _ids(_followed(_exp(data, "class_names", ",".join(names)), model)) == [28] * 4
    exp = _exp(data)
    exp.class_names = tuple(names)
    assert _ids(_followed(exp, model)) == [16] * 4


def test_another_number_is_refused(make_set: Make, make_model: Make) -> None:
    exp = _exp(make_set(["a", "b"], ["a"]))
    with pytest.raises(CheckpointError, match=r"3 classes \(unnamed\), the data 2 \(a, b\): use"):
        _followed(exp, make_model(3))
    with pytest.raises(CheckpointError, match="80 classes"):
        _followed(_exp(make_set(COCO_CLASSES, ["dog"]), "class_names", "dog,cat"), make_model(80))


# ------------------------------------------------------------------------------ with names


def test_names_spelled_otherwise_are_told_and_can_be_given(
    make_set: Make, make_model: Make
) -> None:
    data, model = make_set(["Sofa", "cat"], ["Sofa"]), make_model(2, ["cat", "couch"])
    with pytest.raises(UserError, match="spell them as the data do: class_names cat,Sofa"):
        _ids(_followed(_exp(data), model))
    assert _ids(_followed(_exp(data, "class_names", "cat,Sofa"), model)) == [1] * 4


def test_data_of_other_classes_are_not_to_be_put_into_the_list(
    make_set: Make, make_model: Make
) -> None:
    data, path = make_set(["bird", "cat"], ["bird"]), make_model(2, ["cat", "dog"])
    spec = load_model(path).spec
    for pruned, advice in ((False, "as `checkpoint`"), (True, "a pruned model keeps its classes")):
        exp = follow_checkpoint(_exp(data), spec, path, pruned=pruned)
        with pytest.raises(UserError, match=f"cat, dog.* list is that of .*{advice}") as caught:
            exp.get_evaluator(1)
        assert "class_names" not in str(caught.value)


# ------------------------------------------------------------------------------ training


def _rows(trainer: Any, path: Path) -> list[int | None]:
    """For each class of a new trainer's model the row of the file that it starts from."""
    own = trainer.model.head.cls_preds[1].weight.detach()
    file = load_model(path).model.head.cls_preds[1].weight.detach()
    same = [[bool(torch.equal(a, b)) for b in file] for a in own]
    return [row.index(True) if any(row) else None for row in same]


@pytest.mark.parametrize(
    ("names", "theirs", "expected"),
    [
        (sorted(COCO_CLASSES), (), [COCO_CLASSES.index(name) for name in sorted(COCO_CLASSES)]),
        (["dog", "person"], (), [16, 0]),
        (["b", "a", "c"], ("a", "b", "c"), [1, 0, 2]),
        (["b", "x"], ("a", "b", "c"), [1, None]),
        (["x", "y", "z"], ("a", "b", "c"), [None, None, None]),
        (["x", "y"], ("a", "b", "c"), [None, None]),
        (["a", "b", "c"], ("a", "b", "c"), [0, 1, 2]),
    ],
)
def test_training_starts_from_the_rows_of_the_same_names(
    names: list[str],
    theirs: Sequence[str],
    expected: list[int | None],
    make_set: Make,
    make_model: Make,
    tmp_path: Path,
    capsys: Capture,
) -> None:
    path = make_model(len(theirs) or 80, theirs)
    options = TrainOptions(checkpoint=path)
    trainer = new_trainer(_exp(make_set(names, names[:1])), tmp_path / "out", options=options)
    assert trainer.spec.class_names == tuple(names)
    assert _rows(trainer, path) == expected
    log = capsys.readouterr().err
    found = len(names) - expected.count(None)
    told = expected != list(range(len(theirs)))
    assert (f"matched by name: {found} of {len(names)} have weights" in log) == told


def test_unnamed_rows_are_taken_in_order_with_a_warning(
    make_set: Make, make_model: Make, tmp_path: Path, capsys: Capture
) -> None:
    path, data = make_model(3), make_set(["c", "a", "b"], ["a"])
    trainer = new_trainer(_exp(data), tmp_path / "out", options=TrainOptions(checkpoint=path))
    assert _rows(trainer, path) == [0, 1, 2]
    assert "in the data's order" in capsys.readouterr().err


# ------------------------------------------------------------------------------ commands


@pytest.fixture
def exp_file(tmp_path: Path) -> Path:
    file = tmp_path / "exp.py"
    file.write_text(
        "from yolox.exp import YOLOExp\n\n\nclass Exp(YOLOExp):\n    def __init__(self):\n"
        "        super().__init__()\n        self.depth, self.width = 0.33, 0.125\n"
        "        self.input_size = self.test_size = (64, 64)\n        self.multiscale_range = 0\n"
        f"        self.data_num_workers = 0\n        self.output_dir = {str(tmp_path / 'out')!r}\n",
        encoding="utf-8",
    )
    return file


def test_what_is_pruned_names_its_classes_and_keeps_them(
    make_set: Make, make_model: Make, exp_file: Path, tmp_path: Path, capsys: Capture
) -> None:
    data, model = make_set(sorted(COCO_CLASSES), ["dog", "cat"]), make_model(80)
    small = tmp_path / "small.pth"
    flags = ("--importance", "l1", "--reconstruct", 0, "--no-latency", "-f", exp_file)
    assert command(prunmodel.main, "-c", model, "-o", small, *flags, "data_dir", data) == 0
    assert capsys.readouterr().err.count("does not name its 80 classes") == 1
    loaded = load_model(small)
    assert loaded.spec.class_names == COCO_CLASSES
    options = TrainOptions(checkpoint=small)
    trainer = new_trainer(_exp(data), tmp_path / "out", options=options)
    assert trainer.spec.class_names == COCO_CLASSES
    # On three other classes, and on three of its own.
    for names in (["x", "y", "z"], ["dog", "cat", "bird"]):
        exp = _exp(make_set(names, names))
        if names[0] == "x":
            with pytest.raises(UserError, match="a pruned model keeps its classes") as caught:
                new_trainer(exp, tmp_path / "out", options=options)
            assert "class_names" not in str(caught.value)
        else:
            capsys.readouterr()
            assert new_trainer(exp, tmp_path / "out", options=options).spec.num_classes == 80
            assert "a pruned model keeps its classes" in capsys.readouterr().err
    assert command(evaluate.main, "-c", small, "-f", exp_file, "data_dir", data) == 0
    assert "does not name" not in capsys.readouterr().err


def test_a_pruned_model_without_names_on_other_data(
    make_set: Make, make_model: Make, tmp_path: Path
) -> None:
    path = make_model(80)
    content = torch.load(path, weights_only=True)
    loaded = load_model(path)
    save_checkpoint(path, content | checkpoint_payload(loaded.model, loaded.spec, [{"plan": {}}]))
    options, exp = TrainOptions(checkpoint=path), _exp(make_set(["x", "y", "z"], ["x"]))
    with pytest.raises(UserError, match=r"\(x, y, z\): a pruned model keeps its") as caught:
        new_trainer(exp, tmp_path / "out", options=options)
    assert "class_names" not in str(caught.value)


def test_a_file_is_named_for_good(
    make_set: Make, make_model: Make, exp_file: Path, tmp_path: Path, capsys: Capture
) -> None:
    model, named = make_model(3), tmp_path / "named.pth"
    picture = make_set(["a"], ["a"]) / "images" / "0.png"
    args = ("--path", picture, "--save_dir", tmp_path / "pictures")
    assert command(demo.main, "-c", model, *args) == 0
    (line,) = [row for row in capsys.readouterr().err.splitlines() if "WARNING" in row]
    assert "does not name its 3 classes: numbers are shown" in line
    words = shlex.split(line[line.index("--mode") :])
    words = [str(named) if word == "named.pth" else word for word in words]
    words[words.index("NAME,NAME,…")] = "b,a,c"
    assert command(prunmodel.main, "-f", exp_file, *words) == 0
    assert load_model(named).spec.class_names == ("b", "a", "c")
    capsys.readouterr()
    assert command(demo.main, "-c", named, *args) == 0
    assert "WARNING" not in capsys.readouterr().err


def test_a_given_test_size_is_measured_at(
    make_set: Make, make_model: Make, exp_file: Path, capsys: Capture
) -> None:
    data, models = make_set(["a", "b"], ["a"]), (make_model(2, "ab"), make_model(2, "ab"))
    flags = ("-c", *models, "--labels", "x", "y", "--runs", 1, "-f", exp_file, "data_dir", data)
    assert command(compare.main, *flags, "test_size", "96,64") == 0
    assert "96×64 input" in capsys.readouterr().out
    assert command(compare.main, *flags) == 0
    assert "64×64 input" in capsys.readouterr().out


def test_a_report_of_two_orders_is_refused(
    make_set: Make, make_model: Make, exp_file: Path, tmp_path: Path, capsys: Capture
) -> None:
    data, models = make_set(["a", "b"], ["a"]), (make_model(2, "ab"), make_model(2, "ba"))
    output = tmp_path / "report.html"
    args = ("-c", *models, "--labels", "x", "y", "-o", output, "-f", exp_file, "data_dir", data)
    assert command(report.main, *args) == 1
    assert re.search(r"has a, b, .* b, a", capsys.readouterr().err)
    assert not output.exists()


def test_a_teacher_s_classes_are_the_student_s(make_model: Make, capsys: Capture) -> None:
    names = tuple(sorted(COCO_CLASSES))
    spec = ModelSpec(num_classes=80, class_names=names, **SMALL)
    with pytest.raises(CheckpointError, match="its classes are person, bicycle"):
        load_teacher(make_model(80), build_model(spec), spec)
    spec = ModelSpec(num_classes=3, class_names=("a", "b", "c"), **SMALL)
    load_teacher(make_model(3), build_model(spec), spec)
    assert "taken in the student's order, a, b, c" in capsys.readouterr().err


def test_coco_s_weights_find_the_objects_of_data_in_alphabetical_order(
    make_set: Make, exp_file: Path, tmp_path: Path, capsys: Capture
) -> None:
    weights, photo = shared("weights/yolox_nano_coco.pth"), shared("images/dog.jpg")
    names = sorted(COCO_CLASSES)
    data = make_set(names, ["dog"])
    for i in range(4):
        (data / f"images/{i}.png").unlink()
        (data / f"labels/{i}.txt").unlink()
    (data / "images/dog.jpg").write_bytes(photo.read_bytes())
    boxes = {
        "dog": "0.289714 0.659722 0.235677 0.559028",
        "bicycle": "0.449870 0.471354 0.587240 0.532986",
        "truck": "0.752604 0.214410 0.291667 0.161458",
    }
    lines = [f"{names.index(name)} {box}" for name, box in boxes.items()]
    (data / "labels/dog.txt").write_text("\n".join(lines) + "\n")
    args = ("-c", weights, "-f", exp_file, "test_size", "416,416", "data_dir", data)
    assert command(evaluate.main, *args) == 0
    assert "AP50 1.0000" in capsys.readouterr().err
