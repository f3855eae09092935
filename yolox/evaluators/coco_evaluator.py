"""The evaluator: run a model over a loader, score it by the COCO and VOC rules."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, overload

import numpy as np
import torch
from loguru import logger
from torch import nn

from yolox.evaluators.detections import Outputs, coco_rows, gather_detections, outputs_by_image
from yolox.evaluators.evaluator import (
    EvalDataset,
    EvalSample,
    ImageDetections,
    Timing,
    run_inference,
)
from yolox.evaluators.results import EvalResult, Headline, evaluate_detections
from yolox.utils.dist import is_main_process
from yolox.utils.errors import UserError
from yolox.utils.files import write_text

__all__ = ["COCOEvaluator", "Evaluator", "Headline", "Inference", "Outputs"]

_TESTDEV_FILE = Path("yolox_testdev_2017.json")
_PRECISIONS = {"fp32": None, "fp16": torch.float16, "bf16": torch.bfloat16}


class Inference(NamedTuple):
    """What a model found in a data set, an entry an image, and how long it took."""

    detections: list[ImageDetections]
    timing: Timing


class Evaluator:
    """Evaluates models on one data set; both metrics are always computed, one is the headline.

    Args:
        dataloader: yields what :func:`run_inference` takes; its ``dataset`` is an
            :class:`EvalDataset`.
        img_size: (height, width) of the input, pixels.
        confthre: least score of a detection, in [0, 1].
        nmsthre: IoU of NMS, in [0, 1].
        num_classes: of the model, and of the data set.
        headline: the rule that the two main figures and the table by class follow.
        per_class_AP, per_class_AR: whether ``evaluate`` lists them in its summary.
        require_objects: False lets the data set have no annotations; AP is NaN then.

    Raises:
        UserError: listing all that is wrong with the data set.
    """

    def __init__(
        self,
        dataloader: Any,
        img_size: tuple[int, int],
        confthre: float,
        nmsthre: float,
        num_classes: int,
        *,
        headline: Headline,
        per_class_AP: bool = True,
        per_class_AR: bool = False,
        require_objects: bool = True,
    ) -> None:
        self.dataloader = dataloader
        self.img_size = (int(img_size[0]), int(img_size[1]))
        self.confthre = confthre
        self.nmsthre = nmsthre
        self.num_classes = num_classes
        self.headline: Headline = headline
        self.per_class_AP = per_class_AP
        self.per_class_AR = per_class_AR
        self.dataset: EvalDataset = dataloader.dataset
        _check_dataset(self.dataset, num_classes, require_objects)

    def run(
        self,
        model: nn.Module,
        *,
        device: torch.device | str | None = None,
        precision: str | None = None,
        distributed: bool = False,
    ) -> EvalResult:
        """Evaluate ``model`` and return all figures.

        Args:
            model: as :func:`run_inference` takes it; put back into its mode afterwards.
            device: where to run, the model is moved there; None means where it is.
            precision: ``"fp32"``, ``"fp16"`` or ``"bf16"`` (mixed); None means ``"fp32"``.
            distributed: each process saw a part of the data set: put them together first. Every
                process gets the same figures (times are its own). Without a process group of more
                than one this changes nothing.

        Raises:
            ValueError: for an unknown precision, or a loader that does not yield each image of the
                data set once.
        """
        return self.score(
            self.infer(model, device=device, precision=precision, distributed=distributed)
        )

    @overload
    def evaluate(
        self,
        model: nn.Module,
        distributed: bool = ...,
        half: bool = ...,
        trt_file: None = ...,
        decoder: None = ...,
        test_size: tuple[int, int] | None = ...,
        return_outputs: Literal[False] = ...,
    ) -> tuple[float, float, str]: ...

    @overload
    def evaluate(
        self,
        model: nn.Module,
        distributed: bool = ...,
        half: bool = ...,
        trt_file: None = ...,
        decoder: None = ...,
        test_size: tuple[int, int] | None = ...,
        *,
        return_outputs: bool,
    ) -> tuple[float, float, str] | tuple[tuple[float, float, str], Outputs]: ...

    def evaluate(
        self,
        model: nn.Module,
        distributed: bool = False,
        half: bool = False,
        trt_file: None = None,
        decoder: None = None,
        test_size: tuple[int, int] | None = None,
        return_outputs: bool = False,
    ) -> tuple[float, float, str] | tuple[tuple[float, float, str], Outputs]:
        """Evaluate ``model``, with the arguments that scripts for the official package give.

        Args:
            model: as for :meth:`run`.
            distributed: as for :meth:`run`.
            half: mixed precision: float16, or bfloat16 on a CPU.
            trt_file: not supported, must be None.
            decoder: not supported, must be None.
            test_size: None, or the ``img_size`` this evaluator was made with.
            return_outputs: also return the detections.

        Returns:
            (AP50-95, AP50, summary text); with ``return_outputs`` a pair of this and a dict from
            image id to ``bboxes`` (xyxy, original pixels), ``scores`` and ``categories`` (class
            indices).

        Raises:
            ValueError: for an argument that is not supported, and as :meth:`run`.
        """
        if trt_file is not None or decoder is not None:
            raise ValueError("trt_file and decoder: expected None, TensorRT is not supported")
        if test_size is not None and tuple(test_size) != self.img_size:
            raise ValueError(
                f"test_size: expected {self.img_size} as the loader makes it, got "
                f"{tuple(test_size)}; build the evaluator with the new size instead"
            )
        on_cpu = all(p.device.type == "cpu" for p in model.parameters())
        precision = ("bf16" if on_cpu else "fp16") if half else "fp32"
        inference = self.infer(model, precision=precision, distributed=distributed)
        result = self.score(inference)
        summary = result.summary(per_class_ap=self.per_class_AP, per_class_ar=self.per_class_AR)
        headline = (result.ap50_95, result.ap50, summary)
        return (headline, outputs_by_image(inference.detections)) if return_outputs else headline

    def infer(
        self,
        model: nn.Module,
        *,
        device: torch.device | str | None = None,
        precision: str | None = None,
        distributed: bool = False,
    ) -> Inference:
        """The first half of :meth:`run`: detections in the data set's order, each image once."""
        if precision is not None and precision not in _PRECISIONS:
            raise ValueError(f"precision: expected one of {[*_PRECISIONS]}, got {precision!r}")
        detections, timing = run_inference(
            model,
            self.dataloader,
            num_classes=self.num_classes,
            img_size=self.img_size,
            conf_threshold=self.confthre,
            nms_threshold=self.nmsthre,
            device=device,
            autocast=_PRECISIONS[precision or "fp32"],
        )
        samples = self.dataset.samples
        return Inference(gather_detections(detections, samples, distributed), timing)

    def score(self, inference: Inference) -> EvalResult:
        """The second half of :meth:`run`: all figures."""
        return evaluate_detections(
            self.dataset.samples,
            inference.detections,
            self.dataset.class_names,
            headline=self.headline,
            timing=inference.timing,
        )

    @property
    def category_ids(self) -> Sequence[int]:
        """Ids by class index: the data set's ``class_ids`` where it has them, else the indices."""
        ids: Sequence[int] = getattr(self.dataset, "class_ids", range(self.num_classes))
        return ids


