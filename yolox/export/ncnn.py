"""A detector as ncnn files, by pnnx from a traced model."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import torch

from yolox.export.missing import traced_layers, unsupported_line
from yolox.export.settings import ExportError, ExportSettings, optional_packages
from yolox.export.torchscript import to_torchscript
from yolox.models import YOLOX

MAGIC = "7767517"  # first line of a .param file
_INPUT, _OUTPUT = "in0", "out0"  # pnnx's names


def write_ncnn(model: YOLOX, param: Path, settings: ExportSettings) -> None:
    """Write ``param`` and the ``.bin`` beside it; pnnx leaves other files in the folder.

    Raises:
        ExportError: a package is missing, pnnx fails, or ncnn lacks a layer.
    """
    pnnx, ncnn = optional_packages("pnnx", "ncnn")
    traced = to_torchscript(model, settings)
    file = param.with_suffix(".pt")
    traced.save(str(file))
    height, width = settings.size
    line = [
        pnnx.EXEC_PATH,
        file.name,
        f"inputshape=[1,3,{height},{width}]",
        f"ncnnparam={param.name}",
        f"ncnnbin={param.with_suffix('.bin').name}",
        f"fp16={int(settings.half)}",
    ]
    done = subprocess.run(  # noqa: S603  a program of an installed package, on files of ours
        line, cwd=param.parent, capture_output=True, text=True, errors="replace", check=False
    )
    if done.returncode or not param.is_file():
        said = (done.stderr or done.stdout).strip().splitlines()
        raise ExportError(
            f"pnnx cannot convert this model (status {done.returncode}): "
            f"{said[-1] if said else 'it says nothing'}"
        )
    _rename(param, {_INPUT: settings.input_name, _OUTPUT: settings.output_name})
    require_layers(ncnn, param, traced)


def require_layers(ncnn: Any, param: Path, traced: torch.jit.ScriptModule | None = None) -> None:
    """Raise unless this ncnn has every layer that a ``.param`` file names.

    Args:
        ncnn: the package.
        param: the file.
        traced: what it was made from, to name modules rather than layers of the file.

    Raises:
        ExportError: no such file, or layers that are missing, with their names.
    """
    lines = param.read_text(encoding="utf-8", errors="replace").splitlines()
    if lines[:1] != [MAGIC]:
        raise ExportError(f"{param} is no ncnn file: its first line is not {MAGIC}")
    layers = [line.split()[:2] for line in lines[2:] if line.strip()]
    unknown: dict[str, list[str]] = {}
    for kind, name in layers:
        if ncnn.layer_to_index(kind) < 0:
            unknown.setdefault(kind, []).append(name)
    if unknown:
        places = [
            unsupported_line(kind, (traced and traced_layers(traced, kind)) or names)
            for kind, names in unknown.items()
        ]
        raise ExportError(
            f"{param}: ncnn {ncnn.__version__} has no layer {'; '.join(places)}: update ncnn and "
            "pnnx, or use another `format`"
        )


def _rename(param: Path, names: dict[str, str]) -> None:
    """Blobs by another name. A line is kind, name, counts, blobs, then key=value."""
    head, counts, *layers = param.read_text(encoding="utf-8").splitlines()
    renamed = []
    for layer in layers:
        kind, name, *words = layer.split()
        renamed.append(" ".join([kind, name, *(names.get(word, word) for word in words)]))
    param.write_text("\n".join([head, counts, *renamed, ""]), encoding="utf-8")
