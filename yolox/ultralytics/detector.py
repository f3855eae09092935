"""Pruning of a detector of Ultralytics: the forward pass that is traced, the loss, the cut."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from ultralytics.nn.modules.block import AAttn, Attention
from ultralytics.utils import DEFAULT_CFG_DICT, IterableSimpleNamespace

from yolox.pruning import (
    Group,
    LabelledImages,
    PruneConfig,
    PruneResult,
    PruningError,
    PruningPlan,
    ThresholdHint,
    apply_and_verify,
    apply_plan,
    compensate_cut,
    plan_pruning,
    trace_groups,
)
from yolox.pruning.importance import Scorer
from yolox.pruning.scorers import make_scorer
from yolox.ultralytics.files import pruned_yaml
from yolox.utils.device import resolve_device

# What they split by head goes by numbers in their code.
ATTENTION = (AAttn, Attention)
Batch = dict[str, Any]
DEFAULT_SIDE = 640  # Ultralytics'


def trained_side(model: object) -> int:
    """The side of images in pixels that a model was trained at, as a multiple of 32."""
    arguments = getattr(model, "args", {})
    side = arguments.get("imgsz") if isinstance(arguments, dict) else None
    if isinstance(side, int) and side > 0:
        return -(-side // 32) * 32
    return DEFAULT_SIDE


def probe() -> Tensor:
    """A small random image: what tracing and verification need."""
    return torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@contextmanager
def raw_predictions(model: nn.Module) -> Iterator[nn.Module]:
    """Within it the model, and copies of it, send out what the loss reads and nothing else.

    Neither feature maps, which the loss asks for their size alone, nor decoded boxes, whose order
    may hang on a rounding. Both heads of a model with two are in it, whichever is in use.
    """
    hook = model.register_forward_hook(lambda _model, _args, output: _raw(output))
    try:
        yield model
    finally:
        hook.remove()


def _raw(output: Any) -> Any:
    if isinstance(output, tuple):
        return _raw(output[-1])
    if isinstance(output, dict):
        return {key: _raw(value) for key, value in output.items() if key != "feats"}
    return output


def detection_loss(model: Any, batch: Batch) -> Tensor:
    """Ultralytics' own training loss of an image, mean over a batch (images uint8 or float).

    The model's loss settings are those of its own training.
    """
    device = next(model.parameters()).device
    ready = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in batch.items()}
    if not ready["img"].is_floating_point():
        ready["img"] = ready["img"].float() / 255
    if isinstance(model.args, dict):
        model.args = IterableSimpleNamespace(**{**DEFAULT_CFG_DICT, **model.args})
    model.criterion = None  # one that was copied is bound to another model
    loss, _ = model.loss(ready)
    total: Tensor = loss.sum() / len(ready["img"])
    return total


class Detector:
    """A detector on its way to a pruned one: traced once, planned, cut."""

    def __init__(self, model: Any) -> None:
        """Args: `model`: float32 on the CPU, not touched.

        Raises:
            PruningError: it cannot be traced; with the layer.
        """
        self.original = model
        self._model = copy.deepcopy(model).float().cpu().eval()
        self._model.register_forward_hook(lambda _model, _args, output: _raw(output))
        self.groups: list[Group] = trace_groups(self._model, probe())

    @property
    def model(self) -> Any:
        """The model with raw predictions."""
        return self._model

    def plan(
        self,
        config: PruneConfig,
        scorer: Scorer,
        size: tuple[int, int],
        on_hint: Callable[[ThresholdHint], None] | None = None,
    ) -> PruningPlan:
        """The plan for a target that is counted, MACs at (height, width)."""
        try:
            return plan_pruning(
                self._model,
                self.groups,
                config,
                scorer=scorer,
                count_input=torch.zeros(1, 3, *size),
                on_hint=on_hint,
            )
        except PruningError as error:
            raise PruningError(f"{error}{self._whole()}") from error

    def cut(
        self,
        plan: PruningPlan,
        config: PruneConfig,
        size: tuple[int, int],
        images: Tensor | None = None,
        labelled: LabelledImages | None = None,
    ) -> PruneResult:
        """The pruned model, compensated as the config says, verified, as an ordinary one of theirs.

        Args:
            plan: of this detector.
            config: what is done for accuracy after the cut.
            size: (height, width) that MACs are counted at.
            images: float (N, 3, H, W) in [0, 1], on the device to refit on.
            labelled: see `yolox.pruning.compensate_cut`.

        Raises:
            PruningError: what is cut does not compute what it should; with the layers.
        """
        plan.check(self.groups)
        if plan.emptied():
            raise PruningError(
                "a file of Ultralytics holds blocks of its own alone, and none that adds a "
                "constant: no `allow_empty_blocks`"
            )
        ready, judgement = compensate_cut(
            self._model, self.groups, plan, config, probe(), images, labelled
        )
        result = apply_and_verify(ready, self.groups, plan, probe(), torch.zeros(1, 3, *size))
        model: Any = as_ordinary(result.model)
        model.yaml = pruned_yaml(self.original, plan)
        model.args = copy.deepcopy(self.original.args)
        return replace(result, model=model, judgement=judgement)

    def cut_bare(self, plan: PruningPlan) -> Any:
        """The pruned model as the plan leaves it, neither compensated nor verified."""
        return as_ordinary(apply_plan(self._model, self.groups, plan))

    def _whole(self) -> str:
        """What attention keeps, for a message."""
        moving = {member.name for group in self.groups for member in group.members}
        kept = [
            name
            for name, module in self._model.named_modules()
            if isinstance(module, ATTENTION)
            and not any(layer.startswith(f"{name}.") for layer in moving)
        ]
        return f" (attention keeps its channels: {', '.join(kept)})" if kept else ""


def as_ordinary(model: Any) -> Any:
    """The same model, with its own output and the channels that its export splits by."""
    model._forward_hooks.clear()
    model.criterion = None
    for block in model.modules():
        if hasattr(block, "forward_split") and hasattr(block, "c"):
            block.c = block.cv1.conv.out_channels // 2
    return model


def detector_scorer(
    config: PruneConfig,
    batches: Iterable[Batch] | None,
    device: str | torch.device = "auto",
) -> Scorer:
    """The scorer of a config's criterion, which computes on a device.

    Raises:
        PruningError: the criterion needs images, and there are none.
    """
    return make_scorer(config, batches, detection_loss, device=resolve_device(device))


def prune_detector(
    model: Any,
    config: PruneConfig,
    *,
    size: tuple[int, int] = (640, 640),
    batches: Iterable[Batch] | None = None,
    images: Tensor | None = None,
    plan: PruningPlan | None = None,
    on_hint: Callable[[ThresholdHint], None] | None = None,
    device: str | torch.device = "auto",
) -> PruneResult:
    """Prune a detector of Ultralytics; the argument is not touched.

    Args:
        model: a `DetectionModel`, such as `read_detector` or ``YOLO(...).model`` gives.
        config: what to prune, by how much, on what grounds.
        size: (height, width) that MACs are counted at.
        batches: re-iterable batches of their loader, for a criterion that needs data.
        images: see `Detector.cut`, for a config that refits.
        plan: carried out in place of one made here.
        on_hint: see `yolox.pruning.plan_pruning`.
        device: to score on, see `yolox.utils.device.resolve_device`.

    Raises:
        PruningError: see `yolox.pruning.prune_model`.
    """
    detector = Detector(model)
    if plan is None:
        scorer = detector_scorer(config, batches, device)
        plan = detector.plan(config, scorer, size, on_hint)
    return detector.cut(plan, config, size, images)
