"""Bad input: one error that names the thing and the next step, status 1, nothing written."""

from __future__ import annotations

import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from tests.data.pictures import claiming
from tests.runs import command, error_lines, read, tree, write_exp
from yolox.tools import (
    bench,
    compare,
    compress,
    demo,
    eval,
    export,
    prunmodel,
    report,
    sensitivity,
    train,
)

MAINS = {
    "train": train,
    "prunmodel": prunmodel,
    "eval": eval,
    "demo": demo,
    "compare": compare,
    "export": export,
    "report": report,
    "sensitivity": sensitivity,
    "bench": bench,
    "compress": compress,
}


def _refused(folder: Path, capsys: pytest.CaptureFixture[str], tool: str, *args: object) -> str:
    """Run a command that must fail as a person can bear; returns the whole error."""
    before = tree(folder)
    capsys.readouterr()
    assert command(MAINS[tool].main, *args) == 1
    err = capsys.readouterr().err
    assert len(error_lines(err)) == 1
    assert "Traceback" not in err
    assert tree(folder) == before
    return err[err.index(" ERROR ") :]


@pytest.fixture
def copy(devkit: Path, tmp_path: Path) -> Path:
    """Data to spoil."""
    return Path(shutil.copytree(devkit, tmp_path / "VOCdevkit"))


# ----------------------------------------------------------------------------------- command line

