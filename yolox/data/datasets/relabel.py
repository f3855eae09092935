"""One order of classes for the training and the evaluation images."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence

import numpy as np

from yolox.data.datasets.sample import DetectionDataset
from yolox.data.datasets.tables import SampleTable
from yolox.data.errors import UnknownClassesError


def with_classes(dataset: DetectionDataset, class_names: Sequence[str]) -> DetectionDataset:
    """The data set with the class indices of another list of names; itself where they are equal.

    Raises:
        UnknownClassesError: a class of the data set is not in the list.
    """
    names = tuple(class_names)
    if tuple(dataset.class_names) == names:
        return dataset
    samples = dataset.samples
    if isinstance(samples, SampleTable):
        used = set(np.unique(samples.classes).tolist())
    else:
        used = {int(index) for sample in samples for index in np.unique(sample.classes)}
    absent = [dataset.class_names[i] for i in sorted(used) if dataset.class_names[i] not in names]
    if absent:
        raise UnknownClassesError(
            absent,
            "the data set has objects of classes that are not in the list: "
            f"{', '.join(absent)}; the list is {', '.join(names)}",
            "Training and evaluation images need the same classes",
        )
    index = np.array(
        [names.index(name) if name in names else -1 for name in dataset.class_names],
        dtype=np.int64,
    )
    same = copy.copy(dataset)
    same.class_names = names
    if isinstance(samples, SampleTable):
        same.samples = samples.with_classes(index)
    else:
        same.samples = [dataclasses.replace(s, classes=index[s.classes]) for s in samples]
    return same
