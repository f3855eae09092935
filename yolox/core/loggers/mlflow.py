"""Curves, pictures and the best checkpoint in MLflow."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolox.core.loggers.base import Outcome, Pictures, RunInfo
from yolox.utils.extras import import_extra

QUANTILES = (0, 25, 50, 75, 100)  # percent: MLflow has no histograms
_PARAMS_AT_ONCE = 100  # parameters that a server takes at once
_MAX_PARAM_LENGTH = 500  # characters of a parameter that every server takes
_STATUS = {"finished": "FINISHED", "failed": "FAILED", "stopped": "KILLED"}
# The package has no arguments for these. A server that is gone should cost a training seconds.
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}


@dataclass(frozen=True, kw_only=True)
class MlflowOptions:
    """What the ``mlflow-…`` pairs of a command line set, over the environment variables.

    Attributes:
        tracking_uri: of the server or data base, over MLFLOW_TRACKING_URI.
        experiment_name: over MLFLOW_EXPERIMENT_NAME and MLFLOW_EXPERIMENT_ID; ``yolox`` by default.
        run_name: over YOLOX_MLFLOW_RUN_NAME; the output folder's name by default.
        run_id: of a run to go on with, over MLFLOW_RUN_ID.
        log_checkpoints: keep the best checkpoint as an artifact when training is done, over
            YOLOX_MLFLOW_LOG_MODEL_ARTIFACTS.
        num_eval_images: evaluation images shown with their detections, after each evaluation.
    """

    tracking_uri: str | None = None
    experiment_name: str | None = None
    run_name: str | None = None
    run_id: str | None = None
    log_checkpoints: bool | None = None
    num_eval_images: int = 10


class Mlflow:
    """A `RunLogger`, by MLflow's client: its other interface keeps the run in global state."""

    name = "MLflow curves"
    advice = ""
    errors: tuple[type[Exception], ...] = (Exception,)  # of the package, the net, data bases

    def __init__(self, options: MlflowOptions) -> None:
        self.options = options
        self._client: Any = None
        self._run_id = ""
        self.num_pictures = options.num_eval_images

    def start(self, run: RunInfo) -> None:
        """A new MLflow run, or the one of the stopped training."""
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        mlflow = import_extra("mlflow", "the logger mlflow")
        options, before = self.options, run.ids("mlflow")
        uri = options.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
        uri = uri or before.get("tracking_uri") or mlflow.get_tracking_uri()
        self._client = mlflow.MlflowClient(tracking_uri=uri)
        known = options.run_id or before.get("run_id") or os.environ.get("MLFLOW_RUN_ID")
        if known:
            self._client.update_run(known, status="RUNNING")
            self._run_id = known
        else:
            self._run_id = self._new_run(run)
        # A parameter of a run cannot change: what a resumed training has otherwise is in its log.
        there = self._client.get_run(self._run_id).data.params if known else {}
        params = [
            mlflow.entities.Param(name, str(value)[:_MAX_PARAM_LENGTH])
            for name, value in run.fields.items()
            if name not in there
        ]
        for start in range(0, len(params), _PARAMS_AT_ONCE):
            self._client.log_batch(self._run_id, params=params[start : start + _PARAMS_AT_ONCE])
        self._metric = mlflow.entities.Metric
        run.keep_ids("mlflow", {"run_id": self._run_id, "tracking_uri": uri})

    def _new_run(self, run: RunInfo) -> str:
        options, environment = self.options, os.environ.get
        number = None if options.experiment_name else environment("MLFLOW_EXPERIMENT_ID")
        if not number:
            name = options.experiment_name or environment("MLFLOW_EXPERIMENT_NAME") or "yolox"
            found = self._client.get_experiment_by_name(name)
            number = found.experiment_id if found else self._client.create_experiment(name)
        name = options.run_name or environment("YOLOX_MLFLOW_RUN_NAME") or run.folder.name
        tags = json.loads(environment("MLFLOW_TAGS") or "{}")
        created = self._client.create_run(number, run_name=name, tags=tags)
        return str(created.info.run_id)

    def scalars(self, iteration: int, values: Mapping[str, float]) -> None:
        """A point of several curves."""
        now = int(time.time() * 1000)
        metrics = [self._metric(_name(n), float(v), now, iteration) for n, v in values.items()]
        self._client.log_batch(self._run_id, metrics=metrics)

    def histogram(self, iteration: int, name: str, values: NDArray[np.float64]) -> None:
        """Its quantiles, a curve each."""
        found = np.percentile(values, QUANTILES).tolist()
        curves = {f"{name}/quantile_{q}": v for q, v in zip(QUANTILES, found, strict=True)}
        self.scalars(iteration, curves)

    def pictures(self, iteration: int, pictures: Pictures) -> None:
        """Images that MLflow shows by iteration."""
        for name, pixels in pictures.items():
            key = f"val/{_name(name.replace('/', '_'))}"
            self._client.log_image(self._run_id, pixels, key=key, step=iteration)

    def best_checkpoint(self, file: Path) -> None:
        """A file of the run, where it was asked for."""
        wanted = self.options.log_checkpoints
        if wanted is None:
            wanted = os.environ.get("YOLOX_MLFLOW_LOG_MODEL_ARTIFACTS", "").lower() == "true"
        if wanted:
            self._client.log_artifact(self._run_id, str(file), artifact_path="checkpoints")

    def finish(self, outcome: Outcome) -> None:
        """End the run; one that was stopped is called killed, and can be resumed."""
        run_id, self._run_id = self._run_id, ""
        if run_id:
            self._client.set_terminated(run_id, _STATUS[outcome])


def _name(text: str) -> str:
    """A name with other characters replaced than MLflow takes."""
    return re.sub(r"[^\w./ -]", "_", text, flags=re.ASCII)
