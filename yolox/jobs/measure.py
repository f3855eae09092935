"""Checkpoints and exported files on their runtimes: latency, throughput, memory, size."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolox.bench.cases import BenchError, Case, CompileError, OpenedCase
from yolox.bench.guest import Guests
from yolox.bench.memory import can_measure
from yolox.bench.plan import BenchSettings, Subject, file_bytes, make_cases, read_subjects
from yolox.bench.results import MeasuredModel, Result, to_json
from yolox.bench.run import measure
from yolox.data.decoding import read_image
from yolox.data.image_header import ImageError
from yolox.export import is_exported, sample_scene
from yolox.export.place import place_of
from yolox.utils.choices import CONF, NMS
from yolox.utils.cores import cores, processor
from yolox.utils.device import device_name, driver_version
from yolox.utils.documents import json_text
from yolox.utils.download import resolve_weights
from yolox.utils.errors import UserError
from yolox.utils.files import replacing
from yolox.utils.progress import track
from yolox.utils.scratch import scratch_folder

SCENE_SIZE = (720, 1280)  # height and width of the picture where none is given
FORMAT, VERSION = "yolox-bench", 1
_PACKAGES = ("torch", "onnxruntime", "openvino", "ncnn", "numpy", "opencv-python-headless")


@dataclass(frozen=True, kw_only=True)
class MeasureSettings:
    """How files are measured.

    Attributes:
        runtimes, threads, batches, openvino_precision, device: see `BenchSettings`.
        size: (height, width) of the input, pixels; the first file's by default.
        memory: measure the peak of a process too.
        image: picture to detect on; a made-up scene by default.
        conf, nms: least score of a detection and IoU of NMS, in [0, 1].
        runs, warmup: timed runs of each, and runs before them.
        at_most: seconds after which no more are begun, three of each apart.
    """

    runtimes: tuple[str, ...] = ("torch", "onnxruntime")
    threads: tuple[int, ...] = ()
    batches: tuple[int, ...] = (1,)
    size: tuple[int, int] | None = None
    openvino_precision: str = "f32"
    device: str = "auto"
    memory: bool = True
    image: Path | None = None
    conf: float = CONF
    nms: float = NMS
    runs: int = 30
    warmup: int = 5
    at_most: int = 300

    def cases(self, size: tuple[int, int]) -> BenchSettings:
        """What is measured of each file, by default at a size."""
        return BenchSettings(
            runtimes=tuple(dict.fromkeys(self.runtimes)),
            threads=tuple(dict.fromkeys(self.threads)) or (cores(),),
            batches=tuple(dict.fromkeys(self.batches)),
            size=self.size or size,
            openvino_precision=self.openvino_precision,
            device=self.device,
        )


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Figures of some files, what a person should know of them, and the size (H, W) they are of."""

    results: Sequence[Result]
    notes: Sequence[str]
    size: tuple[int, int]


def measure_models(
    files: Sequence[Path],
    settings: MeasureSettings,
    *,
    labels: Sequence[str] | None = None,
    output: Path | None = None,
    command: str = "",
    guests: Guests | None = None,
) -> Measured:
    """Export checkpoints for each runtime, open all, and time them in turns.

    Args:
        files: checkpoints, names of published ones, and exported files.
        settings: in which runtimes, and how.
        labels: one a file; by default the ends of their paths that tell them apart.
        output: JSON file for every figure; none by default.
        command: the line that does it again, for that file.
        guests: of those files that are of other programs, what they hold.

    Raises:
        BenchError: naming every file that cannot be read or run, and why; or settings that do not
            go together.
    """
    image = _read_image(settings.image)
    guests = guests or {}
    subjects = read_subjects(_resolve(files, guests), labels, guests)
    cases = settings.cases(subjects[0].size)
    # Opened first, so that a place that cannot be written to shows before the work is done.
    with replacing(output, BenchError) if output else nullcontext() as file:
        results, notes = _measure(subjects, cases, settings, image)
        if file is not None:
            about = _about(cases, settings, command)
            content = {**about, **to_json(results), "notes": notes}
            file.write_text(json_text(content, indent=1) + "\n", encoding="utf-8")
    return Measured(results=results, notes=notes, size=cases.size)


