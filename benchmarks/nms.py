"""Time of NMS beside other libraries' on one thread, which must keep as many boxes.

    python benchmarks/nms.py
    pip install lsnms && python benchmarks/nms.py     # a row for it, too

Two scenes of three classes: boxes of any size anywhere, of which many are kept, and boxes about
thirty objects, of which few are. Times are CPU time, the least of several runs; ratios are to this
project's in the same run.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from collections.abc import Callable

import cv2
import numpy as np
import torch

from yolox.utils.boxes import batched_nms

SIDE, CLASSES, OBJECTS, IOU = 640, 3, 30, 0.45
COUNTS = [300, 1000, 5000, 25000]
OPENCV_LIMIT = 5000  # boxes; beyond, it takes minutes

Scene = tuple[np.ndarray, np.ndarray, np.ndarray]  # boxes x1 y1 x2 y2, scores, classes


def spread(count: int) -> Scene:
    rng = np.random.default_rng(0)
    centre, size = rng.uniform(0, SIDE, (count, 2)), rng.uniform(10, 100, (count, 2))
    return corners(centre, size), rng.random(count), rng.integers(0, CLASSES, count)


def crowded(count: int) -> Scene:
    rng = np.random.default_rng(0)
    places, sizes = rng.uniform(0, SIDE, (OBJECTS, 2)), rng.uniform(30, 200, (OBJECTS, 2))
    about = rng.integers(0, OBJECTS, count)
    size = sizes[about] * np.exp(rng.normal(0, 0.2, (count, 2)))
    centre = places[about] + rng.normal(0, 0.15, (count, 2)) * sizes[about]
    return corners(centre, size), rng.beta(1, 5, count), about % CLASSES


def corners(centre: np.ndarray, size: np.ndarray) -> np.ndarray:
    return np.concatenate([centre - size / 2, centre + size / 2], axis=1).astype(np.float32)


def ways(scene: Scene) -> dict[str, Callable[[], int]]:
    """What is measured, each returning how many boxes it keeps."""
    boxes, scores, classes = scene[0], scene[1].astype(np.float32), scene[2]
    tensors = [torch.from_numpy(array) for array in (boxes, scores, classes)]
    found: dict[str, Callable[[], int]] = {"yolox": lambda: len(batched_nms(*tensors, IOU))}
    if len(boxes) <= OPENCV_LIMIT:
        sides = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
        numbers = classes.astype(np.int32)
        found["OpenCV"] = lambda: len(cv2.dnn.NMSBoxesBatched(sides, scores, numbers, 0.0, IOU))
    if importlib.util.find_spec("lsnms") is not None:
        from lsnms import nms

        wide, fine = boxes.astype(np.float64), scores.astype(np.float64)
        found["lsnms"] = lambda: len(nms(wide, fine, iou_threshold=IOU, class_ids=classes))
    return found


def milliseconds(runs: dict[str, Callable[[], int]], rounds: int) -> dict[str, float]:
    """The least time of each, which take turns."""
    best = dict.fromkeys(runs, float("inf"))
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.process_time()
            run()
            best[name] = min(best[name], 1000 * (time.process_time() - start))
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--counts", type=int, nargs="+", default=COUNTS, help="boxes")
    counts = parser.parse_args().counts
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    print("| scene | boxes | kept | library | time | ratio |\n|---|---|---|---|---|---|")
    for make in (spread, crowded):
        for count in counts:
            runs = ways(make(count))
            kept = {name: run() for name, run in runs.items()}
            took = milliseconds(runs, max(3, 6000 // count))
            for name, least in took.items():
                row = [make.__name__, f"{count:,}", f"{kept[name]:,}", name, f"{least:.2f} ms"]
                print("|", " | ".join([*row, f"{least / took['yolox']:.2f} ×"]), "|", flush=True)


if __name__ == "__main__":
    main()
