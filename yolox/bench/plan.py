"""From files and wishes to cases: what each file is, whether it fits, exported where need be."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from yolox.bench.cases import BenchError, Case, OpenedCase, open_case, runtimes_for
from yolox.bench.guest import Guest, Guests
from yolox.bench.memory import Memory, measure_memory
from yolox.export.convert import write_model
from yolox.export.metadata import ExportInfo
from yolox.export.place import place_of
from yolox.export.runtime import is_exported, open_exported
from yolox.export.runtimes import OPENVINO_PRECISIONS, RUNTIMES
from yolox.export.settings import PACKAGES, SUFFIXES, ExportSettings, optional_packages
from yolox.models import LoadedModel, load_model
from yolox.utils.checkpoint import file_digest
from yolox.utils.errors import UserError
from yolox.utils.files import short_names
from yolox.utils.model_utils import count_macs, count_params
from yolox.utils.progress import track


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A file that is to be measured.

    Attributes:
        label: its name in tables, unique.
        path: a checkpoint or an exported file.
        content: of a checkpoint the model, of an exported file what it says of itself; or the
            detector of another program.
        sha256: of the checkpoint that it is or was made from; empty when unknown.
        file_sha256: see `files_digest`.
    """

    label: str
    path: Path
    content: LoadedModel | ExportInfo | Guest
    sha256: str
    file_sha256: str

    @property
    def pruned(self) -> bool | None:
        """Whether the model is a pruned one; None where its file does not tell."""
        if isinstance(self.content, LoadedModel):
            return self.content.is_pruned
        if isinstance(self.content, Guest) and not self.content.sha256:
            return None
        return self.content.pruned

    @property
    def size(self) -> tuple[int, int]:
        """The input size (H, W) that it was made for."""
        if isinstance(self.content, ExportInfo):
            return self.content.input_size
        return self.content.spec.input_size

    def count(self, size: tuple[int, int]) -> tuple[int | None, int | None]:
        """Parameters, and multiply-accumulates of an image (H, W); None for exported files."""
        if isinstance(self.content, ExportInfo):
            return None, None
        model = self.content.module() if isinstance(self.content, Guest) else self.content.model
        if model is None:
            return None, None
        return count_params(model), count_macs(model, torch.zeros(1, 3, *size))[""]

    def open(self, case: Case) -> OpenedCase:
        """A case of it, opened and run once; raises as `open_case`."""
        return self.content.open(case) if isinstance(self.content, Guest) else open_case(case)

    def memory(self, case: Case) -> Memory:
        """What a case of it takes; raises as `measure_memory`."""
        if isinstance(self.content, Guest):
            return measure_memory(case, self.content.memory_program)
        return measure_memory(case)


@dataclass(frozen=True, kw_only=True)
class BenchSettings:
    """What is to be measured of each file.

    Attributes:
        runtimes: of `RUNTIMES`; an exported file runs in those of them that can run it, or
            in its own.
        threads: numbers of threads.
        batches: images a run.
        size: (H, W) of the input, pixels.
        openvino_precision, device: see `Case`.
    """

    runtimes: tuple[str, ...]
    threads: tuple[int, ...]
    batches: tuple[int, ...]
    size: tuple[int, int]
    openvino_precision: str = "f32"
    device: str = "auto"

    def __post_init__(self) -> None:
        problems = []
        if not self.runtimes or not self.threads or not self.batches:
            problems.append("runtimes, threads and batches must name at least one each")
        if min((*self.threads, *self.batches), default=1) < 1:
            problems.append(f"threads and batches must be at least 1: {self.threads, self.batches}")
        if any(side < 32 or side % 32 for side in self.size):
            problems.append(f"size must be multiples of 32, got {self.size}")
        if self.openvino_precision not in OPENVINO_PRECISIONS:
            problems.append(f"openvino_precision must be one of {OPENVINO_PRECISIONS}")
        if problems:
            raise BenchError("bench: " + "; ".join(problems))


def read_subjects(
    paths: Sequence[Path], labels: Sequence[str] | None = None, guests: Guests | None = None
) -> list[Subject]:
    """What the files are.

    Args:
        paths: checkpoints and exported files, existing ones.
        labels: one a file; by default the shortest ends of their paths that differ.
        guests: of those paths that are of other programs, what they hold.

    Raises:
        BenchError: naming every file that cannot be read, and why; or labels that do not fit.
    """
    labels = list(labels or short_names(paths))
    if len(labels) != len(paths) or len(set(labels)) != len(labels):
        raise BenchError(f"{len(paths)} files need as many labels, all different; got {labels}")
    subjects, problems = [], []
    for label, path in zip(labels, paths, strict=True):
        try:
            subjects.append(_read_subject(label, path, (guests or {}).get(path)))
        except UserError as error:
            problems.append(str(error))
    if problems:
        raise BenchError("; ".join(problems))
    return subjects


