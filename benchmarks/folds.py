"""k-fold cross-validation: splits in which every image is a test image once.

The folds lie in a VOCdevkit folder of their own, with links to the images and annotations:
splits ``2007/fold0_train`` and ``2007/fold0_test``, ``2007/fold1_train``, …
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from yolox.data import read_voc
from yolox.utils.errors import UserError

SETS = (("2007", "trainval"), ("2007", "test"))


def deal(classes: Sequence[Sequence[str]], folds: int, seed: int = 0) -> list[list[int]]:
    """Images dealt out to folds, each to one, those of a rare class evenly.

    Args:
        classes: class names of each image's objects.
        folds: number of folds, at least 2.
        seed: of the order within a class.

    Returns:
        Indices of images, a list a fold, rising; lengths differ by one at most.

    Raises:
        UserError: fewer than two folds, or fewer images than folds.
    """
    if folds < 2:
        raise UserError(f"cross-validation takes at least 2 folds, got {folds}")
    if len(classes) < folds:
        raise UserError(
            f"{len(classes)} images cannot be dealt out to {folds} folds: every fold needs one to "
            "be tested on, so ask for fewer folds"
        )
    images = Counter(name for names in classes for name in set(names))
    rarest = [min(((images[name], name) for name in names), default=(0, "")) for names in classes]
    shuffled = np.random.default_rng(seed).permutation(len(classes)).tolist()
    order = sorted(shuffled, key=lambda index: rarest[index])
    return [sorted(order[fold::folds]) for fold in range(folds)]


def missing_classes(
    classes: Sequence[Sequence[str]], folds: Sequence[Sequence[int]]
) -> dict[int, list[str]]:
    """Classes that no test image of a fold has, by fold: its AP is a mean without them."""
    every = {name for names in classes for name in names}
    found = [{name for index in fold for name in classes[index]} for fold in folds]
    return {number: sorted(every - has) for number, has in enumerate(found) if every - has}


def write_folds(devkit: Path, folder: Path, folds: int, seed: int = 0) -> list[str]:
    """Write the splits of a devkit's images, training and test images together.

    Args:
        devkit: holds ``VOC2007`` with the splits trainval and test; not changed.
        folder: the devkit to write.
        folds: see `deal`.
        seed: see `deal`.

    Returns:
        What there is to warn of, a sentence each.

    Raises:
        UserError: see `deal`; or an image that is in both splits.
    """
    records = [record for split in SETS for record in read_voc(devkit, [split]).records]
    names = [record.name for record in records]
    if twice := sorted(name for name, count in Counter(names).items() if count > 1):
        raise UserError(f"{len(twice)} images are in trainval and in test: {', '.join(twice[:3])}")
    classes = [record.names for record in records]
    dealt = deal(classes, folds, seed)
    year = folder / "VOC2007"
    sets = year / "ImageSets" / "Main"
    sets.mkdir(parents=True, exist_ok=True)
    for part in ("Annotations", "JPEGImages"):
        if not (year / part).exists():
            (year / part).symlink_to((devkit / "VOC2007" / part).resolve())
    every = sorted({name for image in classes for name in image})
    (folder / "classes.txt").write_text("".join(f"{name}\n" for name in every), encoding="utf-8")
    for number, fold in enumerate(dealt):
        held = set(fold)
        rest = [name for index, name in enumerate(names) if index not in held]
        for split, chosen in (("train", rest), ("test", [names[index] for index in fold])):
            text = "".join(f"{name}\n" for name in chosen)
            (sets / f"fold{number}_{split}.txt").write_text(text, encoding="utf-8")
    return [
        f"fold {number} has no {', '.join(lost)} among its {len(dealt[number])} test images: left "
        "out of that fold's mean"
        for number, lost in missing_classes(classes, dealt).items()
    ]
