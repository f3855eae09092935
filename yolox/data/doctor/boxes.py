"""Boxes: how large they are, and which of them cannot be right.

Shape suffixes: N objects of one split.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from yolox.data.data_augment import fit_size
from yolox.data.datasets.build import EDGE_TOLERANCE, alike
from yolox.data.datasets.records import RecordSet
from yolox.data.datasets.tables import RecordTable
from yolox.data.doctor.facts import Facts
from yolox.data.doctor.report import QUANTILES, ClassStats, Finding, SplitStats, finding

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

_SIZE_LIMITS = (32.0, 96.0)  # pixels: COCO's limits of small and medium
_MIN_SIDE = 2.0  # pixels at the input size: below that nothing can be told from noise
_ROUNDING_TOLERANCE = 0.5  # pixels: of fractions written with few digits
_MAX_ASPECT = 20.0


@dataclass(frozen=True, kw_only=True, eq=False)
class BoxTable:
    """All objects of a split side by side.

    Attributes:
        table: the images.
        first_pixel: see `RecordSet`; messages give boxes as the files do.
        image: int64 (N,), index into `table`.
        ordinal: int64 (N,), of the object in its annotation, from 1.
        boxes: float64 (N, 4), x1 y1 x2 y2 as written, in pixels, 0-based; NaN where they are
            fractions of an image whose size is not known.
        limits: float64 (N, 4), width, height, width, height of the image; NaN where not known.
        inside: float64 (N, 4), clipped to the image; NaN where its size is not known.
        learnable: bool (N,), may be trained on (not a crowd).
        ratio: float64 (N,), pixels at the network's input size a pixel; NaN likewise.
    """

    table: RecordTable
    first_pixel: int
    image: npt.NDArray[np.int64]
    ordinal: npt.NDArray[np.int64]
    boxes: Floats
    limits: Floats
    inside: Floats
    learnable: Mask
    ratio: Floats

    def where(self, i: int) -> str:
        """An object's image, place in the annotation, class and corners."""
        corners = ", ".join(f"{value:.6g}" for value in self.boxes[i] + self.first_pixel)
        image = self.table.names[int(self.image[i])]
        name = self.table.class_names[self.table.classes[i]]
        return f"{image}, object {self.ordinal[i]}: {name} ({corners})"


def tabulate(split: RecordSet, facts: Facts, input_size: tuple[int, int]) -> BoxTable:
    """The objects of all records; an image's size is its file's where known, else as written."""
    table = RecordTable.of(split.records)
    sizes = np.full((len(table), 3), np.nan)
    for i, (height, width) in enumerate(table.sizes.tolist()):
        found = facts.get(table.image(i)) if facts else None
        size = (found.size if found else None) or ((height, width) if height else None)
        if size:
            sizes[i] = (*size, fit_size(size, input_size)[1])
    counts = table.counts()
    image = np.repeat(np.arange(len(table)), counts)
    height_N, width_N, ratio_N = sizes[image].T
    full = np.stack([width_N, height_N, width_N, height_N], axis=1)
    boxes = np.where(table.relative[image][:, None], table.boxes * full, table.boxes)
    return BoxTable(
        table=table,
        first_pixel=split.first_pixel,
        image=image,
        ordinal=np.arange(1, len(image) + 1) - np.repeat(table.ends - counts, counts),
        boxes=boxes,
        limits=full,
        inside=np.clip(boxes, 0, full),
        learnable=split.learn_difficult | ~table.difficult,
        ratio=ratio_N,
    )


def _sides(boxes: Floats) -> tuple[Floats, Floats]:
    return boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]


# --------------------------------------------------------------------------------------- statistics


def split_stats(records: RecordSet, table: BoxTable, classes: Sequence[str]) -> SplitStats:
    """Objects and box sizes of every class, those of the list first."""
    width, height = _sides(table.inside)
    seen = (width > 0) & (height > 0)
    size = np.sqrt(np.where(seen, width * height, 0)) * table.ratio
    named, codes = table.table.class_names, table.table.classes
    there = {named[code] for code in np.unique(codes)}
    order = [*classes, *sorted(there - set(classes))]
    index = {name: i for i, name in enumerate(order)}
    class_N = np.array([index.get(name, -1) for name in named], dtype=np.int64)[codes]
    return SplitStats(
        title=records.title,
        images=len(table.table),
        without_objects=int((table.table.counts() == 0).sum()),
        objects=len(class_N),
        classes={
            name: _class_stats(size[seen & mine], table.image[mine])
            for name, mine in ((name, class_N == i) for name, i in index.items())
        },
    )


