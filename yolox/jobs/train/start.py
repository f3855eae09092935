"""What a training run starts from: nothing, weights, a pruned model, or a stopped run."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from loguru import logger
from torch import nn

from yolox.core.loggers import RunLogger
from yolox.core.state import epochs_done, no_training_state
from yolox.data import rows_by_name
from yolox.exp.follow import classes_of, take_classes, take_test_size
from yolox.exp.yolox_base import Exp
from yolox.jobs.train.official import spec_of
from yolox.models import (
    YOLOX,
    LoadedModel,
    ModelSpec,
    activation_of,
    build_model,
    channel_table,
    load_model,
    swap_activation,
    transfer_weights,
)
from yolox.utils.checkpoint import CheckpointError
from yolox.utils.choices import SAVE_EVERY
from yolox.utils.download import resolve_weights
from yolox.utils.errors import UserError
from yolox.utils.model_utils import copy_model

_SHAPE = ("architecture", "depth", "width", "depthwise")


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """What the command line adds to an Exp.

    Attributes:
        checkpoint: weights to start from; pruned ones are fine-tuned as they are.
        resume: go on from `checkpoint`, or from the run's own latest_ckpt.pth.
        batch_size: of all processes together; the Exp's by default.
        act: activation to train with, over the Exp's ``act`` or ``finetune_act``.
        name: output folder's name, over the Exp's ``exp_name``.
        goes_on: how a person goes on with the run once it is stopped; by default with ``resume``.
        start_epoch: epochs taken as done by a resumed run, over the checkpoint's own number.
        cache: keep decoded images in ``"ram"`` or on ``"disk"``.
        teacher: checkpoint, or name of published weights, to distil from.
        run_logger: where curves go beside TensorBoard's files.
        overwrite: write over a fine-tuning of another kind that is finished.
        save_every: minutes after which a run's position inside an epoch is saved; 0 saves between
            epochs, and where the run is told to stop.
        control: fine-tune `checkpoint` by the recipe of a pruned model although it is whole: what
            a pruned model is compared with.
    """

    checkpoint: Path | None = None
    resume: bool = False
    batch_size: int | None = None
    act: str | None = None
    name: str | None = None
    goes_on: str = ""
    start_epoch: int | None = None
    cache: str | None = None
    teacher: Path | None = None
    run_logger: RunLogger | None = None
    overwrite: bool = False
    control: bool = False
    save_every: float = SAVE_EVERY


@dataclass(frozen=True, kw_only=True)
class StartingPoint:
    """A model to train, and where to.

    Attributes:
        model: in training form, on the CPU.
        spec: its description.
        folder: of the run's files.
        tuned: whether the run fine-tunes a pruned model, or the whole one beside it.
        pruning: what was pruned, as in a checkpoint.
        original: recipe of the run that trained the whole model; empty if not known.
        given: the model as its file has it, and its description, where `model` got another
            activation.
        resume: content of the checkpoint that a stopped run goes on from.
    """

    model: YOLOX
    spec: ModelSpec
    folder: Path
    tuned: bool = False
    pruning: list[dict[str, Any]] = field(default_factory=list)
    original: dict[str, Any] = field(default_factory=dict)
    given: tuple[YOLOX, ModelSpec] | None = None
    resume: dict[str, Any] | None = None


def starting_point(exp: Exp, options: TrainOptions) -> StartingPoint:
    """The model to train: new, from weights, pruned, or the one of a stopped run.

    Raises:
        CheckpointError: a file that does not fit the Exp, or that the run would write over.
    """
    start = _start(exp, options)
    if not options.resume:
        sources = [resolve_weights(path) for path in (options.checkpoint, options.teacher) if path]
        _spare(sources, start.folder, history=exp.save_history_ckpt)
    return start


def _start(exp: Exp, options: TrainOptions) -> StartingPoint:
    folder = exp.output_folder(options.name)
    path = options.checkpoint or (folder / "latest_ckpt.pth" if options.resume else None)
    if options.control and path is None:
        raise UserError(
            "`control` trains a whole model on, by the recipe of a pruned one: give its checkpoint "
            "as `checkpoint`"
        )
    if path is None:
        exp.resolve_classes()
        model = exp.get_model()
        return StartingPoint(model=model, spec=spec_of(exp, model), folder=folder)
    path = resolve_weights(path)
    loaded = load_model(path)
    if options.resume or loaded.is_pruned or options.control:
        # The head is as it is: the data has to follow its order of classes.
        take_classes(exp, loaded.spec, path, pruned=loaded.is_pruned)
        begin = _resumed if options.resume else _fine_tuned
        return begin(path, loaded, exp, options)
    exp.resolve_classes()
    model = exp.get_model()
    _transfer(path, loaded, model, exp)
    return StartingPoint(model=model, spec=spec_of(exp, model), folder=folder)


def _transfer(path: Path, loaded: LoadedModel, model: YOLOX, exp: Exp) -> None:
    """Take the weights of a whole model, those of the classes by their names."""
    theirs = classes_of(exp, loaded.spec, path)
    rows = rows_by_name(theirs, exp.class_names) if theirs else None
    report = transfer_weights(model, loaded.content["model"], rows)
    logger.info(f"weights from {path}: {report}")
    if rows is not None and rows != list(range(len(theirs))):
        known = [name for name, row in zip(exp.class_names, rows, strict=True) if row is not None]
        logger.info(
            f"classes are matched by name: {len(known)} of {len(rows)} have weights in the file"
            + (f": {', '.join(known)}" if known else "")
        )


def _spare(sources: Sequence[Path], folder: Path, *, history: bool) -> None:
    """Refuse to write over what a run starts or learns from; say so where it is another run."""
    written = ("latest_ckpt.pth", "best_ckpt.pth", *(["epoch_*_ckpt.pth"] if history else ()))
    own = [
        path
        for path in dict.fromkeys(sources)
        if any(map(path.match, written)) and path.resolve().parent == folder.resolve()
    ]
    if own:
        raise CheckpointError(
            f"this run writes its checkpoints into {folder}, over {' and '.join(map(str, own))}, "
            f"which it starts or learns from: give it another folder, as "
            f"`name={folder.name + '_2'!r}`, or continue the run that stopped there with `resume`"
        )
    if (folder / "latest_ckpt.pth").is_file():
        logger.warning(
            f"{folder} holds the checkpoints of another run, and this one writes over them: stop "
            "it and give another `name` to keep them, or `resume` to continue that run"
        )


def spare_finished(start: StartingPoint, recipe: dict[str, Any]) -> None:
    """Refuse to write over a finished fine-tuning, unless it is this very one.

    Raises:
        CheckpointError: it was of another pruned model, or of another recipe.
    """
    latest = start.folder / "latest_ckpt.pth"
    if start.resume is not None or not latest.is_file():
        return
    there = load_model(latest)
    if not there.recipe.get("fine_tuning"):
        return
    finished = epochs_done(there.content) >= there.recipe.get("max_epoch", 0)
    differ = sorted(key for key, value in recipe.items() if there.recipe.get(key) != value)
    if there.pruning != start.pruning:
        differ = ["the pruned model", *differ]
    if finished and differ:
        raise CheckpointError(
            f"{start.folder} holds a finished fine-tuning that differs in {', '.join(differ)}: "
            f"give this run another folder, as `name={start.folder.name + '_2'!r}`, or write "
            "over it with `overwrite=True`"
        )


def _resumed(path: Path, loaded: LoadedModel, exp: Exp, options: TrainOptions) -> StartingPoint:
    content = {**loaded.content, "recipe": loaded.recipe}
    if "train" not in content:
        raise no_training_state(path)
    tuned = loaded.recipe.get("fine_tuning", loaded.is_pruned)
    asked = options.act or _given_act(exp, tuned=tuned)
    if asked and asked != loaded.spec.act:
        raise CheckpointError(
            f"{path} is trained with {loaded.spec.act}, and continues with it: leave {asked} out, "
            "or start a new run from its weights, as `checkpoint` with another `name`"
        )
    if options.start_epoch is not None:
        content["train"] = {**content["train"], "epoch": options.start_epoch}
        content["train"].pop("position", None)  # it was in another epoch
    return StartingPoint(
        model=_as_built_by(exp, path, loaded, options),
        spec=dataclasses.replace(
            loaded.spec, class_names=tuple(exp.class_names), input_size=exp.test_size
        ),
        folder=path.parent,
        tuned=tuned,
        pruning=loaded.pruning,
        original=_original(loaded),
        resume=content,
    )


def _given_act(exp: Exp, *, tuned: bool) -> str:
    """The activation that the command line's fields ask for; empty where they do not say."""
    names = ("finetune_act", "act") if tuned else ("act",)
    return next((str(getattr(exp, name)) for name in names if name in exp.given), "")


