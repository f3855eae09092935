"""One training step as a function: batch in, losses out, weights moved."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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


def forward_losses(
    model: nn.Module, images: Tensor, targets: Tensor, image_names: Sequence[str]
) -> dict[str, Tensor]:
    """The batch's losses.

    Raises:
        NonFiniteLossError: with the names of the batch's images, before any weight is touched.
    """
    losses: dict[str, Tensor] = model(images, targets)
    if not torch.isfinite(losses["total_loss"]):
        values = ", ".join(f"{name} {losses[name].item():.3g}" for name in LOSS_NAMES)
        raise NonFiniteLossError(
            f"the loss is not finite ({values}) on the images {', '.join(image_names)}: training "
            "stopped and the last good checkpoint is kept. Lower basic_lr_per_img, or look at the "
            "annotations of these images"
        )
    return losses
