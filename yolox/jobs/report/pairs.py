"""The images that two models differ on most, as pictures."""

from __future__ import annotations

from collections.abc import Sequence

from loguru import logger

from yolox.data import DetectionDataset
from yolox.evaluators import ImageDetections
from yolox.report import (
    Difference,
    Pair,
    Picture,
    above_score,
    differences,
    draw_picture,
    most_different,
)

__all__ = ["MOST_BYTES", "shown_pairs"]

MOST_BYTES = 1_400_000  # of pictures in a page that is to be sent: 2 MB with everything else

Found = tuple[str, Sequence[ImageDetections]]


def shown_pairs(
    dataset: object, first: Found, last: Found, *, most: int, score: float
) -> tuple[Pair, ...]:
    """The images that the two differ on most, as each sees them and as they are annotated.

    Args:
        dataset: of the images; of another kind than ours there are none to show.
        first: label and detections of the model before.
        last: the same of the one after.
        most: images; fewer where their pictures would be more than `MOST_BYTES`.
        score: least score of a detection that counts and is drawn.
    """
    if not isinstance(dataset, DetectionDataset):
        return ()
    found = differences(first[1], last[1], score=score)
    chosen = most_different(found, most)
    pairs: list[Pair] = []
    size = 0
    for index in chosen:
        pair = _pair(dataset, index, found[index], (first, last), score)
        size += sum(len(picture.uri) for picture in pair.pictures)
        if size > MOST_BYTES:
            logger.info(f"{len(pairs)} of {len(chosen)} images are shown: more make the page large")
            break
        pairs.append(pair)
    return tuple(pairs)


def _pair(
    dataset: DetectionDataset,
    index: int,
    difference: Difference,
    models: Sequence[Found],
    score: float,
) -> Pair:
    sample, image = dataset.samples[index], dataset.load_image(index)
    names = dataset.class_names
    pictures: list[Picture] = []
    marked = (difference.lost_rows, difference.gained_rows)
    for (label, detections), rows in zip(models, marked, strict=True):
        shown = above_score(detections[index], score)
        pictures.append(
            draw_picture(label, image, shown.boxes, shown.scores, shown.classes, names, rows)
        )
    pictures.append(draw_picture("annotated", image, sample.boxes, None, sample.classes, names))
    return Pair(
        name=sample.name,
        lost=difference.lost,
        gained=difference.gained,
        difference=difference.weight,
        pictures=tuple(pictures),
    )
