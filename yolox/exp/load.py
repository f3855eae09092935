"""From a file or a name to an Exp."""

from __future__ import annotations

import difflib
import importlib.util
from pathlib import Path
from typing import Any

from yolox.exp.fields import ExpError
from yolox.exp.models import MODELS, use_model
from yolox.exp.voc import DOTAExp, VOCExp
from yolox.exp.yolo import YOLOExp
from yolox.exp.yolox_base import Exp

# The recipe of each layout of data.
LAYOUTS = {"coco": Exp, "voc": VOCExp, "yolo": YOLOExp, "dota": DOTAExp}
DEFAULT_MODEL = "yolox-s"


def get_exp(
    exp_file: str | Path | None = None,
    exp_name: str | None = None,
    *,
    model: str | None = None,
    **fields: Any,
) -> Exp:
    """The Exp of a Python file, for a layout of data, or of a built-in model.

    Args:
        exp_file: an Exp file, or the layout of the data: coco, voc, yolo or dota (tiles).
        exp_name: a built-in model for data in COCO's layout: yolox-nano, yolox-tiny, yolox-s,
            yolox-m, yolox-l, yolox-x or yolov3. Beside `exp_file`, another name is that of the
            run's folder, the field; as in the official function, a file says the model itself.
        model: one of these models, together with a layout; yolox-s by default.
        fields: fields to set, such as ``data_dir="/data/VOCdevkit", max_epoch=50``.

    Raises:
        ExpError: none of these is given; the file, model or field does not exist; or the file has
            no class ``Exp``.
    """
    if exp_file is None and exp_name is None:
        raise ExpError("name an Exp: a file, `exp_file`, or a built-in model, `exp_name`")
    if exp_file is not None and exp_name is not None and not _is_model(exp_name):
        fields["exp_name"], exp_name = exp_name, None
    if exp_file is not None and str(exp_file) not in LAYOUTS:
        if model is not None:
            raise ExpError(f"model {model} goes with a layout, {', '.join(LAYOUTS)}: {exp_file}")
        exp = _exp_of_file(Path(exp_file))
        exp.put(_named=("-f", str(exp_file)))
    else:
        exp = LAYOUTS["coco" if exp_file is None else str(exp_file)]()
        name = known_model(model or exp_name or DEFAULT_MODEL)
        use_model(exp, name)
        exp.put(_named=("-n", name))
    if fields:
        exp.give(**fields)
    return exp


def known_model(name: str) -> str:
    """The name of a built-in model, as it is spelled; raises `ExpError` if there is none such."""
    spelled = name.replace("_", "-")
    if not _is_model(name):
        near = difflib.get_close_matches(spelled, MODELS, n=1, cutoff=0.0)
        raise ExpError(f"no built-in Exp {name!r}; nearest: {near[0]}; all: {', '.join(MODELS)}")
    return spelled


def _is_model(name: str) -> bool:
    return name.replace("_", "-") in MODELS


def find_exp_file(path: Path) -> Path:
    """An Exp file: the one at a path, or the packaged one that ``exps/…`` names.

    Raises:
        ExpError: there is none.
    """
    if path.is_file():
        return path
    if path.parts[:1] == ("exps",):
        package = Path(__file__).parents[1]
        for folder in (package / "recipes", package.parent / "exps"):
            if (inside := folder.joinpath(*path.parts[1:])).is_file():
                return inside
    raise ExpError(f"no Exp file at {path}: see exps/ for examples")


def _exp_of_file(path: Path) -> Exp:
    path = find_exp_file(path)
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