LINES: list[tuple[str, str, list[str]]] = [
    ("train", "| max_epochs 3", ["unknown Exp key 'max_epochs'", "max_epoch"]),
    ("train", "| max_epoch many", ["max_epoch takes an integer", "'many'"]),
    ("train", "| ema maybe input_size 64", ["ema takes True or False", "input_size takes 2 integ"]),
    ("train", "| max_epoch", ["'max_epoch' has no value"]),
    ("train", "| input_size 100,100", ["input_size", "multiples of 32", "(100, 100)"]),
    ("train", "| no_aug_epochs 9", ["no_aug_epochs", "max_epoch 2"]),
    ("train", "| act gelu", ["act", "silu", "gelu"]),
    ("train", "| depth -1", ["depth"]),
    ("train", "| seed -1", ["seed"]),
    ("train", "| seed 1180591620717411303424", ["seed must be at most 9223372036854775807"]),
    ("train", "-b 1 | input_size 32,32 multiscale_range 0", ["one value a channel", "raise -b, "]),
    ("train", "max_epoch 3 many -b 2", ["'many' has no value"]),
    ("train", "| random_size 3", ["random_size"]),
    ("train", "| multiscale_range -9", ["multiscale_range"]),
    ("train", "| ema_decay 1.5", ["decay", "1.5"]),
    ("train", "| train_sets trainval", ["year/split", "VOC2007"]),
    ("train", "| train_sets 2008/trainval", ["VOC2008", "VOC2007"]),
    ("train", "| val_sets 2007/minival", ["minival.txt", "test.txt", "trainval.txt"]),
    ("train", "| data_dir /no/such/place", ["/no/such/place", "data_dir", "quickstart"]),
    ("train", "| class_names circle,square", ["'triangle'", "objects", "circle, square"]),
    ("train", "| class_names circle,circle", ["circle", "twice"]),
    ("eval", "-c BEST | data_dir /no/such/place", ["/no/such/place", "quickstart"]),
    ("eval", "-c BEST | class_names a,b", ["3 classes", "a, b"]),
    ("eval", "-c none.pth", ["no checkpoint at none.pth", "tools/train.py"]),
    ("prunmodel", "-c none.pth", ["no checkpoint at none.pth", "tools/train.py"]),
    ("prunmodel", "", ["no checkpoint at", "best_ckpt.pth", "tools/train.py"]),
    ("prunmodel", "-c BEST | data_dir /no/such/place", ["/no/such/place", "quickstart"]),
    ("prunmodel", "-c BEST --ch-sparsity 0", ["ch_sparsity", "between 0 and 1", "0.0"]),
    ("prunmodel", "-c BEST --ch-sparsity 1", ["ch_sparsity", "between 0 and 1", "1.0"]),
    ("prunmodel", "-c BEST --ch-sparsity -0.5", ["ch_sparsity", "-0.5"]),
    ("prunmodel", "-c BEST --ch-sparsity nan", ["ch_sparsity", "nan"]),
    ("prunmodel", "-c BEST --round-to 0", ["--round-to", "at least 1"]),
    ("prunmodel", "-c BEST --min-channels 0", ["min_channels"]),
    ("prunmodel", "-c BEST --mode conv", ["conv", "layers", "--mode list"]),
    ("prunmodel", "-c BEST --layers x", ["global", "layer"]),
    (
        "prunmodel",
        "-c BEST --importance l1 --mode conv --layers backbone.backbone.dark3.1.conv4.conv",
        ["dark3.1.conv4.conv", "nearest", "backbone.backbone.dark3.1.conv", "--mode list"],
    ),
    (
        "prunmodel",
        "-c BEST --importance l1 --mode layer --layers *.nowhere.*",
        ["*.nowhere.*", "nearest", "--mode list"],
    ),
    (
        "prunmodel",
        "-c BEST --importance l1 --mode conv --layers head.stems.0.conv --round-to 64",
        ["round_to", "0.4"],
    ),
    (
        "prunmodel",
        "-c BEST --importance l1 --ch-sparsity 0.2 --min-channels 4096",
        ["cannot be reached", "at most 0.000", "min_channels"],
    ),
    ("train", "-b 0", ["batch"]),
    ("train", "-b -4", ["batch"]),
    ("train", "-d -1", ["-d"]),
    ("train", "--act gelu", ["silu", "gelu"]),
    ("train", "--resume", ["no checkpoint at", "latest_ckpt.pth"]),
    ("train", "--resume -c BEST", ["no training state", "latest_ckpt.pth"]),
    ("train", "-c BEST | width 0.25", ["another model"]),
    ("eval", "-c BEST --tsize 50", ["32", "50"]),
    ("eval", "-c BEST --tsize 32 2048", ["2048: no flag before it takes so many values"]),
    ("eval", "-c BEST --seed 18446744073709551616", ["--seed", "must be at most"]),
    (
        "demo",
        "-c BEST --path no/such/place",
        ["nothing to look at in no/such/place"],
    ),
    ("demo", "-c none.pth --path .", ["no checkpoint at none.pth"]),
    ("compare", "-c BEST --labels a b --no-eval", ["2 labels for 1 checkpoints"]),
    ("compare", "-c BEST none.pth --no-eval", ["no checkpoint at none.pth"]),
    ("compare", "-c BEST --paired", ["--paired compares with the first checkpoint: give two"]),
    (
        "compare",
        "-c BEST none.pth --paired --no-eval",
        ["--paired is about AP: leave out --no-eval"],
    ),
]


