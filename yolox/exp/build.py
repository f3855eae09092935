"""From a file or a name to an Exp, and from an Exp to a trainer."""

from __future__ import annotations

import dataclasses
import difflib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from loguru import logger

from yolox.core import Trainer, TrainSettings
from yolox.exp.default import DEFAULT_EXPS
from yolox.exp.yolox_base import Exp, ExpError
from yolox.models import (
    YOLOX,
    LoadedModel,
    ModelSpec,
    load_model,
    swap_activation,
    transfer_weights,
)
from yolox.utils.checkpoint import CheckpointError
from yolox.utils.ema import ModelEMA
from yolox.utils.errors import UserError


def get_exp(exp_file: str | Path | None = None, exp_name: str | None = None) -> Exp:
    """The Exp of a Python file, or a built-in one by name (yolox-nano … yolox-x, yolov3).

    Raises:
        ExpError: neither given, no such file or name, or a file without a class ``Exp``.
    """
    if exp_file is not None:
        return _exp_of_file(Path(exp_file))
    if exp_name is None:
        raise ExpError("name an Exp: a file with -f, or a built-in model with -n")
    name = exp_name.replace("_", "-")
    if name not in DEFAULT_EXPS:
        near = difflib.get_close_matches(name, DEFAULT_EXPS, n=1, cutoff=0.0)
        raise ExpError(
            f"no built-in Exp {exp_name!r}; nearest: {near[0]}; all: {', '.join(DEFAULT_EXPS)}"
        )
    return DEFAULT_EXPS[name]()


def _exp_of_file(path: Path) -> Exp:
    if not path.is_file():
        raise ExpError(f"no Exp file at {path}: see exps/ for examples")
    spec = importlib.util.spec_from_file_location(f"exp_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ExpError(f"{path} is not a Python file: an Exp file ends in .py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "Exp"):
        raise ExpError(f"{path} defines no class Exp, a subclass of yolox.exp.Exp")
    exp = module.Exp()
    if not isinstance(exp, Exp):
        raise ExpError(f"the class Exp of {path} must subclass yolox.exp.Exp")
    return exp


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """What the command line adds to an Exp.

    Attributes:
        checkpoint: weights to start from; pruned ones are fine-tuned as they are.
        resume: go on from `checkpoint`, or from the run's own latest_ckpt.pth.
        batch_size: of all processes together; the Exp's by default.
        act: activation to train with, over the Exp's ``act`` or ``finetune_act``.
        name: output folder's name, over the Exp's ``exp_name``.
    """

    checkpoint: Path | None = None
    resume: bool = False
    batch_size: int | None = None
    act: str | None = None
    name: str | None = None


@dataclass(frozen=True, kw_only=True)
class _Start:
    model: YOLOX
    spec: ModelSpec
    pruning: list[dict[str, Any]]
    resume: dict[str, Any] | None
    folder: Path


def build_trainer(
    exp: Exp, fabric: Fabric, options: TrainOptions
) -> tuple[Trainer, dict[str, Any] | None]:
    """Everything a training run needs, and the content to resume from, if any.

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
    torch.manual_seed(exp.seed)
    start = _starting_point(exp, options)
    loader = exp.get_data_loader(
        batch_size,
        is_distributed=fabric.world_size > 1,
        rank=fabric.global_rank,
        world_size=fabric.world_size,
    )
    lr = exp.basic_lr_per_img * batch_size * exp.accumulate
    recipe = {
        "batch_size": batch_size,
        "lr": lr,
        **{
            key: getattr(exp, key)
            for key in ("max_epoch", "no_aug_epochs", "warmup_epochs", "accumulate", "seed")
        },
        "precision": fabric._precision.precision,
    }
    trainer = Trainer(
        fabric=fabric,
        model=start.model.to(fabric.device),
        spec=start.spec,
        optimizer=exp.get_optimizer(batch_size * exp.accumulate, start.model),
        schedule=exp.get_lr_scheduler(lr, len(loader)),
        train_loader=loader,
        image_names={s.image_id: s.name for s in loader.dataset.dataset.samples},  # type: ignore[attr-defined]
        evaluator=exp.get_evaluator(batch_size),
        settings=TrainSettings(
            output_dir=start.folder,
            max_epoch=exp.max_epoch,
            no_aug_epochs=exp.no_aug_epochs,
            eval_interval=exp.eval_interval,
            print_interval=exp.print_interval,
            sizes=exp.train_sizes(),
            accumulate=exp.accumulate,
            seed=exp.seed,
            save_history=exp.save_history_ckpt,
        ),
        ema=ModelEMA(start.model, exp.ema_decay) if exp.ema else None,
        pruning=start.pruning,
        recipe=recipe,
    )
    return trainer, start.resume


def _starting_point(exp: Exp, options: TrainOptions) -> _Start:
    """The model to train: new, from weights, pruned, or the one of a stopped run."""
    folder = exp.output_folder(options.name)
    path = options.checkpoint or (folder / "latest_ckpt.pth" if options.resume else None)
    if path is None:
        exp.resolve_classes()
        return _Start(
            model=exp.get_model(), spec=exp.model_spec(), pruning=[], resume=None, folder=folder
        )
    loaded = load_model(path)
    if not exp.class_names and (options.resume or loaded.is_pruned):
        # The head is as it is: the data has to follow its order of classes.
        exp.class_names = loaded.spec.class_names
    exp.resolve_classes()
    if options.resume:
        return _resumed(path, loaded, exp)
    if loaded.is_pruned:
        return _fine_tuned(path, loaded, exp, options)
    model = exp.get_model()
    logger.info(f"weights from {path}: {transfer_weights(model, loaded.content['model'])}")
    return _Start(model=model, spec=exp.model_spec(), pruning=[], resume=None, folder=folder)


def _resumed(path: Path, loaded: LoadedModel, exp: Exp) -> _Start:
    if "train" not in loaded.content:
        raise CheckpointError(
            f"{path} holds no training state to resume from: use latest_ckpt.pth, or give it with "
            "-c without --resume to start a new run from its weights"
        )
    _require_same_classes(path, loaded.spec, exp)
    return _Start(
        model=loaded.model,
        spec=loaded.spec,
        pruning=loaded.pruning,
        resume=loaded.content,
        folder=path.parent,
    )


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
        model=loaded.model,
        spec=spec,
        pruning=loaded.pruning,
        resume=None,
        folder=exp.output_folder(name),
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
