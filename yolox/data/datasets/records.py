"""What annotations say, before anything of it is believed: the form that every reader produces.

A reader turns files into a `RecordSet` and complains only of what makes reading impossible (a
missing folder, an unreadable list of images). What it had to interpret it remarks. `build_samples`
is strict: it turns records into samples to train on and logs the remarks, or raises with everything
that is wrong. The data doctor reads the same records and reports instead of raising.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Form = Literal["xyxy", "xywh", "cxcywh"]

# What kinds of problems there are; each is raised with a sentence of its own.
IMAGE_MISSING = "image is not there"
IMAGE_BROKEN = "image cannot be decoded"
BAD_ENTRY = "entry of an image cannot be used"
BAD_ANNOTATION = "annotation cannot be used"
BAD_CLASS_LIST = "class list cannot be used"


@dataclass(frozen=True, kw_only=True)
class Record:
    """One image and its annotation as written.

    Attributes:
        name: of the image, unique within its split (a stem, or a path below the image folder).
        image: the image file; it may be missing or broken.
        source: the annotation file.
        image_id: as the data set numbers it; None where it does not.
        size: (height, width) as the annotation says, None where it does not.
        names: class name of each object.
        boxes: x1 y1 x2 y2 of each object as written, 0-based, not clipped; in pixels of the image,
            or in fractions of its width and height where `relative`.
        difficult: of each object.
        relative: boxes are fractions.
    """

    name: str
    image: Path
    source: Path
    image_id: int | None = None
    size: tuple[int, int] | None = None
    names: tuple[str, ...] = ()
    boxes: tuple[tuple[float, float, float, float], ...] = ()
    difficult: tuple[bool, ...] = ()
    relative: bool = False


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Something in the files that cannot be used.

    Attributes:
        kind: a few words shared by all problems of its kind: one of the constants above.
        where: file or image.
        what: what is wrong there.
    """

    kind: str
    where: str
    what: str


@dataclass(frozen=True, kw_only=True)
class Remark:
    """How something was read that could have been meant otherwise.

    Attributes:
        severity: "warning" for what is likely a mistake, "note" for what is worth knowing.
        title: what was found, in the plural.
        cases: each with its place.
        advice: how it was read, and what to do if that is not what was meant.
    """

    severity: Literal["warning", "note"]
    title: str
    cases: tuple[str, ...]
    advice: str


def remark(
    severity: Literal["warning", "note"], title: str, cases: Iterable[str], advice: str
) -> list[Remark]:
    """A remark, or nothing where there are no cases."""
    found = tuple(cases)
    return [Remark(severity=severity, title=title, cases=found, advice=advice)] if found else []


@dataclass(frozen=True, kw_only=True)
class RecordSet:
    """All images of one or more splits.

    Attributes:
        title: names the splits for messages, as "VOC2007/train".
        records: the images, in the order of the splits.
        classes: the class list that the data states itself (classes.txt, data.yaml, COCO's
            categories); None where it states none.
        problems: what could not be read; the images concerned are not among the records, or come
            without objects.
        remarks: what was read, but could have been meant otherwise.
        first_pixel: the coordinate of the first pixel in the files (1 in VOC), by which messages
            give boxes.
        form: how the files give a box: corners ("xyxy"), a corner and the sides ("xywh"), or the
            centre and the sides ("cxcywh").
        learn_difficult: difficult objects are trained on; False where they are crowds (COCO).
    """

    title: str
    records: Sequence[Record]
    classes: tuple[str, ...] | None
    problems: tuple[Problem, ...] = ()
    remarks: tuple[Remark, ...] = ()
    first_pixel: int = 0
    form: Form = "xyxy"
    learn_difficult: bool = True
