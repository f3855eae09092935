"""Where a model comes from and what ran it, as facts for a report."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from yolox.report import Fact
from yolox.utils.device import machine

__all__ = ["pruning_facts", "version_facts"]

_PACKAGES = ("torch", "torch-pruning", "onnx", "onnxruntime", "openvino", "ncnn", "nncf")
_NAMES = {"macs": "MACs", "params": "parameters"}


def pruning_facts(new: Sequence[Mapping[str, Any]]) -> list[Fact]:
    """What prunings were told to do, from what is recorded of each."""
    facts = []
    for number, entry in enumerate(new, start=1):
        config: Mapping[str, Any] = entry.get("plan", {}).get("config", {})
        step = f" {number}" if len(new) > 1 else ""
        criterion = f"{config.get('importance', 'unknown')}, {config.get('scope', '')} scope"
        facts += [
            Fact(name=f"budget{step}", value=_budget(config)),
            Fact(name=f"criterion{step}", value=criterion),
        ]
        if "compensation" in entry:
            done = _compensation(entry["compensation"])
            facts.append(Fact(name=f"compensation{step}", value=done))
        if measured := entry.get("latency"):
            times = f"{measured['parent_ms']:.2f} → {measured['result_ms']:.2f} ms"
            facts.append(Fact(name=f"latency then{step}", value=f"{times}, {measured['setting']}"))
    return facts


def version_facts(files: Sequence[tuple[str, Path, str]]) -> list[Fact]:
    """The machine, the packages that are installed, and label, path and digest of files."""
    facts = [Fact(name="machine", value=machine()), Fact(name="system", value=platform.system())]
    facts.append(Fact(name="Python", value=platform.python_version()))
    for package in _PACKAGES:
        try:
            facts.append(Fact(name=package, value=version(package)))
        except PackageNotFoundError:
            continue
    for label, path, sha256 in files:
        facts.append(Fact(name=label, value=f"{path.name}, sha256 {sha256[:16]}…"))
    return facts


def _budget(config: Mapping[str, Any]) -> str:
    kind, _, value = str(config.get("target") or "").partition("=")
    if kind:
        name = _NAMES.get(kind, kind)
        is_share = value.replace(".", "", 1).isdecimal()
        return f"{100 * float(value):g} % of the {name}" if is_share else f"{name} {value}"
    if config.get("layer_sparsity"):
        return f"ratios of {len(config['layer_sparsity'])} patterns"
    return f"{100 * float(config.get('ch_sparsity', 0)):g} % of the channels removed"


def _compensation(done: Mapping[str, Any]) -> str:
    words = ["absorption"] if done.get("absorb") else []
    for name, title in (("reconstruct", "reconstruction"), ("bn_recalibrate", "recalibration")):
        if done.get(name):
            words.append(f"{title} on {done[name]} images")
    return ", ".join(words) or "none"
