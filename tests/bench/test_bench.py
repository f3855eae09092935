"""Measuring: what is called how often, the arithmetic, ratios, and what is refused."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.helpers import deterministic_state
from yolox.bench.cases import BenchError, Case, CompileError, OpenedCase, open_case, runtimes_for
from yolox.bench.memory import can_measure, measure_memory
from yolox.bench.plan import (
    BenchSettings,
    Subject,
    file_bytes,
    make_cases,
    read_subjects,
)
from yolox.bench.results import (
    MeasuredModel,
    Result,
    slower_line,
    speedup,
    tables,
    to_json,
    unsteady_line,
)
from yolox.bench.run import Measurement, Times, measure
from yolox.export import ExportInfo, ExportSettings, write_model
from yolox.export.parity import FP32, count_missing
from yolox.models import ModelSpec, build_model, checkpoint_payload, load_model
from yolox.utils.boxes import postprocess
from yolox.utils.checkpoint import file_digest, save_checkpoint
from yolox.utils.errors import UserError
from yolox.utils.threads import own_threads

SIZE = (64, 64)
SPEC = ModelSpec(depth=0.33, width=0.125, num_classes=3, input_size=SIZE)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A very small model with scores of every size."""
    model = build_model(SPEC)
    model.load_state_dict(deterministic_state(model))
    path = tmp_path_factory.mktemp("model") / "small.pth"
    save_checkpoint(path, checkpoint_payload(model.eval(), SPEC))
    return path


@pytest.fixture(scope="module")
def exported(checkpoint: Path) -> Path:
    """The same in ONNX, not decoded, for any number of images."""
    settings = ExportSettings(size=SIZE, dynamic=True)
    return write_model(load_model(checkpoint), checkpoint.with_name("small.onnx"), settings)


def case(path: Path, runtime: str, **changes: Any) -> Case:
    wanted = Case(path=path, runtime=runtime, threads=1, batch=2, size=SIZE)
    return dataclasses.replace(wanted, **changes)


def images(batch: int = 2) -> np.ndarray[Any, np.dtype[np.float32]]:
    rng = np.random.default_rng(0)
    return rng.uniform(0, 255, (batch, 3, *SIZE)).astype(np.float32)


# Times


def test_times_of_known_lists() -> None:
    times = Times.of([float(n) for n in range(11, 0, -1)])
    assert times == Times(median=6.0, p90=10.0, least=1.0, runs=11)
    # between the ranks: 0.9 of the way from the first to the last of two
    assert Times.of([2.0, 4.0]) == Times(median=3.0, p90=pytest.approx(3.8), least=2.0, runs=2)


def measurement(ms: float, **changes: Any) -> Measurement:
    times = Times(median=ms, p90=ms, least=ms, runs=3)
    plain = Measurement(
        runtime="torch", precision="fp32", threads=1, batch=1, detections=0,
        preprocess=times, forward=times, postprocess=times,
        whole=Times(median=4 * ms, p90=ms, least=ms, runs=3),
    )  # fmt: skip
    return dataclasses.replace(plain, **changes)


def test_throughput_is_of_images_not_of_runs() -> None:
    four = measurement(20.0, batch=4)
    assert four.images_per_second == pytest.approx(200.0)
    assert four.whole_images_per_second == pytest.approx(50.0)
    assert four.to_dict()["images_per_second"] == four.images_per_second
    assert four.to_dict()["forward"] == {"median": 20.0, "p90": 20.0, "least": 20.0, "runs": 3}


