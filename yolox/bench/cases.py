"""What can be measured: a checkpoint or an exported file on a runtime, opened and ready to run."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from yolox.data import preproc
from yolox.export.runtime import is_exported, open_exported
from yolox.export.runtimes import RUNTIMES, runtimes_of
from yolox.models import load_model
from yolox.utils.boxes import postprocess
from yolox.utils.errors import UserError
from yolox.utils.model_utils import fuse_model
from yolox.utils.threads import own_threads, set_threads

# dynamo keeps 8 compiled versions of a function, and all entries share YOLOX.forward.
_COMPILED_VERSIONS = 1024

Array = NDArray[np.float32]
Image = NDArray[np.uint8]
Detections = list[Tensor | None]


class BenchError(UserError):
    """Something that cannot be measured as asked."""


class CompileError(BenchError):
    """torch.compile does not work on this machine."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A file on a runtime.

    Attributes:
        path: a checkpoint, for torch and torch.compile, or an exported file.
        runtime: one of `yolox.export.runtimes.RUNTIMES`.
        threads: of the runtime, and of what comes before and after it.
        batch: images a run.
        size: (H, W) of the input, pixels.
        openvino_precision: arithmetic of OpenVINO: f32, bf16, or default, its own choice.
    """

    path: Path
    runtime: str
    threads: int
    batch: int
    size: tuple[int, int]
    openvino_precision: str = "f32"

    def to_json(self) -> str:
        """For another process."""
        return json.dumps(asdict(self) | {"path": str(self.path)})

    @classmethod
    def from_json(cls, text: str) -> Case:
        """The inverse of `to_json`."""
        values = json.loads(text)
        return cls(**(values | {"path": Path(values["path"]), "size": tuple(values["size"])}))


def letterboxed(image: Image, size: tuple[int, int]) -> Array:
    """An image as our own models take it."""
    return preproc(image, size)[0]


@dataclass(frozen=True, kw_only=True)
class OpenedCase:
    """A case that is open.

    Attributes:
        runtime, threads, batch, size: as in `Case`.
        precision: of the weights and, where it differs, of the arithmetic.
        run: input float32 (B, 3, H, W) → the runtime's own output.
        prepare: BGR image (height, width, 3) and (H, W) → float32 (3, H, W) for `run`.
        finish: that output, conf and IoU → detections (k, 7) of each image, None for none, as
            :func:`yolox.utils.boxes.postprocess` gives them.
    """

    runtime: str
    threads: int
    batch: int
    size: tuple[int, int]
    precision: str
    run: Callable[[Array], Array]
    finish: Callable[[Array, float, float], Detections]
    prepare: Callable[[Image, tuple[int, int]], Array] = letterboxed


def runtimes_for(path: Path, asked: Sequence[str]) -> list[str]:
    """Those of the asked runtimes that can run a file, or its own where none of them can."""
    possible = runtimes_of(path.suffix) or tuple(RUNTIMES)
    return [runtime for runtime in asked if runtime in possible] or [possible[0]]


def open_case(case: Case) -> OpenedCase:
    """Open a case and run it once, on zeros.

    Raises:
        CompileError: torch.compile cannot run here.
        UserError: a file or a runtime that cannot be used.
    """
    with own_threads():
        set_threads(case.threads)
        entry = _open_exported(case) if is_exported(case.path) else _open_checkpoint(case)
        entry.run(np.zeros((case.batch, 3, *case.size), np.float32))
    return entry


def _open_checkpoint(case: Case) -> OpenedCase:
    loaded = load_model(case.path)
    fused = fuse_model(loaded.model).requires_grad_(False)
    model: nn.Module = fused.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    forward = compile_for(model, case) if case.runtime == "torch.compile" else model

    def run(x: Array) -> Array:
        with torch.inference_mode():
            images = torch.from_numpy(x).contiguous(memory_format=torch.channels_last)
            output: Array = forward(images).numpy()
            return output

    def finish(output: Array, conf: float, nms: float) -> Detections:
        return postprocess(torch.from_numpy(output), loaded.spec.num_classes, conf, nms)

    return _entry(case, "fp32", run, finish)


def compile_for(model: nn.Module, case: Case) -> Callable[[Tensor], Tensor]:
    """The model compiled for the case's batch and size, on the threads that are set now.

    Raises:
        CompileError: it cannot be.
    """
    compiled: Callable[[Tensor], Tensor] = torch.compile(model, dynamic=False, fullgraph=True)
    images = torch.zeros(case.batch, 3, *case.size).contiguous(memory_format=torch.channels_last)
    try:
        with (
            torch._dynamo.config.patch(cache_size_limit=_COMPILED_VERSIONS),
            torch.inference_mode(),
        ):
            compiled(images)
    except Exception as error:  # of the compiler, the linker, and three packages of torch
        cause = " ".join(str(error).split())
        raise CompileError(f"torch.compile does not work here: {cause[:200]}") from error
    return compiled


def _open_exported(case: Case) -> OpenedCase:
    model = open_exported(
        case.path,
        threads=case.threads,
        runtime=case.runtime,
        precision=case.openvino_precision,
    )
    info = model.info

    def finish(output: Array, conf: float, nms: float) -> Detections:
        rows = torch.from_numpy(output)
        if info.nms:
            return [rows[rows[:, 0] == image, 1:] for image in range(case.batch)]
        return postprocess(model.decode(rows, case.size), info.num_classes, conf, nms)

    return _entry(case, model.precision, model.run, finish)


def _entry(
    case: Case,
    precision: str,
    run: Callable[[Array], Array],
    finish: Callable[[Array, float, float], Detections],
) -> OpenedCase:
    return OpenedCase(
        runtime=case.runtime,
        threads=case.threads,
        batch=case.batch,
        size=case.size,
        precision=precision,
        run=run,
        finish=finish,
    )