def _as_built_by(exp: Exp, path: Path, loaded: LoadedModel, options: TrainOptions) -> YOLOX:
    """A loaded model to be trained as the Exp has it: its own modules, frozen parts, SyncBatchNorm.

    Of a pruned one the Exp's modules do not fit, so what they say of training is carried over.
    """
    model = loaded.model
    with torch.random.fork_rng(devices=[]):
        own = exp.get_model()
    weights = model.state_dict()
    shapes = {name: value.shape for name, value in own.state_dict().items()}
    fits = shapes == {name: value.shape for name, value in weights.items()}
    if fits and activation_of(own) == activation_of(model):
        own.load_state_dict(weights)
        return own
    _compare_networks(path, loaded.spec, exp, own, options)
    _warn_of_own_parts(own, model)
    if any(isinstance(module, nn.SyncBatchNorm) for module in own.modules()):
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    modes = {name: module.training for name, module in own.named_modules()}
    for name, module in model.named_modules():
        module.training = modes.get(name, True)
    trained = {name: weight.requires_grad for name, weight in own.named_parameters()}
    for name, weight in model.named_parameters():
        weight.requires_grad_(trained.get(name, True))
    own.backbone, own.head = model.backbone, model.head  # what a class of the Exp's own computes
    return own


def _warn_of_own_parts(own: YOLOX, model: YOLOX) -> None:
    """Say which classes of the Exp's the loaded model cannot have: they are of other channels."""
    parts = [(own.backbone, model.backbone), (own.head, model.head)]
    lost = [
        type(part).__name__
        for part, loaded in parts
        if type(part) is not type(loaded) and isinstance(part, type(loaded))
    ]
    if lost:
        logger.warning(
            f"the Exp builds {' and '.join(lost)}, a pruned model is trained with the package's "
            "own: what these compute otherwise is left out"
        )


