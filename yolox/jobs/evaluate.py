"""AP of a model, or of its file, on the data of an Exp."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import torch
from loguru import logger
from torch import nn

from yolox.evaluators import EvalResult, Evaluator, Inference
from yolox.exp.follow import follow_checkpoint
from yolox.exp.yolox_base import Exp
from yolox.export import ExportedModel, is_exported, open_exported
from yolox.export.runtime import refuse_for_exported
from yolox.models import LoadedModel, ModelSpec, load_model
from yolox.utils.device import CPU, resolve_device, resolve_precision
from yolox.utils.download import resolve_weights
from yolox.utils.model_utils import copy_model, fuse_model

BATCH_SIZE = 16


def ap_evaluation(
    exp: Exp, batch_size: int = BATCH_SIZE, *, device: str | torch.device = "auto"
) -> Callable[[nn.Module], tuple[float, float]]:
    """What measures AP50-95 and AP50 of models, which are left as they are, on one data set.

    Args:
        exp: has the models' classes and test size.
        batch_size: images a forward pass.
        device: where models run, see `yolox.utils.device.resolve_device`; an exported file runs
            where it was opened.
    """
    where = resolve_device(device)
    evaluator = exp.get_evaluator(batch_size)

    def measure(model: nn.Module) -> tuple[float, float]:
        result = evaluator.score(infer(evaluator, model, where))
        return result.ap50_95, result.ap50

    return measure


def infer(evaluator: Evaluator, model: nn.Module, device: torch.device) -> Inference:
    """What a model finds in an evaluator's images; the model is left as it is, and where it is.

    Args:
        evaluator: of the images.
        model: ours, another program's, or an exported file.
        device: where it runs; an exported file runs where its runtime does.
    """
    # One without tensors of its own cannot be copied, and need not be.
    runs_itself = next(model.parameters(), None) is None
    twin = model if runs_itself else copy_model(model)
    return evaluator.infer(twin, device=None if runs_itself else device)


def ap_of_checkpoint(
    loaded: LoadedModel, source: Path, exp: Exp, device: str | torch.device = "auto"
) -> tuple[float, float]:
    """AP50-95 and AP50 of a checkpoint, at its own size unless the Exp was given another.

    Raises:
        UserError: see `yolox.exp.follow.follow_checkpoint`.
    """
    followed = follow_checkpoint(exp, loaded.spec, source, pruned=loaded.is_pruned)
    return ap_evaluation(followed, device=device)(loaded.model)


def evaluate(
    checkpoint: str | Path,
    exp: Exp,
    *,
    batch_size: int = BATCH_SIZE,
    conf: float | None = None,
    nms: float | None = None,
    size: tuple[int, int] | None = None,
    precision: str = "fp32",
    fuse: bool = False,
    device: str | torch.device = "auto",
) -> EvalResult:
    """Measure COCO and VOC AP of a checkpoint or an exported file on an Exp's evaluation images.

    Nothing is written. An exported file runs in its own runtime.

    Args:
        checkpoint: a checkpoint, the name of published weights, or an exported file.
        exp: the Exp whose evaluation images are used; it is not changed.
        batch_size: number of images in a forward pass.
        conf: lowest score of a detection, in [0, 1]; the Exp's ``test_conf`` by default.
        nms: IoU threshold of NMS, in [0, 1]; the Exp's ``nmsthre`` by default.
        size: (height, width) in pixels; the file's own by default.
        precision: arithmetic of a checkpoint: fp32, bf16, fp16 or auto.
        fuse: whether to fold batch norms into their convolutions first.
        device: where to compute: ``cpu``, ``gpu`` or an accelerator's name such as ``cuda:1``;
            ``auto`` is the accelerator if there is one, for an exported file if its runtime can
            use it.

    Returns:
        ``.ap50_95`` and ``.ap50`` in [0, 1], ``.per_class``, ``.coco``, ``.voc``, ``.timing``;
        ``.summary()`` is the table of the command line.

    Raises:
        UserError: the file does not exist, is damaged, or has other classes than the data.
    """
    path = Path(checkpoint)
    exported = is_exported(path)
    if exported:
        refuse_for_exported(path, {"`fuse`": fuse, "`precision`": precision != "fp32"})
    else:
        path = resolve_weights(path)
    where = CPU if exported else resolve_device(device)
    opened = open_model(path, size=size, fuse=fuse, device=device)
    model, followed = opened.model, opened.follow(exp, conf=conf, nms=nms)
    evaluator = followed.get_evaluator(batch_size)
    inference = evaluator.infer(
        model,
        device=where,
        precision=None if exported else resolve_precision(precision, where),
    )
    return evaluator.score(inference)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class OpenedModel:
    """A checkpoint's model or an exported file, to be evaluated.

    Attributes:
        path: the file.
        model: one or the other.
        spec: its description, with the size that it is evaluated at.
        pruned: whether it is.
    """

    path: Path
    model: nn.Module
    spec: ModelSpec
    pruned: bool

    @property
    def exported(self) -> ExportedModel | None:
        """The model, where it is an exported file."""
        return self.model if isinstance(self.model, ExportedModel) else None

    def follow(self, exp: Exp, *, conf: float | None = None, nms: float | None = None) -> Exp:
        """A copy of the Exp for an evaluation of the model; says what NMS in a file costs.

        Args:
            exp: not changed.
            conf: least score of a detection, in [0, 1]; the Exp's by default.
            nms: IoU of NMS, in [0, 1]; the Exp's by default.

        Raises:
            UserError: see `yolox.exp.follow.follow_checkpoint`.
        """
        followed = follow_checkpoint(exp, self.spec, self.path, pruned=self.pruned)
        followed.put(
            test_conf=exp.test_conf if conf is None else conf,
            nmsthre=exp.nmsthre if nms is None else nms,
        )
        if self.exported and (loss := self.exported.nms_loss(followed.test_conf, followed.nmsthre)):
            logger.warning(loss)
        return followed


def open_model(
    path: Path,
    *,
    size: tuple[int, int] | None = None,
    fuse: bool = False,
    openvino_precision: str = "f32",
    device: str | torch.device = "auto",
) -> OpenedModel:
    """Open a checkpoint or an exported file.

    Args:
        path: of a file that is there.
        size: (height, width) to evaluate at, pixels; the file's own by default.
        fuse: fold a checkpoint's batch norms into its convolutions.
        openvino_precision: arithmetic of OpenVINO's files, as `open_exported` takes it.
        device: that an exported file runs on, likewise.

    Raises:
        UserError: a file that cannot be read or run.
    """
    if is_exported(path):
        file = open_exported(path, precision=openvino_precision, device=device)
        model: nn.Module = file
        spec, pruned = file.spec(size), file.info.pruned
    else:
        loaded = load_model(path)
        model = fuse_model(loaded.model) if fuse else loaded.model
        spec, pruned = loaded.spec, loaded.is_pruned
    if size:
        spec = dataclasses.replace(spec, input_size=size)
    return OpenedModel(path=path, model=model, spec=spec, pruned=pruned)