@pytest.mark.parametrize(("tool", "line", "words"), LINES, ids=[f"{t} {ln}" for t, ln, _ in LINES])
def test_commands_refuse_a_wrong_line(
    tool: str,
    line: str,
    words: list[str],
    own_exp: Path,
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    best = str(trained / "best_ckpt.pth")
    flags, _, pairs = line.replace("BEST", best).partition("|")
    exp = [] if tool == "demo" else ["-f", own_exp]
    args = [*flags.split(), *exp, *pairs.split()]
    error = _refused(tmp_path, capsys, tool, *args)
    for word in words:
        assert word in error


def test_exp_files_and_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no Exp file at none.py" in _refused(tmp_path, capsys, "train", "-f", "none.py")
    assert "nearest: yolox-tiny" in _refused(tmp_path, capsys, "train", "-n", "yolox-tinny")


@pytest.mark.parametrize(
    ("argv", "word"),
    [
        (["--mode", "everything"], "invalid choice: 'everything'"),
        (["--ch-sparsity", "half"], "--ch-sparsity: invalid float value"),
        (["--unknown"], "unrecognized arguments: --unknown"),
    ],
)
def test_flags_that_do_not_parse(
    argv: list[str], word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert word in _refused(tmp_path, capsys, "prunmodel", *argv)


# ------------------------------------------------------------------------------------------- data


def _voc(copy: Path) -> Path:
    return copy / "VOC2007"


def _no_folder(copy: Path) -> None:
    shutil.rmtree(copy)


def _no_split(copy: Path) -> None:
    (_voc(copy) / "ImageSets" / "Main" / "trainval.txt").unlink()


def _absent_images(copy: Path) -> None:
    split = _voc(copy) / "ImageSets" / "Main" / "trainval.txt"
    split.write_text(split.read_text() + "".join(f"absent_{i:02}\n" for i in range(13)))


def _broken_xml(copy: Path) -> None:
    (_voc(copy) / "Annotations" / "demo_00002.xml").write_text("<annotation><object>")


def _entities(copy: Path) -> None:
    (_voc(copy) / "Annotations" / "demo_00002.xml").write_text(
        '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/hostname">]>'
        "<annotation><filename>&x;</filename></annotation>"
    )


def _other_class(copy: Path) -> None:
    for number in (1, 2):
        path = _voc(copy) / "Annotations" / f"demo_0000{number}.xml"
        path.write_text(re.sub(r"<name>\w+</name>", "<name>Hexagon</name>", path.read_text()))


def _no_image(copy: Path) -> None:
    (_voc(copy) / "JPEGImages" / "demo_00004.jpg").write_bytes(b"no picture at all")


DATA: list[tuple[Callable[[Path], None], list[str]]] = [
    (_no_folder, ["data folder", "is not there", "quickstart", "data_dir"]),
    (_no_split, ["trainval.txt is not there", "test.txt"]),
    (_absent_images, ["13 images", "absent_00", "absent_09", "and 3 more", "(13 in all)"]),
    (_broken_xml, ["demo_00002.xml", "not well-formed XML"]),
    (_entities, ["demo_00002.xml", "entities"]),
    (_other_class, ["'Hexagon'", "objects", "circle, square, triangle", "All classes found"]),
    (_no_image, ["demo_00004.jpg", "decoded"]),
]


@pytest.mark.parametrize(("spoil", "words"), DATA, ids=[f.__name__[1:] for f, _ in DATA])
@pytest.mark.parametrize("tool", ["train", "prunmodel"])
def test_commands_refuse_broken_data(
    tool: str,
    spoil: Callable[[Path], None],
    words: list[str],
    copy: Path,
    trained: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    exp = write_exp(tmp_path / "exp.py", copy, tmp_path / "out")
    spoil(copy)
    extra = [] if tool == "train" else ["-c", trained / "best_ckpt.pth"]
    error = _refused(tmp_path, capsys, tool, *extra, "-f", exp)
    for word in words:
        assert word in error
    assert "absent_10" not in error


def test_boxes_without_area_are_counted_once_and_training_goes_on(
    copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = _voc(copy) / "Annotations" / "demo_00001.xml"
    for box in ((50, 50, 50, 50), (500, 500, 600, 600)):
        corners = "".join(
            f"<{tag}>{value - (tag in ('xmax', 'ymax') and box[0] == 50)}</{tag}>"
            for tag, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
        )
        bad = f"<object><name>circle</name><bndbox>{corners}</bndbox></object></annotation>"
        path.write_text(path.read_text().replace("</annotation>", bad))
    exp = write_exp(tmp_path / "exp.py", copy, tmp_path / "out")
    assert command(train.main, "-f", exp, "max_epoch", 1) == 0
    err = capsys.readouterr().err
    assert err.count("boxes have no area") == 1
    assert "2 boxes have no area" in err
    assert "demo_00001: circle (500, 500, 600, 600)" in err


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_whose_pixels_cannot_be_decoded_is_named(
    workers: int, copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its header is fine, so that the reader cannot tell before it is drawn."""
    image = _voc(copy) / "JPEGImages" / "demo_00004.png"
    (_voc(copy) / "JPEGImages" / "demo_00004.jpg").unlink()
    encoded = cv2.imencode(".png", np.zeros((96, 96, 3), np.uint8))[1].tobytes()
    at = encoded.index(b"IDAT") + 6
    image.write_bytes(encoded[:at] + b"no zlib" + encoded[at + 7 :])
    exp = write_exp(tmp_path / "exp.py", copy, tmp_path / "out")
    assert command(train.main, "-f", exp, "data_num_workers", workers) == 1
    err = capsys.readouterr().err
    (error,) = error_lines(err)
    assert "demo_00004.png cannot be decoded" in error
    assert "Traceback" not in err


def test_demo_names_files_that_are_no_images(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.jpg").write_bytes(b"no")
    (tmp_path / "b.png").write_bytes(b"")
    (tmp_path / "c.png").write_bytes(claiming("PNG", 60000))
    error = _refused(
        tmp_path, capsys, "demo", "-c", trained / "best_ckpt.pth", "--path", tmp_path,
        "--save_dir", tmp_path / "out",
    )  # fmt: skip
    assert "3 of 3 files cannot be decoded" in error
    assert "a.jpg" in error
    assert "b.png" in error
    assert "c.png claims 60000 × 60000" in error
    assert "set YOLOX_MAX_IMAGE_PIXELS=3600000000" in error


# ------------------------------------------------------------------------------------ checkpoints


class _Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("import pathlib; pathlib.Path('owned').write_text('')",))


def _truncated(best: Path, path: Path) -> None:
    path.write_bytes(best.read_bytes()[:-4000])


def _empty(_: Path, path: Path) -> None:
    path.write_bytes(b"")


def _text(_: Path, path: Path) -> None:
    path.write_text("weights")


def _code(_: Path, path: Path) -> None:
    torch.save({"model": _Evil()}, path)


def _old_code(_: Path, path: Path) -> None:
    path.write_bytes(pickle.dumps({"model": _Evil()}))


def _list(_: Path, path: Path) -> None:
    torch.save([1, 2], path)


def _no_model(_: Path, path: Path) -> None:
    torch.save({"state": {}}, path)


def _other_net(_: Path, path: Path) -> None:
    torch.save({"model": {"layer1.weight": torch.zeros(2)}}, path)


def _wrong_channels(best: Path, path: Path) -> None:
    content = read(best)
    content["model"]["backbone.backbone.stem.conv.conv.weight"] = torch.zeros(5, 12, 3, 3)
    torch.save(content, path)


def _newer(best: Path, path: Path) -> None:
    torch.save({**read(best), "version": 99}, path)


def _nan(best: Path, path: Path) -> None:
    content = read(best)
    content["model"]["head.stems.1.conv.weight"][0, 0] = float("nan")
    torch.save(content, path)


def _flipped(best: Path, path: Path) -> None:
    """A bit of a weight: the middle of a file is one."""
    content = bytearray(best.read_bytes())
    content[len(content) // 2] ^= 64
    path.write_bytes(content)


def _endless(best: Path, path: Path) -> None:
    content = read(best)
    content["spec"]["depth"] = 1e9
    torch.save(content, path)


FILES: list[tuple[Callable[[Path, Path], None], list[str]]] = [
    (_truncated, ["truncated"]),
    (_empty, ["0 bytes", "truncated"]),
    (_text, ["7 bytes", "no checkpoint"]),
    (_code, ["pickled Python objects", "state_dict"]),
    (_old_code, ["pickled Python objects", "state_dict"]),
    (_list, ["list", "state dict"]),
    (_no_model, ["state", "model"]),
    (_other_net, ["not that of a YOLOX", "layer1.weight"]),
    (_wrong_channels, ["stem.conv.conv.weight", "(5, 12, 3, 3)"]),
    (_newer, ["version 99", "update"]),
    (_nan, ["head.stems.1.conv.weight (1 of ", "not finite"]),
    (_flipped, ["is damaged", "checksum", "again"]),
    (_endless, ["depth", "1000000000.0", "to 20"]),
]


@pytest.mark.parametrize(("spoil", "words"), FILES, ids=[f.__name__[1:] for f, _ in FILES])
@pytest.mark.parametrize("tool", ["train", "prunmodel", "eval", "demo", "compare"])
def test_commands_refuse_a_broken_checkpoint(
    tool: str,
    spoil: Callable[[Path, Path], None],
    words: list[str],
    own_exp: Path,
    trained: Path,
    devkit: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "bad.pth"
    spoil(trained / "best_ckpt.pth", path)
    rest = ["--path", devkit] if tool == "demo" else ["-f", own_exp]
    error = _refused(tmp_path, capsys, tool, "-c", path, *rest)
    for word in words:
        assert word in error
    if spoil is not _other_net:
        assert str(path) in error


@pytest.mark.parametrize("tool", ["export", "report", "sensitivity", "bench", "compress"])
def test_weights_that_are_not_finite_or_not_what_was_saved(
    tool: str, own_exp: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.pth"
    words = [] if tool == "bench" else ["-f", own_exp]
    for spoil, word in ((_nan, "head.stems.1.conv.weight"), (_flipped, "is damaged")):
        spoil(trained / "best_ckpt.pth", path)
        error = _refused(tmp_path, capsys, tool, *([] if tool == "bench" else ["-c"]), path, *words)
        assert word in error
        assert str(path) in error


def _two_classes(folder: Path, best: Path) -> Path:
    content = read(best)
    content["spec"] |= {"num_classes": 2, "class_names": ["cat", "dog"]}
    for level in range(3):
        for kind in ("weight", "bias"):
            name = f"head.cls_preds.{level}.{kind}"
            content["model"][name] = content["model"][name][:2].clone()
    torch.save(content, folder / "two.pth")
    return folder / "two.pth"


def test_another_number_of_classes_in_eval(
    own_exp: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = _two_classes(tmp_path, trained / "best_ckpt.pth")
    error = _refused(
        tmp_path, capsys, "eval", "-c", path, "-f", own_exp,
        "class_names", "circle,square,triangle",
    )  # fmt: skip
    assert "2 classes" in error
    assert "circle, square, triangle" in error
    error = _refused(tmp_path, capsys, "eval", "-c", path, "-f", own_exp)
    assert "cat" in error
    assert "'circle'" in error


def test_another_number_of_classes_in_train_is_transferred_and_said(
    own_exp: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = _two_classes(tmp_path, trained / "best_ckpt.pth")
    assert command(train.main, "-c", path, "-f", own_exp, "max_epoch", 1) == 0
    log = capsys.readouterr().err
    (line,) = [line for line in log.splitlines() if "tensors taken" in line]
    assert str(path) in line
    assert "6 start at random, as their shapes differ" in line
    assert "head.cls_preds.0.weight (2, 32, 1, 1) → (3, 32, 1, 1)" in line


def test_another_number_of_classes_in_fine_tuning_is_refused(
    own_exp: Path, pruned: Path, devkit: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error = _refused(
        tmp_path, capsys, "train", "-c", pruned, "-f", own_exp,
        "class_names", "circle,square,triangle,star",
    )  # fmt: skip
    assert "3 classes (circle, square, triangle)" in error
    assert "4 (circle, square, triangle, star)" in error


@pytest.mark.parametrize("mode", ["save", "global"])
def test_an_output_that_is_a_folder_is_refused(
    mode: str, own_exp: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error = _refused(
        tmp_path, capsys, "prunmodel", "--mode", mode, "--importance", "l1",
        "-c", trained / "best_ckpt.pth", "-o", tmp_path, "-f", own_exp,
    )  # fmt: skip
    assert str(tmp_path) in error
