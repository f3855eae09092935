"""The training loop. It takes built objects; a pruned model is trained as any other."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from lightning_fabric import Fabric
from loguru import logger
from torch import Tensor, nn

from yolox.core.failures import PeerLostError, ResourceError, explain, is_device_failure
from yolox.core.loggers import Pictures, RunInfo, RunLogger, RunLoggers, TensorBoard
from yolox.core.memory import out_of_memory
from yolox.core.optim import start_momentum
from yolox.core.penalty import PenaltyWatch, take_step
from yolox.core.record import Meter, duration_text
from yolox.core.saving import BEST, LATEST, CheckpointFolder
from yolox.core.settings import Regularizer, TrainLoader, TrainResult, TrainSettings
from yolox.core.signals import Interrupted, postponed
from yolox.core.state import (
    Position,
    capture_state,
    position_of,
    recipe_changes,
    restore_state,
)
from yolox.core.statistics import RecentImages, retake_statistics
from yolox.core.step import NonFiniteLossError, forward_losses
from yolox.models import YOLOX, ModelSpec, checkpoint_payload
from yolox.utils.checkpoint import CheckpointError
from yolox.utils.contention import ContentionWatch
from yolox.utils.dist import from_first_process, take_buffers_of_first_process
from yolox.utils.ema import ModelEMA
from yolox.utils.locks import claimed
from yolox.utils.progress import track

Size = tuple[int, int]
_OWN_LOSSES = ("iou_loss", "conf_loss", "cls_loss")  # those of every epoch


@dataclass(kw_only=True)
class Trainer:
    """Trains a model; see `train`.

    Attributes:
        fabric: launched.
        model, spec: the model, on the CPU or already on the device, and its description. Its
            modules are trained in the mode that each is in: what is frozen stays so.
        optimizer: over the model's parameters.
        schedule: learning rate by iteration, counted from 1 over the whole run.
        train_loader: the training images.
        input_size: (height, width) of an iteration's images, from the epoch (from 0) and the
            iteration in it (from 1); called on every process, and the same on all.
        preprocess: scales a batch (images, targets) to such a size.
        image_names: by image id, for messages.
        evaluate: AP50-95, AP50 and a summary of a model: the average, or the model where there is
            none. Called on every process.
        settings: how the run goes.
        ema: the average; None trains without.
        regularizer: a penalty on the model's weights beside the loss.
        pruning: provenance to carry over into the checkpoints of a pruned model.
        recipe: settings that decide the run, in every checkpoint: a resumed run tells what changed.
        resume: content of a ``latest_ckpt.pth`` to go on from.
        given: the model that the run was given, and its description, where that is not `model`, as
            after a change of activation: it is the start that the run is held against.
        objective: what computes the losses from (images, targets), as `Distillation`, and holds the
            model; None: the model itself. The average, evaluations and a checkpoint's model are of
            the model alone; what else it holds is trained and resumed too.
        loggers: where the run's curves go beside TensorBoard's files.
        fields: all settings of the run, as plain values, for those loggers.
        pictures: detections of a model drawn into the first so many evaluation images, for loggers
            that want some; called on the first process.
    """

    fabric: Fabric
    model: YOLOX
    spec: ModelSpec
    optimizer: torch.optim.Optimizer
    schedule: Callable[[int], float]
    train_loader: TrainLoader
    input_size: Callable[[int, int], Size]
    preprocess: Callable[[Tensor, Tensor, Size], tuple[Tensor, Tensor]]
    image_names: Mapping[int, str]
    evaluate: Callable[[nn.Module], tuple[float, float, str]]
    settings: TrainSettings
    ema: ModelEMA | None = None
    regularizer: Regularizer | None = None
    pruning: list[dict[str, Any]] = field(default_factory=list)
    recipe: dict[str, Any] = field(default_factory=dict)
    resume: dict[str, Any] | None = None
    given: tuple[YOLOX, ModelSpec] | None = None
    objective: nn.Module | None = None
    loggers: Sequence[RunLogger] = ()
    fields: Mapping[str, Any] = field(default_factory=dict)
    pictures: Callable[[nn.Module, int], Pictures] | None = None

    def train(self) -> TrainResult:
        """Train to the end; writes ``latest_ckpt.pth`` and ``best_ckpt.pth``.

        The latest one is written each epoch, inside long ones, and where the run is told to stop.

        Raises:
            NonFiniteLossError: the loss is not finite; the files of the last epoch stay.
            CheckpointError: `resume` holds no training state, or nothing can be written, or another
                run writes into the folder.
            PeerLostError: another process raises one of these.
            Interrupted: by Ctrl-C or SIGTERM; the message says where a resumed run starts.
        """
        self.folder = CheckpointFolder(self.settings.output_dir, self.settings.goes_on)
        self._epoch = 0
        self._start: float | None = None  # AP50-95 before the first step
        self._last: float | None = None
        self._recent = RecentImages()
        self._resumed_at: Position | None = None
        self._random_state: Tensor | None = None
        self._batch: tuple[Tensor, Tensor] | None = None
        try:
            # Of the processes of a run one writes, and claims the folder.
            first = self.fabric.is_global_zero
            claim = claimed(self.settings.output_dir, CheckpointError) if first else nullcontext()
            # A signal (of a killed loader's process, say) may raise between the two halves of a
            # `no_grad` deep in torch: the mode of whoever called is set back here.
            with claim, torch.enable_grad():
                try:
                    return self._train()
                except torch.OutOfMemoryError as error:
                    full = str(error).splitlines()[0]
                # Only here, where nothing holds what the step had made.
                self.folder.finish_position()
                raise ResourceError(
                    out_of_memory(full, self.fabric, self._trained, self.optimizer, self._batch)
                    + f"; {self.folder.resume_hint()}"
                )
        except Interrupted as stop:
            self.folder.finish_position()
            where = f"stopped in epoch {self._epoch + 1} of {self.settings.max_epoch}"
            message = f"{where}: {self.folder.resume_hint()}"
            raise Interrupted(stop.number, message if self.fabric.is_global_zero else "") from None
        except Exception as error:
            if not is_device_failure(error):
                raise
            self.folder.finish_position()
            raise ResourceError(f"{explain(error)}: {self.folder.resume_hint()}") from error

    def _train(self) -> TrainResult:
        settings = self.settings
        if self.fabric.is_global_zero:
            self.folder.prepare()
        self._set_up()
        best = TrainResult(
            ap50_95=-1.0,
            ap50=0.0,
            best_checkpoint=settings.output_dir / BEST,
            latest_checkpoint=settings.output_dir / LATEST,
        )
        if self.resume is not None:
            self._epoch, ap50_95, ap50 = restore_state(
                self.resume.get("train"),
                fabric=self.fabric,
                model=self.model,
                optimizer=self.optimizer,
                ema=self.ema,
                averaged=self.resume["model"],
                objective=self.objective,
            )
            self._resumed_at = self._position_to_resume(position_of(self.resume["train"]))
            self._random_state = self.resume["train"]["torch_rng"] if self._resumed_at else None
            self.folder.saved, self.folder.position = self._epoch, self._resumed_at
            self._start = self.resume["train"].get("start")
            best = dataclasses.replace(best, ap50_95=ap50_95, ap50=ap50)
            self._report_resume(self._epoch, self.resume["recipe"])
        self._watch = self._watch_penalty()
        self._contention = ContentionWatch() if self.fabric.device.type == "cpu" else None
        with self._run_loggers() as loggers:
            if self.resume is None and settings.evaluate_start:
                best = self._evaluate_start(best, loggers)
            while self._epoch < settings.max_epoch:
                losses = self._train_epoch(self._epoch, best, loggers)
                best = self.finish_epoch(self._epoch, losses, best, loggers)
                self._epoch += 1
            if best.best_checkpoint.is_file():
                loggers.best_checkpoint(best.best_checkpoint)
        logger.info(f"training done: best AP50-95 {best.ap50_95:.3f}, in {best.best_checkpoint}")
        self._warn_of_lost_accuracy(best)
        return best

    def _evaluate_start(self, best: TrainResult, loggers: RunLoggers) -> TrainResult:
        """The best evaluation before the first step, its model saved; on every process."""
        trained = self.ema.ema if self.ema else self.model
        model, spec = self.given or (trained, self.spec)
        ap50_95, ap50, _ = self.evaluate(model.to(self.fabric.device))
        swapped = self.evaluate(trained)[0] if self.given else ap50_95
        if self.fabric.is_global_zero:
            logger.info(f"before the first step: AP50-95 {ap50_95:.4f}  AP50 {ap50:.4f}")
            if swapped < ap50_95:
                logger.warning(
                    f"the change of activation {spec.act} → {self.spec.act} took AP50-95 from "
                    f"{ap50_95:.3f} to {swapped:.3f}, which training has to win back: "
                    'finetune_act "" keeps the activation'
                )
            loggers.scalars(0, {"val/AP50-95": ap50_95, "val/AP50": ap50})
            payload = checkpoint_payload(model, spec, self.pruning) | {"recipe": self.recipe}
            self.folder.write_start(payload)
        self._start = from_first_process(ap50_95)
        return from_first_process(dataclasses.replace(best, ap50_95=ap50_95, ap50=ap50))

    def _warn_of_lost_accuracy(self, best: TrainResult) -> None:
        """Warn where the last epoch is below the start."""
        if self._start is None or self._last is None or self._last >= self._start:
            return
        kept = "the start" if best.ap50_95 == self._start else "a better epoch"
        if self.fabric.is_global_zero:
            logger.warning(
                f"the last epoch's AP50-95 is {self._last:.3f}, and the run started from "
                f"{self._start:.3f}: training cost accuracy. {best.best_checkpoint} holds {kept}; "
                "raise max_epoch, or lower finetune_lr"
            )

    def _run_loggers(self) -> RunLoggers:
        """All of them in the first process, none in the others."""
        folder, resumed = self.settings.output_dir, self.resume is not None
        run = RunInfo(folder=folder, fields=self.fields, resumed=resumed)
        first = self.fabric.is_global_zero
        return RunLoggers([TensorBoard(), *self.loggers] if first else (), run)

    def _set_up(self) -> None:
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._wrapped, self._optimizer = self.fabric.setup(self._trained, self.optimizer)
        start_momentum(self.optimizer)
        if self.ema:
            # In the same layout as the model, or every update would walk memory crosswise.
            self.ema.ema.to(self.fabric.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def _trained(self) -> nn.Module:
        """What computes the losses."""
        return self.model if self.objective is None else self.objective

    def _watch_penalty(self) -> PenaltyWatch | None:
        """On the first process, where there is a penalty; tells at once what cannot work."""
        if self.regularizer is None or not self.fabric.is_global_zero:
            return None
        watch = PenaltyWatch(
            self.regularizer,
            self.schedule,
            max_epoch=self.settings.max_epoch,
            steps=len(self.train_loader),
            accumulate=self.settings.accumulate,
        )
        if self.resume is None:
            watch.start()
        return watch

    @property
    def _retakes(self) -> bool:
        return self.settings.retake_statistics or self.regularizer is not None

    def _report_resume(self, epoch: int, before: dict[str, Any]) -> None:
        at = self._resumed_at
        inside = f", and iteration {at.iteration} of {at.iterations}" if at else ""
        logger.info(f"resumed after epoch {epoch} of {self.settings.max_epoch}{inside}")
        changes = recipe_changes(before, self.recipe)
        if changes and self.fabric.is_global_zero:
            logger.warning(f"settings changed since the run was stopped: {', '.join(changes)}")

    def _position_to_resume(self, saved: Position | None) -> Position | None:
        """The position, where it is one of this run's too."""
        if saved is None:
            return None
        steps, accumulate = len(self.train_loader), self.settings.accumulate
        if saved.iterations == steps and (
            saved.iteration % accumulate == 0 or saved.iteration == steps
        ):
            return saved
        if self.fabric.is_global_zero:
            logger.warning(
                f"the run was stopped after iteration {saved.iteration} of {saved.iterations}, and "
                f"an epoch has {steps} now, {accumulate} to an update: the epoch is trained again "
                "from its start"
            )
        return None

    def _train_epoch(self, epoch: int, best: TrainResult, loggers: RunLoggers) -> dict[str, float]:
        """An epoch's steps; the means of its losses where there is a penalty to judge by them.

        Where a resumed run was stopped inside the epoch, the rest of them: none, without losses,
        where only the evaluation was left.
        """
        mosaic = epoch < self.settings.max_epoch - self.settings.no_aug_epochs
        if self.model.head.use_l1 == mosaic:
            self.model.head.use_l1 = not mosaic
            if not mosaic and epoch:
                logger.info("mosaic off and L1 loss on from here")
        self._recent.clear()
        steps = len(self.train_loader)
        begin, self._resumed_at = self._resumed_at or Position(0, steps, 0), None
        # Batches that the stopped run kept are loaded again.
        first = begin.iteration - begin.recent
        self.train_loader.set_epoch(epoch, mosaic, first)
        meter, whole = Meter(self.fabric.device), Meter(self.fabric.device)
        meters = (meter, whole) if self.regularizer else (meter,)
        title = f"Epoch {epoch + 1}/{self.settings.max_epoch}"
        loader = track(self._device_batches(), title, steps - first)
        saved, was_asked = time.monotonic(), False
        with postponed("stopping after this step") as stop:
            for number, (images, targets, ids) in enumerate(loader, start=first + 1):
                iteration = epoch * steps + number
                if self._retakes:
                    self._recent.add(images)
                images, targets = self.preprocess(images, targets, self.input_size(epoch, number))
                self._restore_random_state()
                if number <= begin.iteration:
                    continue
                lr = self.schedule(iteration)
                names = [self.image_names.get(index, f"id {index}") for index in ids]
                self._batch = images, targets
                losses = self.train_step(images, targets, names, lr, number, steps)
                for each in meters:
                    each.add(losses, len(images) * self.fabric.world_size)
                if number % self.settings.print_interval == 0 or number == steps:
                    self._log_interval(epoch, number, steps, lr, images, meter, loggers)
                if number % self.settings.accumulate and number < steps:
                    continue  # gradients of a part of a step are not saved
                is_due = 0 < self.settings.save_every <= time.monotonic() - saved
                if (stop() or is_due) and self.fabric.is_global_zero:
                    self._save_position(Position(number, steps, len(self._recent)), best)
                    saved = time.monotonic()
                if stop() and (self.fabric.is_global_zero or was_asked):
                    raise Interrupted(stop())
                # The first process, which saves, may be a step behind the others.
                was_asked = bool(stop())
            self._restore_random_state()
        self._batch = None
        self.folder.finish_position()  # before processes are forked to evaluate
        return whole.read()[0] if self.regularizer and begin.iteration < steps else {}

    def _restore_random_state(self) -> None:
        """In a run resumed inside an epoch, once: iterating its loader anew has drawn a number."""
        if self._random_state is not None:
            torch.set_rng_state(self._random_state.cpu())
            self._random_state = None

    def _images_to_evaluate(self) -> Iterator[Tensor]:
        """The epoch's last images, all of the size that the model is evaluated at.

        Statistics of another size are wrong for it, and training may have ended at any.
        """
        for images in self._recent:
            no_targets = torch.zeros((len(images), 0, 5), device=images.device)
            yield self.preprocess(images, no_targets, self.spec.input_size)[0]

    def _device_batches(self) -> Iterator[tuple[Tensor, Tensor, list[int]]]:
        for images, targets, _, ids in self.train_loader:
            device = self.fabric.device
            images = images.to(device, non_blocking=True, memory_format=torch.channels_last)
            yield (
                images,
                targets.to(device, non_blocking=True),
                torch.as_tensor(ids).ravel().tolist(),
            )

    def train_step(
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
            done = (self._epoch * steps + number) / (self.settings.max_epoch * steps)
            take_step(self.fabric, self._optimizer, self.regularizer, lr=lr, progress=done)
            self._optimizer.zero_grad()
            if self.ema:
                self.ema.update(self.model)
        return losses

    def _log_interval(
        self,
        epoch: int,
        number: int,
        steps: int,
        lr: float,
        images: Tensor,
        meter: Meter,
        loggers: RunLoggers,
    ) -> None:
        means, speed, seconds = meter.read()
        left = (self.settings.max_epoch - epoch) * steps - number
        height, width = images.shape[-2:]
        distill = f" distill {means['distill_loss']:.3f}" if "distill_loss" in means else ""
        logger.info(
            f"epoch {epoch + 1}/{self.settings.max_epoch} iter {number}/{steps}  "
            f"loss {means['total_loss']:.3f} (iou {means['iou_loss']:.3f} conf "
            f"{means['conf_loss']:.3f} cls {means['cls_loss']:.3f} l1 {means['l1_loss']:.3f}"
            f"{distill})  "
            f"lr {lr:.3e}  size {height}×{width}  {speed:.1f} img/s  "
            f"eta {duration_text(left * seconds)}"
            + (f"  {self.regularizer.text()}" if self.regularizer else "")
        )
        if self._contention and (advice := self._contention.advice()):
            logger.warning(advice)
        loggers.scalars(
            epoch * steps + number,
            {f"train/{name}": value for name, value in means.items()}
            | {"train/lr": lr, "train/images_per_second": speed}
            | (self.regularizer.scalars() if self.regularizer else {}),
        )

    def finish_epoch(
        self, epoch: int, losses: Mapping[str, float], best: TrainResult, loggers: RunLoggers
    ) -> TrainResult:
        """Evaluate where it is due, and save; the best evaluation so far, on every process."""
        done = epoch + 1
        plain_epochs = self.settings.max_epoch - self.settings.no_aug_epochs
        due = done % self.settings.eval_interval == 0 or done > plain_epochs
        due = due or done == self.settings.max_epoch
        models = (self.model, self.ema.ema) if self.ema else (self.model,)
        if self.regularizer and self.ema:
            self.regularizer.settle(self.ema.ema)
        if self._retakes and (due or self.regularizer):
            with self.fabric.autocast():
                retake_statistics(models[-1], self.model, self._images_to_evaluate())
        take_buffers_of_first_process(*models)
        self._require_finite_weights(done, models)
        figures = self.evaluate(models[-1]) if due else None
        self._last = figures and figures[0]
        if self.fabric.is_global_zero:
            if self._watch:
                # Epochs without mosaic have other images and losses than those with it.
                alike = done <= plain_epochs or plain_epochs <= 0
                self._watch.epoch(
                    done,
                    loggers,
                    loss=sum(losses[name] for name in _OWN_LOSSES) if alike and losses else None,
                    ap=figures and figures[0],
                    best=best.ap50_95,
                )
            if due and self.pictures and (number := loggers.num_pictures):
                loggers.pictures(done * len(self.train_loader), self.pictures(models[-1], number))
            best = self._conclude(done, figures, best, loggers)
        return from_first_process(best)

    def _conclude(
        self,
        done: int,
        figures: tuple[float, float, str] | None,
        best: TrainResult,
        loggers: RunLoggers,
    ) -> TrainResult:
        """Report an evaluation, save, and return the best one that is on the disk."""
        new = best
        if figures is not None:
            ap50_95, ap50, summary = figures
            logger.info(f"epoch {done}: AP50-95 {ap50_95:.4f}  AP50 {ap50:.4f}")
            if done == self.settings.max_epoch:
                logger.info(f"\n{summary}")
            loggers.scalars(
                done * len(self.train_loader), {"val/AP50-95": ap50_95, "val/AP50": ap50}
            )
            if ap50_95 > best.ap50_95:
                new = dataclasses.replace(best, ap50_95=ap50_95, ap50=ap50)
        state = self._state(done, new)
        written = self.folder.write(
            done,
            self._payload(),
            state,
            is_best=new is not best,
            history=figures is not None and self.settings.save_history,
            last=done == self.settings.max_epoch,
        )
        return new if written else best

    def _save_position(self, position: Position, best: TrainResult) -> None:
        """Let a resumed run continue inside the epoch."""
        state = self._state(self._epoch, best, position)
        self.folder.write_position(self._epoch, position, self._payload(), state)

    def _state(
        self, done: int, best: TrainResult, position: Position | None = None
    ) -> dict[str, Any]:
        return capture_state(
            fabric=self.fabric,
            model=self.model,
            optimizer=self.optimizer,
            ema=self.ema,
            epoch=done,
            best=(best.ap50_95, best.ap50),
            start=self._start,
            objective=self.objective,
            position=position,
        )

    def _payload(self) -> dict[str, Any]:
        """A checkpoint of the average, or of the model where there is none."""
        averaged = self.ema.ema if self.ema else self.model
        return checkpoint_payload(averaged, self.spec, self.pruning) | {"recipe": self.recipe}

    def _require_finite_weights(self, done: int, models: Sequence[nn.Module]) -> None:
        """The loss is checked before an update; this looks at what the last update left."""
        tensors = [t for m in models for t in m.state_dict().values() if t.is_floating_point()]
        if all(bool(torch.isfinite(tensor).all()) for tensor in tensors):
            return
        if not self.fabric.is_global_zero:  # the same weights everywhere: one process tells
            raise PeerLostError("weights are not finite")
        raise NonFiniteLossError(
            f"weights are not finite after epoch {done}: training stopped and the last good "
            "checkpoint is kept. Lower basic_lr_per_img"
        )