def test_entries_of_a_runtime_take_turns_on_the_picture_with_their_own_threads() -> None:
    calls: list[tuple[str, int, tuple[int, ...]]] = []
    kept = torch.tensor([[0.0, 0, 9, 9, 0.9, 0.8, 1]] * 2)

    def entry(name: str, runtime: str, threads: int, batch: int) -> OpenedCase:
        def run(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
            calls.append((name, torch.get_num_threads(), x.shape))
            assert (x[:, :, :32] == 7).all()  # the letterboxed picture
            assert (x[:, :, 32:] == 114).all()  # and its padding
            return x

        return OpenedCase(
            runtime=runtime, threads=threads, batch=batch, size=(64, 64), precision="fp32",
            run=run, finish=lambda output, conf, nms: [kept] * batch,
        )  # fmt: skip

    picture = np.full((50, 100, 3), 7, np.uint8)
    before = torch.get_num_threads()
    entries = [entry("one", "a", 1, 1), entry("other", "b", 1, 1), entry("two", "a", 2, 3)]
    results = measure(entries, picture, conf=0.3, nms=0.45, runs=2, warmup=1)
    one, two = ("one", 1, (1, 3, 64, 64)), ("two", 2, (3, 3, 64, 64))
    other = ("other", 1, (1, 3, 64, 64))
    assert calls == [one, two] + [one, one, two, two] * 2 + [other] * 5
    assert torch.get_num_threads() == before
    assert [(r.runtime, r.threads, r.batch, r.detections) for r in results] == [
        ("a", 1, 1, 2),
        ("b", 1, 1, 2),
        ("a", 2, 3, 2),
    ]
    for result in results:
        assert result.forward.runs == 2
        parts = (result.preprocess, result.forward, result.postprocess)
        assert result.whole.least >= sum(part.least for part in parts)


def test_threads_come_back_after_an_error() -> None:
    before = torch.get_num_threads()

    def fail() -> None:
        with own_threads():
            torch.set_num_threads(before + 1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert torch.get_num_threads() == before


# Cases


def test_a_case_survives_its_way_to_another_process() -> None:
    one = case(Path("some where/ä.xml"), "openvino", openvino_precision="bf16")
    assert Case.from_json(one.to_json()) == one


@pytest.mark.parametrize(
    ("name", "asked", "expected"),
    [
        ("a.pth", ["torch", "ncnn"], ["torch", "ncnn"]),
        ("a.onnx", ["torch", "openvino", "onnxruntime"], ["openvino", "onnxruntime"]),
        ("a.onnx", ["torch"], ["onnxruntime"]),
        ("a.xml", ["torch", "onnxruntime"], ["openvino"]),
        ("a.param", ["torch"], ["ncnn"]),
        ("a.torchscript", ["openvino"], ["torch"]),
    ],
)
def test_runtimes_of_a_file(name: str, asked: list[str], expected: list[str]) -> None:
    assert runtimes_for(Path(name), asked) == expected


def agree(entry: OpenedCase, checkpoint: Path, batch: int) -> None:
    """What an open case finds is what the model finds."""
    model = load_model(checkpoint).model
    with torch.no_grad():  # at an IoU of 1 NMS keeps all, so no near tie decides what is left
        expected = postprocess(model(torch.from_numpy(images(batch))), 3, 0.1, 1.0)
    found = entry.finish(entry.run(entry.load(images(batch))), 0.1, 1.0)
    assert len(found) == len(expected) == batch
    for ours, theirs in zip(found, expected, strict=True):
        assert theirs is not None
        assert len(theirs) > 3
        assert count_missing(ours, theirs, FP32) == count_missing(theirs, ours, FP32) == 0


@pytest.mark.parametrize("runtime", ["torch", "onnxruntime", "openvino"])
def test_an_open_case_computes_what_the_model_does(
    runtime: str, checkpoint: Path, exported: Path
) -> None:
    entry = open_case(case(checkpoint if runtime == "torch" else exported, runtime))
    agree(entry, checkpoint, batch=2)
    assert entry.precision == "fp32"


def test_ncnn_computes_what_the_model_does(checkpoint: Path, tmp_path: Path) -> None:
    settings = ExportSettings(format="ncnn", size=SIZE)
    file = write_model(load_model(checkpoint), tmp_path / "small.param", settings)
    agree(open_case(case(file, "ncnn", batch=1)), checkpoint, batch=1)


def test_what_torch_compile_makes_computes_what_the_model_does(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Traced and taken apart as always; only the C++ behind it, a minute's work, is left out.
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    agree(open_case(case(checkpoint, "torch.compile")), checkpoint, batch=2)


def test_bf16_of_openvino_shows(exported: Path) -> None:
    entry = open_case(case(exported, "openvino", openvino_precision="bf16"))
    assert entry.precision == "fp32, run in bf16"


def test_a_compiler_that_fails_is_told_in_one_line(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> Callable[..., object]:
        def call(*_: object) -> object:
            raise RuntimeError("No working C++ compiler found\nin any of:\n  g++")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(CompileError) as error:
        open_case(case(checkpoint, "torch.compile"))
    assert "\n" not in str(error.value)
    assert "No working C++ compiler found in any of: g++" in str(error.value)


@pytest.mark.skipif(not can_measure(), reason="only Linux reports a process's peak memory")
def test_memory_of_a_case_holds_its_input_but_not_what_was_there_before(checkpoint: Path) -> None:
    memory = measure_memory(case(checkpoint, "torch", batch=16, size=(256, 256)))
    assert memory.added > 16 * 3 * 256 * 256 * 4
    assert memory.peak > memory.added + 50e6  # Python and PyTorch


@pytest.mark.skipif(not can_measure(), reason="only Linux reports a process's peak memory")
def test_memory_of_what_cannot_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"memory of gone\.pth on torch: no checkpoint at"):
        measure_memory(case(tmp_path / "gone.pth", "torch"))


# Plans


def info(**changes: Any) -> ExportInfo:
    plain = ExportInfo(
        format="onnx", architecture="yolox", class_names=(), num_classes=3, input_size=SIZE,
        batch_size=1, dynamic_size=False, decoded=True, nms=False, precision="fp32",
        strides=(8, 16, 32), conf_threshold=0.3, nms_threshold=0.45, input_name="images",
        output_name="output", pruned=False, checkpoint_sha256="",
    )  # fmt: skip
    return dataclasses.replace(plain, **changes)


def subject(name: str, **facts: Any) -> Subject:
    return Subject(label=name, path=Path(name), content=info(**facts), sha256="", file_sha256="")


def settings(**changes: Any) -> BenchSettings:
    plain = BenchSettings(runtimes=("onnxruntime",), threads=(1, 2), batches=(1,), size=SIZE)
    return dataclasses.replace(plain, **changes)


def test_every_file_on_every_runtime_thread_count_and_batch(tmp_path: Path) -> None:
    free = subject("free.onnx", batch_size=None)
    wanted = settings(runtimes=("onnxruntime", "openvino"), batches=(1, 4))
    cases = make_cases([free, subject("two.xml", batch_size=None)], wanted, tmp_path)
    assert [(s.label, c.runtime, c.batch, c.threads) for s, c in cases] == [
        (name, runtime, batch, threads)
        for name, runtimes in (
            ("free.onnx", ("onnxruntime", "openvino")),
            ("two.xml", ("openvino",)),
        )
        for runtime in runtimes
        for batch in (1, 4)
        for threads in (1, 2)
    ]
    assert list(tmp_path.iterdir()) == []  # nothing is exported twice


def test_everything_that_does_not_fit_is_named_at_once(tmp_path: Path) -> None:
    subjects = [
        subject("size.onnx", input_size=(96, 128), batch_size=None),
        subject("batch.onnx", batch_size=2),
        subject("any.onnx", input_size=(96, 128), dynamic_size=True, batch_size=None),
    ]
    with pytest.raises(BenchError) as error:
        make_cases(subjects, settings(batches=(1, 2)), tmp_path)
    told = str(error.value)
    assert "size.onnx takes 96×128 alone, not 64×64: give `size=(96, 128)`" in told
    assert "batch.onnx takes 2 images a run, not 1, 2: give `batches=(2,)`" in told
    assert "any.onnx" not in told


def test_ncnn_takes_one_image(checkpoint: Path, tmp_path: Path) -> None:
    wanted = settings(runtimes=("ncnn",), batches=(1, 4))
    with pytest.raises(BenchError, match="ncnn runs one image at a time, not 1, 4"):
        make_cases(read_subjects([checkpoint]), wanted, tmp_path)


def test_settings_that_make_no_sense_are_all_named() -> None:
    with pytest.raises(BenchError, match=r"at least one each.*multiples of 32.*openvino_precision"):
        settings(runtimes=(), size=(64, 50), openvino_precision="f16")


def test_files_are_read_and_named_by_what_tells_them_apart(
    checkpoint: Path, exported: Path, tmp_path: Path
) -> None:
    twin = tmp_path / checkpoint.name
    twin.write_bytes(checkpoint.read_bytes())
    first, second, third = read_subjects([checkpoint, twin, exported])
    assert first.label == f"{checkpoint.parent.name}/small.pth"
    assert second.label == f"{tmp_path.name}/small.pth"
    assert first.sha256 == second.sha256 != ""
    assert first.count(SIZE)[0] == sum(p.numel() for p in load_model(twin).model.parameters())
    assert third.count(SIZE) == (None, None)
    assert file_bytes(exported) == exported.stat().st_size
    assert first.file_sha256 == first.sha256
    assert third.file_sha256 == file_digest(exported)
    assert first.size == third.size == SIZE
    with pytest.raises(UserError, match="given twice"):
        read_subjects([checkpoint, checkpoint])
    with pytest.raises(BenchError, match="need as many labels, all different"):
        read_subjects([checkpoint, twin], ["same", "same"])


def test_all_unreadable_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "bad.pth").write_bytes(b"no checkpoint")
    (tmp_path / "bad.onnx").write_bytes(b"no graph")
    with pytest.raises(BenchError, match=r"bad\.pth.*bad\.onnx"):
        read_subjects([tmp_path / "bad.pth", tmp_path / "bad.onnx"])


# Results


def result(name: str, ms: float, *, pruned: bool = False, sha: str = "", **changes: Any) -> Result:
    model = MeasuredModel(
        label=name, path=name, pruned=pruned, sha256=sha or name, file_sha256=name,
        params=None, macs=None, file_bytes=1,
    )  # fmt: skip
    return Result(model=model, measurement=measurement(ms, **changes), file_bytes=1)


def test_ratios_are_to_the_first_model_under_the_same_conditions() -> None:
    ort = {"runtime": "onnxruntime"}
    results = [
        result("a", 40.0),
        result("a", 10.0, **ort),
        result("a", 60.0, batch=2),
        result("b", 20.0),
        result("b", 20.0, **ort),
        result("b", 20.0, batch=2),
        result("b", 20.0, runtime="ncnn"),  # the first is not measured there
        result("b", 20.0, threads=2),
    ]
    ratios = [speedup(results, r) for r in results]
    assert ratios == [1.0, 1.0, 1.0, 2.0, 0.5, 3.0, None, None]
    rows = to_json(results)
    assert [row["speedup"] for row in rows["measurements"]] == ratios
    assert [model["label"] for model in rows["models"]] == ["a", "b"]


def test_no_ratio_is_told_across_runtimes() -> None:
    """OpenVINO beside PyTorch would be 19.67 × as fast, whatever was pruned."""
    results = [
        result("parent", 1967.0),
        result("pruned", 100.0, runtime="openvino", pruned=True),
        result("odd", 9999.0, runtime="openvino", pruned=True),
    ]
    assert [speedup(results, r) for r in results] == [1.0, None, None]
    assert slower_line(results) == ""
    assert list(tables(results, (64, 64))[1].columns[-1].cells) == ["1.00", "–", "–"]


def test_unsteady_times_are_told_with_their_spread() -> None:
    steady, busy = result("steady", 10.0), result("busy", 3448.0)
    times = dataclasses.replace(busy.measurement.forward, least=1282.0, p90=6372.0)
    busy = dataclasses.replace(
        busy, measurement=dataclasses.replace(busy.measurement, forward=times)
    )
    assert unsteady_line([steady]) == to_json([steady])["unsteady"] == ""
    line = unsteady_line([steady, busy])
    assert line == to_json([steady, busy])["unsteady"]
    assert "busy [torch, 1 thread, batch 1] median 3448.00 ms, but from 1282.00 to 6372.00" in line
    assert "steady [" not in line


def test_a_pruned_model_that_is_slower_is_told() -> None:
    results = [
        result("parent", 10.0),
        result("parent", 30.0, threads=2),
        result("pruned", 12.5, pruned=True),
        result("pruned", 20.0, pruned=True, threads=2),
    ]
    line = slower_line(results)
    assert line == (
        "SLOWER than parent, though pruned: pruned 12.50 ms, not 10.00 [torch, 1 thread, batch 1]"
    )


@pytest.mark.parametrize(
    "other",
    [
        result("pruned", 9.9, pruned=True),  # faster
        result("pruned", 10.0, pruned=True),  # the same
        result("dense", 99.0),  # larger, perhaps; nobody claimed a gain
        result("as.onnx", 99.0, pruned=True, sha="parent"),  # the same model in another file
        result("pruned", 99.0, pruned=True, threads=2),  # nothing to compare with
    ],
)
def test_nothing_else_is_called_slower(other: Result) -> None:
    assert slower_line([result("parent", 10.0), other]) == ""
