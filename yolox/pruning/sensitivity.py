"""What each layer costs when it alone is pruned: measured, logged, tabulated, drawn.

One layer after the other loses its least important slots while all others stay whole, and the model
is measured each time (the sensitivity analysis of Li et al. 2017, arXiv:1608.08710, section 3.2).
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import statistics
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from rich.table import Table
from torch import Tensor, nn

from yolox.pruning.balance import bundles, with_partners
from yolox.pruning.config import PruningError
from yolox.pruning.groups import Group
from yolox.pruning.plan import PruningPlan
from yolox.pruning.surgery import mask_plan
from yolox.utils.documents import json_text, parse_json
from yolox.utils.files import is_full, replacing
from yolox.utils.model_utils import part_of
from yolox.utils.schema import integer, maybe, number, record, require, text

LOG_FORMAT = "yolox-sensitivity"
ROUNDING_TOLERANCE = 1e-9  # for differences of decimal fractions


@dataclass(frozen=True, kw_only=True)
class SensitivityPoint:
    """The model measured with one layer pruned.

    Attributes:
        layer: the group's name, its first layer's.
        coupled: layers that make these channels, the named one included.
        size: slots before.
        ratio: the fraction asked for, in (0, 1).
        removed: slots that were silenced.
        value: what the measure said, in its own unit.
    """

    layer: str
    coupled: int
    size: int
    ratio: float
    removed: int
    value: float


def slots_to_remove(size: int, ratio: float) -> int:
    """The nearest number of slots to a ratio that takes one at least and leaves one at least."""
    return min(max(round(ratio * size), 1), size - 1)


def pending(
    groups: Sequence[Group], ratios: Sequence[float], known: Collection[tuple[str, float]] = ()
) -> list[tuple[Group, float]]:
    """What is left to measure: every group of at least two slots at every rising ratio.

    Groups that have to lose equally many slots are measured together, under the first one's name.

    Args:
        groups: the layers of interest.
        ratios: in (0, 1); one given twice counts once.
        known: (layer, ratio) pairs to leave out.

    Raises:
        PruningError: a ratio out of range.
    """
    if odd := [ratio for ratio in ratios if not 0 < ratio < 1]:
        raise PruningError(f"ratios must be between 0 and 1, exclusive: {odd}")
    return [
        (group, ratio)
        for group in (groups[numbers[0]] for numbers in bundles(groups))
        if group.size > 1
        for ratio in sorted(set(ratios))
        if (group.name, ratio) not in known
    ]


def measure_sensitivity(
    model: nn.Module,
    groups: Sequence[Group],
    todo: Sequence[tuple[Group, float]],
    scores: Mapping[str, Tensor],
    measure: Callable[[nn.Module], float],
) -> Iterator[SensitivityPoint]:
    """Measure the model with one group pruned at a time; each point as soon as it is known.

    The channels are silenced, which computes what the cut model does, and nothing is compensated.

    Args:
        model: not touched.
        groups: all of the model's, from `trace_groups`.
        todo: which of them at which ratios, from `pending`.
        scores: (slots,) by group name; the lowest go first.
        measure: takes a model of its own, which it may move or change.
    """
    sizes = {group.name: group.size for group in groups}
    for group, ratio in todo:
        count = slots_to_remove(group.size, ratio)
        removed = {}
        for name in with_partners(groups, {group.name}):
            # Sorted in double and stably, as allocation does: a prune takes the same slots.
            order = scores[name].double().argsort(stable=True)
            removed[name] = tuple(sorted(order[:count].tolist()))
        masked = mask_plan(model, groups, PruningPlan(removed=removed, sizes=sizes))
        yield SensitivityPoint(
            layer=group.name,
            coupled=len(group.producers),
            size=group.size,
            ratio=ratio,
            removed=count,
            value=float(measure(masked)),
        )


def suggest_ratios(
    points: Sequence[SensitivityPoint], base: float, tolerance: float, higher_is_better: bool
) -> dict[str, float]:
    """The largest measured ratio a layer up to which none costs more than the tolerance.

    Args:
        points: in any order.
        base: the whole model's value.
        tolerance: cost that is accepted, in the unit of the values.
        higher_is_better: whether a fall is the cost (AP) or a rise (loss).

    Returns:
        A ratio by layer, in the order of the points; 0.0 where the smallest costs too much.
    """
    suggested = {point.layer: 0.0 for point in points}
    closed = set()
    for point in sorted(points, key=lambda point: point.ratio):
        cost = base - point.value if higher_is_better else point.value - base
        # A value that is not a number costs too much, too.
        if not cost <= tolerance + ROUNDING_TOLERANCE:
            closed.add(point.layer)
        elif point.layer not in closed:
            suggested[point.layer] = point.ratio
    return suggested


def prune_ratios(groups: Sequence[Group], suggested: Mapping[str, float]) -> dict[str, float]:
    """Suggested ratios as `PruneConfig.layer_sparsity`: by layer name, zeros left out.

    A layer that makes channels of several groups is named by the lowest of their ratios, since a
    name speaks of all of them; groups that nothing is suggested for stay whole.
    """
    first = {
        groups[n].name: groups[numbers[0]].name for numbers in bundles(groups) for n in numbers
    }
    ratios = {}
    for root in dict.fromkeys(group.producers[0].name for group in groups):
        ratio = min(
            suggested.get(first[group.name], 0.0)
            for group in groups
            if any(member.name == root for member in group.producers)
        )
        if ratio > 0:
            ratios[root] = ratio
    return ratios


class SensitivityLog:
    """Measurements in a file, a JSON line each, so that a killed run goes on where it was.

    The first line is a header that says what decides the values, the second holds the whole
    model's value, each further one a point. A last line that was not written to its end is dropped.
    """

    def __init__(self, path: Path, header: Mapping[str, Any]) -> None:
        """Read the file, or begin it.

        Args:
            path: its folder is made if need be.
            header: plain values; those of a file that is there must be the same.

        Raises:
            PruningError: the file has another header or is no log, or cannot be written.
        """
        self.path = path
        self.base: float | None = None
        self.points: list[SensitivityPoint] = []
        # As JSON will give it back: tuples become lists.
        own = json.loads(json.dumps({"format": LOG_FORMAT, "version": 1, **header}))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            content = path.read_bytes() if path.exists() else b""
            whole = content[: content.rfind(b"\n") + 1]
            lines = whole.splitlines()
            if lines:
                self._check(lines[0], own)
                for number, line in enumerate(lines[1:], 2):
                    self._take(number, line)
            if whole != content:
                with path.open("r+b") as file:
                    file.truncate(len(whole))
        except OSError as error:
            raise PruningError(
                f"cannot write into {path.parent} ({error.strerror}): choose another `folder`"
            ) from error
        if not lines:
            self._append(own)

    def known(self) -> set[tuple[str, float]]:
        """(layer, ratio) of every point."""
        return {(point.layer, point.ratio) for point in self.points}

    def set_base(self, value: float) -> None:
        """Write the whole model's value."""
        self.base = value
        self._append({"base": value})

    def add(self, point: SensitivityPoint) -> None:
        """Write a point."""
        self.points.append(point)
        self._append(dataclasses.asdict(point))

    def _append(self, values: Mapping[str, Any]) -> None:
        try:
            with self.path.open("a", encoding="utf-8") as file:  # closed, so flushed, line by line
                file.write(json_text(values) + "\n")
        except OSError as error:
            if self.path.exists() and not self.path.stat().st_size:
                self.path.unlink()
            room = "make room, and " if is_full(error) else ""
            raise PruningError(
                f"cannot write to {self.path} ({error.strerror}): {room}the same command continues "
                "after what was measured"
            ) from error

    def _check(self, line: bytes, own: Mapping[str, Any]) -> None:
        try:
            there = parse_json(line)
            ours = there["format"] == LOG_FORMAT
        except (ValueError, TypeError, KeyError):
            ours = False
        if not ours:
            raise PruningError(f"{self.path} is no sensitivity log: choose another `folder`")
        differences = [
            f"{key} {_short(there.get(key))} there, {_short(own.get(key))} now"
            for key in (own | there)
            if there.get(key) != own.get(key)
        ]
        if differences:
            raise PruningError(
                f"{self.path} holds measurements of another kind: {'; '.join(differences)}. Choose "
                "another `folder`, or delete that file"
            )

    def _take(self, number: int, line: bytes) -> None:
        try:
            values = parse_json(line)
            if "base" in values:
                require(values, _BASE, "it is odd")
                self.base = float(values["base"])
            else:
                require(values, _POINT, "it is odd")
                value = math.nan if values["value"] is None else values["value"]
                self.points.append(SensitivityPoint(**{**values, "value": value}))
        except (ValueError, TypeError) as error:
            raise PruningError(
                f"{self.path}, line {number}, is no measurement ({error}): delete that line to "
                "have it measured again"
            ) from error


