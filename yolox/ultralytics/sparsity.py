"""Sparsity training in Ultralytics' trainer: this project's penalty on hooks of the optimizer.

Their trainer unscales the gradients, clips them, steps, and updates the average. The optimizer's
own hooks lie between: they see gradients without loss scale, summed over micro-batches, once a
step, and the average follows them.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from loguru import logger
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer
from ultralytics.utils import RANK
from ultralytics.utils.torch_utils import unwrap_model

from yolox.core.loggers import RunLoggers
from yolox.core.penalty import PenaltyWatch
from yolox.core.statistics import RecentImages, retake_statistics
from yolox.pruning import Sparsity, SparsityConfig, make_sparsity
from yolox.ultralytics.detector import probe, raw_predictions
from yolox.ultralytics.files import SPARSITY

AP, LOSS = "metrics/mAP50-95(B)", "train/"


def add_sparsity(yolo: Any, config: SparsityConfig | None) -> None:
    """Let the training of a ``YOLO`` penalise the scales of its batch norms, or not.

    Its files tell which penalty they were trained with.
    """
    penalty = Penalty(config)
    for event in (
        "on_train_start",
        "on_train_epoch_start",
        "on_train_batch_end",
        "on_train_epoch_end",
        "on_fit_epoch_end",
    ):
        yolo.add_callback(event, getattr(penalty, event))


def sparsity_of(model: Any) -> SparsityConfig | None:
    """The penalty that a model's file was trained with."""
    values = model.yaml.get(SPARSITY)
    if not isinstance(values, dict):
        return None
    return SparsityConfig(**{**values, "drops": tuple(values["drops"])})


