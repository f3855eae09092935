"""The scales of batch norms, before and after sparsity training: a picture and a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from loguru import logger
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.table import Table
from torch import nn

from yolox.models import load_model
from yolox.tools import cli
from yolox.tools.flags.plot_bn import make_parser
from yolox.utils.download import resolve_weights
from yolox.utils.errors import UserError
from yolox.utils.files import replacing
from yolox.utils.model_utils import batch_norm_scales, part_of

Array = npt.NDArray[np.float64]

SMALL_SCALES = (0.01, 0.1)
QUANTILES = (0, 25, 50, 75, 100)
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")  # Okabe and Ito's, told by all eyes
_AXIS_FLOOR = 1e-4  # what a logarithmic axis shows of smaller values and zeros
_BINS = 60
_MAX_NAMED = 3  # batch norms of a part whose name fits
_DPI = 160


@dataclass(frozen=True, kw_only=True, eq=False)
class Scales:
    """A model's |γ|.

    Attributes:
        label: of the model.
        layers: (channels,) by batch norm, in module order; at least one.
    """

    label: str
    layers: dict[str, Array]

    @property
    def all(self) -> Array:
        """Of all layers, (channels,)."""
        return np.concatenate(list(self.layers.values()))

    def share_below(self, limit: float) -> float:
        """Fraction of all channels."""
        return float((self.all < limit).mean())


def read_scales(model: nn.Module, label: str) -> Scales:
    """The |γ| of a model's batch norms.

    Raises:
        UserError: there are none.
    """
    layers = batch_norm_scales(model)
    if not layers:
        raise UserError(
            f"{label} has no batch norm with a scale: give the checkpoint that was trained, not "
            "one that is fused for inference"
        )
    return Scales(label=label, layers=layers)


def table(models: Sequence[Scales]) -> Table:
    """Shares of small |γ| and quantiles, a row a model."""
    result = Table(title="|γ| of all batch norms")
    result.add_column("")
    columns = ["channels", "0 exactly", *(f"< {limit:g}" for limit in SMALL_SCALES)]
    for column in [*columns, *(f"{q} %" for q in QUANTILES)]:
        result.add_column(column, justify="right")
    for scales in models:
        values = scales.all
        shares = [(values == 0).mean(), *(scales.share_below(limit) for limit in SMALL_SCALES)]
        result.add_row(
            scales.label,
            f"{len(values):,}",
            *(f"{share:.1%}" for share in shares),
            *(f"{value:.4f}" for value in np.percentile(values, QUANTILES)),
        )
    return result


def save_picture(path: Path, models: Sequence[Scales]) -> None:
    """Draw histograms, sorted curves, and each model's quantiles by layer.

    Args:
        path: PNG file to write.
        models: one to as many as there are colours.
    """
    figure = Figure(figsize=(9.0, 8.4 + 2.6 * len(models)), layout="constrained")
    FigureCanvasAgg(figure)
    heights = [4.0, 4.0, *[2.6] * len(models)]
    diagrams = figure.subplots(len(heights), 1, height_ratios=heights, squeeze=False)
    draw(list(diagrams[:, 0]), models)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=_DPI)


def draw(diagrams: Sequence[Axes], models: Sequence[Scales]) -> None:
    """Draw into two diagrams of all models, and one of each behind them."""
    histogram, ranking, *strips = diagrams
    _draw_histogram(histogram, models)
    _draw_ranking(ranking, models)
    top = max(float(scales.all.max()) for scales in models) * 1.05 or 1.0
    for axes, scales, colour in zip(strips, models, _COLOURS, strict=False):
        _draw_layers(axes, scales, colour, top)


def _draw_histogram(axes: Axes, models: Sequence[Scales]) -> None:
    top = max(float(scales.all.max()) for scales in models) or 1.0
    edges = np.linspace(0, top, _BINS + 1)
    for scales, colour in zip(models, _COLOURS, strict=False):
        counts, _ = np.histogram(scales.all, edges)
        axes.stairs(counts, edges, fill=True, color=colour, alpha=0.22)
        label = _plain(f"{scales.label}: median {np.median(scales.all):.3g}")
        axes.stairs(counts, edges, color=colour, linewidth=1.8, label=label)
    axes.set_yscale("log")
    axes.set(xlim=(0, top), ylim=(0.7, None))
    _finish(axes, "How often: histogram of |γ|", "|γ|", "channels")
    axes.legend(fontsize=11, frameon=False)


def _draw_ranking(axes: Axes, models: Sequence[Scales]) -> None:
    for scales, colour in zip(models, _COLOURS, strict=False):
        values = np.sort(scales.all)
        share = 100 * np.arange(1, len(values) + 1) / len(values)
        small = ", ".join(f"{scales.share_below(limit):.1%} < {limit:g}" for limit in SMALL_SCALES)
        label = _plain(f"{scales.label}: {small}")
        axes.plot(share, values.clip(min=_AXIS_FLOOR), color=colour, linewidth=2, label=label)
    for limit in SMALL_SCALES:
        axes.axhline(limit, color="0.35", linewidth=1, linestyle=":")
    axes.set_yscale("log")
    axes.set(xlim=(0, 100), ylim=(_AXIS_FLOOR, None))
    _finish(
        axes,
        "How many: |γ| in order of size",
        "% of the channels",
        f"|γ|, at least {_AXIS_FLOOR:g}",
    )
    axes.legend(fontsize=11, frameon=False, loc="lower right")


def _draw_layers(axes: Axes, scales: Scales, colour: str, top: float) -> None:
    quantiles = np.array([np.percentile(v, QUANTILES) for v in scales.layers.values()]).T
    position = np.arange(len(scales.layers))
    style: dict[str, Any] = {"step": "mid", "color": colour, "linewidth": 0}
    axes.fill_between(position, quantiles[0], quantiles[4], alpha=0.2, **style)
    axes.fill_between(position, quantiles[1], quantiles[3], alpha=0.45, **style)
    axes.step(position, quantiles[2], where="mid", color="black", linewidth=1.4)
    axes.set(xlim=(-0.5, len(position) - 0.5), ylim=(0, top))
    parts = _first_of_parts(list(scales.layers))
    for first in parts.values():
        axes.axvline(first - 0.5, color="0.75", linewidth=0.8)
    title = f"Where: {_plain(scales.label)}, by layer: median, middle half, smallest to largest"
    _finish(axes, title, "batch norms in the order of the network", "|γ|")
    # Below the axis, where no scale is.
    axes.set_xticks(list(parts.values()), [_plain(part) for part in parts], fontsize=8, rotation=90)
    axes.grid(visible=False, axis="x")


def _first_of_parts(names: Sequence[str]) -> dict[str, int]:
    """Where each part of the network begins, those left out that are too short for a name."""
    parts: dict[str, list[int]] = {}
    for position, name in enumerate(names):
        parts.setdefault(part_of(name), []).append(position)
    return {part: found[0] for part, found in parts.items() if len(found) >= _MAX_NAMED}


def _finish(axes: Axes, title: str, x_label: str, y_label: str) -> None:
    axes.set_xlabel(x_label, fontsize=11)
    axes.set_ylabel(y_label, fontsize=11)
    axes.tick_params(labelsize=10)
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(title, fontsize=12, loc="left")


def _plain(text: str) -> str:
    """Text whose dollar signs start no formula."""
    return text.replace("$", r"\$")


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, load, print, draw."""
    args = make_parser().parse_args(argv)
    if len(args.ckpt) > len(_COLOURS):
        raise UserError(f"at most {len(_COLOURS)} checkpoints in a picture, got {len(args.ckpt)}")
    labels = args.labels or [f"{path.parent.name}/{path.stem}" for path in args.ckpt]
    if len(labels) != len(args.ckpt):
        raise UserError(f"{len(labels)} labels for {len(args.ckpt)} checkpoints")
    models = [
        read_scales(load_model(resolve_weights(path)).model, label)
        for path, label in zip(args.ckpt, labels, strict=True)
    ]
    cli.console().print(table(models))
    save_picture(args.output, models)
    logger.info(f"picture in {args.output}")


if __name__ == "__main__":
    cli.entry(main, make_parser)
