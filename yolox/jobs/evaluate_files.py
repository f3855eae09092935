"""AP of a model with everything that can be written of it: curves, figures, detections."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from yolox.data.tiles import whole_images
from yolox.evaluators import (
    EvalResult,
    EvalSample,
    Evaluator,
    Inference,
    OperatingPoint,
    coco_rows,
    evaluate_detections,
)
from yolox.evaluators.report import write_report
from yolox.evaluators.tiled import merge_to_whole
from yolox.exp import Exp
from yolox.export.runtime import tell_program
from yolox.jobs.evaluate import BATCH_SIZE, open_model
from yolox.utils.checkpoint import file_digest
from yolox.utils.device import machine, resolve_precision
from yolox.utils.dist import is_main_process
from yolox.utils.files import replacing
from yolox.utils.locks import claimed


@dataclass(frozen=True, kw_only=True)
class EvalSettings:
    """How a file is evaluated, and what is written.

    Attributes:
        batch_size: images a step, of all processes together.
        conf, nms: least score of a detection and IoU of NMS, in [0, 1]; the Exp's by default.
        size: (height, width) in pixels; the file's own by default.
        precision: of a checkpoint: fp32, bf16, fp16 or auto.
        fuse: fold batch norms into their convolutions first.
        legacy: input scaling of weights before YOLOX 0.2.
        test: test-dev: images without annotations, as the Exp says.
        speed: time images one by one.
        whole_images: put tiles back together, and count by VOC's area rule.
        openvino_precision: arithmetic of OpenVINO's files, as `open_exported` takes it.
        device: that an exported file runs on, likewise; a checkpoint runs where the fabric is.
        plots: folder for curves, pictures and ``metrics.json``; none by default.
        detections: file for detections as COCO's JSON; none by default.
    """

    batch_size: int = BATCH_SIZE
    conf: float | None = None
    nms: float | None = None
    size: tuple[int, int] | None = None
    precision: str = "fp32"
    fuse: bool = False
    legacy: bool = False
    test: bool = False
    speed: bool = False
    whole_images: bool = False
    openvino_precision: str = "f32"
    device: str = "auto"
    plots: Path | None = None
    detections: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What was found and written.

    Attributes:
        result: all figures.
        about: what was evaluated, how, where and when.
        settings: that it was asked for with.
        best: threshold of the best mean F1 at IoU 0.5, where curves were drawn and it is known.
        rows: detections written.
    """

    result: EvalResult
    about: dict[str, Any]
    settings: EvalSettings
    best: OperatingPoint | None = None
    rows: int = 0


def evaluate_and_write(
    source: Path, exp: Exp, settings: EvalSettings, fabric: Fabric, *, command: str = ""
) -> Evaluation | None:
    """Evaluate a checkpoint or an exported file, and write what the settings ask for.

    Args:
        source: a file that is there.
        exp: whose evaluation images are used; not changed.
        settings: how to evaluate, and what to write.
        fabric: launched; its processes share the images.
        command: the line that does it again, for ``metrics.json``.

    Returns:
        None in all processes but the first.

    Raises:
        UserError: a file that cannot be read or run, one of other classes than the data, or a
            place that cannot be written to.
    """
    opened = open_model(
        source,
        size=settings.size,
        fuse=settings.fuse,
        openvino_precision=settings.openvino_precision,
        device=settings.device,
    )
    exported, model = opened.exported, opened.model
    if exported:
        tell_program(source)
        precision = exported.precision
    else:
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        precision = resolve_precision(settings.precision, fabric.device)
    followed = opened.follow(exp, conf=settings.conf, nms=settings.nms)
    distributed = fabric.world_size > 1
    evaluator = followed.get_evaluator(
        1 if settings.speed else settings.batch_size, distributed, settings.test, settings.legacy
    )
    inference = evaluator.infer(
        model,
        device=fabric.device,
        precision=None if exported else precision,
        distributed=distributed,
    )
    if not is_main_process():
        return None
    about = _about(settings, followed, source, fabric) | {
        "precision": precision,
        "runtime": exported.runtime if exported else "torch",
        "command": command,
    }
    return _write(settings, evaluator, inference, about)


def _write(
    settings: EvalSettings, evaluator: Evaluator, inference: Inference, about: dict[str, Any]
) -> Evaluation:
    """Count, and write the files that were asked for."""
    samples: Sequence[EvalSample] = evaluator.dataset.samples
    detections, headline = inference.detections, evaluator.headline
    if settings.whole_images:
        wholes = whole_images(evaluator.dataloader.dataset.samples, evaluator.dataset.class_names)
        pairs = merge_to_whole(wholes, detections, evaluator.nmsthre)
        # COCO's rule looks at 100 detections an image; a large one holds more objects than that.
        samples, detections, headline = wholes, [found for _, found in pairs], "voc12"
    rows = coco_rows(detections, evaluator.category_ids) if settings.detections else []
    if settings.detections:
        with replacing(settings.detections) as temporary:
            temporary.write_text(json.dumps(rows), encoding="utf-8")
    result = evaluate_detections(
        samples,
        detections,
        evaluator.dataset.class_names,
        headline=headline,
        timing=inference.timing,
    )
    best = None
    if settings.plots is not None:
        records = getattr(evaluator.dataset, "records", None)
        about = about | {"data": getattr(records, "title", about["exp"])}
        with claimed(settings.plots):
            best = write_report(settings.plots, result, samples, detections, about)
    return Evaluation(result=result, about=about, settings=settings, best=best, rows=len(rows))


def _about(settings: EvalSettings, exp: Exp, source: Path, fabric: Fabric) -> dict[str, Any]:
    """What was evaluated, how, where and when."""
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": f"{fabric.world_size} × {machine(fabric.device)}",
        "checkpoint": str(source),
        "checkpoint_sha256": file_digest(source),
        "exp": exp.exp_name,
        "test_size": list(exp.test_size),
        "conf": exp.test_conf,
        "nms": exp.nmsthre,
        "batch_size": 1 if settings.speed else settings.batch_size,
        "fused": settings.fuse,
    }
