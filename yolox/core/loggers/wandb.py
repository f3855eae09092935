"""Curves, pictures and the best checkpoint in Weights & Biases."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolox.core.loggers.base import HISTOGRAM_BINS, Outcome, Pictures, RunInfo
from yolox.utils.extras import import_extra

# Seconds that a finished training waits for what is still to be sent; reports of W&B's own errors.
_ENVIRONMENT = {"WANDB_FINISH_TIMEOUT": "300", "WANDB_ERROR_REPORTING": "false"}
_RUN_KEYS = ("id", "project", "entity")


@dataclass(frozen=True, kw_only=True)
class WandbOptions:
    """What the ``wandb-…`` pairs of a command line set; W&B's environment variables hold too.

    Attributes:
        project, entity, name, id, group, job_type, notes, tags: of the run, as W&B has them; by
            default the project is ``yolox``, and the run has the output folder's name.
        mode: online, offline or disabled.
        save_dir: folder of W&B's own files; the run's output folder by default.
        log_checkpoints: keep the best checkpoint as an artifact when training is done.
        num_eval_images: evaluation images shown with their detections, after each evaluation.
    """

    project: str | None = None
    entity: str | None = None
    name: str | None = None
    id: str | None = None
    group: str | None = None
    job_type: str | None = None
    notes: str | None = None
    tags: tuple[str, ...] = ()
    mode: str | None = None
    save_dir: str | None = None
    log_checkpoints: bool = False
    num_eval_images: int = 10


class Wandb:
    """A `RunLogger`. Its x-axis is the iteration, so that a resumed run may repeat some."""

    name = "W&B curves"
    advice = "WANDB_MODE=offline keeps a run on the disk, for wandb sync"
    errors: tuple[type[Exception], ...] = (Exception,)  # the package's have no common class

    def __init__(self, options: WandbOptions) -> None:
        self.options = options
        self._run: Any = None
        self.num_pictures = options.num_eval_images

    def start(self, run: RunInfo) -> None:
        """A new W&B run, or the one of the stopped training."""
        for variable, value in _ENVIRONMENT.items():
            os.environ.setdefault(variable, value)
        self._wandb = import_extra("wandb", "the logger wandb")
        options = self.options
        before = run.ids("wandb")
        asked = {name: getattr(options, name) for name in _RUN_KEYS}
        known = before | {name: value for name, value in asked.items() if value is not None}
        folder = options.save_dir or os.environ.get("WANDB_DIR") or str(run.folder)
        Path(folder).mkdir(parents=True, exist_ok=True)
        self._run = self._wandb.init(
            id=known.get("id") or os.environ.get("WANDB_RUN_ID") or secrets.token_hex(4),
            project=known.get("project") or os.environ.get("WANDB_PROJECT") or "yolox",
            entity=known.get("entity"),
            name=options.name or os.environ.get("WANDB_NAME") or run.folder.name,
            group=options.group,
            job_type=options.job_type,
            notes=options.notes,
            tags=list(options.tags) or None,
            mode=options.mode,
            dir=folder,
            resume="allow" if known.get("id") else None,
            # The log and its progress bar stay as they are.
            settings=self._wandb.Settings(console="off"),
        )
        self._run.config.update(dict(run.fields), allow_val_change=True)
        self._run.define_metric("iteration")
        self._run.define_metric("*", step_metric="iteration")
        found = {name: getattr(self._run, name) for name in _RUN_KEYS}
        run.keep_ids("wandb", {name: value for name, value in found.items() if value})

    def scalars(self, iteration: int, values: Mapping[str, float]) -> None:
        """A point of several curves."""
        self._run.log({**values, "iteration": iteration})

    def histogram(self, iteration: int, name: str, values: NDArray[np.float64]) -> None:
        """The distribution of values."""
        histogram = self._wandb.Histogram(np_histogram=np.histogram(values, bins=HISTOGRAM_BINS))
        self._run.log({name: histogram, "iteration": iteration})

    def pictures(self, iteration: int, pictures: Pictures) -> None:
        """One panel of all pictures, which W&B shows by iteration."""
        shown = [self._wandb.Image(pixels, caption=name) for name, pixels in pictures.items()]
        self._run.log({"val/detections": shown, "iteration": iteration})

    def best_checkpoint(self, file: Path) -> None:
        """An artifact of type model, where it was asked for."""
        if self.options.log_checkpoints:
            artifact = self._wandb.Artifact(f"run_{self._run.id}_model", type="model")
            artifact.add_file(str(file), policy="immutable")
            self._run.log_artifact(artifact, aliases=["best"])

    def finish(self, outcome: Outcome) -> None:
        """End the run; W&B calls one that did not finish failed, and it can be resumed."""
        run, self._run = self._run, None
        if run is not None:
            run.finish(exit_code=int(outcome != "finished"))
