"""Trains on labels in a format of one's own: python examples/custom_reader.py.

The format is a CSV file a split, an object a line: image,class,x1,y1,x2,y2 in pixels. `read_csv`
says what the file says; `build_samples` then compares it with the images and names what does not
fit. As it stands, two short epochs on the demo data learn nothing yet. All commands take this file:

python tools/check_data.py -f examples/custom_reader.py
python tools/train.py -f examples/custom_reader.py data_dir /data/my_folder
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import yolox
from yolox.data import (
    DetectionDataset,
    Record,
    RecordSet,
    build_samples,
    generate_demo_dataset,
    read_voc,
    resolve_class_list,
)

FOLDER = Path("datasets/custom_reader")


def read_csv(file: Path) -> RecordSet:
    """All images of a CSV file; they lie beside it."""
    rows: dict[str, list[list[str]]] = {}
    with file.open(newline="", encoding="utf-8") as lines:
        for image, *row in csv.reader(lines):
            rows.setdefault(image, []).append(row)
    records = []
    for image, objects in rows.items():
        names = tuple(row[0] for row in objects)
        boxes = tuple((float(a), float(b), float(c), float(d)) for _, a, b, c, d in objects)
        easy = (False,) * len(objects)  # no object is marked as difficult
        where = {"name": image, "image": file.parent / image, "source": file}
        records.append(Record(names=names, boxes=boxes, difficult=easy, **where))
    return RecordSet(title=file.name, records=tuple(records), classes=None)


class Exp(yolox.Exp):
    """A small model on train.csv and val.csv."""

    def __init__(self) -> None:
        super().__init__()
        self.exp_name = "custom_reader"
        self.data_dir = str(FOLDER)
        self.depth, self.width = 0.33, 0.125
        self.input_size = self.test_size = (96, 128)
        self.batch_size, self.max_epoch, self.no_aug_epochs, self.warmup_epochs = 4, 2, 1, 0
        self.data_num_workers = 0

    def train_records(self) -> RecordSet:
        return read_csv(Path(self.data_dir) / "train.csv")

    def eval_records(self) -> RecordSet:
        return read_csv(Path(self.data_dir) / "val.csv")

    def get_dataset(self, cache: bool = False, cache_type: str = "ram") -> DetectionDataset:
        return self._dataset(self.train_records(), self.train_transform(), cache, cache_type)

    def get_eval_dataset(self, **kwargs: Any) -> DetectionDataset:
        return self._dataset(self.eval_records(), self.val_transform())

    def _dataset(self, records: RecordSet, transform: Any, *cache: Any) -> DetectionDataset:
        names = resolve_class_list(records, self.class_names or None)
        samples = build_samples(records, names)
        return DetectionDataset(samples, names, self.input_size, transform, *cache)


def write_demo_data(folder: Path) -> None:
    """The built-in demo data in the format of this example."""
    devkit = generate_demo_dataset(folder, num_images=20)
    for split in ("train", "val"):
        with (folder / f"{split}.csv").open("w", newline="", encoding="utf-8") as lines:
            for record in read_voc(devkit, [("2007", split)]).records:
                image = record.image.relative_to(folder)
                objects = zip(record.names, record.boxes, strict=True)
                csv.writer(lines).writerows([image, name, *box] for name, box in objects)


if __name__ == "__main__":
    write_demo_data(FOLDER)
    result = yolox.train(Exp())
    print(f"AP50-95 {result.ap50_95:.3f}: {result.best_checkpoint}")
