"""Pruning towards a budget in steps, with the ordinary training between them; resumable."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from loguru import logger

from yolox.core.state import epochs_done
from yolox.exp.yolox_base import Exp
from yolox.jobs.calibration import probe
from yolox.jobs.prune import PruneJob
from yolox.jobs.train.assemble import build_trainer
from yolox.jobs.train.start import TrainOptions
from yolox.models import LoadedModel, load_model
from yolox.pruning import PruneConfig, PruneRecord, PruningError, ThresholdHint, trace_groups
from yolox.pruning.select import select_groups
from yolox.utils.checkpoint import file_digest, load_checkpoint
from yolox.utils.documents import json_text, read_json
from yolox.utils.files import write_text
from yolox.utils.locks import claimed
from yolox.utils.model_utils import count_macs, count_params


def prune_in_steps(
    job: PruneJob,
    exp: Exp,
    fabric: Fabric,
    *,
    steps: int,
    epochs: int,
    on_hint: Callable[[ThresholdHint], None] | None = None,
) -> PruneRecord:
    """Prune in `steps` rounds, fine-tuning in between; the last round is left to be fine-tuned.

    What is left shrinks by the same factor each round. A run that was stopped goes on where it was:
    each round has its folder, ``<exp_name>_steps/step_<n>``, with its checkpoints.

    Args:
        job: the whole prune; its config's budget is that of the last round.
        exp: its training recipe, with `epochs` instead of its own number.
        fabric: launched.
        steps: rounds of pruning.
        epochs: of training between two rounds.
        on_hint: see `PruneJob.run`.

    Raises:
        PruningError: ratios by layer, which have no common budget; or the folder holds another run.
    """
    if job.config.fixed_ratios:
        raise PruningError(
            "`steps` goes towards a budget for the whole model: `mode='global'`, or `target`"
        )
    folder = exp.output_folder(f"{exp.exp_name}_steps")
    with claimed(folder, PruningError):
        _mark(folder, job, steps, epochs)
        return _steps(folder, job, exp, fabric, steps, epochs, on_hint)


def _steps(
    folder: Path,
    job: PruneJob,
    exp: Exp,
    fabric: Fabric,
    steps: int,
    epochs: int,
    on_hint: Callable[[ThresholdHint], None] | None,
) -> PruneRecord:
    """See `prune_in_steps`."""
    whole = step_size(job.loaded, job.config)
    loaded, source = job.loaded, job.source
    for step in range(1, steps):
        own = folder / f"step_{step}"
        pruned, latest = own / "pruned.pth", own / "latest_ckpt.pth"
        if not pruned.is_file():
            logger.info(f"step {step} of {steps}: pruning")
            part = dataclasses.replace(
                job,
                loaded=loaded,
                source=source,
                output=pruned,
                config=step_config(job.config, loaded, whole, step / steps),
                time_it=False,
                latency=None,
            )
            part.run(on_hint if step == 1 else None)
        if not latest.is_file() or epochs_done(load_checkpoint(latest)) < epochs:
            logger.info(f"step {step} of {steps}: fine-tuning for {epochs} epochs")
            _train(exp, fabric, own, epochs)
        # The last epoch's: to take the best would be to choose by the evaluation images.
        loaded, source = load_model(latest), latest
    logger.info(f"step {steps} of {steps}: pruning to the budget")
    last = dataclasses.replace(
        job, loaded=loaded, source=source, config=step_config(job.config, loaded, whole, 1.0)
    )
    return last.run(on_hint if steps == 1 else None)


def _mark(folder: Path, job: PruneJob, steps: int, epochs: int) -> None:
    """Mark the folder as this run's, or make sure that it is."""
    run: dict[str, Any] = {
        "source_sha256": file_digest(job.source),
        "steps": steps,
        "epochs": epochs,
        "images": job.images,
        "config": job.config.to_dict(),
    }
    mark = folder / "steps.json"
    if not mark.is_file():
        write_text(mark, json_text(run, indent=1) + "\n", PruningError)
        return
    try:
        found = dict(read_json(mark))
    except (OSError, ValueError, TypeError) as error:
        raise PruningError(
            f"cannot read {mark} ({error}): delete {folder} to start again, or set another exp_name"
        ) from error
    differ = [key for key in run if found.get(key) != run[key]]
    if differ:
        raise PruningError(
            f"{folder} holds a run that differs in {', '.join(differ)}: to continue it, give the "
            "same arguments; to start again, delete it or set another exp_name"
        )
    logger.info(f"continuing the run in {folder}")


def step_size(loaded: LoadedModel, config: PruneConfig) -> float:
    """What the budget counts: MACs, parameters, or output channels of the chosen layers."""
    kind = config.target_kind()
    if kind == "macs":
        return count_macs(loaded.model, torch.zeros(1, 3, *loaded.spec.input_size))[""]
    if kind == "params":
        return count_params(loaded.model)
    groups = select_groups(trace_groups(loaded.model, probe()), config)
    return sum(group.size * group.channels_per_slot for group in groups)


def step_config(
    config: PruneConfig, loaded: LoadedModel, whole: float, progress: float
) -> PruneConfig:
    """The budget of one round, for the model that it starts from."""
    final = 1 - config.ch_sparsity if config.target is None else config.target_fraction()
    left = final**progress * whole / step_size(loaded, config)
    if left >= 1:
        raise PruningError(f"{config.budget()} is met already: fewer `steps` will do")
    if config.target is None:
        return dataclasses.replace(config, ch_sparsity=1 - left)
    return dataclasses.replace(config, target=f"{config.target_kind()}={left:.6f}")


def _train(exp: Exp, fabric: Fabric, folder: Path, epochs: int) -> None:
    recipe = copy.copy(exp)
    recipe.merge(["max_epoch", str(epochs)])  # as if it were given: finetune_epochs has no say
    for name, value in (
        ("warmup_epochs", min(exp.warmup_epochs, 1.0)),
        ("eval_interval", epochs),
    ):
        if name not in exp.given:
            recipe.put(**{name: value})
    latest = folder / "latest_ckpt.pth"
    options = TrainOptions(
        checkpoint=latest if latest.is_file() else folder / "pruned.pth",
        resume=latest.is_file(),
        name=f"{exp.exp_name}_steps/{folder.name}",
        goes_on="the same command",
    )
    build_trainer(recipe, fabric, options).train()