class Penalty:
    """The callbacks. Until training starts they hold the settings alone: processes get a copy."""

    def __init__(self, config: SparsityConfig | None) -> None:
        self._config = config
        self._sparsity: Sparsity | None = None
        self._watch: PenaltyWatch | None = None
        self._recent = RecentImages()
        self._batches = 0
        self._best = -math.inf

    def on_train_start(self, trainer: Any) -> None:
        """Trace the model, hook into the optimizer, and say whether the strength will do."""
        model = _student(unwrap_model(trainer.model))
        model.yaml.pop(SPARSITY, None)
        if self._config is None:
            return
        values = asdict(self._config)
        model.yaml[SPARSITY] = values | {"drops": list(values["drops"])}
        # Their rates differ by parameter and momentum by step, so both are put into the rate.
        with raw_predictions(model):
            self._sparsity = make_sparsity(model, self._config, probe(), momentum=0.0)
        model.register_forward_pre_hook(self._look)
        optimizer = trainer.optimizer
        optimizer.register_step_pre_hook(partial(self._before, trainer))
        optimizer.register_step_post_hook(partial(self._after, trainer))
        self._watch = PenaltyWatch(
            self._sparsity,
            self._schedule(trainer),
            max_epoch=trainer.epochs,
            steps=len(trainer.train_loader),
            accumulate=trainer.accumulate,
        )
        if RANK in (-1, 0):
            logger.info(
                f"{self._sparsity.name} on {len(self._sparsity.scale_parameters())} batch norms"
            )
            self._watch.start()

    def on_train_epoch_start(self, _trainer: Any) -> None:
        """Count batches anew."""
        self._batches = 0
        self._recent.clear()

    def on_train_batch_end(self, _trainer: Any) -> None:
        """Count batches."""
        self._batches += 1

    def on_train_epoch_end(self, trainer: Any) -> None:
        """Bring zeros into the average, and its statistics up to date, before it is evaluated."""
        if self._sparsity is None or not trainer.ema:
            return
        average = _student(trainer.ema.ema)
        _without_hook(average)
        self._sparsity.settle(average)
        if len(self._recent):
            side = trainer.args.imgsz  # that of evaluation; training at several sizes ends at any
            batches = (_of_side(images, side) for images in self._recent)
            retake_statistics(average, _student(unwrap_model(trainer.model)), batches)
        if RANK in (-1, 0):
            logger.info(
                f"epoch {trainer.epoch + 1}: {self._sparsity.name}, {self._sparsity.text()}, "
                f"exactly 0 in the average: {100 * self._zeros(average):.0f} %"
            )

    def on_fit_epoch_end(self, trainer: Any) -> None:
        """Say, once, where the penalty ruins the model."""
        if self._watch is None or RANK not in (-1, 0):
            return
        ap = trainer.metrics.get(AP) if trainer.metrics else None
        loss = float(sum(trainer.tloss.values())) if trainer.tloss else None
        self._watch.epoch(trainer.epoch + 1, RunLoggers([]), loss=loss, ap=ap, best=self._best)
        if ap is not None:
            self._best = max(self._best, ap)

    def _look(self, model: nn.Module, args: tuple[Any, ...]) -> None:
        """Keep the images that a model is trained on."""
        if model.training and args:
            images = args[0]["img"] if isinstance(args[0], dict) else args[0]
            self._recent.add(images.detach())

    def _before(self, trainer: Any, optimizer: Optimizer, _args: Any, _kwargs: Any) -> None:
        if self._sparsity and not _skipped(optimizer):
            self._sparsity.add_gradients(self._progress(trainer))

    def _after(self, trainer: Any, optimizer: Optimizer, _args: Any, _kwargs: Any) -> None:
        if self._sparsity and not _skipped(optimizer):
            rates = step_rates(optimizer)
            self._sparsity.shrink(lambda p: rates.get(id(p), 0.0), self._progress(trainer))

    def _progress(self, trainer: Any) -> float:
        done = trainer.epoch + self._batches / len(trainer.train_loader)
        return min(1.0, float(done / trainer.epochs))

    def _schedule(self, trainer: Any) -> Any:
        """The rate, with momentum, that scales move by at an iteration of the run, from 1."""
        assert self._sparsity is not None
        scales = {id(p) for p in self._sparsity.scale_parameters()}
        group = next(
            g for g in trainer.optimizer.param_groups if any(id(p) in scales for p in g["params"])
        )
        momentum = trainer.args.momentum if "momentum" in group else 0.0
        first = group["initial_lr"] / (1 - momentum)
        steps = len(trainer.train_loader)
        return lambda iteration: first * trainer.lf((iteration - 1) // steps)

    def _zeros(self, average: nn.Module) -> float:
        """The share of penalised scales that are 0 in the average."""
        assert self._sparsity is not None
        names = self._sparsity.layers
        scales = [average.get_parameter(f"{name}.weight").detach() for name in names]
        return float((torch.cat(scales) == 0).float().mean())


def _without_hook(average: Any) -> None:
    """An average that was copied from the model in the run must not take the hook into a file."""
    for key, hook in list(average._forward_pre_hooks.items()):
        if getattr(hook, "__func__", None) is Penalty._look:
            del average._forward_pre_hooks[key]


def step_rates(optimizer: Optimizer) -> dict[int, float]:
    """How far a lasting gradient of 1 carries each parameter in a step, by its id.

    lr / (1 - momentum) with SGD, whose momentum Ultralytics raises in the warm-up; lr with Adam,
    whose own step does not grow with the gradient.
    """
    return {
        id(parameter): group["lr"] / (1 - group.get("momentum", 0.0))
        for group in optimizer.param_groups
        for parameter in group["params"]
    }


def _skipped(optimizer: Any) -> bool:
    """Whether a step is left out: fused Adam does that itself, and calls its hooks all the same."""
    found = getattr(optimizer, "found_inf", None)
    return found is not None and bool(found.item())


def _of_side(images: Tensor, side: int) -> Tensor:
    """Images (B, C, H, W) whose longer side is as given, in pixels."""
    longer = max(images.shape[2:])
    if longer == side:
        return images
    return functional.interpolate(images, scale_factor=side / longer, mode="bilinear")


def _student(model: Any) -> Any:
    """The model that is trained, where another one teaches it."""
    return getattr(model, "student_model", model)
