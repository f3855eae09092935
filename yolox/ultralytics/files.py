"""Ultralytics' ``.pt`` files: read without running what is in them, written for every machine.

A pruned model consists of Ultralytics' own classes with fewer channels, so that its file is an
ordinary one of theirs. What tells it apart is the YAML in it: that cannot be built, since
Ultralytics' trainer would make the whole model from it, and holds the plans of all its prunings.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import torch
import ultralytics
from torch import nn
from ultralytics.nn.modules.head import Detect
from ultralytics.nn.tasks import DetectionModel, torch_safe_load
from ultralytics.utils import DEFAULT_CFG_DICT
from ultralytics.utils.downloads import GITHUB_ASSETS_NAMES

from yolox.pruning import PruningError, PruningPlan
from yolox.ultralytics.messages import cause_of
from yolox.utils.checkpoint import allowed_globals_aside, file_digest
from yolox.utils.errors import UserError
from yolox.utils.files import replacing
from yolox.utils.printable import printable

HINT = (
    "this model is pruned and cannot be built from a YAML: train it by `yolox ultralytics train`, "
    "or with trainer=yolox.ultralytics.PrunedTrainer"
)
PLANS = "pruned"  # key of a pruned model's YAML: the plans, the first cut first
SPARSITY = "sparsity"  # key of a YAML: the settings of the run that wrote the file
_BUILT = ("backbone", "head")
_SHOWN = 3  # names in a message
# Key of a file that was pruned and not trained since, which their trainer leaves out: the digest
# of the file that it was pruned from.
SOURCE = "pruned_from_sha256"
# What their loader takes beside their own classes and PyTorch's.
_PLAIN = ("torch.", "ultralytics.", "numpy.", "pathlib.", "builtins.getattr", "collections.")
_ACTIVATION = re.compile(r"(torch\.)?nn\.\w+\([\w\s=.,+-]*\)")


def is_pruned(model: Any) -> bool:
    """Whether a model, or the YAML of one, was pruned here."""
    yaml = model if isinstance(model, Mapping) else getattr(model, "yaml", None)
    return isinstance(yaml, Mapping) and PLANS in yaml


def plans_of(model: nn.Module) -> list[PruningPlan]:
    """The plans that a model was pruned by, the first cut first.

    Raises:
        PruningError: what stands there is none.
    """
    entries: Any = model.yaml.get(PLANS, [])  # type: ignore[union-attr,operator]
    if not isinstance(entries, list):
        raise PruningError("the plans in the model's YAML are misshapen")
    return [PruningPlan.from_dict(entry) for entry in entries]


def read_detector(path: str | Path) -> Any:
    """The `DetectionModel` of a ``.pt``: float32, on the CPU, in evaluation mode.

    No code of the file is run. Ultralytics downloads its own published models by their names.

    Raises:
        UserError: no such file, damaged, with other code than Ultralytics', no detector, or changed
            by another tool.
    """
    return read_checkpoint(path)[0]


def read_checkpoint(path: str | Path) -> tuple[Any, dict[str, Any]]:
    """The same, and all that the file holds beside it."""
    path = Path(path)
    if path.suffix != ".pt":
        raise UserError(f"{path}: expected a .pt file of Ultralytics")
    if path.is_dir():
        raise UserError(f"{path} is a folder: expected a .pt file of Ultralytics")
    if not path.exists() and str(path) not in GITHUB_ASSETS_NAMES:
        raise UserError(f"no file {path}")  # their loader would ask the network for it first
    try:
        with allowed_globals_aside():  # theirs adds the file's classes for the whole process
            checkpoint, file = torch_safe_load(str(path), safe_only=True)
    except FileNotFoundError as error:
        raise UserError(f"no file {path}") from error
    except Exception as error:  # whatever a damaged file leads to
        raise UserError(_refused(path, error)) from error
    if not isinstance(checkpoint, dict):
        raise UserError(f"{path} is no checkpoint of Ultralytics: it has no training arguments")
    model: Any = checkpoint.get("ema") or checkpoint.get("model")
    arguments = checkpoint.get("train_args")
    _require_detector(model, path)
    model.args = {**DEFAULT_CFG_DICT, **(arguments if isinstance(arguments, dict) else {})}
    model.pt_path = str(file)
    model = model.float().eval()
    _require_finite(model, path)
    if is_pruned(model):
        plans_of(model)
    else:
        _require_as_built(model, path)
    return model, checkpoint


def plan_from(path: str | Path, source: str | Path) -> PruningPlan | None:
    """The plan that turned `source` into a file; None of a file that was made or changed otherwise.

    Args:
        path: of a file that is there.
        source: of the model that it may have been pruned from.
    """
    try:
        there, content = read_checkpoint(path)
    except UserError:
        return None
    if not is_pruned(there) or content.get(SOURCE) != file_digest(Path(source)):
        return None
    return plans_of(there)[-1]


def save_detector(model: Any, path: str | Path) -> None:
    """Write what Ultralytics' own programs read, half precision as theirs; whole or not at all.

    Raises:
        UserError: it cannot be written.
    """
    with replacing(Path(path)) as temporary:
        torch.save(content_of(model), temporary)


def content_of(model: Any) -> dict[str, Any]:
    """What a file holds."""
    small = copy.deepcopy(model).half().cpu().eval().requires_grad_(False)
    small.criterion = None
    arguments = small.args if isinstance(small.args, dict) else vars(small.args)
    small.args = {key: value for key, value in arguments.items() if key in DEFAULT_CFG_DICT}
    return {
        "epoch": -1,
        "model": small,
        "train_args": small.args,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "version": ultralytics.__version__,
        "license": "AGPL-3.0 (https://ultralytics.com/license)",
    }


def pruned_yaml(model: Any, plan: PruningPlan) -> dict[str, Any]:
    """The YAML of a model that a plan was carried out on."""
    yaml = model.yaml
    whole = yaml.get("whole") or {key: yaml[key] for key in _BUILT if key in yaml}
    return {
        **yaml,
        "backbone": [[-1, 1, HINT, []]],
        "head": [],
        "whole": whole,
        PLANS: [*yaml.get(PLANS, ()), plan.to_dict()],
    }


def _refused(path: Path, error: Exception) -> str:
    """Why a file is not read."""
    foreign = _foreign(path)
    if foreign:
        more = f" and {len(foreign) - _SHOWN} more" if len(foreign) > _SHOWN else ""
        return (
            f"{path} is refused, and nothing in it was run: it holds code that is not "
            f"Ultralytics' ({printable(', '.join(foreign[:_SHOWN]))}{more})"
        )
    if isinstance(error, AttributeError):  # their loader expects a model in what it has read
        return f"{path} holds no model of Ultralytics"
    # What the oldest form of PyTorch's files trips over is a number without sense.
    cause = cause_of(error) if is_zipfile(path) else "it is no file of PyTorch's"
    return f"{path} is no checkpoint that can be read: {cause}"


def _foreign(path: Path) -> list[str]:
    """What a file names beside classes of Ultralytics, PyTorch and NumPy."""
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # the file is damaged, which is told otherwise
        return []
    return sorted(name for name in names if not name.startswith(_PLAIN))


def _require_detector(model: Any, path: Path) -> None:
    if isinstance(model, nn.Module) and type(model) is not DetectionModel:
        raise UserError(
            f"{path} holds a {type(model).__name__}: only detectors (DetectionModel: YOLOv5u, v8, "
            "v9, v10, 11, 12, 26) are taken here"
        )
    parts = getattr(model, "model", None)
    if not isinstance(parts, nn.Sequential) or not len(parts):
        raise UserError(f"{path} holds no model of Ultralytics")
    if not isinstance(parts[-1], Detect) or not isinstance(getattr(model, "yaml", None), dict):
        raise UserError(f"{path} holds no detector: its last layer is {type(parts[-1]).__name__}")


def _require_finite(model: Any, path: Path) -> None:
    for name, tensor in model.state_dict().items():
        if not torch.isfinite(tensor).all():
            raise UserError(f"{name} in {path} has NaN or infinite values: train it again")


def _require_as_built(model: Any, path: Path) -> None:
    """A model that is not what its YAML builds would be trained as another one."""
    if problems := list(_differences(model)):
        more = f" and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise UserError(
            f"{path} is not what its own YAML builds, so another tool has pruned, fused or "
            f"changed it: {'; '.join(problems[:_SHOWN])}{more}; prune the file from before that"
        )


def _differences(model: Any) -> Iterator[str]:
    """Tensors that have another shape than those of the model that its YAML builds."""
    yaml = copy.deepcopy(model.yaml)
    activation = yaml.get("activation")
    if activation is not None and not _ACTIVATION.fullmatch(str(activation).strip()):
        # Their builder would evaluate it.
        raise UserError(
            f"the model's YAML has an activation that is no layer: {printable(str(activation))!r}"
        )
    try:
        built = DetectionModel(
            yaml, ch=yaml.get("channels", 3), nc=model.model[-1].nc, verbose=False
        )
    except Exception as error:
        cause = " ".join(str(error).split())[:160]
        yield f"the YAML cannot be built ({printable(cause)})"
        return
    own, made = model.state_dict(), built.state_dict()
    for name in [*made, *(name for name in own if name not in made)]:
        shapes = [tuple(part[name].shape) if name in part else "missing" for part in (own, made)]
        if shapes[0] != shapes[1]:
            yield f"{printable(name)} is {shapes[0]}, built {shapes[1]}"
