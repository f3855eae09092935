"""The training loop. It takes built objects; a pruned model is trained as any other."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from loguru import logger
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from yolox.core.state import capture_state, recipe_changes, restore_state
from yolox.core.step import LOSS_NAMES, NonFiniteLossError, forward_losses, resize_batch
from yolox.data import TrainLoader
from yolox.evaluators import Evaluator
from yolox.models import YOLOX, ModelSpec, checkpoint_payload
from yolox.utils.checkpoint import save_checkpoint
from yolox.utils.ema import ModelEMA
from yolox.utils.lr_scheduler import WarmupCosineSchedule
from yolox.utils.progress import track

RESIZE_INTERVAL = 10  # iterations between two input sizes of multi-scale training


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """How a run goes.

    Attributes:
        output_dir: where checkpoints, log and TensorBoard files go.
        max_epoch, no_aug_epochs: length; the last ones have no mosaic and add the L1 loss.
        eval_interval: epochs between two evaluations; the last epochs are all evaluated.
        print_interval: iterations between two log lines.
        sizes: input sizes (height, width) to draw from; one for a fixed size.
        accumulate: batches whose gradients make one optimizer step.
        seed: decides the input sizes.
        save_history: keep a checkpoint of every evaluated epoch.
    """

    output_dir: Path
    max_epoch: int
    no_aug_epochs: int
    eval_interval: int
    print_interval: int
    sizes: tuple[tuple[int, int], ...]
    accumulate: int = 1
    seed: int = 0
    save_history: bool = False


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """The best evaluation of the run, and its file."""

    ap50_95: float
    ap50: float
    best_checkpoint: Path


@dataclass(kw_only=True)
class Trainer:
    """Trains a model; see `train`.

    Attributes:
        fabric: launched.
        model, spec: the model, on the CPU or already on the device, and its description.
        optimizer: over the model's parameters.
        schedule: learning rate by iteration.
        train_loader: epochs of batches (images, targets, sizes, ids).
        image_names: by image id, for messages.
        evaluator: run on the average, or on the model where there is none.
        settings: how the run goes.
        ema: the average; None trains without.
        pruning: provenance to carry over into the checkpoints of a pruned model.
        recipe: settings that decide the run, recorded to warn a changed resume.
    """

    fabric: Fabric
    model: YOLOX
    spec: ModelSpec
    optimizer: torch.optim.Optimizer
    schedule: WarmupCosineSchedule
    train_loader: TrainLoader
    image_names: Mapping[int, str]
    evaluator: Evaluator
    settings: TrainSettings
    ema: ModelEMA | None = None
    pruning: list[dict[str, Any]] = field(default_factory=list)
    recipe: dict[str, Any] = field(default_factory=dict)

    def train(self, resume: dict[str, Any] | None = None) -> TrainResult:
        """Train to the end; writes ``latest_ckpt.pth`` each epoch and ``best_ckpt.pth``.

        Args:
            resume: content of a ``latest_ckpt.pth`` to go on from.

        Raises:
            NonFiniteLossError: the loss is not finite; the files of the last epoch stay.
            CheckpointError: nothing to resume from in `resume`.
        """
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._wrapped, self._optimizer = self.fabric.setup(self.model, self.optimizer)
        if self.ema:
            # In the same layout as the model, or every update would walk memory crosswise.
            self.ema.ema.to(self.fabric.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        epoch, best = (
            0,
            TrainResult(
                ap50_95=-1.0, ap50=0.0, best_checkpoint=self.settings.output_dir / "best_ckpt.pth"
            ),
        )
        if resume is not None:
            epoch, ap, ap50 = restore_state(
                resume.get("train"),
                fabric=self.fabric,
                model=self.model,
                optimizer=self.optimizer,
                ema=self.ema,
                averaged=resume["model"],
            )
            best = TrainResult(ap50_95=ap, ap50=ap50, best_checkpoint=best.best_checkpoint)
            self._report_resume(epoch, resume["train"]["recipe"])
        with _scalars(self.settings.output_dir, self.fabric) as scalars:
            for current in range(epoch, self.settings.max_epoch):
                self._train_epoch(current, scalars)
                best = self._finish_epoch(current, best, scalars)
        logger.info(f"training done: best AP50-95 {best.ap50_95:.3f}, in {best.best_checkpoint}")
        return best

    def _report_resume(self, epoch: int, before: dict[str, Any]) -> None:
        logger.info(f"resumed after epoch {epoch} of {self.settings.max_epoch}")
        if changes := recipe_changes(before, self.recipe):
            logger.warning(f"settings changed since the run was stopped: {', '.join(changes)}")

    def _train_epoch(self, epoch: int, scalars: _Scalars) -> None:
        mosaic = epoch < self.settings.max_epoch - self.settings.no_aug_epochs
        if self.model.head.use_l1 == mosaic:
            self.model.head.use_l1 = not mosaic
            if not mosaic and epoch:
                logger.info("mosaic off and L1 loss on from here")
        self._wrapped.train()
        self.train_loader.set_epoch(epoch, mosaic)
        steps = len(self.train_loader)
        meter = _Meter()
        loader = track(
            self._device_batches(), f"Epoch {epoch + 1}/{self.settings.max_epoch}", steps
        )
        for number, (images, targets, ids) in enumerate(loader, start=1):
            iteration = epoch * steps + number
            images, targets = resize_batch(images, targets, self._input_size(epoch, number))
            lr = self.schedule(iteration)
            names = [self.image_names[index] for index in ids]
            losses = self._step(images, targets, names, lr, number, steps)
            meter.add(losses, len(images) * self.fabric.world_size)
            if number % self.settings.print_interval == 0 or number == steps:
                self._log_interval(epoch, number, steps, lr, images, meter, scalars)

    def _device_batches(self) -> Iterator[tuple[Tensor, Tensor, list[int]]]:
        for images, targets, _, ids in self.train_loader:
            device = self.fabric.device
            images = images.to(device, non_blocking=True, memory_format=torch.channels_last)
            yield (
                images,
                targets.to(device, non_blocking=True),
                torch.as_tensor(ids).ravel().tolist(),
            )

    def _step(
        self,
        images: Tensor,
        targets: Tensor,
        names: Sequence[str],
        lr: float,
        number: int,
        steps: int,
    ) -> dict[str, Tensor]:
        """Forward and backward; every `accumulate` batches, and at the epoch's end, an update."""
        accumulate = self.settings.accumulate
        first_of_group = (number - 1) // accumulate * accumulate
        group_size = min(accumulate, steps - first_of_group)
        update = number == first_of_group + group_size
        with self.fabric.no_backward_sync(self._wrapped, enabled=not update):
            losses = forward_losses(self._wrapped, images, targets, names)
            self.fabric.backward(losses["total_loss"] / group_size)
        if update:
            for group in self.optimizer.param_groups:
                group["lr"] = lr
            self._optimizer.step()
            self._optimizer.zero_grad()
            if self.ema:
                self.ema.update(self.model)
        return losses

    def _input_size(self, epoch: int, number: int) -> tuple[int, int]:
        """The input size of an iteration, from the seed alone, so that a resumed run repeats it."""
        sizes = self.settings.sizes
        rng = np.random.default_rng([self.settings.seed, epoch, (number - 1) // RESIZE_INTERVAL])
        return sizes[int(rng.integers(len(sizes)))]

    def _log_interval(
        self,
        epoch: int,
        number: int,
        steps: int,
        lr: float,
        images: Tensor,
        meter: _Meter,
        scalars: _Scalars,
    ) -> None:
        means, speed, seconds = meter.read()
        left = (self.settings.max_epoch - epoch) * steps - number
        height, width = images.shape[-2:]
        logger.info(
            f"epoch {epoch + 1}/{self.settings.max_epoch} iter {number}/{steps}  "
            f"loss {means['total_loss']:.3f} (iou {means['iou_loss']:.3f} conf "
            f"{means['conf_loss']:.3f} cls {means['cls_loss']:.3f} l1 {means['l1_loss']:.3f})  "
            f"lr {lr:.3e}  size {height}×{width}  {speed:.1f} img/s  eta {_clock(left * seconds)}"
        )
        scalars.add(
            epoch * steps + number,
            {f"train/{name}": value for name, value in means.items()}
            | {"train/lr": lr, "train/images_per_second": speed},
        )

    def _finish_epoch(self, epoch: int, best: TrainResult, scalars: _Scalars) -> TrainResult:
        done = epoch + 1
        self._require_finite_weights(done)
        plain_epochs = self.settings.max_epoch - self.settings.no_aug_epochs
        due = done % self.settings.eval_interval == 0 or done > plain_epochs
        due = due or done == self.settings.max_epoch
        is_best = False
        if due:
            # On rank 0 alone: the others wait at the barrier below.
            averaged = self.ema.ema if self.ema else self.model
            if self.fabric.is_global_zero:
                result = self.evaluator.run(averaged, device=self.fabric.device)
                logger.info(f"epoch {done}: AP50-95 {result.ap50_95:.4f}  AP50 {result.ap50:.4f}")
                if done == self.settings.max_epoch:
                    logger.info("\n" + result.summary())
                scalars.add(done * len(self.train_loader), {"val/AP50-95": result.ap50_95})
                scalars.add(done * len(self.train_loader), {"val/AP50": result.ap50})
                is_best = result.ap50_95 > best.ap50_95
                if is_best:
                    best = TrainResult(
                        ap50_95=result.ap50_95,
                        ap50=result.ap50,
                        best_checkpoint=best.best_checkpoint,
                    )
            self.fabric.barrier()
        if self.fabric.is_global_zero:
            self._save(done, best, is_best=is_best, history=due and self.settings.save_history)
        return best

    def _require_finite_weights(self, done: int) -> None:
        """The loss is checked before an update; this looks at what the last update left."""
        models = (self.model, self.ema.ema) if self.ema else (self.model,)
        tensors = [t for m in models for t in m.state_dict().values() if t.is_floating_point()]
        if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors):
            raise NonFiniteLossError(
                f"weights are not finite after epoch {done}: training stopped and the last good "
                "checkpoint is kept. Lower basic_lr_per_img"
            )

    def _save(self, done: int, best: TrainResult, *, is_best: bool, history: bool) -> None:
        folder = self.settings.output_dir
        payload = checkpoint_payload(
            self.ema.ema if self.ema else self.model, self.spec, self.pruning
        )
        state = capture_state(
            fabric=self.fabric,
            model=self.model,
            optimizer=self.optimizer,
            ema=self.ema,
            epoch=done,
            best=(best.ap50_95, best.ap50),
            recipe=self.recipe,
        )
        save_checkpoint(folder / "latest_ckpt.pth", {**payload, "train": state})
        if is_best:
            save_checkpoint(best.best_checkpoint, payload)
        if history:
            save_checkpoint(folder / f"epoch_{done}_ckpt.pth", payload)


class _Meter:
    """Means of the losses and the speed since it was last read."""

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._sums = dict.fromkeys(LOSS_NAMES, 0.0)
        self._batches = 0
        self._images = 0
        self._start = time.perf_counter()

    def add(self, losses: dict[str, Tensor], images: int) -> None:
        for name in LOSS_NAMES:
            self._sums[name] += float(losses[name].detach())
        self._batches += 1
        self._images += images

    def read(self) -> tuple[dict[str, float], float, float]:
        """Mean losses, images a second, and seconds a batch."""
        seconds = time.perf_counter() - self._start
        means = {name: total / self._batches for name, total in self._sums.items()}
        result = means, self._images / seconds, seconds / self._batches
        self._reset()
        return result


class _Scalars:
    """TensorBoard on rank 0, nothing elsewhere."""

    def __init__(self, writer: SummaryWriter | None) -> None:
        self._writer = writer

    def add(self, iteration: int, values: dict[str, float]) -> None:
        if self._writer:
            for name, value in values.items():
                self._writer.add_scalar(name, value, iteration)

    def __enter__(self) -> _Scalars:
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer:
            self._writer.close()


def _scalars(folder: Path, fabric: Fabric) -> _Scalars:
    if not fabric.is_global_zero:
        return _Scalars(None)
    return _Scalars(SummaryWriter(str(folder / "tensorboard")))


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
