"""What a prune removed, layer by layer and in total."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table
from torch import Tensor, nn

from yolox.pruning.judge import Judgement
from yolox.pruning.latency.record import LatencyRecord
from yolox.utils.documents import json_text
from yolox.utils.model_utils import count_macs, count_params
from yolox.utils.timing import compared

BUDGET_TOLERANCE = 0.01  # of the whole, by which a budget may be missed without a word


@dataclass(frozen=True, kw_only=True)
class LayerChange:
    """A convolution before and after: output channels, parameters, MACs."""

    name: str
    channels: tuple[int, int]
    params: tuple[int, int]
    macs: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class PruneReport:
    """Counted from the two models' tensors, before and after.

    Attributes:
        layers: every convolution and linear layer, in module order.
        params, macs: totals; MACs are multiply-accumulates (FLOPs / 2) at `input_shape`.
        input_shape: (1, 3, H, W) of the example input.
        difference: largest relative output difference to the masked original.
    """

    layers: tuple[LayerChange, ...]
    params: tuple[int, int]
    macs: tuple[int, int]
    input_shape: tuple[int, ...]
    difference: float

    @property
    def channels(self) -> tuple[int, int]:
        """Output channels of all layers together."""
        before = sum(layer.channels[0] for layer in self.layers)
        return before, sum(layer.channels[1] for layer in self.layers)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON and for the checkpoint's provenance."""
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(self).items()
            if key != "layers"
        }

    def table(self) -> Table:
        """Layers that changed, and the totals."""
        table = Table(title="Pruned layers", show_footer=True)
        size = "×".join(map(str, self.input_shape[2:]))
        table.add_column("layer", footer="total")
        for title, (before, after) in (
            ("channels", self.channels),
            ("params", self.params),
            (f"MACs at {size}", self.macs),
        ):
            table.add_column(title, footer=_change(before, after), justify="right")
        for layer in self.layers:
            if layer.params[0] != layer.params[1]:
                table.add_row(
                    layer.name,
                    _change(*layer.channels),
                    _change(*layer.params),
                    _change(*layer.macs),
                )
        return table


@dataclass(frozen=True, kw_only=True)
class Stage:
    """The model at one point of a prune; AP or loss is None where it was not measured."""

    label: str
    loss: float | None = None
    ap50_95: float | None = None
    ap50: float | None = None


