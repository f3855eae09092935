"""The recipe for data in the YOLO text layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from yolox.data import DetectionDataset, RecordSet, YOLODataset, get_yolox_datadir, read_yolo
from yolox.data.datasets.yolo_txt import yolo_classes
from yolox.exp.yolox_base import Exp


class YOLOExp(Exp):
    """Training on images with one label file each, described by a ``data.yaml``.

    ``data_dir`` is the folder of `data_yaml`, or the file itself. Classes are those of the file.
    """

    data_yaml: str = "data.yaml"  # name of the file that describes the data set
    train_split: str = "train"  # split to train on
    val_split: str = "val"  # split to evaluate on
    test_split: str = "test"  # split of the test images
    # activation for fine-tuning a pruned model; empty keeps the one that it has
    finetune_act: str = "mish"

    def data_file(self) -> Path:
        """The ``data.yaml``."""
        folder = Path(self.data_dir) if self.data_dir else Path(get_yolox_datadir()) / "YOLO"
        return folder if folder.suffix.lower() in (".yaml", ".yml") else folder / self.data_yaml

    def find_classes(self) -> tuple[str, ...]:
        if type(self).get_dataset is YOLOExp.get_dataset:
            names = yolo_classes(self.data_file(), self.train_split)
            if names:
                return names
        return super().find_classes()

    def train_records(self) -> RecordSet:
        return read_yolo(self.data_file(), self.train_split)

    def eval_records(self) -> RecordSet:
        return read_yolo(self.data_file(), self.val_split)

    def get_dataset(self, cache: bool = False, cache_type: str = "ram") -> DetectionDataset:
        return YOLODataset(
            self.data_file(),
            self.train_split,
            img_size=self.input_size,
            preproc=self.train_transform(),
            cache=cache,
            cache_type=cache_type,
            classes=self.class_names or None,
        )

    def get_eval_dataset(self, **kwargs: Any) -> DetectionDataset:
        return YOLODataset(
            self.data_file(),
            self.test_split if kwargs.get("testdev", False) else self.val_split,
            img_size=self.test_size,
            preproc=self.val_transform(kwargs.get("legacy", False)),
            classes=self.class_names or None,
        )
