"""The runtimes: which files each of them runs, and what it takes to measure in it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """What runs models.

    Attributes:
        suffixes: of the files that it runs.
        exported_as: the format that a checkpoint is exported to for it; empty where it runs the
            checkpoint itself.
        layer_packages: what timing single layers in it takes; empty where that cannot be done.
    """

    suffixes: tuple[str, ...] = ()
    exported_as: str = ""
    layer_packages: tuple[str, ...] = ()


RUNTIMES = {
    "torch": Runtime(suffixes=(".torchscript",), layer_packages=("torch",)),
    "torch.compile": Runtime(),
    "onnxruntime": Runtime(
        suffixes=(".onnx",), exported_as="onnx", layer_packages=("onnx", "onnxruntime")
    ),
    # onnxruntime's provider; layer by layer it cannot be timed, for it joins them.
    "tensorrt": Runtime(suffixes=(".onnx",), exported_as="onnx"),
    "openvino": Runtime(
        suffixes=(".xml", ".onnx"), exported_as="openvino", layer_packages=("onnx", "openvino")
    ),
    "ncnn": Runtime(suffixes=(".param",), exported_as="ncnn", layer_packages=("ncnn",)),
}
LAYER_RUNTIMES = tuple(name for name, runtime in RUNTIMES.items() if runtime.layer_packages)
OPENVINO_PRECISIONS = ("f32", "bf16", "default")


def runtimes_of(suffix: str) -> tuple[str, ...]:
    """The runtimes of files that end so, the one that they are made for first; none of others."""
    able = [name for name, runtime in RUNTIMES.items() if suffix in runtime.suffixes]
    return tuple(sorted(able, key=lambda name: RUNTIMES[name].suffixes.index(suffix)))
