"""Measure checkpoints and exported files on their runtimes: latency, throughput, memory, size."""

from __future__ import annotations

import argparse
import json
import platform
import shlex
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolox.bench.cases import (
    BenchError,
    Case,
    CompileError,
    Entry,
    open_case,
)
from yolox.bench.memory import can_measure, measure_memory
from yolox.bench.plan import (
    BenchSettings,
    Subject,
    file_bytes,
    make_cases,
    read_subjects,
)
from yolox.bench.results import MeasuredModel, Result, slower_line, tables, to_json
from yolox.bench.run import measure
from yolox.data.datasets.decoding import read_image
from yolox.data.image_header import ImageError
from yolox.export import is_exported, sample_scene
from yolox.tools import cli
from yolox.tools.flags.bench import cores, make_parser
from yolox.utils.device import processor
from yolox.utils.download import resolve_weights
from yolox.utils.errors import UserError
from yolox.utils.files import replacing
from yolox.utils.progress import track
from yolox.utils.scratch import scratch_folder

SCENE = (720, 1280)  # height and width of the picture where none is given
FORMAT, VERSION = "yolox-bench", 1
_PACKAGES = ("torch", "onnxruntime", "openvino", "ncnn", "numpy", "opencv-python-headless")


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, read, export, open, time, print."""
    args = make_parser().parse_args(argv)
    image = _read_image(args.image)
    subjects = read_subjects(_resolve(args.files), args.labels)
    settings = BenchSettings(
        runtimes=tuple(dict.fromkeys(args.runtimes)),
        threads=tuple(dict.fromkeys(args.threads)),
        batches=tuple(dict.fromkeys(args.batch)),
        size=cli.image_size(args.tsize) if args.tsize else subjects[0].size,
        openvino_precision=args.openvino_precision,
    )
    # Opened first, so that a place that cannot be written to shows before the work is done.
    with replacing(args.json, BenchError) if args.json else nullcontext() as file:
        results, notes = _measure(subjects, settings, image, args)
        if file is not None:
            command = shlex.join(map(str, sys.argv[1:] if argv is None else argv))
            about = _about(args, settings, f"python tools/bench.py {command}")
            content = {**about, **to_json(results), "notes": notes}
            file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    _print(results, notes, settings)


def _measure(
    subjects: Sequence[Subject],
    settings: BenchSettings,
    image: NDArray[np.uint8],
    args: argparse.Namespace,
) -> tuple[list[Result], list[str]]:
    """All figures, and what a person should know of them."""
    with scratch_folder() as folder:
        ready, entries, notes = _open(make_cases(subjects, settings, folder))
        measurements = measure(
            entries,
            image,
            conf=args.conf,
            nms=args.nms,
            runs=args.runs,
            warmup=args.warmup,
            at_most=args.at_most,
            description="Timing",
        )
        models = {subject.label: _figures(subject, settings.size) for subject in subjects}
        results = [
            Result(
                model=models[subject.label],
                measurement=measurement,
                file_bytes=file_bytes(case.path),
            )
            for (subject, case), measurement in zip(ready, measurements, strict=True)
        ]
        if not args.no_memory:
            results = _with_memory(results, [case for _, case in ready], notes)
    if not any(result.measurement.detections for result in results):
        notes.append(
            f"nothing reached a score of {args.conf:g}, so NMS had nothing to do: give --image a "
            "picture of your objects, or a lower --conf"
        )
    return results, notes


def _open(
    cases: Sequence[tuple[Subject, Case]],
) -> tuple[list[tuple[Subject, Case]], list[Entry], list[str]]:
    """Those that can run, opened, and why others cannot: only torch.compile may be left out."""
    ready: list[tuple[Subject, Case]] = []
    entries: list[Entry] = []
    notes: list[str] = []
    for subject, case in track(cases, "Opening"):
        if notes and case.runtime == "torch.compile":
            continue  # found out before, and finding out takes a minute
        try:
            entries.append(open_case(case))
        except CompileError as error:
            notes.append(f"{error}; it is left out")
        else:
            ready.append((subject, case))
    if not entries:
        raise BenchError(notes[0])
    return ready, entries, notes


def _with_memory(
    results: Sequence[Result], cases: Sequence[Case], notes: list[str]
) -> list[Result]:
    if not can_measure():
        notes.append("memory was not measured: only Linux tells a process's peak")
        return list(results)
    measured = []
    for result, case in track(list(zip(results, cases, strict=True)), "Memory"):
        try:
            measured.append(replace(result, memory=measure_memory(case)))
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


def _print(results: Sequence[Result], notes: Sequence[str], settings: BenchSettings) -> None:
    console = cli.console()
    if line := slower_line(results):
        console.print(line, style="bold red", markup=False, soft_wrap=True)
    for table in tables(results, settings.size):
        if not console.is_terminal:
            table.box = None
        console.print(table)
        console.print()
    runs = results[0].measurement.forward.runs
    console.print(
        f"{processor()}, {cores()} cores; {runs} runs of each, taken in turns", soft_wrap=True
    )
    for note in notes:
        console.print(f"note: {note}", markup=False, soft_wrap=True)


def _about(args: argparse.Namespace, settings: BenchSettings, command: str) -> dict[str, Any]:
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
        },
        "packages": {name: found for name in _PACKAGES if (found := _version(name))},
        "settings": {
            "runtimes": settings.runtimes,
            "threads": settings.threads,
            "batches": settings.batches,
            "size": settings.size,
            "openvino_precision": settings.openvino_precision,
            "image": str(args.image or f"made-up scene of {SCENE[0]}×{SCENE[1]}"),
            "conf": args.conf,
            "nms": args.nms,
            "runs": args.runs,
            "warmup": args.warmup,
            "at_most": args.at_most,
        },
    }


def _resolve(files: Sequence[Path]) -> list[Path]:
    """Published weights by their names; every file that is not there in one error."""
    paths, problems = [], []
    for file in files:
        try:
            if is_exported(file) and not file.is_file():
                raise BenchError(f"no file {file}: make one with tools/export.py")
            paths.append(file if is_exported(file) else resolve_weights(file))
        except UserError as error:
            problems.append(str(error))
    if problems:
        raise BenchError("; ".join(problems))
    return paths


def _read_image(path: Path | None) -> NDArray[np.uint8]:
    if path is None:
        return sample_scene(SCENE)
    try:
        return read_image(path)
    except ImageError as error:
        raise BenchError(f"--image {path} {error.what}: give another file") from None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    cli.entry(main)
