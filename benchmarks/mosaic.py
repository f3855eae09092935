"""Training samples a second and process: ours beside the same augmentation written plainly.

    python benchmarks/mosaic.py --data $BCCD          # a VOCdevkit; without it, the demo data set
    python benchmarks/mosaic.py --data $BCCD --profile

The plain way: decode four whole images, resize each, paste them on a canvas of twice the input's
size, warp the canvas once; decode, letterbox and blend the MixUp image in floats; shift colours in
wide integers. Both are given the same draws: labels must agree to float tolerance, and images
but for resampling. Measured on the data as it is and enlarged to 1920 × 1080, with and without
MixUp, taking turns; medians of samples a second. About a minute and a half.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch

from yolox.data import DetectionDataset, Draw, MosaicDetection, Sample, TrainTransform, VOCDetection
from yolox.data.data_augment import affine_matrix, clip_boxes, has_area, transform_boxes
from yolox.data.synthetic import generate_demo_dataset

PHOTOGRAPH = (1080, 1920)
IMAGES = 48
AUGMENTATION = {"degrees": 10.0, "translate": 0.1, "mosaic_scale": (0.1, 2.0), "shear": 2.0}
MIXUP_SCALE = (0.5, 1.5)
GREY = (114, 114, 114)
Drawn = tuple[np.ndarray, np.ndarray]


def fitted(dataset: DetectionDataset, index: int, size: int) -> tuple[np.ndarray, float]:
    """A whole image resized to fit the input, and the ratio of the sizes."""
    img = cv2.imread(str(dataset.samples[index].path))
    height, width = img.shape[:2]
    ratio = min(size / height, size / width)
    return cv2.resize(img, (int(width * ratio), int(height * ratio))), ratio


def plain_mosaic(
    dataset: DetectionDataset, index: int, size: int, rng: np.random.Generator
) -> Drawn:
    centre = [int(rng.uniform(0.5, 1.5) * size) for _ in "xy"]
    indices = [index, *rng.integers(0, len(dataset), 3).tolist()]
    matrix = affine_matrix((size, size), *AUGMENTATION.values(), rng)
    canvas = np.full((2 * size, 2 * size, 3), 114, dtype=np.uint8)
    rows = []
    for quadrant, i in enumerate(indices):
        img, ratio = fitted(dataset, i, size)
        height, width = img.shape[:2]
        left = centre[0] - (width if quadrant % 2 == 0 else 0)
        top = centre[1] - (height if quadrant < 2 else 0)
        x1, y1 = max(0, left), max(0, top)
        x2, y2 = min(2 * size, left + width), min(2 * size, top + height)
        canvas[y1:y2, x1:x2] = img[y1 - top : y2 - top, x1 - left : x2 - left]
        labels = dataset.labels(i)
        labels[:, :4] = labels[:, :4] * ratio + (left, top, left, top)
        labels[:, :4] = clip_boxes(labels[:, :4], (x1, y1), (x2, y2))
        rows.append(labels[has_area(labels)])
    labels = np.concatenate(rows)
    labels[:, :4] = transform_boxes(matrix, labels[:, :4])
    labels[:, :4] = clip_boxes(labels[:, :4], (0, 0), (size, size))
    img = cv2.warpAffine(canvas, matrix[:2], (size, size), borderValue=GREY)
    return img, labels[has_area(labels)]


def plain_mixup(
    dataset: DetectionDataset, img: np.ndarray, labels: np.ndarray, rng: np.random.Generator
) -> Drawn:
    size = len(img)
    with_objects = [i for i in range(len(dataset)) if len(dataset.labels(i))]
    index = with_objects[int(rng.integers(len(with_objects)))]
    jitter, mirror = rng.uniform(*MIXUP_SCALE), rng.random() < 0.5
    side = int(size * jitter)
    x0, y0 = (int(rng.integers(0, max(1, side - size + 1))) for _ in "xy")
    fit, ratio = fitted(dataset, index, size)
    sheet = np.full((size, size, 3), 114, dtype=np.uint8)
    sheet[: fit.shape[0], : fit.shape[1]] = fit
    sheet = cv2.resize(sheet, (side, side))
    added = dataset.labels(index)
    added[:, :4] *= ratio * jitter
    if mirror:
        sheet = sheet[:, ::-1]
        added[:, [0, 2]] = side - added[:, [2, 0]]
    window = np.full((max(side, size), max(side, size), 3), 114, dtype=np.uint8)
    window[:side, :side] = sheet
    window = window[y0 : y0 + size, x0 : x0 + size]
    blended = 0.5 * img.astype(np.float32) + 0.5 * window.astype(np.float32)
    added[:, :4] = clip_boxes(added[:, :4] - (x0, y0, x0, y0), (0, 0), (size, size))
    return blended.astype(np.uint8), np.concatenate([labels, added[has_area(added)]])


def plain_transform(img: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> Drawn:
    """Colour shift, mirror, planes of floats, rows of labels; the input's size is the image's."""
    shift, mirror = rng.random(2) < (1.0, 0.5)
    large = np.minimum(labels[:, 2] - labels[:, 0], labels[:, 3] - labels[:, 1]) > 1
    if large.any():
        labels = labels[large]
        if shift:
            gains = (rng.uniform(-1, 1, 3) * (5, 30, 30) * rng.integers(0, 2, 3)).astype(np.int16)
            hsv = cv2.cvtColor(img, cv2.COLOR_BGR2HSV).astype(np.int16) + gains
            hsv[..., 0] %= 180
            hsv[..., 1:] = np.clip(hsv[..., 1:], 0, 255)
            img = cv2.cvtColor(hsv.astype(np.uint8), cv2.COLOR_HSV2BGR)
        if mirror:
            img = img[:, ::-1]
            labels[:, [0, 2]] = img.shape[1] - labels[:, [2, 0]]
    rows = np.empty((len(labels), 5), dtype=np.float32)
    rows[:, 0] = labels[:, 4]
    rows[:, 1:3] = (labels[:, :2] + labels[:, 2:4]) / 2
    rows[:, 3:] = labels[:, 2:4] - labels[:, :2]
    sheet = np.full((*img.shape[:2], 3), 114, dtype=np.uint8)
    sheet[:] = img
    return np.ascontiguousarray(sheet.transpose(2, 0, 1), dtype=np.float32), rows


def plain(dataset: DetectionDataset, draw: Draw, size: int, mixup: bool) -> Drawn:
    """One sample, from the same numbers as ours."""
    rng = np.random.default_rng(draw.seed)
    rng.random()  # whether to make a mosaic at all
    img, labels = plain_mosaic(dataset, draw.index, size, rng)
    if mixup and len(labels) and rng.random() < 1.0:
        img, labels = plain_mixup(dataset, img, labels, rng)
    return plain_transform(img, labels, rng)


def enlarged(dataset: DetectionDataset, folder: Path) -> DetectionDataset:
    """The data set's first images as JPEGs of 1920 × 1080."""
    samples = []
    for i, sample in enumerate(dataset.samples[:IMAGES]):
        path = folder / f"{i}.jpg"
        img = cv2.resize(dataset.load_image(i), PHOTOGRAPH[::-1], interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(path), img)
        factor = np.array(PHOTOGRAPH[::-1] * 2) / ((sample.width, sample.height) * 2)
        samples.append(
            Sample(
                image_id=sample.image_id,
                name=sample.name,
                path=path,
                height=PHOTOGRAPH[0],
                width=PHOTOGRAPH[1],
                boxes=(sample.boxes * factor).astype(np.float32),
                classes=sample.classes,
                difficult=sample.difficult,
            )
        )
    return DetectionDataset(samples, dataset.class_names)


