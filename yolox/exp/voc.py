"""The recipe for data in the VOC layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from yolox.data import RecordSet, VOCDetection, get_yolox_datadir, read_voc, resolve_classes
from yolox.data.datasets.voc_splits import Split, SplitContent
from yolox.exp.fields import ExpError
from yolox.exp.yolox_base import Exp


class VOCExp(Exp):
    """Training on ``VOCdevkit/VOC<year>/{Annotations,ImageSets/Main,JPEGImages}``.

    ``train_sets``, ``val_sets`` and ``test_sets`` name splits as year/split, ``2007/trainval``, or
    as the split alone, where ``data_dir`` holds Annotations, ImageSets/Main and JPEGImages itself.
    Classes come from `class_names`, else from a classes.txt beside the data, else from the
    annotations.
    """

    train_sets: tuple[str, ...] = ("2007/trainval",)  # splits to train on, as year/split
    val_sets: tuple[str, ...] = ("2007/test",)  # splits to evaluate on, as year/split
    test_sets: tuple[str, ...] = ()  # splits of the test images, as year/split
    # activation for fine-tuning a pruned model; empty keeps the one that it has
    finetune_act: str = "mish"

    # Splits that `find_classes` had to read, until the data sets take them.
    _read: dict[Split, SplitContent] | None = None

    def devkit(self) -> Path:
        """The folder that holds the VOC<year> folders."""
        return Path(self.data_dir) if self.data_dir else Path(get_yolox_datadir()) / "VOCdevkit"

    def find_classes(self) -> tuple[str, ...]:
        """The class names of the data; see the class."""
        if type(self).get_dataset is not VOCExp.get_dataset:
            return super().find_classes()
        read: dict[Split, SplitContent] = {}
        sets = _pairs(self.train_sets) + _pairs(self.val_sets)
        names = resolve_classes(self.devkit(), sets, read=read)
        self.put(_read=read)
        return names

    def train_records(self) -> RecordSet:
        return read_voc(self.devkit(), _pairs(self.train_sets))

    def eval_records(self) -> RecordSet:
        return read_voc(self.devkit(), _pairs(self.val_sets))

    def get_dataset(self, cache: bool = False, cache_type: str = "ram") -> VOCDetection:
        return VOCDetection(
            data_dir=self.devkit(),
            image_sets=_pairs(self.train_sets),
            img_size=self.input_size,
            preproc=self.train_transform(),
            cache=cache,
            cache_type=cache_type,
            classes=self.class_names or None,
            read=self._read,
        )

    def get_eval_dataset(self, **kwargs: Any) -> VOCDetection:
        testdev = kwargs.get("testdev", False)
        if testdev and not self.test_sets:
            raise ExpError(
                "no test images: set test_sets to their splits, as test_sets 2007/test; without "
                "that, the splits of val_sets are what can be evaluated"
            )
        return VOCDetection(
            data_dir=self.devkit(),
            image_sets=_pairs(self.test_sets if testdev else self.val_sets),
            img_size=self.test_size,
            preproc=self.val_transform(kwargs.get("legacy", False)),
            classes=self.class_names or None,
            read=self._read,
        )


class DOTAExp(VOCExp):
    """Training on aerial images that tools/convert_dota.py cut into tiles."""

    def __init__(self) -> None:
        super().__init__()
        self.put(
            train_sets=("2007/train",),
            val_sets=("2007/val",),
            input_size=(1024, 1024),
            test_size=(1024, 1024),
            degrees=180.0,  # seen from above, an object has no upright direction
        )


def _pairs(sets: tuple[str, ...]) -> list[tuple[str, str]]:
    pairs = [name.rpartition("/")[::2] for name in sets]
    if any(not split or "/" in year for year, split in pairs):
        raise ExpError(
            "splits are named year/split, as 2007/trainval, or by the split alone, as train: "
            f"{', '.join(sets)}"
        )
    return pairs
