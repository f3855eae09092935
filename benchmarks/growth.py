"""How the cost of data and metrics grows with their size: CPU seconds and memory at three sizes.

    python benchmarks/growth.py                 # 1,180, 11,800 and 118,000 images, as COCO has
    python benchmarks/growth.py --images 2000 --keep /tmp/growth

Makes COCO sets with as many images, 7.3 objects an image and a polygon an object (the images are
links to a few files), and measures each step in a process of its own:

    read       the annotation file becomes records, and what was read is kept in a cache folder
    set        `COCODataset`: records from there, checks, image headers, samples
    again      the same once more, as every further process of a run does
    doctor     `check_data.py`: every image decoded, every annotation judged
    metrics    COCO AP with a hundred detections an image, of at most 5,000 images

Live memory is what the process holds more at the end than before, with the result in hand; peak is
the most it held at any time. CPU is that of all processes of the step; memory, of the one that
has the result.
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil

SIZES = [1_180, 11_800, 118_000]
OBJECTS, CLASSES, POINTS = 7.29, 80, 26  # 860,000 objects, and 454 MB of JSON, for 118,000 images
HEIGHT, WIDTH = 480, 640
LINKS = 10_000  # to one file: file systems set a limit
METRIC_IMAGES, FOUND = 5000, 100
MEGABYTE = 2**20


def make(folder: Path, images: int) -> None:
    """A COCO set; nothing where it is there."""
    path = folder / "annotations" / "instances_train2017.json"
    if path.exists():
        return
    (folder / "train2017").mkdir(parents=True)
    path.parent.mkdir()
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (HEIGHT // 8, WIDTH // 8, 3), dtype=np.uint8)
    picture = cv2.resize(pixels, (WIDTH, HEIGHT))
    for number in range(1, images + 1):
        path_of_image = folder / "train2017" / file_name(number)
        if number % LINKS == 1:
            first = path_of_image
            cv2.imwrite(str(first), picture)
        else:
            os.link(first, path_of_image)
    partial = path.with_suffix(".partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write('{"info": {"year": 2017}, "licenses": [], "images": [')
        for number in range(1, images + 1):
            entry = {"id": number, "file_name": file_name(number), "height": HEIGHT, "width": WIDTH}
            file.write((", " if number > 1 else "") + json.dumps({"license": 3, **entry}))
        file.write('], "annotations": [')
        for number, entry in enumerate(objects(rng, images)):
            file.write((", " if number else "") + json.dumps({**entry, "id": number + 1}))
        categories = [{"id": i + 1, "name": f"class {i}"} for i in range(CLASSES)]
        file.write(f'], "categories": {json.dumps(categories)}}}')
    partial.rename(path)


def file_name(number: int) -> str:
    return f"{number:012d}.jpg"


def objects(rng: np.random.Generator, images: int) -> Iterator[dict[str, Any]]:
    for _ in range(int(images * OBJECTS)):
        x, y = rng.uniform(0, WIDTH / 2), rng.uniform(0, HEIGHT / 2)
        width, height = rng.uniform(8, WIDTH / 2), rng.uniform(8, HEIGHT / 2)
        points = rng.random((POINTS, 2)) * (width, height) + (x, y)
        yield {
            "segmentation": [points.round(2).ravel().tolist()],
            "area": round(width * height / 2, 4),
            "iscrowd": 0,
            "image_id": int(rng.integers(1, images + 1)),
            "bbox": [round(value, 2) for value in (x, y, width, height)],
            "category_id": int(rng.integers(1, CLASSES + 1)),
        }


def read(folder: Path) -> Any:
    from yolox.data import read_coco

    return read_coco(folder, "instances_train2017.json", "train2017")


def build(folder: Path) -> Any:
    from yolox.data import COCODataset

    return COCODataset(data_dir=folder, json_file="instances_train2017.json", name="train2017")


def doctor(folder: Path) -> Any:
    from yolox.data.datasets.tables import RecordTable
    from yolox.data.doctor import check, inspect_images

    records = read(folder)
    table = RecordTable.of(records.records)
    facts = inspect_images(map(table.image, range(len(table))))
    return check({"train": records}, None, (640, 640), facts)


def metrics(folder: Path) -> Any:
    """COCO AP of detections near the objects and elsewhere; no object of the set is needed."""
    from yolox.evaluators import ImageDetections, evaluate_coco

    rng = np.random.default_rng(0)
    samples, detections = [], []
    from yolox.data.datasets.sample import Sample

    for number in range(min(METRIC_IMAGES, int(folder.name))):
        count = int(rng.poisson(OBJECTS))
        boxes, classes = random_boxes(rng, count), rng.integers(0, CLASSES, count)
        near = boxes + rng.normal(0, 4, boxes.shape)
        found = np.concatenate([near, random_boxes(rng, max(0, FOUND - count))])[:FOUND]
        kinds = np.concatenate([classes, rng.integers(0, CLASSES, FOUND)])[: len(found)]
        samples.append(
            Sample(
                image_id=number,
                name=str(number),
                path=Path(),
                height=HEIGHT,
                width=WIDTH,
                boxes=boxes.astype(np.float32),
                classes=classes,
                difficult=np.zeros(count, bool),
            )
        )
        detections.append(
            ImageDetections(
                image_id=number,
                boxes=found.astype(np.float32),
                scores=np.sort(rng.random(len(found)).astype(np.float32))[::-1],
                classes=kinds,
            )
        )
    with measured() as cost:
        result = evaluate_coco(samples, detections, CLASSES)
        cost["result"] = result
    return cost


def random_boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    corner = rng.uniform(0, 300, (count, 2))
    return np.concatenate([corner, corner + rng.uniform(10, 150, (count, 2))], axis=1)


@contextmanager
def measured() -> Iterator[dict[str, Any]]:
    """CPU seconds of a block, and the memory that it added: in the end, and at most."""
    process = psutil.Process()
    gc.collect()
    cost: dict[str, Any] = {}
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before, start = process.memory_info().rss, seconds()
    yield cost
    cost["cpu"] = seconds() - start
    peak = next(
        int(line.split()[1]) * 1024
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("VmHWM")
    )
    gc.collect()
    cost["live"] = (process.memory_info().rss - before) / MEGABYTE
    cost["peak"] = (peak - before) / MEGABYTE


def seconds() -> float:
    """Of the processor, by this process and those that it started and that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def run(step: Callable[[Path], Any], folder: Path, queue: Any) -> None:
    import yolox.data
    import yolox.data.doctor
    import yolox.evaluators

    _ = yolox.data.COCODataset, yolox.evaluators.evaluate_coco  # imported before the clock starts
    if step is metrics:
        cost = metrics(folder)
    else:
        with measured() as cost:
            cost["result"] = step(folder)
    queue.put({name: value for name, value in cost.items() if name != "result"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, nargs="+", default=SIZES, help="sizes of the sets")
    parser.add_argument("--keep", type=Path, help="folder for the sets, which stay there")
    args = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as temporary:
        root = args.keep or Path(temporary)
        os.environ["YOLOX_CACHE"] = str(Path(temporary) / "cache")
        print("| images | JSON | step | CPU | peak | live |\n|---|---|---|---|---|---|")
        for images in args.images:
            folder = root / str(images)
            make(folder, images)
            size = (folder / "annotations" / "instances_train2017.json").stat().st_size / MEGABYTE
            steps = {"read": read, "set": build, "again": build}
            steps |= {"doctor": doctor, "metrics": metrics}
            for name, step in steps.items():
                queue = context.Queue()
                process = context.Process(target=run, args=(step, folder, queue))
                process.start()
                cost = queue.get()
                process.join()
                row = [f"{images:,}", f"{size:.0f} MB", name, f"{cost['cpu']:.1f} s"]
                row += [f"{cost['peak']:.0f} MB", f"{cost['live']:.0f} MB"]
                print("|", " | ".join(row), "|", flush=True)


if __name__ == "__main__":
    main()
