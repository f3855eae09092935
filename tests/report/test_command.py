"""The report command on a trained and a pruned model: figures, files, refusals."""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import re
from html import unescape
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from tests.report.made_up import SECTIONS, Page
from tests.runs import command, error_lines, opinionated
from yolox.bench.plan import files_digest
from yolox.bench.results import MeasuredModel, Result, to_json
from yolox.bench.run import Measurement, Times
from yolox.exp import get_exp
from yolox.export import ExportSettings, write_model
from yolox.jobs.report import pairs
from yolox.jobs.report.certainty import certainty_of
from yolox.jobs.report.collect import ReportSettings, gather_report
from yolox.jobs.report.measured import read_bench
from yolox.models import load_model
from yolox.report import Fact, Latency, ModelRow, Report
from yolox.tools import report
from yolox.utils.checkpoint import file_digest
from yolox.utils.errors import UserError
from yolox.utils.model_utils import count_params


def test_each_file_is_read_once_for_its_digest(
    old: Path, new: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []

    def noted(path: Path) -> str:
        read.append(path)
        return file_digest(path)

    monkeypatch.setattr("yolox.jobs.report.collect.file_digest", noted)
    found = gather_report([old, new], None, ReportSettings())
    assert read == [old, new]
    facts = {fact.name: fact.value for fact in found.versions}
    assert facts[new.name] == f"{new.name}, sha256 {file_digest(new)[:16]}…"


@pytest.fixture(scope="module")
def old(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained model, made to see squares of 32 and of 16 pixels everywhere."""
    file = tmp_path_factory.mktemp("old") / "old.pth"
    return opinionated(trained / "best_ckpt.pth", file, (2.0, 1.0, -9.0))


@pytest.fixture(scope="module")
def new(pruned: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pruned model, made to see some on the finest grid alone."""
    file = tmp_path_factory.mktemp("new") / "new.pth"
    record = json.dumps({"command": "python tools/prunmodel.py -c old.pth"})
    file.with_suffix(".report.json").write_text(record)
    return opinionated(pruned, file, (2.0, -9.0, -9.0))


def _measured(label: str, file: Path, runtime: str, ms: float, sha256: str = "") -> Result:
    """Of the file as it is now, or as it was."""
    times = Times(median=ms, p90=ms, least=ms, runs=3)
    model = MeasuredModel(
        label=label,
        path=str(file),
        pruned=False,
        sha256="",
        file_sha256=sha256 or (files_digest(file) if file.is_file() else ""),
        params=None,
        macs=None,
        file_bytes=5_000_000,
    )
    measurement = Measurement(
        runtime=runtime,
        precision="fp32",
        threads=2,
        batch=4,
        preprocess=times,
        forward=times,
        postprocess=times,
        whole=times,
        detections=1,
    )
    return Result(model=model, measurement=measurement, file_bytes=1)


def _bench(path: Path, *results: Result) -> Path:
    """What tools/bench.py writes."""
    about = {
        "machine": {"processor": "A Processor", "cores": 2},
        "settings": {"size": [64, 96]},
    }
    path.write_text(json.dumps({**about, **to_json(results)}))
    return path


@pytest.fixture(scope="module")
def gathered(tiny_exp: Path, old: Path, new: Path) -> Report:
    """Of both models."""
    exp = get_exp(tiny_exp)
    settings = ReportSettings(
        labels=("old", "new"),
        score=0.5,
        images=2,
        measured=(
            ModelRow(label="old", latencies=(Latency(setting="torch", ms=4.0),)),
            ModelRow(label="else", latencies=(Latency(setting="torch", ms=1.0),)),
        ),
        asked=(Fact(name="runtime", value="torch"),),
        commands=("one", "two"),
    )
    return gather_report([old, new], exp, settings)


def test_figures_are_those_of_the_models(
    gathered: Report, tiny_exp: Path, old: Path, new: Path
) -> None:
    before, after, other = gathered.models
    assert [row.label for row in gathered.models] == ["old", "new", "else"]
    assert (gathered.before, gathered.after) == (before, after)
    assert before.ms("torch") == 4.0
    assert (other.role, other.params, other.ms("torch")) == ("", None, 1.0)
    assert after.params == count_params(load_model(new).model) < (before.params or 0)
    assert after.file_bytes == new.stat().st_size
    exp = get_exp(tiny_exp)
    exp.resolve_classes()
    result = exp.get_evaluator(4).run(load_model(old).model)
    assert before.ap50_95 == pytest.approx(result.ap50_95)
    assert before.ap50 == pytest.approx(result.ap50)
    assert result.ap50 > 0
    assert [(row.name, row.objects) for row in gathered.classes] == [
        (row.name, row.objects) for row in result.per_class
    ]
    assert [row.before for row in gathered.classes] == [row.ap50_95 for row in result.per_class]
    objects = sum(row.objects for row in result.per_class)
    assert gathered.data == f"AP on 3 images with {objects} objects, by COCO's rule."


def test_curves_layers_and_scales_are_those_of_the_models(gathered: Report, new: Path) -> None:
    mean, *classes = gathered.curves
    assert len(classes) == len([row for row in gathered.classes if row.objects])
    assert mean.name == f"mean of {len(classes)} classes"
    assert np.mean([curve.after for curve in classes], axis=0) == pytest.approx(mean.after)
    model = load_model(new).model.requires_grad_(False)
    sizes = {n: len(m.weight) for n, m in model.named_modules() if isinstance(m, torch.nn.Conv2d)}
    assert {bar.name: bar.after for bar in gathered.layers} == sizes
    parts = dict.fromkeys(bar.part for bar in gathered.layers)
    assert list(parts) == ["backbone", "neck", "head"]
    assert gathered.scales
    norms = [m.weight for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    found = gathered.scales.models[1]
    assert sum(found.counts) == sum(map(len, norms))
    assert found.median == pytest.approx(float(torch.cat(norms).abs().quantile(0.5)), rel=1e-3)


def test_pictures_are_of_the_images_that_differ_most(gathered: Report) -> None:
    assert len(gathered.pairs) == 2
    assert gathered.pairs[0].difference >= gathered.pairs[1].difference > 0
    for pair in gathered.pairs:
        # The 4 × 4 squares of the middle grid.
        assert (pair.lost, pair.gained) == (16, 0)
        assert [picture.label for picture in pair.pictures] == ["old", "new", "annotated"]
        for picture in pair.pictures:
            data = base64.b64decode(picture.uri.partition(",")[2])
            image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
            assert image.shape == (picture.height, picture.width, 3)


def test_where_it_comes_from_is_told(gathered: Report, new: Path) -> None:
    asked = {fact.name: fact.value for fact in gathered.asked}
    assert asked["runtime"] == "torch"
    assert asked["budget"] == "40 % of the channels removed"
    assert asked["criterion"] == "l1, global scope"
    assert "absorption" in asked["compensation"]
    versions = {fact.name: fact.value for fact in gathered.versions}
    assert versions["torch"] == torch.__version__
    assert versions["new"] == f"new.pth, sha256 {file_digest(new)[:16]}…"
    assert gathered.commands == ("one", "two")


def test_how_sure_it_is_and_what_it_was_trained_for(gathered: Report, tiny_exp: Path) -> None:
    assert gathered.certainty.startswith("AP is of one split of 3 images, too few")
    assert gathered.change_interval is None
    assert gathered.dataset == get_exp(tiny_exp).data_dir
    assert gathered.input_size == "64×64"
    before, after, _ = gathered.models
    assert before.training == ""  # its file has weights alone
    assert after.training == "pruned from best_ckpt.pth, not trained since"


def test_intervals_are_around_the_aps(tiny_exp: Path, old: Path, new: Path) -> None:
    exp = get_exp(tiny_exp)
    exp.resolve_classes()
    evaluator = exp.get_evaluator(4)
    found = [evaluator.infer(load_model(path).model) for path in (old, new)]
    aps = [evaluator.score(inference).ap50_95 for inference in found]
    # The three images many times over.
    samples = evaluator.dataset.samples
    many = [
        dataclasses.replace(s, image_id=3 * n + i) for n in range(5) for i, s in enumerate(samples)
    ]
    detections = [
        [dataclasses.replace(inference.detections[i % 3], image_id=i) for i in range(len(many))]
        for inference in found
    ]
    evaluator.dataset.samples = many
    sure = certainty_of(evaluator, detections, aps)
    assert "one split of 15 images" in sure.text
    for ap, interval in zip(aps, sure.intervals, strict=True):
        assert interval
        assert 0 <= interval[0] <= ap <= interval[1] <= 1
        assert interval[1] > interval[0]
    assert sure.change
    assert sure.change[0] <= aps[1] - aps[0] <= sure.change[1]
    nothing = certainty_of(evaluator, detections, [None, aps[1]])
    assert (nothing.intervals, nothing.change) == ((None, None), None)


def test_a_file_counts_without_what_training_resumes_from(trained: Path) -> None:
    best, latest = trained / "best_ckpt.pth", trained / "latest_ckpt.pth"
    one, other = gather_report([best, latest], None, ReportSettings()).models
    assert one.file_bytes == best.stat().st_size
    assert one.training_bytes == 0
    assert one.training == "a run of 2 epochs in batches of 4"
    assert other.training == "2 epochs in batches of 4"
    assert other.file_bytes == pytest.approx(one.file_bytes, rel=0.01)
    assert (other.file_bytes or 0) + other.training_bytes == latest.stat().st_size


def test_differences_are_marked(gathered: Report) -> None:
    for pair in gathered.pairs:
        first, second, truth = pair.pictures
        assert len(first.marks) == pair.lost == 16
        assert second.marks == truth.marks == ()
        boxes = np.array([mark.box for mark in first.marks])
        sides = boxes[:, 2:] - boxes[:, :2]
        assert sides == pytest.approx(np.full((16, 2), sides[0, 0]), rel=0.05)  # squares


def test_a_page_stays_small(
    tiny_exp: Path,
    old: Path,
    new: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert pairs.MOST_BYTES < 1_500_000  # 2 MB with all else
    settings = ReportSettings(score=0.5)
    whole = gather_report([old, new], get_exp(tiny_exp), settings).pairs
    size = [sum(len(picture.uri) for picture in pair.pictures) for pair in whole]
    assert len(size) == 3
    monkeypatch.setattr(pairs, "MOST_BYTES", size[0] + size[1])
    found = gather_report([old, new], get_exp(tiny_exp), settings)
    assert found.pairs == whole[:2]
    assert "2 of 3 images are shown" in capsys.readouterr().err


def test_a_size_that_was_given_is_that_of_all_figures(
    tiny_exp: Path, old: Path, tmp_path: Path
) -> None:
    pages = []
    for number, words in enumerate(((), ("test_size", "96,96"))):
        output = tmp_path / f"{number}.html"
        args = ("-c", old, "-o", output, "--images", 0, "-f", tiny_exp, *words)
        assert command(report.main, *args) == 0
        pages.append(Page(output.read_text(encoding="utf-8")).text)
    own = re.search(r"(\d+×\d+)", pages[0])
    assert own
    assert own[1] not in pages[1]
    assert "96×96" in pages[1]


def test_command_writes_a_page(
    tiny_exp: Path, old: Path, new: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "deep" / "report.html"
    bench = _bench(
        tmp_path / "bench.json",
        _measured("x/old.pth", old, "onnxruntime", 3.0),
        _measured("x/new.pth", new, "onnxruntime", 1.5),
        _measured("other.onnx", tmp_path / "other.onnx", "onnxruntime", 2.0),
    )
    args = ("-c", old, new, "--labels", "before", "after", "--bench", bench, "-o", output)
    args = (*args, "--conf", 0.5, "-f", tiny_exp, "nmsthre", 0.6)
    assert command(report.main, *args) == 0
    err = capsys.readouterr().err
    assert f"report in {output}" in err
    assert "latencies are of 64×96, which is not the size of before, after" in err
    html = output.read_text(encoding="utf-8")
    page = Page(html)
    assert page.ids() == {*SECTIONS, "again"}
    assert "2.00 × as fast" in page.text
    assert "1.50 ms, was 3.00 ms" in page.text
    assert "onnxruntime, 2 threads, batch 4" in page.text
    assert "other.onnx" in page.text
    assert "5.00 MB" in page.text
    assert "median time of a run on A Processor (2 cores), at 64×96." in page.text
    told = [unescape(line).strip() for line in re.findall("<code>(.*?)</code>", html, re.DOTALL)]
    assert told[0] == "python tools/prunmodel.py -c old.pth"
    own = " ".join(map(str, args))
    assert told[-1] == f"python tools/report.py {own}"


def test_without_data_there_is_no_accuracy(old: Path, new: Path, tmp_path: Path) -> None:
    output, bench = tmp_path / "report.html", tmp_path / "compress.json"
    pruning = "python tools/prunmodel.py -c a.pth --target macs=0.5"
    stages = {"pruning": {"command": pruning, "seconds": 3}}
    bench.write_text(json.dumps({"origin": "", "stages": stages}))
    args = ("-c", old, new, "--no-eval", "-o", output)
    assert command(report.main, *args, "--compress", bench) == 0
    page = Page(output.read_text(encoding="utf-8"))
    assert page.ids() == {"asked", "models", "training", "channels", "scales", "again"}
    assert f"{pruning} python tools/report.py" in page.text
    assert "target macs=0.5" in page.text
    assert "AP50" not in page.text


def test_exported_files_are_evaluated_like_checkpoints(
    tiny_exp: Path, old: Path, tmp_path: Path
) -> None:
    loaded = load_model(old)
    settings = ExportSettings(format="torchscript", size=loaded.spec.input_size)
    file = write_model(loaded, tmp_path / "m.torchscript", settings)
    found = gather_report([old, file], get_exp(tiny_exp), ReportSettings())
    before, after = found.models
    assert (after.params, after.macs, after.file_bytes) == (None, None, file.stat().st_size)
    told = write_model(
        loaded, tmp_path / "told.torchscript", settings, source_sha256=file_digest(old)
    )
    before, after = gather_report([old, told], None, ReportSettings()).models
    assert (after.params, after.macs) == (before.params, before.macs)
    before, after = found.models
    assert after.ap50 == pytest.approx(before.ap50, abs=1e-3)
    assert found.layers == ()
    assert found.scales
    assert [model.label for model in found.scales.models] == ["old.pth"]


def test_files_are_labelled_by_what_tells_them_apart(
    tiny_exp: Path, old: Path, tmp_path: Path
) -> None:
    best = tmp_path / "best.pth"
    best.write_bytes(old.read_bytes())
    loaded = load_model(old)
    settings = ExportSettings(format="torchscript", size=loaded.spec.input_size)
    file = write_model(loaded, tmp_path / "best.torchscript", settings)
    found = gather_report([best, file], None, ReportSettings())
    assert [row.label for row in found.models] == ["best.pth", "best.torchscript"]
    with pytest.raises(UserError, match="given twice"):
        gather_report([best, best], None, ReportSettings())


def test_latencies_are_those_of_the_files(
    old: Path, new: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file measured under a label of the report is another one, and one that changed is none."""
    loaded = load_model(old)
    settings = ExportSettings(format="torchscript", size=loaded.spec.input_size)
    file = write_model(loaded, tmp_path / "m.torchscript", settings)
    bench = _bench(
        tmp_path / "bench.json",
        _measured("before", tmp_path / "else.pth", "onnxruntime", 9.0),
        _measured("x", old, "onnxruntime", 3.0),
        _measured("y", new, "onnxruntime", 1.5, sha256="of another time"),
        _measured("z", file, "torch", 1.5, sha256="of another time"),
    )
    rows = read_bench(bench, [old, new, file], ["before", "after", "file"]).rows
    assert [(row.label, row.latencies[0].ms) for row in rows] == [
        ("before (bench.json)", 9.0),
        ("before", 3.0),
    ]
    err = capsys.readouterr().err
    for changed in (new, file):
        assert f"{changed} has changed since {bench} was measured" in err


def test_a_file_is_known_by_its_content_too(
    old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Measured in another folder, by a relative path."""
    row = _measured("x", old, "torch", 3.0)
    moved = dataclasses.replace(row, model=dataclasses.replace(row.model, path="old.pth"))
    (found,) = read_bench(_bench(tmp_path / "b.json", moved), [old], ["before"]).rows
    assert found.label == "before"


def test_a_file_whose_other_part_is_missing_is_told(
    old: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "m.xml").write_text("")
    bench = _bench(tmp_path / "b.json", _measured("x", old, "torch", 3.0))
    words = ("-c", old, tmp_path / "m.xml", "--no-eval", "--bench", bench)
    assert command(report.main, *words, "-o", tmp_path / "r.html") == 1
    (line,) = error_lines(capsys.readouterr().err)
    assert "m.bin" in line


def test_channels_of_a_file_are_those_of_its_own_checkpoint(
    old: Path, new: Path, tmp_path: Path
) -> None:
    settings = ExportSettings(format="torchscript", size=load_model(old).spec.input_size)
    file = write_model(
        load_model(new), tmp_path / "m.torchscript", settings, source_sha256=file_digest(new)
    )
    found = gather_report([old, new, old, file], None, ReportSettings(labels=tuple("abcd")))
    assert any(bar.after < bar.before for bar in found.layers)
    assert not gather_report([old, old, file], None, ReportSettings(labels=tuple("abc"))).layers


def test_openvino_in_bf16_is_another_setting(old: Path, tmp_path: Path) -> None:
    results = [_measured("x", old, "openvino", 3.0), _measured("x", old, "openvino", 2.0)]
    rough = dataclasses.replace(results[1].measurement, precision="fp32, run in bf16")
    results[1] = dataclasses.replace(results[1], measurement=rough)
    (row,) = read_bench(_bench(tmp_path / "b.json", *results), [old], ["x"]).rows
    assert [found.setting for found in row.latencies] == [
        "openvino, 2 threads, batch 4",
        "openvino in bf16, 2 threads, batch 4",
    ]


def test_nms_in_a_file_that_drops_what_ap_counts_is_told(
    tiny_exp: Path, old: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxruntime", reason="needs the export extra", exc_type=ImportError)
    loaded = load_model(old)
    settings = ExportSettings(size=loaded.spec.input_size, decode=True, nms=True)
    file = write_model(loaded, tmp_path / "m.onnx", settings)
    gather_report([old, file], get_exp(tiny_exp), ReportSettings(images=0))
    assert "it keeps scores of 0.3 or more" in capsys.readouterr().err


def test_a_name_that_is_not_utf_8_is_written_as_far_as_it_can_be(old: Path, tmp_path: Path) -> None:
    file = tmp_path / os.fsdecode(b"caf\xe9.pth")
    file.write_bytes(old.read_bytes())
    output = tmp_path / "report.html"
    assert command(report.main, "-c", file, "--no-eval", "-o", output) == 0
    assert r"caf\udce9.pth" in output.read_text(encoding="utf-8")


def _not_json(folder: Path) -> Path:
    (folder / "bad.json").write_text("{")
    return folder / "bad.json"


def _other_json(folder: Path) -> Path:
    (folder / "other.json").write_text('{"a": 1}')
    return folder / "other.json"


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (lambda folder: ("--labels", "one"), "1 labels for 2 checkpoints"),
        (lambda folder: ("--labels", "one", "one"), "two models share a label: one"),
        (lambda folder: ("--conf", "2"), "must be in [0, 1]"),
        (lambda folder: ("nmsthre", "0.6"), "leave out nmsthre 0.6"),
        (lambda folder: ("--bench", _not_json(folder)), "give the file of python tools/bench.py"),
        (
            lambda folder: ("--bench", _other_json(folder)),
            "is not what python tools/bench.py writes",
        ),
        (
            lambda folder: ("--compress", folder / "none"),
            "give the file of python tools/compress.py",
        ),
        (lambda folder: ("--compress", _other_json(folder)), "its stages have no commands"),
        (lambda folder: ("-o", folder), "it is a folder"),
    ],
)
def test_what_it_refuses(
    old: Path,
    new: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    flags: Any,
    complaint: str,
) -> None:
    args = ("-c", old, new, "--no-eval", *flags(tmp_path))
    assert command(report.main, "-o", tmp_path / "report.html", *args) == 1
    (line,) = error_lines(capsys.readouterr().err)
    assert complaint in line
    assert not (tmp_path / "report.html").exists()


def test_images_cannot_be_fewer_than_none() -> None:
    with pytest.raises(UserError, match="images must be at least 0, got -1; score must be in"):
        ReportSettings(images=-1, score=2)
