"""From a file or a name to an Exp."""

from __future__ import annotations

import difflib
import importlib.util
from pathlib import Path

from yolox.exp.fields import ExpError
from yolox.exp.models import MODELS, use_model
from yolox.exp.yolox_base import Exp


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
    if name not in MODELS:
        near = difflib.get_close_matches(name, MODELS, n=1, cutoff=0.0)
        raise ExpError(
            f"no built-in Exp {exp_name!r}; nearest: {near[0]}; all: {', '.join(MODELS)}"
        )
    exp = Exp()
    use_model(exp, name)
    return exp


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
