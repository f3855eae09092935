"""Models against another one on the same images: what a difference in AP is worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from yolox.evaluators import (
    FEWEST_IMAGES,
    Difference,
    EvalResult,
    Evaluator,
    ImageDetections,
    ap_draws,
    difference_of,
)
from yolox.exp.yolox_base import Exp
from yolox.jobs.evaluate import BATCH_SIZE, infer
from yolox.utils.device import resolve_device
from yolox.utils.errors import UserError


@dataclass(frozen=True, kw_only=True, eq=False)
class Found:
    """What a checkpoint's model found in the evaluation images.

    Attributes:
        path: the checkpoint.
        evaluator: of the images.
        detections: an entry an image.
        result: all figures of them.
    """

    path: Path
    evaluator: Evaluator
    detections: Sequence[ImageDetections]
    result: EvalResult


def find(network: nn.Module, source: Path, exp: Exp, device: str | torch.device = "auto") -> Found:
    """Run a model over an Exp's evaluation images.

    Args:
        network: left as it is.
        source: its file.
        exp: has the model's classes and test size.
        device: where it runs, see `yolox.utils.device.resolve_device`; an exported file runs where
            it was opened.
    """
    evaluator = exp.get_evaluator(BATCH_SIZE)
    inference = infer(evaluator, network, resolve_device(device))
    return Found(
        path=source,
        evaluator=evaluator,
        detections=inference.detections,
        result=evaluator.score(inference),
    )


def paired_differences(found: Sequence[Found], draws: int, *, seed: int = 0) -> list[Difference]:
    """AP50-95 of each model after the first minus the first one's, drawn on the same images.

    Args:
        found: of models of the same classes, on the same images.
        draws: how often the images are drawn anew.
        seed: of the draws.

    Raises:
        UserError: other classes or images, or too few images.
    """
    first = found[0]
    for other in found[1:]:
        require_alike(first, other)
    samples = first.evaluator.dataset.samples
    if len(samples) < FEWEST_IMAGES:
        raise UserError(
            f"`paired` resamples the evaluation images, and {len(samples)} are too few: it needs "
            f"{FEWEST_IMAGES} or more"
        )
    names = first.evaluator.dataset.class_names
    aps_MR = ap_draws(
        samples,
        [each.detections for each in found],
        len(names),
        first.evaluator.headline,
        draws=draws,
        seed=seed,
    )
    return [difference_of(aps_MR[0], ap_R) for ap_R in aps_MR[1:]]


def require_alike(first: Found, other: Found) -> None:
    """Refuse to compare models image by image that have other classes, or saw other images.

    Raises:
        UserError: saying what differs.
    """
    one, two = first.evaluator.dataset, other.evaluator.dataset
    if one.class_names != two.class_names:
        raise UserError(
            f"`paired` compares models of the same classes: {first.path} has "
            f"{', '.join(one.class_names)}, {other.path} {', '.join(two.class_names)}"
        )
    same = len(one.samples) == len(two.samples) and all(
        a.name == b.name and np.array_equal(a.boxes, b.boxes)
        for a, b in zip(one.samples, two.samples, strict=True)
    )
    if not same:
        raise UserError(
            f"`paired` compares models on the same images: {first.path} was evaluated on "
            f"{len(one.samples)}, {other.path} on {len(two.samples)} others"
        )
