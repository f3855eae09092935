"""Latencies that were measured before, as rows of a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loguru import logger

from yolox.bench.plan import files_digest
from yolox.jobs.report.commands import read_object, text_of
from yolox.report import Latency, ModelRow
from yolox.utils.errors import UserError
from yolox.utils.printable import threads_of


@dataclass(frozen=True, kw_only=True)
class BenchFigures:
    """What `tools/bench.py` measured: a row a file; the machine; the input's height and width."""

    rows: tuple[ModelRow, ...] = ()
    machine: str = ""
    size: tuple[int, int] | None = None


def read_bench(path: Path, models: Sequence[Path], labels: Sequence[str]) -> BenchFigures:
    """Read a file of ``tools/bench.py --json``.

    Args:
        path: the file of its ``--json``.
        models: files of the report. Others in the file keep the label that they were measured
            under, and a remark where a file of the report has it. Left out, with a warning, is a
            file that is not the one that was measured.
        labels: of ``models``, by which they go here.

    Raises:
        UserError: the file cannot be read or is another one.
    """
    names = {model.resolve(): label for model, label in zip(models, labels, strict=False)}
    content = read_object(path, "`yolox.jobs.measure`")
    try:
        digests = {place: files_digest(place) for place in names}
        same = {digest: place for place, digest in digests.items()}
        machine = content["machine"]
        height, width = map(_count, content["settings"]["size"])
        if not height or not width:
            raise ValueError("an input size of nothing")
        rows = []
        for file in content["models"]:
            place, label = Path(text_of(file["path"])).resolve(), text_of(file["label"])
            if place not in names:  # measured from another folder, perhaps
                place = same.get(file["file_sha256"], place)
            if place in names and digests[place] != file["file_sha256"]:
                logger.warning(f"{place} has changed since {path} was measured: measure it again")
                continue
            taken = label in labels and place not in names
            times = [row for row in content["measurements"] if row["label"] == file["label"]]
            latencies = [
                Latency(setting=_setting(row), ms=_time(row["forward"]["median"])) for row in times
            ]
            rows.append(
                ModelRow(
                    label=names.get(place, f"{label} ({path.name})" if taken else label),
                    params=_count(file["params"]),
                    macs=_count(file["macs"]),
                    file_bytes=_count(file["file_bytes"]),
                    latencies=tuple(latencies),
                )
            )
        return BenchFigures(
            rows=tuple(rows),
            machine=f"{machine['processor']} ({machine['cores']} cores), at {height}×{width}",
            size=(height, width),
        )
    except OSError as error:
        raise UserError(f"cannot read {error.filename}: {error.strerror}") from error
    except (LookupError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} is not what `yolox.jobs.measure` writes ({error!r}): measure again"
        ) from error


def _count(value: Any) -> int | None:
    """Whole, not negative; None for what is not known."""
    if value is not None and (type(value) is not int or value < 0):
        raise TypeError(f"expected a whole number, got {str(value)[:60]}")
    return value


def _time(value: Any) -> float:
    if type(value) not in (int, float) or value <= 0:
        raise TypeError(f"expected milliseconds, got {str(value)[:60]}")
    return float(value)


def _setting(row: dict[str, Any]) -> str:
    """Runtime, threads, and batch, as a column's title."""
    threads, batch = int(row["threads"]), int(row["batch"])
    arithmetic = str(row["precision"]).partition(", run in ")[2]
    runtime = f"{row['runtime']} in {arithmetic}" if arithmetic else str(row["runtime"])
    place = str(row.get("device", "cpu"))
    words = [runtime, threads_of(threads)]
    if place != "cpu":
        words = [f"{runtime} on {place}"]
    return ", ".join(words + ([f"batch {batch}"] if batch > 1 else []))