def make_cases(
    subjects: Sequence[Subject], settings: BenchSettings, folder: Path
) -> list[tuple[Subject, Case]]:
    """Every file on each of its runtimes, thread counts and batch sizes.

    Checkpoints are exported into ``folder`` where a runtime needs it: float32, decoded, of the size
    and of each batch size, so that a runtime knows all shapes.

    Raises:
        BenchError: naming every file that cannot be run as asked.
        ExportError: a package is missing, a runtime does not compute on the device, or an export
            fails.
    """
    for runtime in settings.runtimes:
        place_of(runtime, settings.device, file=False)
        if form := RUNTIMES[runtime].exported_as:
            optional_packages(*PACKAGES[form])
    if problems := [text for subject in subjects for text in _misfits(subject, settings)]:
        raise BenchError("; ".join(problems))
    wanted = [
        (subject, runtime, batch)
        for subject in subjects
        for runtime in runtimes_for(subject.path, settings.runtimes)
        for batch in settings.batches
    ]
    cases = []
    for number, (subject, runtime, batch) in enumerate(track(wanted, "Exporting")):
        path = _runnable(subject, runtime, batch, settings, folder / str(number))
        cases += [
            Case(
                path=path,
                runtime=runtime,
                threads=threads,
                batch=batch,
                size=settings.size,
                openvino_precision=settings.openvino_precision,
                device=settings.device,
            )
            for threads in settings.threads
        ]
    per_file = len(settings.threads)
    owners = [subject for subject, _, _ in wanted for _ in range(per_file)]
    return list(zip(owners, cases, strict=True))


def file_bytes(path: Path) -> int:
    """Size of a checkpoint, or of an exported file with what lies beside it."""
    return sum(part.stat().st_size for part in _parts(path))


def files_digest(path: Path) -> str:
    """SHA-256 of a checkpoint, or of all digests of an exported file and what lies beside it."""
    digests = [file_digest(part) for part in _parts(path)]
    return (
        digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
    )


def _parts(path: Path) -> list[Path]:
    kinds = [suffixes for suffixes in SUFFIXES.values() if suffixes[0] == path.suffix]
    places = [path.with_suffix(suffix) for suffix in kinds[0]] if kinds else [path]
    return [place for place in places if place == path or place.is_file()]


def _read_subject(label: str, path: Path, guest: Guest | None) -> Subject:
    if guest is not None:
        return Subject(
            label=label,
            path=guest.path,
            content=guest,
            sha256=guest.sha256,
            file_sha256=files_digest(guest.path),
        )
    content = open_exported(path).info if is_exported(path) else load_model(path)
    digest = files_digest(path)
    source = content.checkpoint_sha256 if isinstance(content, ExportInfo) else digest
    return Subject(label=label, path=path, content=content, sha256=source, file_sha256=digest)


def _misfits(subject: Subject, settings: BenchSettings) -> Iterator[str]:
    """Why a file cannot be run as asked."""
    batches = ", ".join(map(str, settings.batches))
    if not is_exported(subject.path):
        if "ncnn" in settings.runtimes and set(settings.batches) != {1}:
            yield (
                f"ncnn runs one image at a time, not {batches}: measure it apart, with "
                "`batches=(1,)`"
            )
        return
    any_size, batch = _limits(subject.content)
    if not any_size and subject.size != settings.size:
        (height, width), (other, another) = subject.size, settings.size
        yield (
            f"{subject.path} takes {height}×{width} alone, not {other}×{another}: give "
            f"`size=({height}, {width})`, or export it for any size"
        )
    if batch is not None and set(settings.batches) != {batch}:
        yield (
            f"{subject.path} takes {batch} images a run, not {batches}: give "
            f"`batches=({batch},)`, or export it for any number"
        )


def _limits(content: LoadedModel | ExportInfo | Guest) -> tuple[bool, int | None]:
    """Whether any size of images will do, and how many images a run takes, None for any number."""
    if isinstance(content, Guest):
        return content.any_size, content.batch
    if isinstance(content, ExportInfo):
        return content.dynamic_size, content.batch_size
    return True, None


def _runnable(
    subject: Subject, runtime: str, batch: int, settings: BenchSettings, folder: Path
) -> Path:
    """The file that a runtime opens, exported if need be."""
    if isinstance(subject.content, Guest):
        return subject.content.runnable(runtime, batch, settings.size, folder)
    form = RUNTIMES[runtime].exported_as
    if not isinstance(subject.content, LoadedModel) or not form:
        return subject.path
    return write_model(
        subject.content,
        folder / f"{subject.path.stem}{SUFFIXES[form][0]}",
        ExportSettings(
            format=form, size=settings.size, batch_size=batch, decode=True, slim=form == "onnx"
        ),
        source_sha256=subject.sha256,
    )
