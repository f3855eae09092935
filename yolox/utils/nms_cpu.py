"""Which boxes greedy non-maximum suppression keeps, on a CPU.

Where boxes are spread, only pairs that meet along x are looked at. They are found by sorting, of
all classes at once. Where they are dense, most pairs meet and few boxes are kept: all pairs of a
block are looked at, and what it keeps is held against all the rest, class by class side by side.
Both compute the same float operations.

Shape suffixes: N boxes; C classes; M boxes of a class, as many for each: those that are not there
are NaN, which overlaps nothing; B boxes of a block; K kept boxes of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["kept_on_cpu", "ranked"]

Floats = npt.NDArray[Any]
Numbers = npt.NDArray[np.intp]
Flags = npt.NDArray[np.bool_]

FIRST_BLOCK = 384  # boxes settled at once by pairs, twice as many each time
DENSE_BLOCK, MOST_DENSE = 64, 256  # of each class, by all pairs; at first, and later
_MOST_PADDED = 2.0  # times the boxes: how much of C × M may be empty
PAIRS = 1 << 15  # looked at at once: they stay in the cache
_LATER = np.tri(MOST_DENSE, dtype=np.bool_).T & ~np.eye(MOST_DENSE, dtype=np.bool_)


def kept_on_cpu(boxes_N4: Floats, classes_N: Numbers, iou_threshold: float) -> Numbers:
    """Which boxes are kept, rising, for boxes by falling score.

    Args:
        boxes_N4: xyxy, of any float.
        classes_N: from 0 on, below 2**31.
        iou_threshold: in [0, 1].
    """
    # Sides are exponentials. Where an area overflows, a box counts as overlapping nothing.
    with np.errstate(over="ignore", invalid="ignore"):
        if len(boxes_N4) <= FIRST_BLOCK:
            return kept_by_pairs(boxes_N4, classes_N, iou_threshold)
        kept, left = kept_by_dense_blocks(boxes_N4, classes_N, iou_threshold)
        if len(left):
            others = kept_by_pairs(boxes_N4[left], classes_N[left], iou_threshold)
            kept.append(left[others])
    return np.sort(np.concatenate(kept))


def ranked(scores_N: Floats) -> Numbers:
    """The order of falling scores, the lower index first among equal ones, NaN last."""
    falling = 0 - scores_N
    if falling.dtype != np.float32 or np.isnan(falling).any():
        return np.argsort(falling, kind="stable")
    return _stable_order(_bits(falling))


def _stable_order(values_N: npt.NDArray[np.integer[Any]]) -> Numbers:
    """As a stable argsort of whole numbers of 32 bits, and some times as fast."""
    numbered = (values_N.astype(np.int64) << 32) + np.arange(len(values_N))
    numbered.sort()
    return numbered & 0xFFFFFFFF


# ---------------------------------------------------------------------------------------- by pairs


def kept_by_pairs(boxes_N4: Floats, classes_N: Numbers, iou_threshold: float) -> Numbers:
    scene = _Scene(boxes_N4, classes_N, iou_threshold)
    kept: list[Numbers] = []
    left, block = np.arange(len(boxes_N4)), FIRST_BLOCK
    while len(left):
        index, left, block = left[:block], left[block:], 2 * block
        index = index[_settled(len(index), *scene.pairs_within(index))]
        kept.append(index)
        if len(left):
            left = left[~scene.beaten(left, index)]
    return _joined(kept)


class _Scene:
    """Boxes by falling score, and which of them overlap."""

    def __init__(self, boxes_N4: Floats, classes_N: Numbers, iou_threshold: float) -> None:
        self.threshold = iou_threshold
        self.x1, self.y1, self.x2, self.y2 = np.ascontiguousarray(boxes_N4.T)
        self.area = np.maximum(self.x2 - self.x1, 0) * np.maximum(self.y2 - self.y1, 0)
        start, end = self.x1, self.x2
        if boxes_N4.dtype != np.float32:  # rounded outwards
            start = np.nextafter(start.astype(np.float32), np.float32(-np.inf))
            end = np.nextafter(end.astype(np.float32), np.float32(np.inf))
        self.start, self.end = _sortable(start, classes_N), _sortable(end, classes_N)

    def pairs_within(self, index: Numbers) -> tuple[Numbers, Numbers]:
        """Positions in ``index`` of all overlapping pairs: of the higher score, and the lower."""
        order = np.argsort(self.start[index])
        by_start = index[order]
        starts = self.start[by_start]
        ends = np.searchsorted(starts, self.end[by_start], side="right")
        firsts, seconds = [], []
        for i, j in _runs(np.arange(1, len(index) + 1), ends):
            over = self._over(by_start, i, by_start, j)
            firsts.append(order[i.take(over)])
            seconds.append(order[j.take(over)])
        first, second = _joined(firsts), _joined(seconds)
        return np.minimum(first, second), np.maximum(first, second)

    def beaten(self, index: Numbers, kept: Numbers) -> npt.NDArray[np.bool_]:
        """Whether each box of ``index`` overlaps one of ``kept``."""
        found = np.zeros(len(index), dtype=np.bool_)
        order, kept_order = np.argsort(self.start[index]), np.argsort(self.start[kept])
        index, kept = index[order], kept[kept_order]
        starts, kept_starts = self.start[index], self.start[kept]
        # Of two that meet along x, one begins within the other.
        left = np.searchsorted(starts, kept_starts, side="left")
        right = np.searchsorted(starts, self.end[kept], side="right")
        for i, j in _runs(left, right):
            found[j[self._over(kept, i, index, j)]] = True
        left = np.searchsorted(kept_starts, starts, side="right")
        right = np.searchsorted(kept_starts, self.end[index], side="right")
        right[found] = 0
        for i, j in _runs(left, right):
            found[i[self._over(index, i, kept, j)]] = True
        unsorted = np.empty_like(found)
        unsorted[order] = found
        return unsorted

    def _over(self, first: Numbers, i: Numbers, second: Numbers, j: Numbers) -> Numbers:
        """Which of the pairs (first[i], second[j]) have an IoU above the threshold; positions."""
        y1, y2 = self.y1[first].take(i), self.y2[first].take(i)
        Y1, Y2 = self.y1[second].take(j), self.y2[second].take(j)
        height = np.minimum(y2, Y2) - np.maximum(y1, Y1)
        meet = np.flatnonzero(height > 0)
        a, b = first.take(i.take(meet)), second.take(j.take(meet))
        width = np.minimum(self.x2.take(a), self.x2.take(b))
        width -= np.maximum(self.x1.take(a), self.x1.take(b))
        inter = np.maximum(width, 0) * height.take(meet)
        union = self.area.take(a) + self.area.take(b) - inter
        over: Numbers = meet[inter > self.threshold * union]
        return over


def _sortable(values: Floats, classes_N: Numbers) -> npt.NDArray[np.int64]:
    """int64 that sort by class, then by value: the bits of a float, all turned where negative."""
    return (classes_N << 32) + _bits(values)


def _bits(values: Floats) -> npt.NDArray[np.int32]:
    """int32 that sort as float32 do."""
    bits = values.view(np.int32)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


def _runs(left: Numbers, right: Numbers) -> Iterator[tuple[Numbers, Numbers]]:
    """All (i, j) with left[i] <= j < right[i], some at a time."""
    counts = np.maximum(right - left, 0)
    total = np.cumsum(counts)
    if not len(total) or not total[-1]:
        return
    stops: Iterable[int] = (len(total),)
    if total[-1] > PAIRS:
        cuts = np.searchsorted(total, np.arange(PAIRS, total[-1] + PAIRS, PAIRS))
        stops = np.unique(np.minimum(cuts + 1, len(total)))
    start = 0
    for stop in stops:
        count = counts[start:stop]
        i = np.repeat(np.arange(start, stop), count)
        offset = left[start:stop] - (total[start:stop] - count) + (total[start] - counts[start])
        yield i, np.arange(len(i)) + np.repeat(offset, count)
        start = stop


def _joined(parts: list[Numbers]) -> Numbers:
    if len(parts) == 1:
        return parts[0]
    return np.concatenate(parts) if parts else np.zeros(0, np.intp)


def _settled(count: int, first: Numbers, second: Numbers) -> npt.NDArray[np.bool_]:
    """Which boxes greedy suppression keeps, by the pairs that overlap, the higher score first."""
    alive = np.ones(count, dtype=np.bool_)
    while True:
        again = np.ones(count, dtype=np.bool_)
        again[second[alive[first]]] = False
        if (again == alive).all():
            return alive
        alive = again


# -------------------------------------------------------------------------------- by dense blocks


def kept_by_dense_blocks(
    boxes_N4: Floats, classes_N: Numbers, iou_threshold: float
) -> tuple[list[Numbers], Numbers]:
    """Those kept as long as blocks keep few of their boxes, and those that are left to be judged.

    Nothing is done where classes are small, or of such different sizes that most would be padding.
    """
    by_class = _stable_order(classes_N)
    sorted_N = classes_N[by_class]
    starts = np.flatnonzero(np.diff(sorted_N, prepend=-1))
    counts = np.diff(starts, append=len(sorted_N))
    most = int(counts.max(initial=0))
    if most <= 2 * DENSE_BLOCK or len(counts) * most > _MOST_PADDED * len(classes_N):
        return [], np.arange(len(classes_N))
    index_CM = np.full((len(counts), most), -1)
    index_CM[np.arange(most) < counts[:, None]] = by_class
    box_5N = _with_areas(boxes_N4)
    kept: list[Numbers] = []
    block = DENSE_BLOCK
    while index_CM.size:
        index_CB, rest_CM = index_CM[:, :block], index_CM[:, block:]
        box_5CB = box_5N.take(index_CB, axis=1)
        alive_CB = _settled_side_by_side(box_5CB, iou_threshold) & (index_CB >= 0)
        number = int(alive_CB.sum())
        most_are_kept = 2 * number > int((index_CB >= 0).sum())
        if most_are_kept and not kept:
            return [], np.arange(len(classes_N))
        kept.append(index_CB[alive_CB])
        box_5CK = box_5N.take(_packed(index_CB, alive_CB), axis=1)
        left_CM = rest_CM >= 0
        step = max(1, PAIRS // max(1, box_5CK[0].size))
        for start in range(0, rest_CM.shape[1], step):
            part = slice(start, start + step)
            box_5CM = box_5N.take(rest_CM[:, part], axis=1)
            left_CM[:, part] &= ~_overlaps(box_5CK, box_5CM, iou_threshold).any(axis=1)
        index_CM = _packed(rest_CM, left_CM)
        if most_are_kept:
            break
        block = min(2 * block, MOST_DENSE)
    return kept, np.sort(index_CM[index_CM >= 0])


def _with_areas(boxes_N4: Floats) -> Floats:
    """x1, y1, x2, y2 and area; one more box at the end, number -1, is NaN."""
    box_5N = np.full((5, len(boxes_N4) + 1), np.nan, boxes_N4.dtype)
    box_5N[:4, :-1] = boxes_N4.T
    x1, y1, x2, y2, area = box_5N
    np.multiply(np.maximum(x2 - x1, 0), np.maximum(y2 - y1, 0), out=area)
    return box_5N


def _settled_side_by_side(box_5CB: Floats, iou_threshold: float) -> Flags:
    """Which boxes of each class greedy suppression keeps, (C, B)."""
    _, classes, size = box_5CB.shape
    over = _overlaps(box_5CB, box_5CB, iou_threshold)
    over &= _LATER[:size, :size]
    pairs = np.flatnonzero(over)
    first, second = pairs // size, pairs // (size * size) * size + pairs % size
    return _settled(classes * size, first, second).reshape(classes, size)


def _packed(index_CM: Numbers, chosen_CM: Flags) -> Numbers:
    """The chosen numbers, moved to the front of their class."""
    counts = chosen_CM.sum(axis=1)
    packed = np.full((len(counts), int(counts.max(initial=0))), -1)
    packed[np.arange(packed.shape[1]) < counts[:, None]] = index_CM[chosen_CM]
    return packed


def _overlaps(box_5CK: Floats, box_5CM: Floats, iou_threshold: float) -> Flags:
    """Whether IoU > threshold, (C, K, M)."""
    X1, Y1, X2, Y2, A = box_5CK[..., None]
    x1, y1, x2, y2, a = box_5CM[:, :, None]
    width = np.minimum(X2, x2)
    held = np.maximum(X1, x1)
    width -= held
    np.maximum(width, 0, out=width)
    height = np.minimum(Y2, y2)
    np.maximum(Y1, y1, out=held)
    height -= held  # below 0 where they do not meet: so is the product then, and no overlap
    inter = np.multiply(width, height, out=width)
    union = np.add(A, a, out=height)
    union -= inter
    union *= iou_threshold
    over: Flags = inter > union
    return over
