"""From an Exp to a trainer."""

from __future__ import annotations

import argparse
import math
from functools import partial
from typing import Any

import torch
from lightning_fabric import Fabric
from loguru import logger
from torch import nn
from torch.utils.data import DataLoader

from yolox.core import Trainer, TrainSettings, make_fabric
from yolox.data import DetectionDataset, RecordSet, label_cap, require_objects
from yolox.data.doctor import quick_check
from yolox.evaluators import DETECTION_LIMIT, objects_beyond_limit
from yolox.exp.follow import PRUNED_CLASSES_ADVICE
from yolox.exp.idle import idle_in_training, tell_idle
from yolox.exp.yolox_base import Exp
from yolox.jobs.train.finetune import (
    STRIDE,
    Teaching,
    build_ema,
    checkable,
    fine_tuning,
    require_same_teacher,
    shorten,
    warn_of_tiny_images,
)
from yolox.jobs.train.loggers import evaluation_pictures, plain_fields
from yolox.jobs.train.official import (
    build_optimizer,
    epoch_loader,
    image_names,
    input_sizes,
    training_samples,
)
from yolox.jobs.train.sparsity import build_sparsity, sparsity_recipe
from yolox.jobs.train.start import StartingPoint, TrainOptions, spare_finished, starting_point
from yolox.utils.device import half_precision, keep_freed_memory, pins_memory, resolve_device
from yolox.utils.errors import UserError

_DECISIVE = (
    "max_epoch",
    "no_aug_epochs",
    "warmup_epochs",
    "warmup_lr",
    "scheduler",
    "min_lr_ratio",
    "basic_lr_per_img",
    "momentum",
    "weight_decay",
    "ema",
    "ema_decay",
    "retake_statistics",
    "accumulate",
    "seed",
    "input_size",
    "multiscale_range",
    "random_size",
    "mosaic_prob",
    "mixup_prob",
    "enable_mixup",
    "hsv_prob",
    "flip_prob",
    "degrees",
    "translate",
    "shear",
    "mosaic_scale",
    "mixup_scale",
    "max_labels",
)


