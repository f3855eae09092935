"""A detector from a checkpoint, the name of published weights, or an exported file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from loguru import logger

from yolox.data import COCO_CLASSES
from yolox.export import ExportedModel, is_exported, open_exported
from yolox.export.runtime import refuse_for_exported, tell_program
from yolox.models import load_model
from yolox.predict.detector import Detector
from yolox.utils.choices import CONF, NMS
from yolox.utils.device import HALVES, half_precision, resolve_device, resolve_precision
from yolox.utils.download import resolve_weights
from yolox.utils.errors import UserError
from yolox.utils.model_utils import fuse_model


def load(
    source: str | Path,
    *,
    conf: float | None = None,
    nms: float | None = None,
    size: int | tuple[int, int] | None = None,
    device: str | torch.device = "auto",
    half: bool = False,
    fuse: bool = False,
    legacy: bool = False,
    names: Sequence[str] = (),
    max_candidates: int | None = None,
) -> Detector:
    """Make a detector from a checkpoint, dense or pruned, or from an exported file.

    Args:
        source: a checkpoint, a published name such as ``yolox_s``, or an exported file.
        conf: lowest score of a detection, in [0, 1]; 0.3 by default, or the exported file's own.
        nms: IoU above which NMS removes the weaker of two boxes of a class, in [0, 1]; 0.45 by
            default, or the exported file's own.
        size: side, or (height, width), of the network's input in pixels, multiples of 32; that of
            the file by default.
        device: where to run: ``cpu``, ``gpu`` or an accelerator's name such as ``cuda:1``; ``auto``
            is the accelerator if there is one, for an exported file if its runtime can use it.
        half: mixed precision of a checkpoint: fp16 on an accelerator, bf16 on a CPU.
        fuse: fold batch norms into their convolutions.
        legacy: whether images are scaled as weights before YOLOX 0.2 expect them.
        names: class names for a file that has none. For 80 unnamed classes, COCO's are used.
        max_candidates: number of boxes of an image, those of the highest scores, that NMS chooses
            from; all of them by default. It bounds the time where a low ``conf`` leaves thousands.

    Raises:
        UserError: the file does not exist or is damaged, or an argument does not apply to it.
    """
    for what, value in (("conf", conf), ("nms", nms)):
        if value is not None and not 0 <= value <= 1:
            raise UserError(f"{what} must be in [0, 1], got {value}")
    if max_candidates is not None and max_candidates < 1:
        raise UserError(f"max_candidates must be at least 1, got {max_candidates}")
    wanted = (size, size) if isinstance(size, int) else size
    if wanted and (len(wanted) != 2 or any(side < 32 or side % 32 for side in wanted)):
        raise UserError(f"size must be multiples of 32, got {size}")
    if is_exported(source):
        refuse_for_exported(source, {"`half`": half, "`fuse`": fuse})
        opened = open_exported(source, device=device)
        detector = _of_exported(Path(source), opened, conf, nms, wanted, names, legacy)
        return replace(detector, max_candidates=max_candidates)
    where = resolve_device(device)
    loaded = load_model(resolve_weights(Path(source)))
    model: torch.nn.Module = fuse_model(loaded.model) if fuse else loaded.model
    dtype = HALVES[resolve_precision(half_precision(where), where)] if half else None
    return Detector(
        model=model.to(where, memory_format=torch.channels_last),  # type: ignore[call-overload]
        size=wanted or loaded.spec.input_size,
        num_classes=loaded.spec.num_classes,
        conf=CONF if conf is None else conf,
        nms=NMS if nms is None else nms,
        names=_names(source, loaded.spec.class_names, names, loaded.spec.num_classes),
        legacy=legacy,
        autocast=dtype,
        max_candidates=max_candidates,
    )


def _of_exported(
    path: Path,
    model: ExportedModel,
    conf: float | None,
    nms: float | None,
    size: tuple[int, int] | None,
    names: Sequence[str],
    legacy: bool,
) -> Detector:
    tell_program(path)
    info, spec = model.info, model.spec(size)
    detector = Detector(
        model=model,
        size=spec.input_size,
        num_classes=spec.num_classes,
        conf=info.conf_threshold if conf is None else conf,
        nms=info.nms_threshold if nms is None else nms,
        names=_names(path, spec.class_names, names, spec.num_classes),
        legacy=legacy,
    )
    if loss := model.nms_loss(detector.conf, detector.nms):
        logger.warning(loss)
    return detector


def _names(
    source: str | Path, own: Sequence[str], given: Sequence[str], count: int
) -> tuple[str, ...]:
    """Class names to show; empty, with a warning, where nothing tells them."""
    if own:
        return tuple(own)
    if given and len(given) != count:
        raise UserError(
            f"`names` names {len(given)}, and {source} has {count} classes: give a name for each, "
            "or none"
        )
    if given:
        return tuple(given)
    names = tuple(COCO_CLASSES) if count == len(COCO_CLASSES) else ()
    logger.warning(
        f"{source} does not name its {count} classes: "
        f"{'COCO names in the usual order' if names else 'numbers'} are shown; to name them, "
        "give `names`, or write a file that has them: `yolox.exp.follow.with_names` "
        f"`checkpoint={str(source)!r}`"
    )
    return names
