"""Knowledge distillation: a pruned model also learns from the model it was cut from.

Shape suffixes: B images, A anchor points, C classes, K = 4 + 1 + C raw values, P confident anchors
of the whole batch, D channels, S positions of a feature map.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from loguru import logger
from torch import Tensor, nn

from yolox.data import known_order
from yolox.models import YOLOX, ModelSpec, load_model
from yolox.models.losses import detection_loss, iou_loss
from yolox.models.yolo_head import HeadOutput, decode_boxes
from yolox.utils.checkpoint import CheckpointError
from yolox.utils.device import synchronize
from yolox.utils.dist import gather_values, get_world_size
from yolox.utils.errors import UserError
from yolox.utils.model_utils import count_macs, count_params

SCORE_FLOOR = 0.05  # teacher's score below which an anchor teaches nothing
TIMED_STEPS = 20  # at most


@dataclass(frozen=True, kw_only=True)
class DistillConfig:
    """Weights of the terms, 0 for none of it, and the temperature of the feature maps.

    Attributes:
        cls, obj: class and objectness logits, see `logit_terms`.
        box: boxes, see `box_term`.
        feature: the neck's feature maps, see `channel_term`.
        temperature: of the softmax over the positions of a channel; logits are taken as they are.
    """

    cls: float = 1.0
    obj: float = 1.0
    box: float = 1.0
    feature: float = 1.0
    temperature: float = 1.0

    def __post_init__(self) -> None:
        weights = {
            name: value for name, value in dataclasses.asdict(self).items() if name != "temperature"
        }
        problems = [
            f"distill_{name} must be finite and not negative: {value}"
            for name, value in weights.items()
            if not 0 <= value < math.inf
        ]
        if not any(weights.values()):
            problems.append("every distill_* weight is 0, so a teacher teaches nothing: set one")
        if not 0 < self.temperature < math.inf:
            problems.append(f"distill_temperature must be finite and positive: {self.temperature}")
        if problems:
            raise UserError("; ".join(problems))


# ------------------------------------------------------------------------------------------- terms


def confidence(raw_BAK: Tensor) -> Tensor:
    """How much each anchor teaches (B, A): objectness × best class, or 0 below the floor."""
    score_BA = raw_BAK[..., 4].sigmoid() * raw_BAK[..., 5:].amax(dim=-1).sigmoid()
    return torch.where(score_BA >= SCORE_FLOOR, score_BA, torch.zeros_like(score_BA))


def binary_divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """KL divergence, elementwise, of Bernoulli variables given by logits: 0 where they agree."""
    target = teacher.sigmoid()
    cross = F.binary_cross_entropy_with_logits(student, target, reduction="none")
    return cross - F.binary_cross_entropy_with_logits(teacher, target, reduction="none")


def channel_term(student_BDHW: Tensor, teacher_BDHW: Tensor, temperature: float) -> Tensor:
    """Where each channel looks: τ² KL between softmaxes over positions, mean of channels, images.

    Channel-wise distillation (Shu et al. 2021, arXiv:2011.13256).
    """
    student_BDS = student_BDHW.float().flatten(2) / temperature
    teacher_BDS = teacher_BDHW.float().flatten(2) / temperature
    divergence_BDS = F.kl_div(
        student_BDS.log_softmax(-1), teacher_BDS.log_softmax(-1), reduction="none", log_target=True
    )
    return temperature**2 * divergence_BDS.sum(-1).mean()


def logit_terms(student_PK: Tensor, teacher_PK: Tensor, weight_P: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted sums of the divergences of classes (of each, summed) and of objectness."""
    divergence = binary_divergence(student_PK[:, 4:], teacher_PK[:, 4:])
    return (divergence[:, 1:].sum(dim=1) * weight_P).sum(), (divergence[:, 0] * weight_P).sum()


def box_term(student_P4: Tensor, teacher_P4: Tensor, weight_P: Tensor) -> Tensor:
    """Weighted sum of 1 − IoU² between decoded boxes, cx, cy, w, h in pixels."""
    return (iou_loss(student_P4, teacher_P4) * weight_P).sum()


# --------------------------------------------------------------------------------------- objective


