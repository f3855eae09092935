"""What fine-tuning changes in a recipe, and the teacher that it may have."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loguru import logger

from yolox.core.distill import Distillation, DistillConfig, load_teacher
from yolox.exp.yolox_base import Exp
from yolox.models import YOLOX, ModelSpec
from yolox.utils.checkpoint import CheckpointError, file_digest
from yolox.utils.download import resolve_weights
from yolox.utils.ema import ModelEMA

STRIDE = 32  # of the deepest feature map
EMA_WINDOW = 0.02  # updates that the average spans, as a part of the run's
MAX_RAMP = 2000.0  # updates; that of a run from scratch
WARMUP_SHARE = 0.1  # of the run
PLAIN_UPDATES = 100  # without mosaic at the end; after fewer a model still knows mosaics best
FULL_RATE_UPDATES = 700  # of a run; a shorter one cannot undo what the full rate breaks at first
LEAST_RATE = 0.15  # of the full one: with less the shortest runs ended lower

# What a person would have set on the command line of the whole model's training.
_KEPT_FIELDS = ("input_size", "scheduler", "accumulate", "momentum", "weight_decay", "ema")

_WEIGHTS = ("cls", "obj", "box", "feature")


def fine_tuning(exp: Exp, steps: int, original: Mapping[str, Any] | None = None) -> Exp:
    """A copy of an Exp with the recipe for a pruned model; says in a few lines what it is.

    Fields that the command line gave stay as they are. The unpruned model that a pruned one is
    compared with is trained by the same recipe.

    Args:
        exp: the Exp that the whole model was trained with.
        steps: batches an epoch.
        original: recipe of the run that trained the whole model, where it is known. What it had
            otherwise than the Exp, from its command line, is told.
    """
    tuned, given = copy.copy(exp), exp.given
    if exp.finetune_epochs and "max_epoch" not in given:
        tuned.put(max_epoch=exp.finetune_epochs)
    epochs = tuned.max_epoch
    updates = epochs * math.ceil(steps / exp.accumulate)
    recipe: dict[str, Any] = {
        "no_aug_epochs": plain_epochs(exp, epochs, steps),
        "warmup_epochs": min(exp.warmup_epochs, WARMUP_SHARE * epochs),
        "ema_decay": min(exp.ema_decay, max(1 - 1 / (EMA_WINDOW * updates), 0.0)),
        "multiscale_range": exp.multiscale_range
        if "multiscale_range" in exp.assigned
        else min(exp.multiscale_range, fitting_range(exp)),
        "retake_statistics": exp.retake_statistics or "retake_statistics" not in exp.assigned,
    }
    if "finetune_lr" in given:
        tuned.put(basic_lr_per_img=exp.basic_lr_per_img * exp.finetune_lr)
    elif "basic_lr_per_img" not in given:
        length = min(max(updates / FULL_RATE_UPDATES, LEAST_RATE), 1.0)
        factor = exp.finetune_lr * length
        tuned.put(basic_lr_per_img=exp.basic_lr_per_img * factor)
    tuned.put(**{name: value for name, value in recipe.items() if name not in given})
    if exp.sparsity and "sparsity" not in given:
        tuned.put(sparsity=0.0)
        logger.info("sparsity is off: the model is pruned (give `sparsity` to penalise it again)")
    tuned.check()
    _tell_differences(exp, original or {})
    logger.info(
        f"fine-tuning recipe: {epochs} epochs, the last {tuned.no_aug_epochs} without mosaic, "
        f"warm-up {tuned.warmup_epochs:.3g} epochs, basic_lr_per_img {tuned.basic_lr_per_img:.3g}, "
        f"EMA decay {tuned.ema_decay:.4g}"
    )
    return tuned


def _tell_differences(exp: Exp, original: Mapping[str, Any]) -> None:
    """Warn of what this run, unasked, has otherwise than the one that trained the whole model."""
    names = [*_KEPT_FIELDS]
    if not original.get("sparsity"):  # such a run is a stage of its own, as this one is
        names += ["basic_lr_per_img", *(() if exp.finetune_epochs else ("max_epoch",))]
    now = {name: getattr(exp, name) for name in names if name not in exp.given}
    changes = [
        f"{name} {original[name]} → {value}"
        for name, value in now.items()
        if name in original and original[name] != (list(value) if type(value) is tuple else value)
    ]
    if changes:
        logger.warning(
            f"the run that trained the whole model had other settings: {', '.join(changes)}; to "
            "keep them, set them here too"
        )


def fitting_range(exp: Exp) -> int:
    """The ``multiscale_range`` that stays within a quarter of the input size, as 5 does at 640."""
    return exp.input_size[0] // STRIDE // 4


def warn_of_tiny_images(exp: Exp) -> None:
    """Warn where a default made for 640 pixels has a run of small images train on tiny ones."""
    sizes = exp.train_sizes()
    if "multiscale_range" in exp.assigned or 2 * sizes[0][0] >= exp.input_size[0]:
        return
    low, high, own = ("×".join(map(str, size)) for size in (sizes[0], sizes[-1], exp.input_size))
    logger.warning(
        f"input_size is {own}, and training draws sizes from {low} to {high}: "
        f"multiscale_range {fitting_range(exp)} stays within a quarter of it"
    )


def plain_epochs(exp: Exp, epochs: int, steps: int) -> int:
    """The last epochs, without mosaic, of a shorter run than the Exp's.

    A quarter, but as many as `PLAIN_UPDATES` take. A run that has fewer than these left for mosaics
    is without any.

    Args:
        exp: whose own number is the most.
        epochs: of the run.
        steps: batches an epoch.
    """
    updates = math.ceil(steps / exp.accumulate)
    needed = math.ceil(PLAIN_UPDATES / updates)
    if epochs * updates < 2 * PLAIN_UPDATES:
        needed = epochs
    return min(exp.no_aug_epochs, max(epochs // 4, needed), epochs)


def checkable(exp: Exp) -> Exp:
    """The Exp to check before it is known how it trains: a length that was given needs no other.

    Of a run that ``max_epoch`` alone makes shorter than its plain epochs these follow, as `shorten`
    or `fine_tuning` says.
    """
    if not _is_shortened(exp):
        return exp
    short = copy.copy(exp)
    short.put(no_aug_epochs=exp.max_epoch)
    return short


def shorten(exp: Exp) -> None:
    """Have the plain epochs of a training that is no fine-tuning follow a ``max_epoch`` given."""
    if _is_shortened(exp):
        exp.put(no_aug_epochs=min(exp.no_aug_epochs, exp.max_epoch // 4))
        logger.info(f"no_aug_epochs is {exp.no_aug_epochs}, as max_epoch is {exp.max_epoch}")


def _is_shortened(exp: Exp) -> bool:
    alone = "max_epoch" in exp.given and "no_aug_epochs" not in exp.given
    # An Exp file may assign anything, which `Exp.check` tells.
    return alone and isinstance(exp.no_aug_epochs, int) and 0 < exp.max_epoch < exp.no_aug_epochs


def build_ema(exp: Exp, model: YOLOX, *, tuned: bool) -> ModelEMA | None:
    """The average that the Exp asks for; None where it wants none.

    Args:
        exp: says whether, and with what decay.
        model: whose weights are averaged.
        tuned: the run fine-tunes: the decay is reached in as many updates as the average spans.
    """
    if not exp.ema:
        return None
    ramp = min(1 / (1 - exp.ema_decay), MAX_RAMP) if tuned else MAX_RAMP
    return ModelEMA(model, exp.ema_decay, ramp=ramp)


class Teaching:
    """A teacher's file, checked, and how much of it there is to learn.

    Args:
        source: a path, or a name of published weights.

    Raises:
        CheckpointError: see `load_teacher`.
        UserError: weights that teach nothing.
    """

    def __init__(self, exp: Exp, source: Path, student: YOLOX, spec: ModelSpec) -> None:
        self._config = DistillConfig(
            temperature=exp.distill_temperature,
            **{name: getattr(exp, f"distill_{name}") for name in _WEIGHTS},
        )
        path = resolve_weights(source)
        self._teacher = load_teacher(path, student, spec)
        self.recipe: dict[str, Any] = {
            "teacher": path.name,
            "teacher_sha256": file_digest(path),
            "distill_temperature": exp.distill_temperature,
            **{f"distill_{name}": getattr(exp, f"distill_{name}") for name in _WEIGHTS},
        }
        logger.info(f"teacher: {path}")

    def objective(self, student: YOLOX, steps: int) -> Distillation:
        """The losses with the teacher's, on the student's device; `steps` are an epoch's."""
        device = next(student.parameters()).device
        return Distillation(student, self._teacher.to(device), self._config, steps).to(device)


