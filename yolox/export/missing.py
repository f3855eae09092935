"""Operations that an exporter or a runtime lacks, told with the layers that need them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

_NO_FORM = re.compile(r"No ONNX function found for <OpOverload\(op='([\w.]+)'")
_SCOPES = "pkg.torch.onnx.name_scopes"  # key of a node's metadata
_MAX_SHOWN = 3  # layers, of those that need an operation
# A line of OpenVINO's that tells of its sources alone.
_PLACE = re.compile(r"(?:Exception from|Check .* failed at) \S+:\d+:?")
# What runtimes say of an ONNX graph: onnxruntime of one operation, OpenVINO of all.
_UNKNOWN_OPS = (
    re.compile(r"(?:Could not find an implementation for|Fatal error:) ([\w.:]+)\(-?\d+\)"),
    re.compile(r"No conversion rule found for operations: ([\w.:, ]+)"),
)


def op_without_onnx(error: BaseException, network: nn.Module, images: Tensor) -> str:
    """What torch's exporter failed for want of: ``<operation> in <layers>``; empty for others.

    Args:
        error: that it raised.
        network: that was exported.
        images: that it was traced with.
    """
    found = None
    cause: BaseException | None = error
    while cause is not None and found is None:
        found, cause = _NO_FORM.search(str(cause)), cause.__cause__
    if found is None:
        return ""
    # The exporter has taken the operation apart, and tells of what was left of it.
    name = found[1].rpartition(".")[2]
    nodes = [n for n in torch.export.export(network, (images,)).graph.nodes if n.op != "output"]
    paths = [list(n.meta["nn_module_stack"].values()) for n in nodes if name in str(n.target)]
    return unsupported_line(name, (path[-1][0] for path in paths))


def unknown_ops(error: BaseException) -> list[str]:
    """The ONNX operations that a runtime's error names as those that it lacks."""
    lists = [found for pattern in _UNKNOWN_OPS for found in pattern.findall(str(error))]
    names = [name for found in lists for name in re.findall(r"[\w.:]+", found)]
    return sorted({_last_part(name) for name in names})


def cause_of(error: BaseException) -> str:
    """The first line of a runtime's error that is no place in its sources."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    causes = [line for line in lines if not _PLACE.fullmatch(line)]
    return (causes or lines or [type(error).__name__])[0][:500]


def with_layers(ops: Iterable[str], graph: Any) -> str:
    """Operations of an ONNX graph, ``<operation> in <layers>; …``."""
    return "; ".join(
        unsupported_line(op, map(_layer, (n for n in graph.node if n.op_type == op))) for op in ops
    )


def _layer(node: Any) -> str:
    """The module that an ONNX node was exported from; its own name where the file has none."""
    metadata = {entry.key: entry.value for entry in node.metadata_props}
    scopes = ast.literal_eval(metadata.get(_SCOPES, "[]"))
    return str(scopes[-2] if len(scopes) > 1 else node.name)


def traced_layers(traced: torch.jit.ScriptModule, op: str) -> list[str]:
    """The modules of a traced network that have an operation, of a name such as ``aten::celu``."""
    name = _last_part(op)
    nodes = (node for node in traced.inlined_graph.nodes() if _last_part(node.kind()) == name)
    return [node.scopeName().rpartition("/")[2].removeprefix("__module.") for node in nodes]


def _last_part(op: str) -> str:
    """``celu`` of ``F.celu``, as of ``aten::celu``."""
    return re.split(r"[.:]", op)[-1].rstrip("_")


def unsupported_line(op: str, layers: Iterable[str]) -> str:
    """``<operation> in <layers>``, of many layers the first few."""
    names = list(dict.fromkeys(layer.removeprefix("model.") for layer in layers))
    more = f" and {len(names) - _MAX_SHOWN} more" if len(names) > _MAX_SHOWN else ""
    return f"{op} in {', '.join(names[:_MAX_SHOWN]) or 'a layer without a name'}{more}"