def _measure(
    subjects: Sequence[Subject],
    cases: BenchSettings,
    settings: MeasureSettings,
    image: NDArray[np.uint8],
) -> tuple[list[Result], list[str]]:
    """All figures, and what a person should know of them."""
    with scratch_folder() as folder:
        ready, entries, notes = _open(make_cases(subjects, cases, folder))
        measurements = measure(
            entries,
            image,
            conf=settings.conf,
            nms=settings.nms,
            runs=settings.runs,
            warmup=settings.warmup,
            at_most=settings.at_most,
            description="Timing",
        )
        models = {subject.label: _figures(subject, cases.size) for subject in subjects}
        results = [
            Result(
                model=models[subject.label],
                measurement=measurement,
                file_bytes=file_bytes(case.path),
            )
            for (subject, case), measurement in zip(ready, measurements, strict=True)
        ]
        if settings.memory:
            results = _with_memory(results, ready, notes)
    if not any(result.measurement.detections for result in results):
        notes.append(
            f"nothing reached a score of {settings.conf:g}, so NMS had nothing to do: give a "
            "picture of your objects as `image`, or a lower `conf`"
        )
    return results, notes


def _open(
    cases: Sequence[tuple[Subject, Case]],
) -> tuple[list[tuple[Subject, Case]], list[OpenedCase], list[str]]:
    """Those that can run, opened, and why others cannot: only torch.compile may be left out."""
    ready: list[tuple[Subject, Case]] = []
    entries: list[OpenedCase] = []
    notes: list[str] = []
    left_out: set[type] = set()
    for subject, case in track(cases, "Opening"):
        if case.runtime == "torch.compile" and type(subject.content) in left_out:
            continue  # found out before, and finding out takes a minute
        try:
            entries.append(subject.open(case))
        except CompileError as error:
            notes.append(f"{error}; it is left out")
            left_out.add(type(subject.content))
        else:
            ready.append((subject, case))
    if not entries:
        raise BenchError(notes[0])
    return ready, entries, notes


def _with_memory(
    results: Sequence[Result], ready: Sequence[tuple[Subject, Case]], notes: list[str]
) -> list[Result]:
    if not can_measure():
        notes.append("memory was not measured: only Linux reports a process's peak")
        return list(results)
    measured = []
    for result, (subject, case) in track(list(zip(results, ready, strict=True)), "Memory"):
        try:
            measured.append(replace(result, memory=subject.memory(case)))
        except BenchError as error:
            notes.append(str(error))
            measured.append(result)
    return measured


def _figures(subject: Subject, size: tuple[int, int]) -> MeasuredModel:
    params, macs = subject.count(size)
    return MeasuredModel(
        label=subject.label,
        path=str(subject.path),
        pruned=subject.pruned,
        sha256=subject.sha256,
        file_sha256=subject.file_sha256,
        params=params,
        macs=macs,
        file_bytes=file_bytes(subject.path),
    )


def _about(cases: BenchSettings, settings: MeasureSettings, command: str) -> dict[str, Any]:
    """What the figures belong to."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": command,
        "machine": {
            "processor": processor(),
            "cores": cores(),
            "system": platform.platform(),
            "python": platform.python_version(),
            **_accelerator(cases),
        },
        "packages": {name: found for name in _PACKAGES if (found := _version(name))},
        "settings": {
            "runtimes": cases.runtimes,
            "threads": cases.threads,
            "batches": cases.batches,
            "size": cases.size,
            "openvino_precision": cases.openvino_precision,
            "device": cases.device,
            "image": str(settings.image or f"made-up scene of {SCENE_SIZE[0]}×{SCENE_SIZE[1]}"),
            "conf": settings.conf,
            "nms": settings.nms,
            "runs": settings.runs,
            "warmup": settings.warmup,
            "at_most": settings.at_most,
        },
    }


def _accelerator(cases: BenchSettings) -> dict[str, str]:
    """Name and driver of the accelerator that some of it ran on; empty where all ran on the CPU."""
    for runtime in cases.runtimes:
        place = place_of(runtime, cases.device, file=False)
        if place.type != "cpu":
            return {"accelerator": f"{device_name(place)}, {driver_version(place)}"}
    return {}


def _resolve(files: Sequence[Path], guests: Guests) -> list[Path]:
    """Published weights by their names; every file that is not there in one error."""
    paths, problems = [], []
    for file in files:
        if file in guests:
            paths.append(file)
            continue
        try:
            if is_exported(file) and not file.is_file():
                raise BenchError(f"no file {file}: make one with `yolox.export_model`")
            paths.append(file if is_exported(file) else resolve_weights(file))
        except UserError as error:
            problems.append(str(error))
    if problems:
        raise BenchError("; ".join(problems))
    return paths


def _read_image(path: Path | None) -> NDArray[np.uint8]:
    if path is None:
        return sample_scene(SCENE_SIZE)
    try:
        return read_image(path)
    except ImageError as error:
        raise BenchError(f"`image` {path} {error.what}: give another file") from None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
