"""Pictures of curves and the confusion matrix: PNG, for a phone, in colours for all eyes.

Colours are those of Okabe and Ito, "Color Universal Design", 2008. Of many classes the telling ones
are named, the others drawn in grey or counted together.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from yolox.evaluators.confusion import Confusion
from yolox.evaluators.curves import RECALLS, SCORES, Curves, OperatingPoint
from yolox.utils.files import replacing
from yolox.utils.printable import printable

__all__ = [
    "MAX_NAMED_CLASSES",
    "group_rare_confusions",
    "save_confusion",
    "save_f1",
    "save_precision_recall",
]

MAX_NAMED_CLASSES = 30  # classes in a confusion matrix
_MAX_NAMED_LINES = 8  # named lines in a diagram: four best, four worst
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
_DASHES = ("-", "--")
_RIGHT, _WRONG = np.array([0.0, 0.45, 0.70]), np.array([0.84, 0.37, 0.0])
_DPI = 160


def save_precision_recall(
    path: Path, curves: Sequence[Curves], class_names: Sequence[str], subject: str = ""
) -> None:
    """Draw precision over recall, a diagram an IoU threshold, and write it to ``path``.

    Args:
        path: PNG file to write.
        curves: at least one.
        class_names: by class index.
        subject: model and data, for the head of the picture.
    """
    figure, rows = _figure(len(curves), subject)
    classes = np.flatnonzero(curves[0].objects).tolist()
    # By the first diagram's AP, so that a class has the same colour in all.
    classes.sort(key=lambda c: curves[0].precision_at_recall[c].mean(), reverse=True)
    for axes, curve in zip(rows, curves, strict=True):
        labels = {c: f"{curve.ap(c):.3f}  {_short(class_names[c])}" for c in classes}
        _draw_classes(axes, RECALLS, curve.precision_at_recall, classes, labels)
        if classes:
            mean = curve.precision_at_recall[classes].mean(axis=0)
            label = f"{mean.mean():.3f}  mean of {len(classes)}"
            axes.plot(RECALLS, mean, color="black", linewidth=2.5, label=label)
        _finish(axes, f"AP at IoU {curve.iou:g}", "recall", "precision")
    _write(figure, path)


def save_f1(path: Path, curves: Curves, class_names: Sequence[str], subject: str = "") -> None:
    """Draw F1 over the least score, with the best scores marked, and write it to ``path``.

    Args:
        path: PNG file to write.
        curves: at one IoU threshold.
        class_names: by class index.
        subject: model and data, for the head of the picture.
    """
    figure, (axes,) = _figure(1, subject)
    classes = np.flatnonzero(curves.objects).tolist()
    points = {c: curves.best(c) for c in classes}
    labels = {c: f"{_at(point)}  {_short(class_names[c])}" for c, point in points.items()}
    classes.sort(key=lambda c: curves.f1[c].max(), reverse=True)
    _draw_classes(axes, SCORES, curves.f1, classes, labels)
    if classes:
        overall = curves.best_overall()
        label = f"{_at(overall)}  mean of {len(classes)}"
        mean = curves.f1[classes].mean(axis=0)
        axes.plot(SCORES, mean, color="black", linewidth=2.5, label=label)
        if overall:
            axes.plot(overall.score, overall.f1, "o", color="black", markersize=9)
            axes.axvline(overall.score, color="black", linewidth=0.8, linestyle=":")
    _finish(axes, f"best F1 at IoU {curves.iou:g}, and its score", "least score", "F1")
    _write(figure, path)


def save_confusion(
    path: Path, confusion: Confusion, class_names: Sequence[str], subject: str = ""
) -> None:
    """Draw the confusion matrix, hits in blue, errors in orange, and write it to ``path``.

    The darker a cell, the greater its share of the annotated objects of its row; in the last row,
    its share of the detections of its column.

    Args:
        path: PNG file to write.
        confusion: the counts.
        class_names: by class index; beyond ``MAX_NAMED_CLASSES`` see :func:`group_rare_confusions`.
        subject: model and data, for the head of the picture.
    """
    counts, names = group_rare_confusions(confusion.counts, class_names)
    n = len(counts)
    totals = np.concatenate([counts.sum(axis=1, keepdims=True)[:-1].repeat(n, 1), [counts.sum(0)]])
    share = counts / totals.clip(min=1)
    # Square roots: a few per cent of confusions have to show beside hits of ninety.
    strength = np.sqrt(share)[..., None]
    hit = np.eye(n, dtype=bool)[..., None]
    colours = 1 - strength * (1 - np.where(hit, _RIGHT, _WRONG))
    size = 3.0 + (0.85 if n <= 8 else 0.42) * n
    figure = Figure(figsize=(size, size), layout="constrained")
    FigureCanvasAgg(figure)
    _head(figure, subject)
    axes = figure.add_subplot()
    axes.imshow(colours, interpolation="nearest")
    fontsize = 12 if n <= 8 else 9
    for (row, column), count in np.ndenumerate(counts):
        if count:
            text = _count(int(count), n) + (f"\n{share[row, column]:.0%}" if n <= 8 else "")
            colour = "white" if strength[row, column, 0] > 0.75 else "black"
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=fontsize)
    labels = [_short(name) for name in names]
    upright = 90 if n > 8 or max(map(len, labels)) > 9 else 0
    axes.set_xticks(range(n), [*labels, "missed"], fontsize=fontsize, rotation=upright)
    axes.set_yticks(
        range(n), [*labels, "nothing\nthere" if n <= 8 else "nothing"], fontsize=fontsize
    )
    axes.set_xlabel("predicted", fontsize=13)
    axes.set_ylabel("annotated", fontsize=13)
    for edge in (axes.axhline, axes.axvline):
        edge(n - 1.5, color="black", linewidth=1)
    limits = f"score ≥ {confusion.score:g}, IoU ≥ {confusion.iou:g}"
    axes.set_title(
        f"{limits}\nshade: share of the row's objects; last row: of the column's detections",
        fontsize=12 if n > 8 else 10,
    )
    _write(figure, path)


def group_rare_confusions(
    counts: npt.NDArray[np.int64], class_names: Sequence[str]
) -> tuple[npt.NDArray[np.int64], list[str]]:
    """A matrix of at most ``MAX_NAMED_CLASSES`` classes: those least confused are counted as one.

    What the grouped classes have among themselves, hits and confusions, is in the group's own cell.

    Args:
        counts: (classes + 1, classes + 1), as in :class:`Confusion`.
        class_names: by class index.

    Returns:
        The matrix, the group in the last row and column but one, and the names.
    """
    n = len(class_names)
    if n <= MAX_NAMED_CLASSES:
        return counts, list(class_names)
    between = counts[:n, :n] * ~np.eye(n, dtype=bool)
    confused = between.sum(axis=0) + between.sum(axis=1)
    order = np.lexsort((-counts[:n].sum(axis=1), -confused))
    named = np.sort(order[: MAX_NAMED_CLASSES - 1])
    place = np.full(n + 1, len(named))
    place[named] = np.arange(len(named))
    place[n] = len(named) + 1
    table = np.zeros((len(named) + 2, len(named) + 2), np.int64)
    np.add.at(table, (place[:, None], place[None, :]), counts)
    return table, [*(class_names[c] for c in named), f"{n - len(named)} others"]


def _figure(rows: int, subject: str) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(6.4, 7.2 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    _head(figure, subject)
    return figure, list(figure.subplots(rows, 1, squeeze=False)[:, 0])


def _head(figure: Figure, subject: str) -> None:
    """Write whose figures they are above all diagrams, in as many lines as that takes."""
    if subject:
        width = int(12 * figure.get_figwidth())  # characters
        lines = textwrap.wrap(printable(subject), width)
        figure.suptitle("\n".join(lines).replace("$", r"\$"), fontsize=11)


def _draw_classes(
    axes: Axes,
    x: npt.NDArray[np.float64],
    y: npt.NDArray[np.float64],
    order: list[int],
    labels: dict[int, str],
) -> None:
    """A line a class, the best one first; of many, only the best and the worst in colour."""
    named = order
    if len(order) > _MAX_NAMED_LINES:
        named = order[: _MAX_NAMED_LINES // 2] + order[-_MAX_NAMED_LINES // 2 :]
        for number, c in enumerate(order[_MAX_NAMED_LINES // 2 : -_MAX_NAMED_LINES // 2]):
            label = f"{len(order) - len(named)} more between" if not number else None
            axes.plot(x, y[c], color="0.8", linewidth=0.8, label=label)
    for number, c in enumerate(named):
        style: dict[str, Any] = {
            "color": _COLOURS[number % len(_COLOURS)],
            "linestyle": _DASHES[number // len(_COLOURS)],
        }
        axes.plot(x, y[c], linewidth=1.8, label=labels[c], **style)


def _finish(axes: Axes, title: str, x_label: str, y_label: str) -> None:
    axes.set(xlim=(0, 1), ylim=(0, 1.01))
    axes.set_xlabel(x_label, fontsize=13)
    axes.set_ylabel(y_label, fontsize=13)
    axes.tick_params(labelsize=12)
    axes.grid(color="0.9")
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(title, fontsize=14)
    labels = axes.get_legend_handles_labels()[1]
    if labels:
        axes.legend(
            fontsize=12,
            loc="upper center",
            bbox_to_anchor=(0.5, -0.11),
            ncols=2 if max(map(len, labels)) <= 26 else 1,
            frameon=False,
        )


def _at(point: OperatingPoint | None) -> str:
    return f"{point.f1:.3f} at {point.score:.3f}" if point else "0.000"


def _short(name: str) -> str:
    """A name that fits, its dollar signs kept from starting a formula."""
    name = printable(name)
    text = name if len(name) <= 18 else f"{name[:17]}…"
    return text.replace("$", r"\$")


def _count(count: int, n: int) -> str:
    """A count that fits its cell."""
    if n <= 8 or count < 1000:
        return f"{count:,}"
    return f"{count / 1000:.1f}k" if count < 10_000 else f"{count / 1000:.0f}k"


def _write(figure: Figure, path: Path) -> None:
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=_DPI)
