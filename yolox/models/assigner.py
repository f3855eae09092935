"""SimOTA label assignment (Ge et al. 2021, arXiv:2107.08430, sec. 2.1) for a whole batch at once.

Shape suffixes: B images, G ground-truth rows (padded), A anchor points, N candidate anchors of an
image (padded to the batch's largest count), C classes.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

CENTER_RADIUS = 1.5  # in strides
IOU_COST_WEIGHT = 3.0
OUTSIDE_CENTER_COST = 1e6
MAX_DYNAMIC_K = 10
LOG_FLOOR = -100.0  # binary cross entropy's own clamp, keeps log(0) finite


class Assignment(NamedTuple):
    """Which anchor answers for which object.

    Attributes:
        foreground_BA: bool, whether the anchor is matched.
        gt_BA: int64, row of the matched ground truth (0 where background).
        iou_BA: float32, IoU of the anchor's predicted box with it (0 where background).
    """

    foreground_BA: Tensor
    gt_BA: Tensor
    iou_BA: Tensor


def pairwise_iou(boxes_BGx4: Tensor, boxes_BNx4: Tensor) -> Tensor:
    """IoU (B, G, N) of two padded sets of boxes, both cx, cy, w, h; 0 where both are empty."""
    a, b = boxes_BGx4[:, :, None], boxes_BNx4[:, None]
    upper_left = torch.maximum(a[..., :2] - a[..., 2:] / 2, b[..., :2] - b[..., 2:] / 2)
    lower_right = torch.minimum(a[..., :2] + a[..., 2:] / 2, b[..., :2] + b[..., 2:] / 2)
    overlap = (lower_right - upper_left).clamp(min=0).prod(dim=-1)
    union = a[..., 2:].prod(dim=-1) + b[..., 2:].prod(dim=-1) - overlap
    return overlap / union.clamp(min=torch.finfo(union.dtype).tiny)


def class_cost(cls_BNC: Tensor, obj_BN: Tensor, class_BG: Tensor) -> Tensor:
    """Binary cross entropy (B, G, N) of sqrt(p_class · p_obj) against each object's one-hot class.

    Only the object's own class differs between rows, so the sum over classes is taken once per
    anchor and corrected by one gathered term, instead of building (B, G, N, C).
    """
    p = (cls_BNC.sigmoid() * obj_BN.sigmoid()[..., None]).sqrt()
    log_p = p.log().clamp(min=LOG_FLOOR)
    log_not_p = (1 - p).log().clamp(min=LOG_FLOOR)
    all_negative_BN = -log_not_p.sum(dim=-1)
    index_BNG = class_BG[:, None, :].expand(-1, p.shape[1], -1)
    own_BNG = (log_not_p - log_p).gather(2, index_BNG)
    return (all_negative_BN[..., None] + own_BNG).transpose(1, 2)


def in_center_region(
    box_BG4: Tensor, valid_BG: Tensor, grid_A2: Tensor, stride_A: Tensor
) -> Tensor:
    """(B, G, A) bool: the anchor's cell centre lies within 1.5 strides of the object's centre."""
    center_A2 = (grid_A2 + 0.5) * stride_A[:, None]
    radius_A = CENTER_RADIUS * stride_A
    near_x = (box_BG4[..., 0, None] - center_A2[:, 0]).abs() < radius_A
    near_y = (box_BG4[..., 1, None] - center_A2[:, 1]).abs() < radius_A
    return near_x & near_y & valid_BG[..., None]


def _gather_anchors(values_BAx: Tensor, index_BN: Tensor) -> Tensor:
    return values_BAx.gather(1, index_BN[..., None].expand(-1, -1, values_BAx.shape[-1]))


@torch.no_grad()
def simota(
    box_BA4: Tensor,
    obj_BA: Tensor,
    cls_BAC: Tensor,
    grid_A2: Tensor,
    stride_A: Tensor,
    labels_BG5: Tensor,
) -> Assignment:
    """Match anchors with objects by classification + IoU cost, k anchors an object.

    k is the object's summed IoU with its ten best candidates, at least 1. An anchor wanted by
    several objects goes to the cheapest. Deviation from the paper's code: an object with no anchor
    in its centre region (its centre lies outside the image) gets none, not an arbitrary far one.

    Args:
        box_BA4: predicted boxes, cx, cy, w, h in input pixels, float32.
        obj_BA: objectness logits.
        cls_BAC: class logits.
        grid_A2: cell column and row of each anchor.
        stride_A: stride of each anchor in input pixels.
        labels_BG5: (class, cx, cy, w, h) in input pixels; rows without area are padding.
    """
    num_images = len(obj_BA)
    foreground_BA = torch.zeros_like(obj_BA, dtype=torch.bool)
    gt_BA = torch.zeros_like(obj_BA, dtype=torch.int64)
    iou_BA = torch.zeros_like(obj_BA, dtype=torch.float32)

    valid_BG = (labels_BG5[..., 3] > 0) & (labels_BG5[..., 4] > 0)
    num_rows = int(valid_BG.any(dim=0).nonzero().max()) + 1 if bool(valid_BG.any()) else 0
    labels_BG5, valid_BG = labels_BG5[:, :num_rows].float(), valid_BG[:, :num_rows]
    near_BGA = in_center_region(labels_BG5[..., 1:], valid_BG, grid_A2, stride_A)
    candidate_BA = near_BGA.any(dim=1)
    if not bool(candidate_BA.any()):
        return Assignment(foreground_BA, gt_BA, iou_BA)

    # Pack each image's candidates to the front: a few hundred of some thousand anchors.
    image_M, anchor_M = candidate_BA.nonzero(as_tuple=True)
    slot_M = candidate_BA.cumsum(dim=1)[image_M, anchor_M] - 1
    num_candidates = int(slot_M.max()) + 1
    index_BN = anchor_M.new_zeros(num_images, num_candidates)
    index_BN[image_M, slot_M] = anchor_M
    real_BN = candidate_BA.new_zeros(num_images, num_candidates)
    real_BN[image_M, slot_M] = True

    near_BGN = near_BGA.gather(2, index_BN[:, None].expand(-1, num_rows, -1))
    possible_BGN = (near_BGN.any(dim=2) & valid_BG)[..., None] & real_BN[:, None]
    iou_BGN = pairwise_iou(labels_BG5[..., 1:], _gather_anchors(box_BA4, index_BN))
    iou_BGN = iou_BGN.masked_fill(~possible_BGN, 0)
    cost_BGN = (
        class_cost(
            _gather_anchors(cls_BAC, index_BN).float(),
            obj_BA.gather(1, index_BN).float(),
            labels_BG5[..., 0].long(),
        )
        - IOU_COST_WEIGHT * (iou_BGN + 1e-8).log()
        + OUTSIDE_CENTER_COST * ~near_BGN
    ).masked_fill(~possible_BGN, torch.inf)

    match_BGN = _dynamic_k_matches(cost_BGN, iou_BGN) & possible_BGN
    contested_BN = match_BGN.sum(dim=1) > 1
    gt_BN = torch.where(contested_BN, cost_BGN.argmin(dim=1), match_BGN.int().argmax(dim=1))
    matched_BN = match_BGN.any(dim=1)

    image_M, slot_M = matched_BN.nonzero(as_tuple=True)
    anchor_M, gt_M = index_BN[image_M, slot_M], gt_BN[image_M, slot_M]
    foreground_BA[image_M, anchor_M] = True
    gt_BA[image_M, anchor_M] = gt_M
    iou_BA[image_M, anchor_M] = iou_BGN[image_M, gt_M, slot_M].float()
    return Assignment(foreground_BA, gt_BA, iou_BA)


def _dynamic_k_matches(cost_BGN: Tensor, iou_BGN: Tensor) -> Tensor:
    """(B, G, N) bool: each object's k cheapest candidates, k = its summed top IoUs, at least 1."""
    limit = min(MAX_DYNAMIC_K, cost_BGN.shape[2])
    k_BG = iou_BGN.topk(limit, dim=2).values.sum(dim=2).int().clamp(min=1)
    cheapest_BGK = cost_BGN.topk(limit, dim=2, largest=False).indices
    chosen_BGK = torch.arange(limit, device=k_BG.device) < k_BG[..., None]
    return torch.zeros_like(cost_BGN, dtype=torch.bool).scatter(2, cheapest_BGK, chosen_BGK)
