"""What a prune removed, layer by layer and in total."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table
from torch import Tensor, nn

from yolox.utils.model_utils import count_macs, count_params


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


def _change(before: int, after: int) -> str:
    if before == after:
        return f"{before:,}"
    return f"{before:,} → {after:,} (−{1 - after / before:.0%})"


def report_change(
    before: nn.Module, after: nn.Module, example_input: Tensor, difference: float
) -> PruneReport:
    """Count both models, layer by layer."""
    macs = [count_macs(model, example_input) for model in (before, after)]
    layers = []
    for name, layer in before.named_modules():
        if isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)):
            small = after.get_submodule(name)
            layers.append(
                LayerChange(
                    name=name,
                    channels=(len(layer.weight), len(small.get_parameter("weight"))),
                    params=(count_params(layer), count_params(small)),
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
            f"{row.latency_ms:.1f} ms ({first.latency_ms / row.latency_ms:.2f} ×)",
            "–" if row.ap50_95 is None else f"{row.ap50_95:.3f}",
            "–" if row.ap50 is None else f"{row.ap50:.3f}",
        )
    return table
