"""From an Exp to a trainer."""

from __future__ import annotations

import argparse
import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning_fabric import Fabric
from loguru import logger
from torch import nn

from yolox.core import Trainer, TrainSettings, make_fabric
from yolox.data import RecordSet
from yolox.data.doctor import quick_check
from yolox.exp.finetune import Teaching, average_of, fine_tuning, require_same_teacher
from yolox.exp.official import epoch_loader, image_names, input_sizes, optimizer_of, spec_of
from yolox.exp.sparsity import sparsity_of, sparsity_recipe
from yolox.models import (
    YOLOX,
    LoadedModel,
    ModelSpec,
    activation_of,
    load_model,
    swap_activation,
    transfer_weights,
)
from yolox.utils.checkpoint import CheckpointError
from yolox.utils.device import keep_freed_memory
from yolox.utils.download import resolve_weights
from yolox.utils.errors import UserError

if TYPE_CHECKING:
    from yolox.exp.yolox_base import Exp

_DECISIVE = (
    *("max_epoch", "no_aug_epochs", "warmup_epochs", "warmup_lr", "scheduler", "min_lr_ratio"),
    *("momentum", "weight_decay", "ema", "ema_decay", "retake_statistics", "accumulate", "seed"),
    *("input_size", "multiscale_range", "random_size", "mosaic_prob", "mixup_prob", "enable_mixup"),
    *("hsv_prob", "flip_prob", "degrees", "translate", "shear", "mosaic_scale", "mixup_scale"),
)


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """What the command line adds to an Exp.

    Attributes:
        checkpoint: weights to start from; pruned ones are fine-tuned as they are.
        resume: go on from `checkpoint`, or from the run's own latest_ckpt.pth.
        batch_size: of all processes together; the Exp's by default.
        act: activation to train with, over the Exp's ``act`` or ``finetune_act``.
        name: output folder's name, over the Exp's ``exp_name``.
        start_epoch: epochs taken as done by a resumed run, over the checkpoint's own number.
        cache: keep decoded images in ``"ram"`` or on ``"disk"``.
        teacher: checkpoint, or name of published weights, to distil from.
        given: Exp fields that a person set for this run; fine-tuning leaves them as they are.
    """

    checkpoint: Path | None = None
    resume: bool = False
    batch_size: int | None = None
    act: str | None = None
    name: str | None = None
    start_epoch: int | None = None
    cache: str | None = None
    teacher: Path | None = None
    given: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Start:
    model: YOLOX
    spec: ModelSpec
    folder: Path
    tuned: bool = False
    pruning: list[dict[str, Any]] = field(default_factory=list)
    resume: dict[str, Any] | None = None


def build_trainer(exp: Exp, fabric: Fabric, options: TrainOptions) -> Trainer:
    """Everything that a training run needs.

    Args:
        fabric: launched.

    Raises:
        UserError: anything in the Exp, the data or the checkpoint that cannot work.
    """
    exp.act = options.act or exp.act
    exp.check()
    batch_size = exp.batch_size if options.batch_size is None else options.batch_size
    if batch_size % fabric.world_size:
        raise UserError(
            f"batch size {batch_size} does not divide by {fabric.world_size} processes: change -b"
        )
    torch.manual_seed(exp.seed or 0)
    start = _starting_point(exp, options)
    teaching = _teaching(exp, options, start)
    several = fabric.world_size > 1
    loader = exp.get_data_loader(batch_size, several, cache_img=options.cache)
    evaluator = exp.get_evaluator(batch_size, several)
    if fabric.is_global_zero:
        _look_at_data(exp, loader, evaluator)
    if start.tuned:
        exp = fine_tuning(exp, len(loader), options.given)
    lr = exp.basic_lr_per_img * batch_size * exp.accumulate
    recipe = {
        "batch_size": batch_size,
        "lr": lr,
        "fine_tuning": start.tuned,
        **_decisive_fields(exp),
        "precision": fabric._precision.precision,
        **sparsity_recipe(exp),
        **(teaching.recipe if teaching else {}),
    }
    model = start.model.to(fabric.device)
    optimizer = optimizer_of(exp, batch_size * exp.accumulate, model)
    objective = teaching.objective(model) if teaching else None
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
        ),
        ema=average_of(exp, model, tuned=start.tuned),
        regularizer=sparsity_of(exp, model, optimizer),
        pruning=start.pruning,
        recipe=recipe,
        resume=start.resume,
        objective=objective,
    )


def _decisive_fields(exp: Exp) -> dict[str, Any]:
    """The fields that decide how a run goes, as a checkpoint can hold them."""
    values = {name: getattr(exp, name) for name in _DECISIVE}
    return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}


def _teaching(exp: Exp, options: TrainOptions, start: _Start) -> Teaching | None:
    """The teacher that the run asks for; the same one as before where it is resumed."""
    teaching = None
    if options.teacher is not None:
        teaching = Teaching(exp, options.teacher, start.model, start.spec)
    if start.resume is not None:
        before = start.resume["train"]["recipe"]
        require_same_teacher(before, teaching.recipe if teaching else {})
    return teaching


def _look_at_data(exp: Exp, loader: Any, evaluator: Any) -> None:
    """Warn of what the data doctor finds without opening images, where it can see the records."""
    train = getattr(loader, "dataset", None)
    splits = {
        "train": getattr(getattr(train, "dataset", train), "records", None),
        "val": getattr(getattr(evaluator, "dataset", None), "records", None),
    }
    records = {name: found for name, found in splits.items() if isinstance(found, RecordSet)}
    if records:
        for line in quick_check(records, exp.class_names or None):
            logger.warning(f"data: {line} (tools/check_data.py tells more)")