def _compare_networks(
    path: Path, spec: ModelSpec, exp: Exp, own: YOLOX, options: TrainOptions
) -> None:
    """The file's model is trained, whatever the Exp builds: not if a person asks for another."""
    asked = spec_of(exp, own)
    with torch.device("meta"):
        # Not by the numbers alone: depths of 0.5 and 0.67 make the same network.
        if channel_table(build_model(spec)) == channel_table(build_model(asked)):
            return
    differ = [name for name in _SHAPE if getattr(spec, name) != getattr(asked, name)]
    theirs, ours = (
        ", ".join(f"{name} {getattr(it, name)}" for name in differ) for it in (spec, asked)
    )
    if exp.given.intersection(differ):
        raise CheckpointError(
            f"{path} holds a model of {theirs}, and its training cannot continue with {ours}: "
            f"leave that out{'' if options.resume else ', or prune a model of that kind'}"
        )
    logger.warning(
        f"{path} holds a model of {theirs}, the Exp describes {ours}: the file's is trained, and "
        "of layers that the Exp freezes those of the same name"
    )


def _fine_tuned(path: Path, loaded: LoadedModel, exp: Exp, options: TrainOptions) -> StartingPoint:
    take_test_size(exp, loaded.spec, path)
    act = options.act or _given_act(exp, tuned=True) or exp.finetune_act or loaded.spec.act
    note, given = "", None
    spec = dataclasses.replace(
        loaded.spec, class_names=tuple(exp.class_names), input_size=exp.test_size
    )
    if act != loaded.spec.act:
        given = copy_model(loaded.model), spec
        units = swap_activation(loaded.model, act)
        note = f", activation {loaded.spec.act} → {act} in {units} units"
    kind, ending = ("pruned", "finetune") if loaded.is_pruned else ("whole", "control")
    logger.info(f"fine-tuning the {kind} model of {path}: new optimizer and EMA{note}")
    name = options.name or f"{exp.exp_name}_{ending}"
    return StartingPoint(
        model=_as_built_by(exp, path, loaded, options),
        spec=dataclasses.replace(spec, act=act),
        folder=exp.output_folder(name),
        tuned=True,
        given=given,
        pruning=loaded.pruning,
        original=_original(loaded),
    )


def _original(loaded: LoadedModel) -> dict[str, Any]:
    """The recipe of the run that the model, or the whole one that it was cut from, came from.

    Of a whole model that is fine-tuned already that is not known.
    """
    if loaded.pruning:
        return dict(loaded.pruning[0].get("recipe") or {})
    return {} if loaded.recipe.get("fine_tuning") else dict(loaded.recipe)
