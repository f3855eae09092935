"""Ultralytics' own trainer, which keeps the structure of a pruned model."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from loguru import logger
from torch import nn
from ultralytics import YOLO
from ultralytics.cfg import get_cfg, parse_key_value_pair
from ultralytics.models.yolo.detect import DetectionTrainer

from yolox.pruning import SparsityConfig
from yolox.ultralytics.data import read_data, require_classes
from yolox.ultralytics.files import is_pruned, read_checkpoint
from yolox.ultralytics.messages import cause_of
from yolox.ultralytics.sparsity import add_sparsity, sparsity_of
from yolox.utils.errors import UserError

SPARSE_OPTIMIZER = "SGD"  # network slimming's; "auto" is Adam for short runs, which hardly moves γ


class KeepStructure:
    """Lets a trainer of Ultralytics take a pruned model as it is; to be inherited before it."""

    def get_model(
        self, cfg: Any = None, weights: nn.Module | None = None, verbose: bool = True
    ) -> Any:
        """A copy of pruned weights' own model; what the trainer builds where they are whole.

        Raises:
            UserError: a pruned model without its weights, or data of other classes.
        """
        trainer: Any = self
        if not is_pruned(weights):
            if is_pruned(cfg):
                raise UserError(
                    "a pruned model cannot be built from its YAML: leave out pretrained, and "
                    "resume only its own last.pt"
                )
            return super().get_model(cfg=cfg, weights=weights, verbose=verbose)  # type: ignore[misc]
        require_classes(weights, trainer.data, str(trainer.args.data))
        whole: Any = weights
        model = copy.deepcopy(whole).float()
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(".dfl" not in name)
        trainer.set_model_names_for_load(model)
        if verbose:
            model.info()
        return model


class PrunedTrainer(KeepStructure, DetectionTrainer):  # type: ignore[misc]
    """Ultralytics' detection trainer for pruned models, and for whole ones as they are.

    As in ``YOLO("pruned.pt").train(trainer=PrunedTrainer, data="my.yaml")``.
    """


def train(path: str, words: Sequence[str], sparsity: SparsityConfig | None) -> Path:
    """Train in Ultralytics' trainer.

    Args:
        path: a ``.pt``, pruned or not, or a YAML of Ultralytics.
        words: its own settings, ``key=value``.
        sparsity: of the scales of batch norms; a resumed run has that of its file.

    Returns:
        The best file.

    Raises:
        UserError: see `read_detector` and `settings_of`; data of other classes than a pruned model;
            a finished run that is to be resumed.
    """
    settings = settings_of(words)
    if path.startswith("model="):
        raise UserError(f"{path}: give the file alone, as {path.removeprefix('model=')}")
    if not path.endswith((".pt", ".yaml", ".yml")):
        raise UserError(f"{path}: expected a .pt file of Ultralytics, or a YAML of a model")
    # What is wrong is told before their trainer makes its folder.
    source = settings.get("data")
    data = read_data(source) if isinstance(source, str) else None
    if path.endswith(".pt"):
        model, checkpoint = read_checkpoint(path)
        if settings.get("resume"):
            if checkpoint.get("optimizer") is None:
                raise UserError(
                    f"{path} is of a finished run, so there is nothing to continue: leave resume "
                    "out to train it again"
                )
            sparsity = _resumed(model, sparsity)
        elif is_pruned(model) and data is not None:
            require_classes(model, data, str(source))
    if source is None and not settings.get("resume"):
        raise UserError("no data set to train on: name it, as data=my.yaml")
    if sparsity and not settings.get("resume") and "optimizer" not in settings:
        settings["optimizer"] = SPARSE_OPTIMIZER
        logger.info(
            f"optimizer={SPARSE_OPTIMIZER}: sparsity acts in proportion to the rate of learning, "
            "which is low with auto; name an optimizer to have another"
        )
    yolo = YOLO(path, task="detect")
    add_sparsity(yolo, sparsity)
    try:
        yolo.train(trainer=PrunedTrainer, **settings)
    except (SyntaxError, FileNotFoundError) as error:
        raise UserError(f"Ultralytics: {cause_of(error)}") from error
    return Path(yolo.trainer.best if yolo.trainer.best.exists() else yolo.trainer.last)


def settings_of(words: Sequence[str]) -> dict[str, Any]:
    """Ultralytics' settings of a command line.

    Raises:
        UserError: a word that is no ``key=value``, a key that is not Ultralytics' to be set, or a
            value that is not one of its key.
    """
    settings: dict[str, Any] = {}
    for word in words:
        key, sign, value = word.partition("=")
        if not sign or not key or not value:
            raise UserError(f"{word!r}: expected a setting of Ultralytics, key=value")
        name, read = parse_key_value_pair(word)
        if name in ("model", "mode", "task"):
            raise UserError(f"{word}: the command itself says that, leave it out")
        settings[name] = read
    try:
        get_cfg(overrides=dict(settings))
    except (SyntaxError, TypeError, ValueError) as error:
        raise UserError(f"Ultralytics: {cause_of(error)}") from error
    return settings


def _resumed(model: Any, sparsity: SparsityConfig | None) -> SparsityConfig | None:
    """The sparsity of a run that is gone on with."""
    own = sparsity_of(model)
    if sparsity is not None and sparsity != own:
        begun = f"with sparsity {own.strength:g}" if own else "without sparsity"
        raise UserError(
            f"the stopped run was started {begun}, and continues so: leave `sparsity` out, or "
            "start another run without resume"
        )
    return own