def trainer_of_command(exp: Exp, args: argparse.Namespace) -> Trainer:
    """The trainer that the flags of tools/train.py ask for, its processes started."""
    precision = args.precision
    if args.fp16:
        precision = "fp16" if torch.cuda.is_available() else "bf16"
    fabric = make_fabric(devices=args.devices, num_nodes=args.num_machines, precision=precision)
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
        given=(*args.opts[::2], *(() if args.sparsity is None else ("sparsity",))),
    )
    return build_trainer(exp, fabric, options)


def _starting_point(exp: Exp, options: TrainOptions) -> _Start:
    """The model to train: new, from weights, pruned, or the one of a stopped run."""
    folder = exp.output_folder(options.name)
    path = options.checkpoint or (folder / "latest_ckpt.pth" if options.resume else None)
    if path is None:
        exp.resolve_classes()
        model = exp.get_model()
        return _Start(model=model, spec=spec_of(exp, model), folder=folder)
    path = resolve_weights(path)
    loaded = load_model(path)
    if not exp.class_names and (options.resume or loaded.is_pruned):
        # The head is as it is: the data has to follow its order of classes.
        exp.class_names = loaded.spec.class_names
    exp.resolve_classes()
    if options.resume:
        return _resumed(path, loaded, exp, options)
    if loaded.is_pruned:
        return _fine_tuned(path, loaded, exp, options)
    model = exp.get_model()
    logger.info(f"weights from {path}: {transfer_weights(model, loaded.content['model'])}")
    return _Start(model=model, spec=spec_of(exp, model), folder=folder)


def _resumed(path: Path, loaded: LoadedModel, exp: Exp, options: TrainOptions) -> _Start:
    content = loaded.content
    if "train" not in content:
        raise CheckpointError(
            f"{path} holds no training state to resume from: use latest_ckpt.pth, or give it with "
            "-c without --resume to start a new run from its weights"
        )
    _require_same_classes(path, loaded.spec, exp)
    asked = options.act or (exp.act if "act" in options.given else None)
    if asked not in (None, loaded.spec.act):
        raise CheckpointError(
            f"{path} is trained with {loaded.spec.act}, and goes on with it: leave {asked} out, or "
            "start a new run from its weights, with -c and without --resume"
        )
    if options.start_epoch is not None:
        content = {**content, "train": {**content["train"], "epoch": options.start_epoch}}
    return _Start(
        model=_as_built_by(exp, loaded.model),
        spec=dataclasses.replace(loaded.spec, input_size=exp.test_size),
        folder=path.parent,
        tuned=content["train"]["recipe"].get("fine_tuning", loaded.is_pruned),
        pruning=loaded.pruning,
        resume=content,
    )


def _as_built_by(exp: Exp, model: YOLOX) -> YOLOX:
    """A loaded model to be trained as the Exp has it: its own modules, frozen parts, SyncBatchNorm.

    Of a pruned one the Exp's modules do not fit, so what they say of training is carried over.
    """
    with torch.random.fork_rng(devices=[]):
        own = exp.get_model()
    weights = model.state_dict()
    shapes = {name: value.shape for name, value in own.state_dict().items()}
    fits = shapes == {name: value.shape for name, value in weights.items()}
    if fits and activation_of(own) == activation_of(model):
        own.load_state_dict(weights)
        return own
    if any(isinstance(module, nn.SyncBatchNorm) for module in own.modules()):
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    modes = {name: module.training for name, module in own.named_modules()}
    for name, module in model.named_modules():
        module.training = modes.get(name, True)
    trained = {name: weight.requires_grad for name, weight in own.named_parameters()}
    for name, weight in model.named_parameters():
        weight.requires_grad_(trained.get(name, True))
    return model


def _fine_tuned(path: Path, loaded: LoadedModel, exp: Exp, options: TrainOptions) -> _Start:
    _require_same_classes(path, loaded.spec, exp)
    act = options.act or exp.finetune_act or loaded.spec.act
    note = ""
    if act != loaded.spec.act:
        units = swap_activation(loaded.model, act)
        note = f", activation {loaded.spec.act} → {act} in {units} units"
    logger.info(f"fine-tuning the pruned model of {path}: new optimizer and EMA{note}")
    spec = dataclasses.replace(
        loaded.spec, act=act, class_names=tuple(exp.class_names), input_size=exp.test_size
    )
    name = options.name or f"{exp.exp_name}_finetune"
    return _Start(
        model=_as_built_by(exp, loaded.model),
        spec=spec,
        folder=exp.output_folder(name),
        tuned=True,
        pruning=loaded.pruning,
    )


def _require_same_classes(path: Path, spec: ModelSpec, exp: Exp) -> None:
    if spec.num_classes != exp.num_classes:
        raise CheckpointError(
            f"{path} has {spec.num_classes} classes ({', '.join(spec.class_names) or 'unnamed'}), "
            f"the data {exp.num_classes} ({', '.join(exp.class_names) or 'unnamed'}): a pruned or "
            "resumed model keeps its head, so use the data it was trained on"
        )
    if spec.class_names and tuple(spec.class_names) != tuple(exp.class_names):
        raise CheckpointError(
            f"{path} was trained for {', '.join(spec.class_names)}; the data's order is "
            f"{', '.join(exp.class_names)}: set class_names to the checkpoint's"
        )
