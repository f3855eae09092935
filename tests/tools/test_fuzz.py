"""Documents damaged in every way: read as they should be, or refused in one clear line."""

from __future__ import annotations

import copy
import dataclasses
import json
import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.report.made_up import full_report
from yolox.data.convert.labels import read_labels
from yolox.data.datasets.coco import read_coco
from yolox.data.datasets.voc import read_voc
from yolox.data.datasets.yolo_txt import read_yolo
from yolox.data.tiles import WholeRecord
from yolox.export.metadata import ExportInfo
from yolox.jobs.compress.record import Record
from yolox.jobs.compress.stages import Export
from yolox.jobs.report.commands import commands_of, targets_of
from yolox.jobs.report.measured import read_bench
from yolox.pruning import PruningPlan
from yolox.pruning.latency.table import LatencyTable
from yolox.pruning.sensitivity import SensitivityLog
from yolox.report.render import render
from yolox.tools import compress
from yolox.tools.prune_args import layer_ratios
from yolox.utils.errors import UserError

TURNS = 120  # damaged documents of each kind
ODD: tuple[Any, ...] = (
    None, True, -1, 0, 2**62, 1.5, -0.0, "", "x", "\x1b[31m\n", "../..", "'", [], {}, [[]],
    {"a": {}}, [None], "1e999", 10**19,
)  # fmt: skip
PIECES = (
    b'"', b"{", b"]", b",", b"\\", b"\0", b"\xff", b"\n", b"NaN", b"1e999", b"-", b"null",
    b"[" * 99, b"9" * 30, b"<!DOCTYPE a>", b"&a;", b"*a", b"\xef\xbb\xbf", b" nan 0.5", b"\t- ",
)  # fmt: skip

BENCH = {
    "machine": {"processor": "CPU", "cores": 2},
    "settings": {"size": [64, 96]},
    "models": [
        {"label": "a", "path": "a.onnx", "file_sha256": "0", "params": 10, "macs": None,
         "file_bytes": 40},
    ],
    "measurements": [
        {"label": "a", "runtime": "onnxruntime", "threads": 1, "batch": 2, "precision": "fp32",
         "forward": {"median": 1.5}},
    ],
}  # fmt: skip
PLAN = {
    "format": "yolox-pruning-plan", "version": 1, "config": {"ch_sparsity": 0.5},
    "groups": [
        {"name": "a.conv", "size": 8, "remove": [0, 3]}, {"name": "b", "size": 4, "remove": []},
    ],
}  # fmt: skip
TABLE = {"format": "yolox-layer-latencies", "stamp": {"cpu": "x"}, "ms": {"kind": {"8x8": 1.0}}}
COMPRESS = {
    "origin": "o", "folders": ["train"],
    "stages": {"train": {"mark": "m", "command": "python tools/train.py -f x", "seconds": 3.0}},
}  # fmt: skip
COCO = {
    "images": [{"id": 1, "file_name": "a.png", "height": 40, "width": 60}],
    "categories": [{"id": 3, "name": "cat"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 3, "bbox": [1, 2, 30, 20], "iscrowd": 0},
    ],
}  # fmt: skip
WHOLE = {
    "name": "a", "height": 40, "width": 60, "size": 32, "overlap": 8, "settings": {},
    "names": ["cat"], "boxes": [[1, 2, 3, 4]], "difficult": [False],
}  # fmt: skip
LOG = (
    b'{"format": "yolox-sensitivity", "version": 1, "ckpt": "c"}\n{"base": 0.5}\n'
    b'{"layer": "a", "coupled": 1, "size": 8, "ratio": 0.5, "removed": 4, "value": 0.4}\n'
)
XML = (
    b"<annotation><size><width>60</width><height>40</height><depth>3</depth></size>"
    b"<object><name>cat</name><difficult>0</difficult><bndbox><xmin>2</xmin><ymin>3</ymin>"
    b"<xmax>30</xmax><ymax>20</ymax></bndbox></object></annotation>"
)
DATA_YAML = b"path: .\ntrain: images\nval: images\nnc: 2\nnames:\n  0: cat\n  1: dog\n"
CONFIG = b"target: macs=0.5\nsteps: 2\nformats: [onnx]\nexp:\n  max_epoch: 3\n"


def damaged(content: bytes, rng: random.Random) -> bytes:
    """The bytes with some changed, taken out, put in, or cut off."""
    out = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 3))):
        place = rng.randrange(len(out) + 1)
        match rng.randrange(5):
            case 0 if out:
                out[place % len(out)] ^= 1 << rng.randrange(8)
            case 1:
                del out[place : place + rng.randrange(1, 12)]
            case 2:
                del out[place:]
            case 3:
                out[place:place] = out[: rng.randrange(40)]
            case _:
                out[place:place] = rng.choice(PIECES)
    return bytes(out)


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every list or object of a document with each of its keys."""
    for key in range(len(value)) if isinstance(value, list) else list(value):
        yield value, key
        if isinstance(value[key], list | dict):
            yield from places(value[key])


def twisted(document: Any, rng: random.Random) -> bytes:
    """A JSON document with one value replaced or left out."""
    out = copy.deepcopy(document)
    holder, key = rng.choice(list(places(out)))
    if rng.random() < 0.2:
        del holder[key]
    else:
        holder[key] = rng.choice(ODD)
    return json.dumps(out).encode()


def survive(
    read: Callable[[Path], Any], path: Path, document: Any, *, turns: int = TURNS
) -> tuple[int, int]:
    """Read damaged documents; returns how many were read and how many refused."""
    whole = document if isinstance(document, bytes) else json.dumps(document).encode()
    path.write_bytes(whole)
    read(path)  # as it was, it is read
    rng, done, refused = random.Random(path.name), 0, 0
    for turn in range(turns):
        is_json = not isinstance(document, bytes) and turn % 2
        content = twisted(document, rng) if is_json else damaged(whole, rng)
        path.write_bytes(content)
        try:
            read(path)
            done += 1
        except UserError:
            refused += 1
        except Exception as error:
            raise AssertionError(f"{error!r} on {content!r}") from error
    return done, refused


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With a picture and folders for every kind of data set."""
    for name in ("images", "labels", "annotations", "VOC2007/Annotations", "VOC2007/JPEGImages"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "VOC2007/ImageSets/Main").mkdir(parents=True)
    (tmp_path / "VOC2007/ImageSets/Main/train.txt").write_text("a\n")
    picture = cv2.imencode(".png", np.zeros((40, 60, 3), np.uint8))[1].tobytes()
    for name in ("images/a.png", "VOC2007/JPEGImages/a.png"):
        (tmp_path / name).write_bytes(picture)
    return tmp_path