def ours(dataset: DetectionDataset, size: int, mixup: bool) -> MosaicDetection:
    return MosaicDetection(
        dataset,
        (size, size),
        preproc=TrainTransform(),
        mixup_scale=MIXUP_SCALE,
        enable_mixup=mixup,
        **AUGMENTATION,
    )


def assert_alike(samples: MosaicDetection, size: int, mixup: bool) -> float:
    """The mean difference of pixels of 12 samples, in grey levels; AssertionError on labels."""
    differences = []
    for seed in range(12):
        draw = Draw(seed, seed, True)
        img, labels = plain(samples.dataset, draw, size, mixup)
        found, found_labels, _, _ = samples[draw]
        np.testing.assert_allclose(found_labels, labels, atol=0.02)
        differences.append(np.abs(found - img).mean())
    return float(np.mean(differences))


def in_turn(calls: Sequence[Callable[[Draw], object]], count: int, seconds: float) -> list[float]:
    """Median samples a second of each call, which take turns on the same draws."""
    times: list[list[float]] = [[] for _ in calls]
    stop = time.perf_counter() + seconds
    seed = 0
    while time.perf_counter() < stop:
        block = [Draw((seed + i) % count, seed + i, True) for i in range(8)]
        seed += len(block)
        for call, taken in zip(calls, times, strict=True):
            start = time.perf_counter()
            for draw in block:
                call(draw)
            taken.append((time.perf_counter() - start) / len(block))
    return [1 / statistics.median(taken) for taken in times]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="a VOCdevkit with VOC2007/trainval")
    parser.add_argument("--size", type=int, default=640)
    parser.add_argument("--seconds", type=float, default=18.0, help="for each row")
    parser.add_argument("--profile", action="store_true")
    args = parser.parse_args(argv)
    cv2.setNumThreads(0)  # as in a loader's worker process
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        data = args.data or generate_demo_dataset(Path(name) / "demo", num_images=IMAGES)
        small = VOCDetection(data, (("2007", "trainval"),), (args.size, args.size))
        large = enlarged(small, Path(name))
        print(f"one process, {args.size} × {args.size}")
        print("| images | MixUp | plain | ours | ratio | ours, cached | ratio | pixels differ by |")
        print("|---|---|---|---|---|---|---|---|")
        for title, dataset in (("as they are", small), ("1920 × 1080", large)):
            held = DetectionDataset(
                dataset.samples[:IMAGES], dataset.class_names, (args.size, args.size), cache=True
            )
            uncached = DetectionDataset(dataset.samples[:IMAGES], dataset.class_names)
            for mixup in (False, True):
                samples, cached = (ours(d, args.size, mixup) for d in (uncached, held))
                difference = assert_alike(samples, args.size, mixup)
                calls = (
                    lambda d, s=uncached, m=mixup: plain(s, d, args.size, m),
                    samples.__getitem__,
                    cached.__getitem__,
                )
                slow, fast, faster = in_turn(calls, len(uncached), args.seconds)
                print(
                    f"| {title} | {'yes' if mixup else 'no'} | {slow:.0f} | {fast:.0f} | "
                    f"{fast / slow:.1f} × | {faster:.0f} | {faster / slow:.1f} × | "
                    f"{difference:.1f} |",
                    flush=True,
                )
                if args.profile:
                    with cProfile.Profile() as recorded:
                        for seed in range(40):
                            samples[Draw(seed % len(samples), seed, True)]
                    pstats.Stats(recorded).sort_stats("tottime").print_stats(14)


if __name__ == "__main__":
    main()