def _class_stats(size: Floats, image: npt.NDArray[np.int64]) -> ClassStats:
    small, medium = (int((size < limit).sum()) for limit in _SIZE_LIMITS)
    quantiles = np.quantile(size, QUANTILES).tolist() if len(size) else []
    return ClassStats(
        objects=len(image),
        images=len(np.unique(image)),
        sizes=tuple(round(value, 2) for value in quantiles),
        scales=(small, medium - small, len(size) - medium),
    )


# ----------------------------------------------------------------------------------------- findings


def unlearnable_findings(tables: Mapping[str, BoxTable]) -> list[Finding]:
    """Splits that have objects, none of which training takes."""
    cases = []
    for split, table in tables.items():
        sides = (*_sides(table.boxes), *_sides(table.inside))  # the latter are not always known
        bare: Mask = np.any(np.stack(sides) <= 0, axis=0)
        if len(bare) and not (table.learnable & ~bare).any():
            crowds = int((~table.learnable).sum())
            example = (
                f"{split}: {len(bare):,} objects, of which {crowds:,} are crowds or to be ignored "
                f"and {int((bare & table.learnable).sum()):,} have no area"
            )
            cases.append((split, example))
    return finding(
        "error",
        "splits whose objects are all left out",
        cases,
        "There is nothing to learn, or no AP: look at their flags (iscrowd, ignore) and corners.",
    )


def box_findings(tables: Mapping[str, BoxTable], input_size: tuple[int, int]) -> list[Finding]:
    """Boxes that training drops, cuts or cannot learn."""
    found = {split: _faults(table) for split, table in tables.items()}

    def cases(kind: str) -> list[tuple[str, str]]:
        return [
            (split, table.where(int(i)))
            for split, table in tables.items()
            for i in np.flatnonzero(found[split][kind])
        ]

    side = f"{_MIN_SIDE:g} pixels at {'×'.join(map(str, input_size))}"
    return [
        *finding(
            "warning",
            "boxes without area",
            cases("no area"),
            "Training leaves them out: correct or delete them. Corners in the wrong order count "
            "too.",
        ),
        *finding(
            "warning",
            "boxes wholly outside their image",
            cases("outside"),
            "Training leaves them out. Many of them: corners in another unit, order or image size.",
        ),
        *finding(
            "warning",
            f"boxes that reach more than {EDGE_TOLERANCE:g} pixels over the edge of their image",
            cases("over"),
            "Training cuts them at the edge: check that annotation and image belong together.",
        ),
        *finding(
            "note",
            f"boxes that reach up to {EDGE_TOLERANCE:g} pixels over the edge of their image",
            cases("just over"),
            "Cut at the edge; nothing to do.",
        ),
        *finding(
            "warning",
            "boxes that are there twice (same class, same corners)",
            cases("twice"),
            "Each counts as one more object, to learn and to miss: delete the copies.",
        ),
        *finding(
            "warning",
            f"boxes with a side of less than {side}",
            cases("tiny"),
            "They will not be learned: a larger input_size, or tiles cut from the images.",
        ),
        *finding(
            "note",
            f"boxes more than {_MAX_ASPECT:g} times as long as wide",
            cases("long"),
            "Likely a slip of the mouse where objects are not like that.",
        ),
    ]


def _faults(table: BoxTable) -> dict[str, Mask]:
    """What is wrong, bool (N,) each; a box is told once, by the worst of its faults."""
    width, height = _sides(table.boxes)
    known = ~np.isnan(table.inside).any(axis=1)
    no_area = (width <= 0) | (height <= 0)
    width, height = _sides(table.inside)
    outside = known & ~no_area & ((width <= 0) | (height <= 0))
    usable = ~no_area & ~outside
    over = np.abs(table.boxes - table.inside).max(axis=1, initial=0)
    least, most = np.minimum(width, height), np.maximum(width, height)
    tiny = usable & (least * table.ratio < _MIN_SIDE)
    return {
        "no area": no_area,
        "outside": outside,
        "over": usable & (over > EDGE_TOLERANCE),
        "just over": usable & (over > _ROUNDING_TOLERANCE) & (over <= EDGE_TOLERANCE),
        "twice": usable & _copies(table),
        "tiny": tiny,
        "long": usable & ~tiny & (most > _MAX_ASPECT * least),
    }


def _copies(table: BoxTable) -> Mask:
    """Bool (N,): all but the first of the same class and corners in an image."""
    copies = np.zeros(len(table.image), dtype=bool)
    seen: set[tuple[Any, ...]] = set()
    for i in np.flatnonzero(alike(table.image, table.table.classes, table.boxes)).tolist():
        row = (int(table.image[i]), int(table.table.classes[i]), *table.boxes[i].tolist())
        copies[i] = row in seen
        seen.add(row)
    return copies
