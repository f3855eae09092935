"""Train, prune, evaluate, export and compress detectors from Python, as the commands do.

>>> import yolox
>>> exp = yolox.get_exp("voc", model="yolox-s", data_dir="/data/VOCdevkit")
>>> run = yolox.train(exp)
>>> small = yolox.prune(run.best_checkpoint, exp, target="macs=0.5")
>>> tuned = yolox.train(exp, checkpoint=small.path)
>>> yolox.evaluate(tuned.best_checkpoint, exp).ap50_95
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from loguru import logger

from yolox.core import TrainResult, make_fabric
from yolox.exp import Exp
from yolox.export import ExportError, ExportSettings
from yolox.export.settings import SUFFIXES
from yolox.jobs.compare import compare
from yolox.jobs.compress.pipeline import plan_compression
from yolox.jobs.compress.recipe import Recipe
from yolox.jobs.compress.result import CompressResult, run_compression
from yolox.jobs.compress.settings import CompressError, CompressSettings
from yolox.jobs.evaluate import evaluate
from yolox.jobs.export import evaluation_images, export_checkpoint, has_onnxslim, with_given_names
from yolox.jobs.prune import PruneJob, prepare_pruning, require_own
from yolox.jobs.prune_latency import LatencySettings
from yolox.jobs.prune_run import SCORED_IMAGES
from yolox.jobs.train import TrainOptions, build_trainer
from yolox.models import load_model
from yolox.pruning import CRITERIA, PruneConfig, PruneRecord, PruningError, PruningPlan
from yolox.pruning.idle import BUDGETS, tell_idle_fields
from yolox.utils.checkpoint import CheckpointError
from yolox.utils.choices import LATENCY_RUNTIME, SAVE_EVERY
from yolox.utils.device import keep_freed_memory, resolve_device
from yolox.utils.download import resolve_weights
from yolox.utils.locks import claimed

__all__ = ["compare", "compress", "evaluate", "export_model", "prune", "train"]

PathLike = str | Path


def train(
    exp: Exp,
    *,
    checkpoint: PathLike | None = None,
    resume: bool = False,
    batch_size: int | None = None,
    name: str | None = None,
    act: str | None = None,
    teacher: PathLike | None = None,
    cache: str | None = None,
    precision: str = "auto",
    overwrite: bool = False,
    control: bool = False,
    save_every: float = SAVE_EVERY,
    device: str | torch.device = "auto",
) -> TrainResult:
    """Train a model. A pruned checkpoint is fine-tuned.

    Checkpoints and TensorBoard files are written into the Exp's ``output_dir/exp_name``. For a
    pruned checkpoint, ``_finetune`` is added to the name of that folder.

    Args:
        exp: the recipe of the run; it is not changed.
        checkpoint: weights to start from: a file, or a published name such as ``yolox_s``.
        resume: whether to continue a stopped run, that of `checkpoint` or of the Exp's folder.
        batch_size: number of images in a step; the Exp's by default.
        name: name of the output folder, instead of ``exp_name``.
        act: activation: silu, mish, relu or lrelu; the Exp's by default.
        teacher: checkpoint to learn from as well (distillation).
        cache: where decoded images are kept: ``ram`` or ``disk``; not kept by default.
        precision: arithmetic: auto, fp32, bf16 or fp16.
        overwrite: whether to replace a finished fine-tuning of another model, or one with other
            settings.
        control: whether to fine-tune a whole checkpoint by the recipe of a pruned one, as the
            control that a pruned model is compared with, in a folder with ``_control`` in its name.
        save_every: minutes between two writings of ``latest_ckpt.pth`` inside an epoch; 0 writes it
            after each epoch, and on Ctrl-C.
        device: where to train: ``cpu``, ``gpu`` or an accelerator's name such as ``cuda:1``;
            ``auto`` is the accelerator if there is one.

    Returns:
        The AP of the best evaluation, in [0, 1], and the paths of the checkpoints. Of a fine-tuning
        the model before the first step counts among the evaluations.

    Raises:
        UserError: something in the Exp, the data or the checkpoint cannot work.
    """
    fabric = make_fabric(devices=1, precision=precision, device=device)
    fabric.launch()
    if fabric.device.type == "cpu":
        keep_freed_memory()
    options = TrainOptions(
        checkpoint=None if checkpoint is None else Path(checkpoint),
        resume=resume,
        batch_size=batch_size,
        act=act,
        name=name,
        cache=cache,
        teacher=None if teacher is None else Path(teacher),
        overwrite=overwrite,
        control=control,
        save_every=save_every,
    )
    trainer = build_trainer(copy.copy(exp), fabric, options)
    with claimed(trainer.settings.output_dir, CheckpointError):
        return trainer.train()


def prune(
    checkpoint: PathLike,
    exp: Exp | None = None,
    *,
    output: PathLike | None = None,
    plan: PathLike | PruningPlan | None = None,
    images: int = SCORED_IMAGES,
    overwrite: bool = False,
    evaluate: bool = False,
    time_it: bool = True,
    runtime: str | None = None,
    threads: int | None = None,
    device: str | torch.device = "auto",
    **config: Any,
) -> PruneRecord:
    """Remove channels from a checkpoint, and verify that exactly those were removed.

    The pruned checkpoint is written, with its plan and report beside it.

    Args:
        checkpoint: a file, or the name of published weights.
        exp: the Exp whose training images are used for scores and refitting. Without it, the
            criterion must need no images unless there is a plan, and layers are not refitted.
        output: file to write; ``pruned.pth`` beside the checkpoint by default.
        plan: a plan, or its file, to carry out instead of making a new one; layers that ``ignore``
            names stay whole.
        images: number of training images used for scores.
        overwrite: whether to replace a file that was pruned from another checkpoint, or with
            other settings.
        evaluate: whether to measure AP before and after, on the Exp's evaluation images.
        time_it: whether to measure the latency before and after.
        runtime: runtime to measure in: onnxruntime, openvino, ncnn or torch.
        threads: number of threads in that runtime; one for each core by default. It goes with
            `runtime` or a target in latency.
        device: where to compute and to measure, as `train` takes it.
        config: fields of `yolox.pruning.PruneConfig`, such as ``target="macs=0.5"``,
            ``ch_sparsity=0.4``, ``importance="taylor"``, ``ignore=("head.*",)``.

    Returns:
        What was removed and what it gained. ``.path`` is the pruned checkpoint.

    Raises:
        PruningError: the request cannot be fulfilled, or the result did not pass verification.
            Nothing is written then.
    """
    source = resolve_weights(Path(checkpoint))
    loaded = load_model(source)
    asked = _prune_config(exp, config, planned=plan is not None)
    in_latency = asked.target_kind() == "latency"
    if threads is not None and runtime is None and not in_latency:
        raise PruningError("`threads` is of a measurement in `runtime`: name one")
    if not time_it and (runtime is not None or in_latency):
        raise PruningError("`runtime` and a target in latency measure it: no `time_it=False`")
    tell_idle_fields(asked, config, planned=plan is not None)
    if isinstance(plan, (str, Path)):
        plan = PruningPlan.load(Path(plan))
    target = source.with_name("pruned.pth") if output is None else Path(output)
    if target.resolve() == source.resolve():
        raise PruningError(f"{target} is the checkpoint to prune: name another output")
    if not overwrite:
        require_own(target, source, loaded)
    latency = None
    if runtime is not None or in_latency:
        latency = LatencySettings(
            runtime=runtime or LATENCY_RUNTIME,
            threads=threads or torch.get_num_threads(),
            round_to=config.get("round_to"),
            device=str(device),
        )
    if exp is None:
        if evaluate:
            raise PruningError("evaluate measures AP on an Exp's images: give exp")
        job = PruneJob(
            loaded=loaded,
            source=source,
            output=target,
            config=asked,
            plan=plan,
            time_it=time_it,
            latency=latency,
            device=resolve_device(device),
        )
    else:
        job = prepare_pruning(
            loaded,
            source,
            exp,
            asked,
            target,
            images=images,
            plan=plan,
            evaluate=evaluate,
            time_it=time_it,
            latency=latency,
            device=device,
        )
    if not overwrite:
        job.require_own_request()
    with claimed(target.parent, PruningError, name=target.name):
        return job.run()


def _prune_config(exp: Exp | None, fields: dict[str, Any], *, planned: bool) -> PruneConfig:
    """The config of some fields; without an Exp, what needs images is left out, and named."""
    if unknown := fields.keys() - PruneConfig.__dataclass_fields__.keys():
        raise PruningError(f"no such field of PruneConfig: {', '.join(sorted(unknown))}")
    if planned and (asked := [name for name in BUDGETS if fields.get(name)]):
        names = " and ".join(f"`{name}`" for name in asked)
        raise PruningError(f"`plan` says what goes: it goes without {names}")
    if exp is not None:
        return PruneConfig(**{"seed": exp.seed or 0, **fields})
    if asked := [name for name in ("reconstruct", "bn_recalibrate") if fields.get(name)]:
        raise PruningError(f"{' and '.join(asked)} need an Exp's images: give exp")
    config = PruneConfig(**{**fields, "reconstruct": 0, "bn_recalibrate": 0})
    if CRITERIA[config.importance].needs_data and not planned:
        raise PruningError(
            f"importance {config.importance} is measured on an Exp's images: give exp, or an "
            "importance of the weights alone as lamp"
        )
    logger.warning(
        "without an Exp there are no images to refit layers on, so they stay as the cut leaves "
        "them: a detector can lose all its AP until it is fine-tuned"
    )
    return config


def export_model(
    checkpoint: PathLike,
    output: PathLike,
    *,
    exp: Exp | None = None,
    images: Sequence[PathLike] = (),
    format: str | None = None,
    size: tuple[int, int] | None = None,
    batch_size: int = 1,
    decode: bool = True,
    **settings: Any,
) -> Path:
    """Write a checkpoint for another runtime, and check that it computes there what PyTorch does.

    Args:
        checkpoint: a checkpoint, dense or pruned.
        output: file to write: .onnx, .xml (OpenVINO), .param (ncnn) or .torchscript. Its folder
            is made if it does not exist.
        exp: the Exp whose evaluation images are used for the comparison, and whose
            ``class_names`` are used if the checkpoint has none.
        images: pictures to compare on instead.
        format: onnx, openvino, ncnn or torchscript; by default that of the output's suffix.
        size: (height, width) in pixels, multiples of 32; the checkpoint's by default.
        batch_size: number of images in a run.
        decode: whether boxes are in pixels; otherwise offsets and log sizes of the head.
        settings: other fields of `yolox.export.ExportSettings`, such as ``half=True``,
            ``nms=True``, ``dynamic=True``.

    Returns:
        The file to open.

    Raises:
        ExportError: the file cannot be written as requested, or does not compute the same.
    """
    path = Path(output)
    kinds = {suffixes[0]: name for name, suffixes in SUFFIXES.items()}
    form = format or kinds.get(path.suffix)
    if form is None:
        raise ExportError(f"{path}: expected a name that ends in {', '.join(kinds)}")
    source = resolve_weights(Path(checkpoint))
    loaded = with_given_names(load_model(source), source, exp)
    if unknown := settings.keys() - ExportSettings.__dataclass_fields__.keys():
        raise ExportError(f"no such field of ExportSettings: {', '.join(sorted(unknown))}")
    slim = settings.pop("slim", form == "onnx") and has_onnxslim()
    chosen = ExportSettings(
        format=form,
        size=size or loaded.spec.input_size,
        batch_size=batch_size,
        decode=decode,
        slim=slim,
        **settings,
    )
    pictures = [Path(image) for image in images] or evaluation_images(exp)
    export_checkpoint(loaded, source, path, chosen, pictures)
    return path


def compress(
    checkpoint: PathLike,
    exp: Exp,
    *,
    output: PathLike | None = None,
    **settings: Any,
) -> CompressResult:
    """Prune a trained checkpoint, fine-tune, export and measure it, and write a report.

    The same call continues a run that was stopped. Finished stages are repeated only if their
    arguments have changed.

    Args:
        checkpoint: a file, or the name of published weights.
        exp: the Exp whose data are used; it is not changed. Fields that were set with `get_exp`,
            `Exp.give` or `Exp.merge` apply to this run, except the length of trainings, which
            the settings decide.
        output: folder to write into; ``<exp_name>_compress`` in the Exp's ``output_dir`` by
            default.
        settings: fields of `yolox.jobs.compress.settings.CompressSettings`, such as
            ``target="macs=0.5"``, ``epochs=20``, ``formats=("onnx",)``, ``sparsity=0.001``,
            ``runtime="openvino"``; its defaults are those of the command line.

    Returns:
        ``.checkpoint``, the fine-tuned model; ``.files``, the exported files by format;
        ``.report``; ``.ap_before`` and ``.ap_after`` in [0, 1]; ``.met``, whether the target was
        met.

    Raises:
        UserError: settings that cannot work, all of them listed; or the error of a stage. Finished
            stages stay.
    """
    if unknown := settings.keys() - CompressSettings.__dataclass_fields__.keys():
        raise CompressError(f"no such field of CompressSettings: {', '.join(sorted(unknown))}")
    pipeline = plan_compression(
        resolve_weights(Path(checkpoint)),
        Recipe.of(exp),
        CompressSettings(**settings),
        folder=None if output is None else Path(output),
    )
    return run_compression(pipeline)
