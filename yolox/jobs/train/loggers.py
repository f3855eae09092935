"""The run logger that a command line asks for, and what a run shows it."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from loguru import logger
from torch import nn

from yolox.core.loggers import Mlflow, MlflowOptions, Pictures, RunLogger, Wandb, WandbOptions
from yolox.exp.fields import read_field, type_name
from yolox.exp.yolox_base import Exp
from yolox.jobs.train.official import image_names
from yolox.utils.boxes import postprocess
from yolox.utils.errors import UserError
from yolox.utils.extras import import_extra
from yolox.utils.model_utils import adjust_status
from yolox.utils.visualize import vis

MIN_SCORE = 0.3  # of a detection in a picture
_KINDS: dict[str, tuple[Any, Callable[[Any], RunLogger]]] = {
    "wandb": (WandbOptions, Wandb),
    "mlflow": (MlflowOptions, Mlflow),
}
# Other names of options, and such as official command lines have and nothing is to be done for.
_ALIASES = {
    "wandb": {"run_name": "name", "dir": "save_dir"},
    "mlflow": {"name": "run_name", "experiment": "experiment_name"},
}
_IGNORED = {"wandb": ("val_dataset", "resume"), "mlflow": ()}


def choose_logger(name: str, pairs: Sequence[str]) -> tuple[RunLogger | None, list[str]]:
    """The logger of ``-l``, and the ``key value`` pairs that are not its options.

    Args:
        name: one of `LOGGERS`; the first, which always writes, makes none.
        pairs: ``[key, value, …]``; options of a logger are ``wandb-project NAME`` and the like.

    Raises:
        UserError: with every unknown or unreadable option, or one of a logger that is not asked
            for; or the logger's package is not installed.
    """
    own: dict[str, str] = {}
    rest: list[str] = []
    stray: list[str] = []
    for index in range(0, len(pairs), 2):
        prefix, dash, option = pairs[index].partition("-")
        if not dash or prefix not in _KINDS:
            rest += pairs[index : index + 2]
        elif prefix != name:
            stray.append(f"{pairs[index]} is of the logger {prefix}, and this one is {name}")
        elif index + 1 == len(pairs):
            raise UserError(f"{pairs[index]} has no value: give one, or leave it out")
        else:
            own[option.replace("-", "_")] = pairs[index + 1]
    if stray:
        raise UserError("; ".join(stray))
    if name not in _KINDS:
        return None, rest
    import_extra(name, f"the logger {name}")
    options, make = _KINDS[name]
    return make(options(**_read(name, options, own))), rest


def _read(name: str, options: Any, given: dict[str, str]) -> dict[str, Any]:
    kinds = typing.get_type_hints(options)
    values: dict[str, Any] = {}
    problems = []
    for option, text in given.items():
        field = _ALIASES[name].get(option, option)
        if field in _IGNORED[name]:
            logger.info(f"{name}-{option} has no effect: it is chosen by the run itself")
            continue
        if field not in kinds:
            near = difflib.get_close_matches(option, kinds, n=1, cutoff=0.5)
            hint = f"did you mean {name}-{near[0]}?" if near else f"there are {', '.join(kinds)}"
            problems.append(f"unknown option {name}-{option}: {hint}")
            continue
        try:
            values[field] = read_field(text, kinds[field], ())
        except ValueError:
            kind = type_name(_plain(kinds[field]))
            problems.append(f"{name}-{option} takes {kind}, got {text!r}")
    if values.get("num_eval_images", 0) < 0:
        problems.append(f"{name}-num_eval_images must be at least 0")
    if problems:
        raise UserError("; ".join(problems))
    return values


def _plain(kind: Any) -> Any:
    """The type that ``X | None`` makes optional."""
    return next((part for part in typing.get_args(kind) if part in (str, bool, int)), kind)


def plain_fields(exp: Exp) -> dict[str, Any]:
    """Every field of an Exp as a number, a text, None, or a list of these."""
    return {name: _as_plain(getattr(exp, name)) for name in exp.field_types()}


def _as_plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_as_plain(item) for item in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


@torch.inference_mode()
def evaluation_pictures(exp: Exp, evaluator: Any, model: nn.Module, number: int) -> Pictures:
    """The first evaluation images as the network sees them, with a model's detections.

    Returns:
        RGB uint8 (H, W, 3) by the images' names; none where the evaluator has no data set.
    """
    loader = getattr(evaluator, "dataloader", None)
    dataset = getattr(loader, "dataset", ())
    names = image_names(loader)
    device = next(model.parameters()).device
    pictures: dict[str, Any] = {}
    for index in range(min(number, len(dataset))):
        pixels, _, (height, width), image_id = dataset[index]
        batch = torch.as_tensor(np.asarray(pixels), dtype=torch.float32, device=device)[None]
        with adjust_status(model):
            found = postprocess(model(batch), exp.num_classes, MIN_SCORE, exp.nmsthre)[0]
        scale = min(batch.shape[2] / height, batch.shape[3] / width)
        shown = np.asarray(pixels).transpose(1, 2, 0)
        shown = shown[: round(height * scale), : round(width * scale)].clip(0, 255)
        rows = np.empty((0, 7), np.float32) if found is None else found.float().cpu().numpy()
        scores = rows[:, 4] * rows[:, 5]
        drawn = vis(
            shown.astype(np.uint8),
            rows[:, :4], scores, rows[:, 6], MIN_SCORE, exp.class_names or None,
        )  # fmt: skip
        pictures[names.get(int(np.ravel(image_id)[0]), str(index))] = drawn[..., ::-1].copy()
    return pictures
