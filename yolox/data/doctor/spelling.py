"""Class names that may be one name spelled twice."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import combinations

from yolox.data.datasets.known_classes import fold_name

_MIN_LETTERS = 5  # of the longer of two names that may differ in one: cat is no misspelled car


def alike(a: str, b: str) -> bool:
    """Whether two names fold to the same, or to long names one inserted or changed letter apart.

    Digits make a difference: ``type 1`` and ``type 2`` are two names.
    """
    a, b = sorted((fold_name(a), fold_name(b)), key=len)
    if a == b:
        return True
    if len(b) < _MIN_LETTERS or len(b) > len(a) + 1:
        return False
    same = next((i for i, (p, q) in enumerate(zip(a, b, strict=False)) if p != q), len(a))
    longer = len(b) > len(a)
    odd = b[same] + ("" if longer else a[same])
    return a[same + (not longer) :] == b[same + 1 :] and not any(map(str.isdigit, odd))


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The first of the names that is alike, those that fold to the same before others."""
    near = [other for other in names if alike(name, other)]
    return min(near, key=lambda other: fold_name(other) != fold_name(name), default=None)


def pairs_alike(names: Iterable[str]) -> list[tuple[str, str]]:
    """Every two of the names that are alike, sorted; in time linear in their number."""
    buckets: defaultdict[str, list[str]] = defaultdict(list)
    for name in sorted(set(names)):
        for key in _keys(fold_name(name)):
            buckets[key].append(name)
    near = {pair for bucket in buckets.values() for pair in combinations(bucket, 2)}
    return sorted(pair for pair in near if alike(*pair))


def _keys(word: str) -> Iterator[str]:
    """What words one letter apart have in common: the word itself, or without one letter."""
    yield from {word, *(word[:i] + word[i + 1 :] for i in range(len(word)))}