@dataclass(frozen=True, kw_only=True)
class PruneRecord:
    """A prune as it is told beside the checkpoint, in JSON and Markdown.

    Attributes:
        report: what went.
        config: the plan's config: criterion, scope, budget, seed and so on.
        command: the line that does it again.
        source, output: files.
        file_bytes, latency_ms: before and after; latency is that of `latency`, or else PyTorch's on
            this machine, float32.
        machine: where that was.
        stages: before, after the bare cut, after compensation.
        hint: lines of the threshold hint.
        date: ISO 8601.
        latency: of a runtime, where one was named.
        judgement: which layers kept their refit, where images judged that.
    """

    report: PruneReport
    config: Mapping[str, Any]
    command: str
    source: str
    output: str
    file_bytes: tuple[int, int]
    latency_ms: tuple[float, float] | None
    machine: str
    stages: tuple[Stage, ...]
    hint: tuple[str, ...]
    date: str
    latency: LatencyRecord | None = None
    judgement: Judgement | None = None

    @property
    def path(self) -> Path:
        """The pruned checkpoint."""
        return Path(self.output)

    @property
    def slower(self) -> str:
        """A sentence where the pruned model takes longer than its parent; empty otherwise."""
        if self.latency_ms is None or self.latency_ms[1] <= self.latency_ms[0]:
            return ""
        old, new = self.latency_ms
        return (
            f"the pruned model is slower than its parent in {self.runtime}: {new:.2f} ms instead "
            f"of {old:.2f}"
        )

    @property
    def runtime(self) -> str:
        """What the latency was measured in."""
        return self.latency.setting if self.latency else "PyTorch"

    @property
    def missed(self) -> str:
        """A sentence where the budget was met by more than a hundredth; empty otherwise."""
        kind, _, wanted = str(self.config.get("target") or "").partition("=")
        if not kind or kind == "latency":
            return ""
        before, after = self.report.params if kind == "params" else self.report.macs
        if abs(after / before - float(wanted)) <= BUDGET_TOLERANCE:
            return ""
        return (
            f"{kind} {after / before:.3f} is the nearest to {wanted} that these layers reach with "
            f"round_to {self.config.get('round_to')}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self) | {"config": dict(self.config)}

    def to_markdown(self) -> str:
        """The same for people."""
        report = self.report
        size = "×".join(map(str, report.input_shape[2:]))
        rows = [
            ("channels", *_pair(report.channels)),
            ("params", *_pair(report.params)),
            (f"MACs at {size}", *_pair(report.macs)),
            ("file, bytes", *_pair(self.file_bytes)),
        ]
        if self.latency_ms:
            old, new = self.latency_ms
            times = (f"{old:.2f}", f"{new:.2f}", compared(old, new))
            rows.append((f"latency in {self.runtime}, ms", *times))
        text = [
            f"# {self.output}",
            "",
            *([f"{_sentence(self.slower)}", ""] if self.slower else []),
            f"Pruned from {self.source}, {self.date}. {self.machine}.",
            f"Pruned and masked outputs differ by {report.difference:.0e} (relative, float64).",
            "",
            *_markdown_table(("", "before", "after", "change"), rows),
        ]
        if self.latency and self.latency.target:
            tries = ("model", "budget, ms", "predicted, ms", "measured, ms", "parent, ms", "")
            text += ["", _sentence(self.latency.outcome)]
            text += ["", *_markdown_table(tries, self.latency.rows())]
        if self.stages:
            columns = ("", "loss", "AP50-95", "AP50")
            figures = [
                (s.label, *(_figure(v) for v in (s.loss, s.ap50_95, s.ap50))) for s in self.stages
            ]
            text += ["", *_markdown_table(columns, figures)]
        if self.judgement:
            text += ["", _sentence(self.judgement.sentence())]
            if self.judgement.stays and self.judgement.dropped:
                text += ["", f"Not refitted: {', '.join(self.judgement.dropped)}."]
        layers = [
            (layer.name, _change(*layer.channels), _change(*layer.params), _change(*layer.macs))
            for layer in report.layers
            if layer.params[0] != layer.params[1]
        ]
        text += ["", "## How", "", "```", self.command, "```", ""]
        text += [*self.hint, ""] if self.hint else []
        text += _markdown_table(("setting", "value"), [(k, str(v)) for k, v in self.config.items()])
        text += ["", "## Layers", ""]
        text += _markdown_table(("layer", "channels", "params", "MACs"), layers)
        return "\n".join(text) + "\n"

    def to_json(self) -> str:
        """The record as ``STEM.report.json`` holds it."""
        return json_text(self.to_dict(), indent=1) + "\n"


def stages_table(stages: Sequence[Stage]) -> Table:
    """Loss and AP at each point of a prune."""
    table = Table(title="Without training")
    table.add_column("")
    columns = {
        "loss": [stage.loss for stage in stages],
        "AP50-95": [stage.ap50_95 for stage in stages],
        "AP50": [stage.ap50 for stage in stages],
    }
    known = {name: values for name, values in columns.items() if any(v is not None for v in values)}
    for name in known:
        table.add_column(name, justify="right")
    for stage, *figures in zip(stages, *known.values(), strict=True):
        table.add_row(stage.label, *map(_figure, figures))
    return table


def _markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [columns, ["---"] * len(columns), *rows]
    return ["| " + " | ".join(cells) + " |" for cells in lines]


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _pair(values: tuple[int, int]) -> tuple[str, str, str]:
    before, after = values
    return f"{before:,}", f"{after:,}", _percent(before, after)


def _change(before: int, after: int) -> str:
    if before == after:
        return f"{before:,}"
    return f"{before:,} → {after:,} ({_percent(before, after)})"


def _percent(before: int, after: int) -> str:
    return f"{after / before - 1:+.0%}".replace("-", "−")


def report_change(
    before: nn.Module, after: nn.Module, example_input: Tensor, difference: float
) -> PruneReport:
    """Count both models, layer by layer."""
    macs = [count_macs(model, example_input) for model in (before, after)]
    present = dict(after.named_modules())
    layers = []
    for name, layer in before.named_modules():
        if isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)):
            small: Any = present.get(name)  # None: its block was emptied
            layers.append(
                LayerChange(
                    name=name,
                    channels=(len(layer.weight), 0 if small is None else len(small.weight)),
                    params=(count_params(layer), 0 if small is None else count_params(small)),
                    macs=(macs[0].get(name, 0), macs[1].get(name, 0)),
                )
            )
    return PruneReport(
        layers=tuple(layers),
        params=(count_params(before), count_params(after)),
        macs=(macs[0][""], macs[1][""]),
        input_shape=tuple(example_input.shape),
        difference=difference,
    )


@dataclass(frozen=True, kw_only=True)
class ModelFigures:
    """One row of the before / after table; AP is None where it was not evaluated."""

    label: str
    params: int
    macs: int
    file_bytes: int
    latency_ms: float
    ap50_95: float | None = None
    ap50: float | None = None


def comparison_table(rows: Sequence[ModelFigures], title: str = "Before and after") -> Table:
    """Models side by side, sizes and times relative to the first."""
    first = rows[0]
    table = Table(title=title)
    columns = ("model", "params", "MACs", "file", "latency", "AP50-95", "AP50")
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", no_wrap=True)
    for row in rows:
        table.add_row(
            row.label,
            f"{row.params / 1e6:.2f} M ({row.params / first.params:.0%})",
            f"{row.macs / 1e9:.3f} G ({row.macs / first.macs:.0%})",
            f"{row.file_bytes / 1e6:.1f} MB",
            _beside(row.latency_ms, first.latency_ms, first=row is first),
            "–" if row.ap50_95 is None else f"{row.ap50_95:.3f}",
            "–" if row.ap50 is None else f"{row.ap50:.3f}",
        )
    return table


def _beside(ms: float, first_ms: float, *, first: bool) -> str:
    """A time, and that of another model than the first measured by it."""
    return f"{ms:.1f} ms" + ("" if first else f" ({compared(first_ms, ms)})")
