"""The class lists that everybody has, and models without names were most likely trained on."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from yolox.data.datasets.coco_classes import COCO_CLASSES
from yolox.data.datasets.voc_classes import VOC_CLASSES

# Other names of COCO's classes, as `fold_name` leaves them.
_SYNONYMS = {
    "aeroplane": "airplane",
    "motorbike": "motorcycle",
    "sofa": "couch",
    "tvmonitor": "tv",
    "television": "tv",
    "mobilephone": "cellphone",
    "doughnut": "donut",
    "hairdryer": "hairdrier",
    "fridge": "refrigerator",
}


@dataclass(frozen=True, kw_only=True)
class KnownOrder:
    """Classes in the order of a known list.

    Attributes:
        title: of the list.
        names: its classes, spelled as the data spell them where they name them.
    """

    title: str
    names: tuple[str, ...]


def known_order(count: int, names: Sequence[str]) -> KnownOrder | None:
    """The known list of so many classes that data's names are all of, in whatever order.

    Case, spaces, hyphens and underscores do not count, and common synonyms are the same class.

    Args:
        count: classes of a model that does not name them.
        names: that the data have; as many or fewer.

    Returns:
        None where there is no such list, or the data have another class or one under two names.
    """
    spelled = {_meant(name): name for name in names}
    if not names or len(spelled) < len(names):
        return None
    for title, known in (("COCO", COCO_CLASSES), ("Pascal VOC", VOC_CLASSES)):
        meant = [_meant(name) for name in known]
        if len(known) == count and spelled.keys() <= set(meant):
            own = (spelled.get(key, name) for key, name in zip(meant, known, strict=True))
            return KnownOrder(title=title, names=tuple(own))
    return None


def rows_by_name(theirs: Sequence[str], ours: Sequence[str]) -> list[int | None]:
    """For each of our classes its index among theirs, None where they do not have it."""
    exact = {name: i for i, name in enumerate(theirs)}
    meant: dict[str, list[int]] = {}
    for i, name in enumerate(theirs):
        meant.setdefault(_meant(name), []).append(i)
    alone = {key: found[0] for key, found in meant.items() if len(found) == 1}
    return [exact.get(name, alone.get(_meant(name))) for name in ours]


def fold_name(name: str) -> str:
    """A name without what people spell differently: case, spaces, hyphens, underscores."""
    return re.sub(r"[\s_-]+", "", name).casefold()


def _meant(name: str) -> str:
    bare = fold_name(name)
    return _SYNONYMS.get(bare, bare)