def require_same_teacher(before: dict[str, Any], now: dict[str, Any]) -> None:
    """Refuse to resume with another teacher than the run had.

    Args:
        before: the recipe of the stopped run.
        now: the recipe of this one.

    Raises:
        CheckpointError: saying which file is needed; or feature maps taught in one of them only.
    """
    had, has = before.get("teacher_sha256"), now.get("teacher_sha256")
    if had == has:
        feature = before.get("distill_feature", 0), now.get("distill_feature", 0)
        if bool(feature[0]) != bool(feature[1]):
            raise CheckpointError(
                f"distill_feature was {feature[0]} in the run to be resumed and is {feature[1]} "
                "now: a run cannot begin or end to learn feature maps, so set it as it was"
            )
        return
    if had is None:
        raise CheckpointError(
            "the run to be resumed had no teacher: resume it without `teacher`, or start a new run "
            "from its weights, as `checkpoint` with another `name`"
        )
    teacher = f"{before['teacher']} (sha256 {had[:12]}…)"
    got = f"{now['teacher']} is another file (sha256 {has[:12]}…)" if has else "there is none"
    raise CheckpointError(
        f"the run to be resumed was distilled from {teacher}, now {got}: give that file as "
        "`teacher`, or start a new run from its weights, as `checkpoint` with another `name`"
    )
