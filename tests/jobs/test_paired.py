"""Models are compared image by image only where classes and images are the same."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from yolox.jobs.paired import Found, paired_differences
from yolox.utils.errors import UserError


def _found(path: str, classes: tuple[str, ...] = ("a", "b"), images: int = 12, **other: Any) -> Any:
    sample = {"boxes": np.zeros((1, 4)), "classes": np.zeros(1, int), "difficult": [False], **other}
    samples = [SimpleNamespace(image_id=n, name=f"{n}.jpg", **sample) for n in range(images)]
    dataset = SimpleNamespace(samples=samples, class_names=classes)
    evaluator = SimpleNamespace(dataset=dataset, headline="coco")
    return Found(path=Path(path), evaluator=evaluator, detections=[], result=None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (_found("b.pth", classes=("b", "a")), "same classes: a.pth has a, b, b.pth b, a"),
        (_found("b.pth", images=11), "same images: a.pth was evaluated on 12, b.pth on 11 others"),
        (_found("b.pth", boxes=np.ones((1, 4))), "same images: a.pth was evaluated on 12"),
    ],
)
def test_models_of_other_classes_or_data_are_refused(other: Found, message: str) -> None:
    with pytest.raises(UserError, match=message):
        paired_differences([_found("a.pth"), _found("a2.pth"), other], 10)


def test_few_images_are_refused_and_the_rest_compared() -> None:
    few = [_found("a.pth", images=9), _found("b.pth", images=9)]
    with pytest.raises(UserError, match="9 are too few: it needs 10 or more"):
        paired_differences(few, 10)
    (difference,) = paired_differences([_found("a.pth"), _found("b.pth")], 10)
    assert (difference.value, difference.is_real) == (0, False)