def test_results_of_bench(tmp_path: Path) -> None:
    def read(path: Path) -> None:
        rows = read_bench(path, [], ["before"]).rows
        page = full_report()
        render(dataclasses.replace(page, models=(*page.models, *rows)))

    assert min(survive(read, tmp_path / "bench.json", BENCH, turns=60)) > 0


def test_commands_of_a_report(tmp_path: Path) -> None:
    def read(path: Path) -> None:
        commands = commands_of([tmp_path / "a.pth"], path, "own")
        targets_of(commands)
        assert all(isinstance(command, str) for command in commands)

    def read_beside(path: Path) -> None:
        commands = commands_of([tmp_path / "b.pth"], None, "own")
        targets_of(commands)
        assert all(isinstance(command, str) for command in commands)

    survive(read, tmp_path / "compress.json", COMPRESS)
    survive(read_beside, tmp_path / "b.report.json", {"command": "tools/prunmodel.py --target a"})


def test_plans_and_ratios(tmp_path: Path) -> None:
    def read(path: Path) -> None:
        plan = PruningPlan.load(path)
        assert PruningPlan.from_dict(plan.to_dict()) == plan
        plan.check([])

    def load(path: Path) -> None:
        try:
            read(path)
        except UserError as error:
            if "made for another model" not in str(error):
                raise

    assert min(survive(load, tmp_path / "plan.json", PLAN)) > 0
    ratios = {"backbone.*": 0.5, "head.*": 0.25}
    survive(lambda path: layer_ratios([str(path)]), tmp_path / "ratios.json", ratios)


def test_latency_tables_begin_anew(tmp_path: Path) -> None:
    def read(path: Path) -> None:
        table = LatencyTable(path, {"cpu": "x"})
        values = [ms for row in table.ms.values() for ms in row.values()]
        assert all(type(ms) is float and 0 < ms < float("inf") for ms in values)

    survive(read, tmp_path / "table.json", TABLE)


def test_records_of_runs(tmp_path: Path) -> None:
    stage = Export(
        name="train", source=tmp_path, form="onnx", output=tmp_path, pictures=tmp_path, outputs=()
    )

    def read(path: Path) -> None:
        record = Record(path, "o")
        record.keep([stage])
        record.is_done(stage, "m")
        record.was_begun(stage, "m")
        record.begin(stage, "m")
        record.end(stage, 1)

    survive(read, tmp_path / "compress.json", COMPRESS)
    survive(lambda path: SensitivityLog(path, {"ckpt": "c"}), tmp_path / "log.jsonl", LOG)


def test_settings_of_compress(tmp_path: Path) -> None:
    def read(path: Path) -> None:
        compress.parse(["--config", str(path)])

    survive(read, tmp_path / "config.yaml", CONFIG)


def test_metadata_of_exported_files(tmp_path: Path) -> None:
    facts = {
        "format": "onnx", "architecture": "yolox", "class_names": '["a", "b"]', "num_classes": "2",
        "input_size": "[64, 64]", "batch_size": "1", "dynamic_size": "false", "decoded": "true",
        "nms": "false", "precision": "fp32", "strides": "[8, 16, 32]", "conf_threshold": "0.3",
        "nms_threshold": "0.45", "input_name": "a", "output_name": "b", "pruned": "false",
        "checkpoint_sha256": "",
    }  # fmt: skip

    def read(path: Path) -> None:
        info = ExportInfo.from_metadata({"note": "", **json.loads(path.read_text())}, path)
        assert ExportInfo.from_metadata(info.to_metadata(), path) == info

    rng, path = random.Random(0), tmp_path / "facts.json"
    for name, value in facts.items():
        for _ in range(10):
            text = damaged(value.encode(), rng).decode("latin-1")
            path.write_text(json.dumps(facts | {name: text}))
            with suppress(UserError):
                read(path)


def test_labels_of_every_kind(folder: Path) -> None:
    survive(
        lambda path: read_coco(folder, path.name, "images"), folder / "annotations/a.json", COCO
    )
    voc = folder / "VOC2007/Annotations/a.xml"
    survive(lambda _: read_voc(folder, [("2007", "train")]), voc, XML)
    labels = folder / "labels/a.txt"
    data = folder / "data.yaml"
    data.write_bytes(DATA_YAML)
    survive(lambda _: read_yolo(data, "train"), labels, b"0 0.5 0.5 0.2 0.2\n1 0.3 0.3 0.1 0.1\n")
    labels.write_bytes(b"0 0.5 0.5 0.2 0.2\n")
    survive(lambda path: read_yolo(path, "train"), data, DATA_YAML)
    dota = b"imagesource:x\ngsd:1\n1 1 9 1 9 9 1 9 ship 0\n"
    survive(read_labels, folder / "dota.txt", dota)
    survive(WholeRecord.read, folder / "whole.json", WHOLE)