class COCOEvaluator(Evaluator):
    """Evaluator whose headline is COCO AP. Arguments as for :class:`Evaluator`.

    With ``testdev`` the data set needs no annotations, and the detections are written to
    ``yolox_testdev_2017.json`` in the working directory, in COCO's result format, by one process.
    """

    def __init__(
        self,
        dataloader: Any,
        img_size: tuple[int, int],
        confthre: float,
        nmsthre: float,
        num_classes: int,
        testdev: bool = False,
        per_class_AP: bool = True,
        per_class_AR: bool = False,
    ) -> None:
        super().__init__(
            dataloader,
            img_size,
            confthre,
            nmsthre,
            num_classes,
            headline="coco",
            per_class_AP=per_class_AP,
            per_class_AR=per_class_AR,
            require_objects=not testdev,
        )
        self.testdev = testdev

    def infer(
        self,
        model: nn.Module,
        *,
        device: torch.device | str | None = None,
        precision: str | None = None,
        distributed: bool = False,
    ) -> Inference:
        """As :meth:`Evaluator.infer`; with ``testdev`` the detections are written, too."""
        inference = super().infer(
            model, device=device, precision=precision, distributed=distributed
        )
        if self.testdev and is_main_process():
            rows = coco_rows(inference.detections, self.category_ids)
            write_text(_TESTDEV_FILE, json.dumps(rows))
            logger.info("detections written to {}", _TESTDEV_FILE.resolve())
        return inference


def _check_dataset(dataset: EvalDataset, num_classes: int, require_objects: bool) -> None:
    if not hasattr(dataset, "samples") or not hasattr(dataset, "class_names"):
        raise ValueError(
            f"dataloader.dataset: expected `samples` and `class_names`, {type(dataset).__name__} "
            "lacks them"
        )
    samples: Sequence[EvalSample] = dataset.samples
    problems = []
    if len(dataset.class_names) != num_classes:
        problems.append(
            f"num_classes is {num_classes}, the data set has {len(dataset.class_names)}: "
            f"{', '.join(dataset.class_names[:5])}{', ...' if len(dataset.class_names) > 5 else ''}"
        )
    if len({sample.image_id for sample in samples}) != len(samples):
        problems.append("two samples share an image_id")
    for sample in samples:
        classes = np.asarray(sample.classes)
        if classes.size and not 0 <= classes.min() <= classes.max() < num_classes:
            problems.append(f"{sample.name}: a class is outside 0..{num_classes - 1}")
    if require_objects and all(np.all(sample.difficult) for sample in samples):
        problems.append("no image has an object that counts, AP is undefined")
    if problems:
        more = f"\n... and {len(problems) - 20} more" if len(problems) > 20 else ""
        raise UserError("cannot evaluate:\n" + "\n".join(problems[:20]) + more)
