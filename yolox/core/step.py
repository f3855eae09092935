"""One training step as a function: batch in, losses out, weights moved."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from yolox.core.failures import PeerLostError
from yolox.utils.dist import gather_values, get_rank, get_world_size
from yolox.utils.errors import UserError

LOSS_NAMES = ("total_loss", "iou_loss", "l1_loss", "conf_loss", "cls_loss")


class NonFiniteLossError(UserError):
    """The loss became infinite or not a number."""


def resize_batch(images: Tensor, targets: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Scale a batch to (height, width), for multi-scale training; arguments are not mutated.

    Args:
        images: (B, 3, H, W).
        targets: (B, G, 5): class, cx, cy, w, h in pixels of the images.
        size: new height and width.
    """
    height, width = images.shape[-2:]
    if (height, width) == size:
        return images, targets
    images = F.interpolate(images, size=size, mode="bilinear", align_corners=False)
    scale_y, scale_x = size[0] / height, size[1] / width
    return images, targets * targets.new_tensor([1, scale_x, scale_y, scale_x, scale_y])


def loss_names(losses: Mapping[str, Tensor]) -> list[str]:
    """Which of a step's values are losses: `LOSS_NAMES`, and what a run adds, as distill_loss."""
    return [name for name in losses if name.endswith("_loss")]


def forward_losses(
    model: nn.Module, images: Tensor, targets: Tensor, image_names: Sequence[str]
) -> dict[str, Tensor]:
    """The batch's losses, of which several processes' mean is that of all their images together.

    A model divides by the foreground anchors of its own images, which would give those of a process
    with few objects more weight. What a `Distillation` adds is that of all images already.
    Collective: called by every process of a group.

    Raises:
        NonFiniteLossError: with the names of the batch's images, before any weight is touched.
        PeerLostError: where another process raises that.
    """
    losses: dict[str, Tensor] = model(images, targets)
    finite = torch.isfinite(losses["total_loss"])
    if get_world_size() == 1:
        if not finite:
            raise _not_finite(losses, image_names)
        return losses
    own_foreground = losses["foreground"]
    facts_R2 = gather_values(torch.stack((finite.to(own_foreground), own_foreground)))
    if not facts_R2[:, 0].all():
        if int(facts_R2[:, 0].argmin()) == get_rank():  # the first of those that diverged tells
            raise _not_finite(losses, image_names)
        raise PeerLostError("the loss is not finite on another process")
    # What one process with all of these images divides by, over the number of processes, since
    # their gradients are averaged, not summed.
    shared = facts_R2[:, 1].sum().clamp(min=1) / get_world_size()
    factor = own_foreground.clamp(min=1) / shared
    scaled = {name: losses[name] * factor for name in LOSS_NAMES}
    if "distill_loss" in losses:
        scaled["total_loss"] = scaled["total_loss"] + losses["distill_loss"] * (1 - factor)
    return losses | scaled


def _not_finite(losses: dict[str, Tensor], image_names: Sequence[str]) -> NonFiniteLossError:
    values = {name: losses[name].item() for name in loss_names(losses)}
    own = [name for name in LOSS_NAMES if name != "total_loss"]
    cure = "Lower basic_lr_per_img, or look at the annotations of these images"
    if "distill_loss" in values and all(math.isfinite(values[name]) for name in own):
        cure = (
            "The teacher's part alone is not: evaluate the teacher in this precision, train with "
            "`precision='fp32'`, or set the distill_* field of that term to 0"
        )
    shown = ", ".join(f"{name} {value:.3g}" for name, value in values.items())
    return NonFiniteLossError(
        f"the loss is not finite ({shown}) on the images {', '.join(image_names)}: training "
        f"stopped and the last good checkpoint is kept. {cure}"
    )
