"""The YOLOX training loss, from raw head output and padded labels. Float32 throughout.

Shape suffixes: B images, A anchor points, C classes, G padded ground-truth rows, F foreground
anchors of the whole batch.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from yolox.models.assigner import simota
from yolox.models.yolo_head import HeadOutput, decode_boxes

IOU_LOSS_WEIGHT = 5.0


def iou_loss(predicted_F4: Tensor, target_F4: Tensor) -> Tensor:
    """1 − IoU² of each pair (F,) of boxes, both cx, cy, w, h."""
    half_p, half_t = predicted_F4[:, 2:] / 2, target_F4[:, 2:] / 2
    upper_left = torch.maximum(predicted_F4[:, :2] - half_p, target_F4[:, :2] - half_t)
    lower_right = torch.minimum(predicted_F4[:, :2] + half_p, target_F4[:, :2] + half_t)
    overlap = (lower_right - upper_left).clamp(min=0).prod(dim=1)
    union = predicted_F4[:, 2:].prod(dim=1) + target_F4[:, 2:].prod(dim=1) - overlap
    return 1 - (overlap / (union + 1e-16)) ** 2


def l1_target(box_F4: Tensor, grid_F2: Tensor, stride_F: Tensor) -> Tensor:
    """The raw head values (F, 4) that would decode to the boxes (cx, cy, w, h in input pixels)."""
    offset = box_F4[:, :2] / stride_F[:, None] - grid_F2
    return torch.cat((offset, (box_F4[:, 2:] / stride_F[:, None] + 1e-8).log()), dim=1)


def detection_loss(out: HeadOutput, labels_BG5: Tensor, *, use_l1: bool) -> dict[str, Tensor]:
    """Losses of a batch, each divided by its number of foreground anchors.

    Args:
        out: raw head output.
        labels_BG5: (class, cx, cy, w, h) in input pixels; all-zero rows are padding.
        use_l1: add the L1 distance of the raw box values.

    Returns:
        Scalars ``total_loss, iou_loss, l1_loss, conf_loss, cls_loss``; ``num_fg``, the foreground
        anchors per ground truth; and ``foreground``, their number: the losses were divided by it,
        or by 1 where there are none.
    """
    with torch.autocast(out.raw_BAK.device.type, enabled=False):
        raw_BAK = out.raw_BAK.float()
        labels_BG5 = labels_BG5.to(raw_BAK)
        box_BA4 = decode_boxes(out)
        foreground_BA, gt_BA, iou_BA = simota(
            box_BA4,
            raw_BAK[..., 4],
            raw_BAK[..., 5:],
            out.grid_A2,
            out.stride_A,
            labels_BG5,
        )
        image_F, anchor_F = foreground_BA.nonzero(as_tuple=True)
        label_F5 = labels_BG5[image_F, gt_BA[image_F, anchor_F]]
        raw_FK = raw_BAK[image_F, anchor_F]
        num_foreground = max(len(image_F), 1)

        iou = iou_loss(box_BA4[image_F, anchor_F], label_F5[:, 1:]).sum() / num_foreground
        conf = (
            F.binary_cross_entropy_with_logits(
                raw_BAK[..., 4], foreground_BA.float(), reduction="sum"
            )
            / num_foreground
        )
        # The class target is the IoU reached, so that class scores rank boxes by quality too.
        cls_target = F.one_hot(label_F5[:, 0].long(), raw_FK.shape[1] - 5) * iou_BA[
            image_F, anchor_F
        ].unsqueeze(1)
        cls = (
            F.binary_cross_entropy_with_logits(raw_FK[:, 5:], cls_target, reduction="sum")
            / num_foreground
        )
        l1 = raw_BAK.new_zeros(())
        if use_l1:
            target = l1_target(label_F5[:, 1:], out.grid_A2[anchor_F], out.stride_A[anchor_F])
            l1 = (raw_FK[:, :4] - target).abs().sum() / num_foreground

        num_gts = (labels_BG5[..., 3:].amin(dim=-1) > 0).sum().clamp(min=1)
        return {
            "total_loss": IOU_LOSS_WEIGHT * iou + conf + cls + l1,
            "iou_loss": IOU_LOSS_WEIGHT * iou,
            "l1_loss": l1,
            "conf_loss": conf,
            "cls_loss": cls,
            "num_fg": len(image_F) / num_gts,
            "foreground": raw_BAK.new_full((), len(image_F)),
        }