_COUNT = integer(0, 1_000_000)
_BASE = record({"base": number()})
_POINT = record(
    {
        "layer": text(),
        "ratio": number(0, 1),
        "value": maybe(number()),  # a loss may be infinite, or none
        **dict.fromkeys(("coupled", "size", "removed"), _COUNT),
    }
)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:12]}…"


def _cost(change: float, sign: int) -> float:
    """What a change costs, 0 at least; what is no number costs without end."""
    return math.inf if math.isnan(change) else max(sign * change, 0.0)


def _signed(change: float) -> str:
    if not math.isfinite(change):
        return "∞"
    text = f"{change:+.3f}"
    return "0.000" if text in ("+0.000", "-0.000") else text


@dataclass(frozen=True, kw_only=True)
class SensitivityResult:
    """All points of a model, to be looked at.

    Attributes:
        points: layers in module order, as the picture shows them.
        base: the whole model's value.
        metric: what the values are, for titles.
        higher_is_better: whether a fall of the value is the cost, or a rise.
    """

    points: tuple[SensitivityPoint, ...]
    base: float
    metric: str
    higher_is_better: bool

    def ratios(self) -> list[float]:
        """All measured ratios, rising."""
        return sorted({point.ratio for point in self.points})

    def changes(self) -> dict[str, dict[float, float]]:
        """Value less the whole model's, by layer and ratio."""
        changes: dict[str, dict[float, float]] = {}
        for point in self.points:
            changes.setdefault(point.layer, {})[point.ratio] = point.value - self.base
        return changes

    def costs(self) -> dict[str, float]:
        """What a layer costs on average over its ratios, the most sensitive layer first."""
        sign = -1 if self.higher_is_better else 1
        means = {
            layer: sign * statistics.fmean(row.values()) for layer, row in self.changes().items()
        }
        means = {layer: mean if math.isfinite(mean) else math.inf for layer, mean in means.items()}
        return dict(sorted(means.items(), key=lambda item: -item[1]))

    def table(self, suggested: Mapping[str, float]) -> Table:
        """A row a layer, the most sensitive first: the change at each ratio, the suggestion."""
        ratios, changes = self.ratios(), self.changes()
        first = {point.layer: point for point in self.points}
        title = f"Change of {self.metric} with one layer pruned (whole: {self.base:.3f})"
        table = Table(title=title)
        table.add_column("layer", no_wrap=True)
        for column in ("channels", *(f"{ratio:g}" for ratio in ratios), "suggested"):
            table.add_column(column, justify="right")
        for layer in self.costs():
            point, row = first[layer], changes[layer]
            coupled = f" × {point.coupled}" if point.coupled > 1 else ""
            figures = (_signed(row[ratio]) if ratio in row else "" for ratio in ratios)
            ratio = suggested.get(layer, 0.0)
            table.add_row(layer, f"{point.size}{coupled}", *figures, f"{ratio:g}" if ratio else "–")
        return table

    def save_picture(self, path: Path) -> None:
        """Draw layers × ratios as a PNG, the darker a cell the more that costs.

        Colours follow the square root of the cost, so that the small costs that decide a ratio can
        be told apart beside a layer that cannot be touched.
        """
        ratios, changes = self.ratios(), self.changes()
        sign = -1 if self.higher_is_better else 1
        cells = [
            [_cost(row[ratio], sign) if ratio in row else math.nan for ratio in ratios]
            for row in changes.values()
        ]
        top = max((cost for row in cells for cost in row if cost < math.inf), default=0.0)
        figure = Figure(
            figsize=(5 + 0.6 * len(ratios), 1.6 + 0.19 * len(cells)), layout="constrained"
        )
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        highest = max(top, ROUNDING_TOLERANCE)
        norm = PowerNorm(0.5, vmin=0, vmax=highest, clip=True)
        image = axes.imshow(cells, aspect="auto", cmap="YlOrRd", norm=norm, interpolation="nearest")
        axes.set_xticks(range(len(ratios)), [f"{ratio:g}" for ratio in ratios])
        axes.set_yticks(range(len(changes)), list(changes), fontsize=7)
        axes.set_xlabel("fraction of the layer's channels removed")
        for y, row in enumerate(changes.values()):
            for x, ratio in enumerate(ratios):
                if ratio in row:
                    dark = norm(min(_cost(row[ratio], sign), highest)) > 0.6
                    colour = "white" if dark else "black"
                    text = _signed(row[ratio])
                    axes.text(x, y, text, ha="center", va="center", fontsize=6, color=colour)
        mark_parts(axes, list(changes))
        word = "loss of" if self.higher_is_better else "rise of"
        # One beyond the largest value would be drawn over it.
        ticks = [tick for tick in MaxNLocator(6).tick_values(0, highest) if tick <= highest]
        figure.colorbar(image, ax=axes, label=f"{word} {self.metric}", ticks=ticks)
        figure.suptitle(
            f"One layer pruned alone; whole model: {self.metric} {self.base:.3f}", fontsize=9
        )
        with replacing(path, PruningError) as temporary:
            figure.savefig(temporary, format="png", dpi=150, bbox_inches="tight")


def mark_parts(axes: Axes, layers: Sequence[str]) -> None:
    """Lines between the parts of the network that follow one another, and their names."""
    first = 0
    for part, members in itertools.groupby(layers, key=part_of):
        last = first + len(list(members)) - 1
        if first:
            axes.axhline(first - 0.5, color="black", linewidth=0.8)
        axes.text(
            1.01, (first + last) / 2, part, fontsize=7, va="center",
            transform=axes.get_yaxis_transform(),
        )  # fmt: skip
        first = last + 1