class Distillation(nn.Module):
    """The training losses of a student that has a teacher; what the trainer calls for the model.

    Holds the student, and a 1 × 1 convolution a level where pruning changed the channels of its
    feature maps; a checkpoint's model is the student alone. The teacher is no submodule: neither
    optimizer nor state dict nor several processes' synchronisation see it.

    Args:
        student: trained, in the mode it is in.
        teacher: on the device already; put into evaluation mode, without gradients.
        config: the terms.
        steps: an epoch's; by its end the log tells what the teacher takes.

    Raises:
        UserError: the student is of a class that computes its losses in a way of its own.
    """

    def __init__(
        self, student: YOLOX, teacher: YOLOX, config: DistillConfig, steps: int = TIMED_STEPS
    ) -> None:
        super().__init__()
        _require_usual_losses(student)
        self.student = student
        teacher.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._teacher = (teacher,)  # a tuple hides it from nn.Module
        self._config = config
        self._clock = _TeacherClock(next(teacher.parameters()).device, steps)
        pairs = zip(_feature_channels(student), _feature_channels(teacher), strict=True)
        self.adapters = nn.ModuleList(
            nn.Identity() if own == theirs else nn.Conv2d(own, theirs, 1)
            for own, theirs in (pairs if config.feature else ())
        )

    def forward(self, images: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Images (B, 3, H, W) and targets (B, G, 5) → the losses of `detection_loss` and more.

        ``distill_cls_loss, distill_obj_loss, distill_box_loss, distill_feature_loss`` (those with
        a weight, weighted) and ``distill_loss``, their sum, which ``total_loss`` holds too. Their
        mean over several processes is that of all their images together. Collective.
        """
        with torch.no_grad(), self._clock:
            teacher_features = self._teacher[0].backbone(images)
            teacher_out = self._teacher[0].head(teacher_features)
        features = self.student.backbone(images)
        out = self.student.head(features)
        losses = detection_loss(out, targets, use_l1=self.student.head.use_l1)
        terms = self._prediction_terms(out, teacher_out)
        if self._config.feature:
            adapted = [adapt(f) for adapt, f in zip(self.adapters, features, strict=True)]
            terms["feature"] = self._feature_term(adapted, teacher_features)
        weighted = {
            f"distill_{name}_loss": getattr(self._config, name) * value
            for name, value in terms.items()
        }
        distill = torch.stack(list(weighted.values())).sum()
        return (
            losses
            | weighted
            | {"distill_loss": distill, "total_loss": losses["total_loss"] + distill}
        )

    def _prediction_terms(self, out: HeadOutput, teacher: HeadOutput) -> dict[str, Tensor]:
        """Classes, objectness and boxes, where they have a weight, over the sum of confidences."""
        config = self._config
        if not (config.cls or config.obj or config.box):
            return {}
        with torch.autocast(out.raw_BAK.device.type, enabled=False):
            raw_BAK, teacher_BAK = out.raw_BAK.float(), teacher.raw_BAK.float()
            weight_BA = confidence(teacher_BAK)
            chosen_BA = weight_BA > 0
            weight_P = weight_BA[chosen_BA]
            cls, obj = logit_terms(raw_BAK[chosen_BA], teacher_BAK[chosen_BA], weight_P)
            terms = {"cls": cls, "obj": obj}
            if config.box:
                boxes = decode_boxes(out)[chosen_BA], decode_boxes(teacher)[chosen_BA]
                terms["box"] = box_term(*boxes, weight_P)
            # Over all processes' confidences a process, since their gradients are averaged.
            total = gather_values(weight_P.sum()[None]).sum() / get_world_size()
            total = total.clamp(min=1e-12)
            return {name: sum_ / total for name, sum_ in terms.items() if getattr(config, name)}

    def _feature_term(self, own: Sequence[Tensor], theirs: Sequence[Tensor]) -> Tensor:
        """The mean of the levels' `channel_term`; processes have batches of the same size."""
        with torch.autocast(own[0].device.type, enabled=False):
            temperature = self._config.temperature
            levels = [channel_term(a, b, temperature) for a, b in zip(own, theirs, strict=True)]
            return torch.stack(levels).mean()


def _feature_channels(model: YOLOX) -> list[int]:
    """Channels of the neck's feature maps, as the head's first convolutions take them."""
    return [stem.conv.in_channels for stem in model.head.stems]  # type: ignore[union-attr, misc]


def _require_usual_losses(student: YOLOX) -> None:
    """What a subclass computes otherwise would be left out: it is not called here."""
    own = [
        f"{type(student).__name__}.{name}"
        for name in ("raw", "loss", "forward")
        if getattr(type(student), name) is not getattr(YOLOX, name)
    ]
    if own:
        raise UserError(
            f"a teacher's losses are added to those of YOLOX, and the Exp's model has its own "
            f"({', '.join(own)}): train it without `teacher`"
        )


class _TeacherClock:
    """Measures what the teacher takes of an epoch's first steps, and tells it once."""

    def __init__(self, device: torch.device, steps: int) -> None:
        self._device = device
        # A step ends where the next one of its epoch begins.
        self._wanted = max(min(TIMED_STEPS, steps - 1), 1)
        self._starts: list[float] = []
        self._seconds: list[float] = []

    def __enter__(self) -> None:
        if len(self._starts) <= self._wanted:
            self._starts.append(self._now())
            if len(self._starts) > self._wanted:
                teacher, step = teacher_cost(self._starts, self._seconds)
                logger.info(
                    f"the teacher takes {1000 * teacher:.0f} ms, {teacher / step:.0%} of a step "
                    f"of {1000 * step:.0f} ms"
                )

    def __exit__(self, *_: object) -> None:
        if len(self._starts) <= self._wanted:
            self._seconds.append(self._now() - self._starts[-1])

    def _now(self) -> float:
        synchronize(self._device)
        return time.perf_counter()


def teacher_cost(starts: Sequence[float], seconds: Sequence[float]) -> tuple[float, float]:
    """Seconds that the teacher takes, and a step, from when each began and the teacher's in each.

    Medians: an evaluation or a slow first step lies between two of them.
    """
    steps = [after - before for before, after in pairwise(starts)]
    return statistics.median(seconds), statistics.median(steps)


# ----------------------------------------------------------------------------------------- teacher


def load_teacher(path: Path, student: YOLOX, spec: ModelSpec) -> YOLOX:
    """The teacher of a file, after a look at whether it can teach the student.

    Args:
        path: a checkpoint.
        student: on any device.
        spec: the student's.

    Raises:
        CheckpointError: see `load_model`; or with all reasons why it cannot: other classes, or
            strides by which its anchor points are others.
    """
    loaded = load_model(path)
    theirs = _classes_of_teacher(path, loaded.spec, spec.class_names)
    problems = []
    if loaded.spec.num_classes != spec.num_classes:
        problems.append(
            f"it has {loaded.spec.num_classes} classes ({', '.join(theirs) or 'unnamed'}), "
            f"the student {spec.num_classes} ({', '.join(spec.class_names) or 'unnamed'})"
        )
    elif theirs and spec.class_names and theirs != spec.class_names:
        problems.append(
            f"its classes are {', '.join(theirs)}, the student's {', '.join(spec.class_names)}"
        )
    strides = loaded.model.head.strides, student.head.strides
    if strides[0] != strides[1]:
        problems.append(f"its strides are {strides[0]}, the student's {strides[1]}")
    if problems:
        raise CheckpointError(
            f"{path} cannot teach this model: {'; '.join(problems)}. Take the checkpoint that was "
            "pruned, or a larger model trained on the same classes"
        )
    _warn_if_smaller(path, loaded.model, student, spec)
    return loaded.model


def _classes_of_teacher(path: Path, spec: ModelSpec, students: tuple[str, ...]) -> tuple[str, ...]:
    """The teacher's class names; where it has none those that the student's tell, with a word."""
    if spec.class_names or spec.num_classes != len(students):
        return spec.class_names
    if known := known_order(spec.num_classes, students):
        return known.names
    if len(students) > 1:
        logger.warning(
            f"the teacher {path} does not name its classes: they are taken in the student's order, "
            f"{', '.join(students)}"
        )
    return students


def _warn_if_smaller(path: Path, teacher: YOLOX, student: YOLOX, spec: ModelSpec) -> None:
    image = torch.zeros(1, 3, *spec.input_size)
    params = count_params(teacher), count_params(student)
    macs = count_macs(teacher, image)[""], count_macs(student, image)[""]
    if params[0] < params[1] or macs[0] < macs[1]:
        logger.warning(
            f"the teacher {path} is smaller than the student: params {params[0]:,} and "
            f"{params[1]:,}, MACs {macs[0]:,} and {macs[1]:,}"
        )