def build_trainer(exp: Exp, fabric: Fabric, options: TrainOptions) -> Trainer:
    """Everything that a training run needs.

    Args:
        exp: the recipe; its activation becomes the one that the options ask for.
        fabric: launched.
        options: the command's flags.

    Raises:
        UserError: anything in the Exp, the data or the checkpoint that cannot work.
    """
    exp.put(act=options.act or exp.act)
    checkable(exp).check()
    batch_size = exp.batch_size if options.batch_size is None else options.batch_size
    if batch_size % fabric.world_size:
        raise UserError(
            f"batch size {batch_size} does not divide by {fabric.world_size} processes: change "
            "`batch_size`"
        )
    _require_statistics(exp, batch_size // fabric.world_size)
    torch.manual_seed(exp.seed or 0)
    start = starting_point(exp, options)
    if not start.tuned:
        shorten(exp)
        exp.check()
    teaching = _teaching(exp, options, start)
    several = fabric.world_size > 1
    loader = exp.get_data_loader(batch_size, several, cache_img=options.cache)
    if isinstance(loader, DataLoader):
        loader.pin_memory = pins_memory(fabric.device)
    if not len(loader):
        raise UserError(
            f"the training data make no batch of {batch_size}: lower the batch size, or have the "
            "Exp's loader keep a smaller last one"
        )
    if isinstance(dataset := _images_of(loader), DetectionDataset):
        require_objects(dataset)
    evaluator = exp.get_evaluator(batch_size, several)
    if fabric.is_global_zero:
        _look_at_data(exp, loader, evaluator)
    if start.tuned:
        _tell_unused_classes(loader, start)
        exp = fine_tuning(exp, len(loader), start.original)
    elif fabric.is_global_zero:
        warn_of_tiny_images(exp)
    lr = exp.basic_lr_per_img * batch_size * exp.accumulate
    recipe = {
        "batch_size": batch_size,
        "fine_tuning": start.tuned,
        **_decisive_fields(exp),
        "precision": fabric._precision.precision,
        **sparsity_recipe(exp),
        **(teaching.recipe if teaching else {}),
    }
    if not options.overwrite:
        spare_finished(start, recipe)
    model = start.model.to(fabric.device)
    optimizer = build_optimizer(exp, batch_size * exp.accumulate, model)
    objective = teaching.objective(model, len(loader)) if teaching else None
    if objective and (beside := list(objective.adapters.parameters())):
        optimizer.add_param_group({"params": beside})

    def evaluate(model: nn.Module) -> tuple[float, float, str]:
        ap50_95, ap50, summary = exp.eval(model, evaluator, several)
        return ap50_95, ap50, summary

    return Trainer(
        fabric=fabric,
        model=model,
        spec=start.spec,
        optimizer=optimizer,
        schedule=exp.get_lr_scheduler(lr, len(loader)),
        train_loader=epoch_loader(loader),
        input_size=input_sizes(exp, loader, fabric.global_rank, several),
        preprocess=exp.preprocess,
        image_names=image_names(loader),
        evaluate=evaluate,
        settings=TrainSettings(
            output_dir=start.folder,
            max_epoch=exp.max_epoch,
            no_aug_epochs=exp.no_aug_epochs,
            eval_interval=exp.eval_interval,
            print_interval=exp.print_interval,
            accumulate=exp.accumulate,
            save_history=exp.save_history_ckpt,
            retake_statistics=exp.retake_statistics,
            evaluate_start=start.tuned,
            save_every=60 * options.save_every,
            goes_on=options.goes_on,
        ),
        ema=build_ema(exp, model, tuned=start.tuned),
        regularizer=build_sparsity(exp, model, optimizer),
        pruning=start.pruning,
        recipe=recipe,
        resume=start.resume,
        given=start.given,
        objective=objective,
        loggers=[options.run_logger] if options.run_logger else [],
        fields=plain_fields(exp) | recipe,
        pictures=partial(evaluation_pictures, exp, evaluator),
    )


def _require_statistics(exp: Exp, images: int) -> None:
    """Refuse a batch that leaves batch norms one value a channel, before a run has begun."""
    height, width = min(exp.train_sizes(), key=math.prod)
    if images * (height // STRIDE) * (width // STRIDE) == 1:
        raise UserError(
            "a batch norm cannot train on one value a channel, all that is left of one image of "
            f"{height}×{width}: raise `batch_size`, input_size or the least of random_size"
        )


def _decisive_fields(exp: Exp) -> dict[str, Any]:
    """The fields that decide how a run goes, as a checkpoint can hold them."""
    names = (*_DECISIVE, "milestones") if exp.scheduler == "multistep" else _DECISIVE
    values = {name: getattr(exp, name) for name in names}
    return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}


def _teaching(exp: Exp, options: TrainOptions, start: StartingPoint) -> Teaching | None:
    """The teacher that the run asks for; the same one as before where it is resumed."""
    teaching = None
    if options.teacher is not None:
        teaching = Teaching(exp, options.teacher, start.model, start.spec)
    if start.resume is not None:
        before = start.resume["recipe"]
        require_same_teacher(before, teaching.recipe if teaching else {})
    return teaching


def _tell_unused_classes(loader: Any, start: StartingPoint) -> None:
    """Warn where most classes of a pruned model have no objects in the training images."""
    used = {int(index) for sample in training_samples(loader) for index in sample.classes}
    if used and 2 * len(used) < start.spec.num_classes:
        logger.warning(
            f"the training images have objects of {len(used)} of the model's "
            f"{start.spec.num_classes} classes, and {PRUNED_CLASSES_ADVICE}"
        )


def _images_of(loader: Any) -> Any:
    """The data set that a loader reads, or that its mosaics are made of."""
    dataset = getattr(loader, "dataset", None)
    return getattr(dataset, "dataset", dataset)


def _look_at_data(exp: Exp, loader: Any, evaluator: Any) -> None:
    """Warn of what the data doctor finds without opening images, where it can see the records."""
    splits = {
        "train": getattr(_images_of(loader), "records", None),
        "val": getattr(getattr(evaluator, "dataset", None), "records", None),
    }
    records = {name: found for name, found in splits.items() if isinstance(found, RecordSet)}
    if records:
        for line in quick_check(records, exp.class_names or None):
            logger.warning(f"data: {line} (`yolox.data.doctor` shows more)")
    _tell_cut_objects(getattr(loader, "dataset", None))
    _tell_coco_limit(evaluator)


def _tell_cut_objects(train: Any) -> None:
    """Say what the training transform leaves out, as an Exp or an official loader may ask for."""
    cap = label_cap(getattr(train, "preproc", None))
    dataset = getattr(train, "dataset", train)
    if cap is None or not isinstance(dataset, DetectionDataset):
        return
    counts = [len(dataset.labels(i)) for i in range(len(dataset))]
    full = sum(count > cap for count in counts)
    cut = sum(max(count - cap, 0) for count in counts)
    if cut:
        logger.warning(
            f"data: max_labels keeps {cap} objects of an image: {cut:,} of {sum(counts):,} objects "
            f"are cut each epoch, of {full:,} images, and count as background there; in mosaics, "
            "which show parts of four images, more. max_labels 0 keeps all"
        )


def _tell_coco_limit(evaluator: Any) -> None:
    """Say where the AP that a run is judged by cannot reach 1."""
    samples = getattr(getattr(evaluator, "dataset", None), "samples", ())
    beyond = objects_beyond_limit(samples)
    if beyond and getattr(evaluator, "headline", None) == "coco":
        logger.warning(
            f"data: COCO's rule looks at {DETECTION_LIMIT} detections of a class in an image, and "
            f"{beyond:,} objects to evaluate on are beyond that: AP cannot reach 1. VOC's rules "
            "look at all"
        )


def trainer_of_command(exp: Exp, args: argparse.Namespace) -> Trainer:
    """The trainer that the flags of tools/train.py ask for, its processes started."""
    precision = args.precision
    if args.fp16:
        precision = half_precision(resolve_device(args.device))
    fabric = make_fabric(
        devices=args.devices,
        num_nodes=args.num_machines,
        precision=precision,
        device=args.device,
    )
    fabric.launch()
    if fabric.device.type == "cpu":
        keep_freed_memory()
    options = TrainOptions(
        checkpoint=args.ckpt,
        resume=args.resume,
        batch_size=args.batch_size,
        act=args.act,
        name=args.experiment_name,
        start_epoch=args.start_epoch,
        cache=args.cache,
        teacher=args.distill,
        run_logger=args.run_logger,
        overwrite=args.overwrite,
        control=args.control,
        save_every=args.save_every,
    )
    trainer = build_trainer(exp, fabric, options)
    if fabric.is_global_zero:
        cases = idle_in_training(
            exp,
            tuned=trainer.recipe["fine_tuning"],
            penalised=trainer.regularizer is not None,
            taught=trainer.objective is not None,
        )
        tell_idle(exp, cases)
    return trainer
