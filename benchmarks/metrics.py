"""Time of the metrics on as many images, objects and detections as COCO's val2017 has.

    python benchmarks/metrics.py                 # 5,000 images
    python benchmarks/metrics.py --images 500

Boxes are random, from one seed. Ratios are to pycocotools in the same run.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from yolox.evaluators import (
    ImageDetections,
    confusion_table,
    evaluate_coco,
    evaluate_voc,
    precision_recall_curves,
)
from yolox.evaluators.coco_metric import COCO_TOOLS, PYCOCOTOOLS

CLASSES, OBJECTS, FOUND = 80, 7, 40  # the last two on average an image


@dataclass(frozen=True, kw_only=True)
class Sample:
    image_id: int
    boxes: np.ndarray
    classes: np.ndarray
    difficult: np.ndarray
    name: str = ""
    height: int = 480
    width: int = 640


def scene(images: int) -> tuple[list[Sample], list[ImageDetections]]:
    """Objects, two detections about each, and others anywhere."""
    rng = np.random.default_rng(0)
    samples, detections = [], []
    for image_id in range(images):
        count = int(rng.poisson(OBJECTS))
        boxes, classes = random_boxes(rng, count), rng.integers(0, CLASSES, count)
        near = np.repeat(boxes, 2, axis=0) + rng.normal(0, 4, (2 * count, 4))
        stray = max(int(rng.poisson(FOUND)) - 2 * count, 0)
        found = np.concatenate([near, random_boxes(rng, stray)]).astype(np.float32)
        kinds = np.concatenate([np.repeat(classes, 2), rng.integers(0, CLASSES, stray)])
        scores = np.concatenate([rng.beta(4, 2, 2 * count), rng.beta(1, 9, stray)])
        order = np.argsort(-scores)
        samples.append(
            Sample(
                image_id=image_id,
                boxes=boxes.astype(np.float32),
                classes=classes,
                difficult=rng.random(count) < 0.01,
            )
        )
        detections.append(
            ImageDetections(
                image_id=image_id,
                boxes=found[order],
                scores=scores[order].astype(np.float32),
                classes=kinds[order],
            )
        )
    return samples, detections


def random_boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    corner = rng.uniform(0, 400, (count, 2))
    return np.concatenate([corner, corner + rng.uniform(20, 200, (count, 2))], axis=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=5000)
    samples, detections = scene(parser.parse_args().images)
    thresholds = [iou / 100 for iou in range(50, 100, 5)]
    runs: dict[str, Callable[[], object]] = {
        "COCO AP, pycocotools": lambda: evaluate_coco(samples, detections, CLASSES, PYCOCOTOOLS),
        f"COCO AP, {COCO_TOOLS.name}": lambda: evaluate_coco(samples, detections, CLASSES),
        "VOC AP, ten thresholds": lambda: evaluate_voc(samples, detections, CLASSES, thresholds),
        "curves, two thresholds": lambda: precision_recall_curves(samples, detections, CLASSES),
        "confusion": lambda: confusion_table(samples, detections, CLASSES, score=0.3),
    }
    found = sum(len(entry.boxes) for entry in detections)
    objects = sum(len(sample.boxes) for sample in samples)
    print(f"{len(samples):,} images, {objects:,} objects, {found:,} detections\n")
    print("| figure | time | ratio |\n|---|---|---|")
    base = None
    for name, run in runs.items():
        start = time.perf_counter()
        run()
        seconds = time.perf_counter() - start
        base = base or seconds
        print(f"| {name} | {seconds:.2f} s | {seconds / base:.2f} × |", flush=True)


if __name__ == "__main__":
    main()
