"""What was measured, put side by side: ratios to the first, tables, JSON, and a warning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.markup import escape
from rich.table import Table

from yolox.bench.memory import Memory
from yolox.bench.run import Measurement
from yolox.utils.printable import threads_of
from yolox.utils.timing import spread


@dataclass(frozen=True, kw_only=True)
class MeasuredModel:
    """A file as it was given; None where a figure is not known.

    Attributes:
        label, path: of the file.
        pruned: whether its model is a pruned one; None where its file does not tell.
        sha256: of the checkpoint that it is or was made from; empty when unknown.
        file_sha256: see `yolox.bench.plan.files_digest`.
        params: number of parameters.
        macs: multiply-accumulates of an image.
        file_bytes: size of the file, with what lies beside it.
    """

    label: str
    path: str
    pruned: bool | None
    sha256: str
    file_sha256: str
    params: int | None
    macs: int | None
    file_bytes: int


@dataclass(frozen=True, kw_only=True)
class Result:
    """A file on a runtime, with a number of threads and of images.

    Attributes:
        model: the file.
        measurement: its times.
        file_bytes: size of what the runtime opened, which of a checkpoint may be an export of it.
        memory: None where it was not measured.
    """

    model: MeasuredModel
    measurement: Measurement
    file_bytes: int
    memory: Memory | None = None

    @property
    def case(self) -> str:
        """Runtime, device or threads, and batch as a person says it."""
        m = self.measurement
        threads = threads_of(m.threads)
        return f"{self.runtime}, {f'{threads}, ' if m.device == 'cpu' else ''}batch {m.batch}"

    @property
    def runtime(self) -> str:
        """The runtime, and where it computes unless that is the CPU."""
        m = self.measurement
        return m.runtime if m.device == "cpu" else f"{m.runtime} on {m.device}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "label": self.model.label,
            "path": self.model.path,
            **self.measurement.to_dict(),
            "file_bytes": self.file_bytes,
            "memory": None if self.memory is None else asdict(self.memory),
        }


def baseline(results: Sequence[Result], result: Result) -> Result | None:
    """What a result is compared with: the first model with as many threads and images.

    On the same runtime: a ratio across runtimes would tell of these, not of the models. None where
    the first model was not measured so.
    """
    m = result.measurement
    for other in results:
        o = other.measurement
        same = _setting(o) == _setting(m)
        if same and other.model.label == results[0].model.label:
            return other
    return None


def _setting(m: Measurement) -> tuple[object, ...]:
    return m.runtime, m.device, m.threads, m.batch


def speedup(results: Sequence[Result], result: Result) -> float | None:
    """Median forward time of the `baseline` over the result's: above 1 is faster."""
    base = baseline(results, result)
    if base is None:
        return None
    return base.measurement.forward.median / result.measurement.forward.median


def slower_line(results: Sequence[Result]) -> str:
    """A line naming every pruned model that takes longer than the first; empty where none does.

    Another file of the first model's own checkpoint is not compared with it.
    """
    first, found = results[0].model, []
    for result in results:
        ratio = speedup(results, result)
        own = result.model.label == first.label or result.model.sha256 == first.sha256 != ""
        if not result.model.pruned or own or ratio is None or ratio >= 1:
            continue
        base = baseline(results, result)
        assert base is not None
        old, new = base.measurement.forward.median, result.measurement.forward.median
        found.append(f"{result.model.label} {new:.2f} ms, not {old:.2f} [{result.case}]")
    if not found:
        return ""
    return f"SLOWER than {first.label}, though pruned: {'; '.join(found)}"


def unsteady_line(results: Sequence[Result]) -> str:
    """A line naming the forward passes whose runs differ too much; empty where none does."""
    found = []
    for result in results:
        times = result.measurement.forward
        if told := spread(times.least, times.median, times.p90):
            found.append(f"{result.model.label} [{result.case}] {told}")
    if not found:
        return ""
    return (
        f"unsteady, so their ratios are rough: {'; '.join(found)}; something else may "
        "keep this machine busy"
    )


def tables(results: Sequence[Result], size: tuple[int, int]) -> list[Table]:
    """Models, forward passes, and what is around them."""
    return [_models_table(results, size), _forward_table(results), _around_table(results)]


def to_json(results: Sequence[Result]) -> dict[str, Any]:
    """``models`` and ``measurements`` as plain values, each measurement with its ratio."""
    return {
        "models": [asdict(model) for model in _models(results)],
        "measurements": [
            result.to_dict() | {"speedup": speedup(results, result)} for result in results
        ],
        "slower": slower_line(results),
        "unsteady": unsteady_line(results),
    }


def _models(results: Sequence[Result]) -> list[MeasuredModel]:
    return list({result.model.label: result.model for result in results}.values())


def _models_table(results: Sequence[Result], size: tuple[int, int]) -> Table:
    models = _models(results)
    first = models[0]
    height, width = size
    table = _table("Models", "model", "pruned", "params", f"MACs at {height}×{width}", "file")
    for model in models:
        table.add_row(
            escape(model.label),
            "–" if model.pruned is None else "yes" if model.pruned else "no",
            _relative(model.params, first.params, 1e6, "M"),
            _relative(model.macs, first.macs, 1e9, "G"),
            _relative(model.file_bytes, first.file_bytes, 1e6, "MB"),
        )
    return table


def _forward_table(results: Sequence[Result]) -> Table:
    setting = ["model", "runtime", "weights", "threads", "batch"]
    table = _table("Forward pass, ms", *setting, "median", "p90", "min", "images/s", "× as fast")
    for result in results:
        m, ratio = result.measurement, speedup(results, result)
        times = (m.forward.median, m.forward.p90, m.forward.least)
        table.add_row(
            escape(result.model.label),
            result.runtime,
            m.precision,
            str(m.threads),
            str(m.batch),
            *(f"{ms:.2f}" for ms in times),
            f"{m.images_per_second:.1f}",
            "–" if ratio is None else f"{ratio:.2f}",
        )
    return table


def _around_table(results: Sequence[Result]) -> Table:
    setting = ["model", "runtime", "threads", "batch"]
    table = _table(
        "Image to detections, median ms; memory, what is opened, MB",
        *setting,
        "before",
        "forward",
        "NMS",
        "whole",
        "images/s",
        "detections",
        "memory",
        "file",
    )
    for result in results:
        m = result.measurement
        parts = (m.preprocess, m.forward, m.postprocess, m.whole)
        table.add_row(
            escape(result.model.label),
            result.runtime,
            str(m.threads),
            str(m.batch),
            *(f"{part.median:.2f}" for part in parts),
            f"{m.whole_images_per_second:.1f}",
            str(m.detections),
            _memory(result.memory),
            f"{result.file_bytes / 1e6:.1f}",
        )
    return table


def _memory(memory: Memory | None) -> str:
    """Megabytes of the process, and beside them those on an accelerator."""
    if memory is None:
        return "–"
    own = f"{memory.added / 1e6:.0f}"
    return own if memory.device is None else f"{own} + {memory.device / 1e6:.0f} there"


def _table(title: str, *columns: str) -> Table:
    """Words at the left, numbers at the right and never broken."""
    table = Table(title=title, title_justify="left")
    words = ("model", "runtime", "weights")
    for column in columns:
        if column in words:
            table.add_column(column, overflow="fold")
        else:
            table.add_column(column, justify="right", no_wrap=True)
    return table


def _relative(value: int | None, first: int | None, scale: float, unit: str) -> str:
    if value is None:
        return "–"
    text = f"{value / scale:.3g} {unit}"
    return text if first is None else f"{text} ({value / first:.0%})"
