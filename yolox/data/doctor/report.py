"""What an examination of a data set came to: figures of each split, and findings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from rich.markup import escape
from rich.table import Table

from yolox.data.errors import MAX_LISTED
from yolox.utils.printable import printable

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_SHOWN_QUANTILES = ("size 5 %", "median", "95 %")
_MAX_EXAMPLES = 3


@dataclass(frozen=True, kw_only=True)
class Finding:
    """All cases of one thing that is wrong, or worth knowing.

    Attributes:
        severity: ``error``: training would refuse, break off or learn what is not so;
            ``warning``: something is lost or likely to be a mistake; ``note``: worth knowing.
        title: what was found, in the plural.
        count: cases in all.
        splits: cases by split; empty where they concern the data as a whole.
        examples: the first ten cases, each with its place.
        advice: what it does to training and what to do.
    """

    severity: Severity
    title: str
    count: int
    splits: Mapping[str, int]
    examples: tuple[str, ...]
    advice: str

    def headline(self) -> str:
        """Title and counts."""
        splits = ", ".join(f"{split} {count:,}" for split, count in self.splits.items())
        return f"{self.title}: {self.count:,}" + (f" ({splits})" if splits else "")

    def line(self) -> str:
        """All of it in one line, with few examples."""
        shown = "; ".join(self.examples[:_MAX_EXAMPLES])
        more = "; …" if self.count > _MAX_EXAMPLES else ""
        return " ".join(f"{self.headline()}: {shown}{more}. {self.advice}".split())


def finding(
    severity: Severity, title: str, cases: Sequence[tuple[str, str]], advice: str
) -> list[Finding]:
    """A finding of ``(split, example)`` cases, or nothing where there are none.

    The split is empty of a case that concerns the data as a whole.
    """
    if not cases:
        return []
    return [
        Finding(
            severity=severity,
            title=title,
            count=len(cases),
            splits=dict(Counter(split for split, _ in cases if split)),
            examples=tuple(example for _, example in cases[:MAX_LISTED]),
            advice=advice,
        )
    ]


@dataclass(frozen=True, kw_only=True)
class ClassStats:
    """Objects of one class in one split.

    Attributes:
        objects: as annotated, those without area too.
        images: that have at least one.
        sizes: `QUANTILES` of sqrt(area) in pixels at the network's input size, of the boxes that
            have an area inside their image; empty where there is none.
        scales: how many of them are small, medium, large at that size, by COCO's limits of 32 and
            96 pixels.
    """

    objects: int
    images: int
    sizes: tuple[float, ...]
    scales: tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class SplitStats:
    """One split in figures.

    Attributes:
        title: of the records, as "VOC2007/train".
        images: all of them.
        without_objects: images without any.
        objects: as annotated.
        classes: by name: those of the class list in its order, then others.
    """

    title: str
    images: int
    without_objects: int
    objects: int
    classes: Mapping[str, ClassStats]


@dataclass(frozen=True, kw_only=True)
class Report:
    """The whole examination; ``input_size`` is the network's (height, width) in pixels."""

    classes: tuple[str, ...]
    input_size: tuple[int, int]
    splits: Mapping[str, SplitStats]
    findings: tuple[Finding, ...]

    def number(self, severity: Severity) -> int:
        """Findings of a severity."""
        return sum(found.severity == severity for found in self.findings)

    def failed(self, strict: bool = False) -> bool:
        """Whether there are errors; ``strict`` has warnings count."""
        return self.number("error") > 0 or (strict and self.number("warning") > 0)

    def summary(self) -> str:
        """As "1 error, 2 warnings, 0 notes"."""
        numbers = ((self.number(severity), severity) for severity in SEVERITIES)
        return ", ".join(f"{n} {severity}{'' if n == 1 else 's'}" for n, severity in numbers)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    def tables(self) -> list[Table]:
        """A table a split: objects and box sizes of each class."""
        return [self._table(split, stats) for split, stats in self.splits.items()]

    def _table(self, split: str, stats: SplitStats) -> Table:
        name = split if split == stats.title else f"{split} ({stats.title})"
        table = Table(
            title=f"{escape(name)}: {stats.images:,} images, {stats.without_objects:,} of them "
            f"without objects, {stats.objects:,} objects",
            caption=f"Size: √area in pixels at {'×'.join(map(str, self.input_size))}; "
            "small < 32 ≤ medium < 96 ≤ large",
        )
        columns = (
            "class",
            "objects",
            "share",
            "images",
            *_SHOWN_QUANTILES,
            "small",
            "medium",
            "large",
        )
        for number, column in enumerate(columns):
            table.add_column(column, justify="right" if number else "left", no_wrap=number > 0)
        for name, figures in stats.classes.items():
            known = "" if name in self.classes else " (not in the class list)"
            sizes = [f"{size:.0f}" for size in figures.sizes[::2]] or ["–"] * len(_SHOWN_QUANTILES)
            table.add_row(
                escape(printable(name)) + known,
                f"{figures.objects:,}",
                f"{figures.objects / max(stats.objects, 1):.1%}",
                f"{figures.images:,}",
                *sizes,
                *(f"{n:,}" for n in figures.scales),
            )
        return table
