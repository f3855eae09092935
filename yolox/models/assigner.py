"""SimOTA label assignment (Ge et al. 2021, arXiv:2107.08430, sec. 2.1) for a whole batch at once.

Shape suffixes: B images, G ground-truth rows (padded), A anchor points, N candidate anchors of an
image (padded to the batch's largest count), C classes; P pairs of an object and an anchor near it,
L levels, W wanted pairs, M an index list, K places of the k cheapest.
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
    low_a, high_a = _corners(boxes_BGx4[:, :, None])
    low_b, high_b = _corners(boxes_BNx4[:, None])
    # Axis by axis: twice as fast as tensors (B, G, N, 2), whose last axis is too short.
    width, height = (
        torch.minimum(high_a[i], high_b[i]).sub_(torch.maximum(low_a[i], low_b[i])).clamp_(min=0)
        for i in (0, 1)
    )
    overlap = width.mul_(height)
    union = boxes_BGx4[..., 2:].prod(dim=-1)[..., None] + boxes_BNx4[..., 2:].prod(dim=-1)[:, None]
    union = union.sub_(overlap).clamp_(min=torch.finfo(union.dtype).tiny)
    return overlap.div_(union)


def _corners(boxes_x4: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """(x, y) of the upper left, and of the lower right corners of boxes as cx, cy, w, h."""
    low, high = boxes_x4[..., :2] - boxes_x4[..., 2:] / 2, boxes_x4[..., :2] + boxes_x4[..., 2:] / 2
    return low.unbind(-1), high.unbind(-1)


def class_cost(cls_BNC: Tensor, obj_BN: Tensor, class_BG: Tensor) -> Tensor:
    """Binary cross entropy (B, G, N) of sqrt(p_class · p_obj) against each object's one-hot class.

    Only the object's own class differs between rows, so the sum over classes is taken once per
    anchor and corrected by one gathered term, instead of building (B, G, N, C).
    """
    p = cls_BNC.sigmoid().mul_(obj_BN.sigmoid()[..., None]).sqrt_()
    log_not_p = (1 - p).log_().clamp_(min=LOG_FLOOR)
    log_p = p.log_().clamp_(min=LOG_FLOOR)
    all_negative_BN = -log_not_p.sum(dim=-1)
    own_BCN = log_not_p.sub_(log_p).transpose(1, 2)
    index_BGN = class_BG[..., None].expand(-1, -1, own_BCN.shape[2])
    return own_BCN.gather(1, index_BGN).add_(all_negative_BN[:, None])


def center_pairs(
    box_BG4: Tensor, valid_BG: Tensor, grid_A2: Tensor, stride_A: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Image, row and anchor (P,) of all pairs of an object and an anchor in its centre region.

    In it means: the anchor's cell centre lies within 1.5 strides of the object's centre. That is
    at most 3 × 3 cells of a level, so they are looked up instead of comparing all anchors.
    """
    stride_L, level_A = torch.unique(stride_A, return_inverse=True)
    column_A, row_A = grid_A2.long().unbind(1)
    width, height = int(column_A.max()) + 1, int(row_A.max()) + 1
    anchor_of_cell = level_A.new_full((len(stride_L), height, width), -1)
    anchor_of_cell[level_A, row_A, column_A] = torch.arange(len(stride_A), device=stride_A.device)

    # 4 cells an axis hold the 3, whichever way the division rounds.
    offset = torch.arange(-1, 3, device=stride_A.device)

    def cells(center_BG: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Cells (B, G, L, 4) around the centres on one axis, and whether each is in and near."""
        nearest = (center_BG[..., None] / stride_L - 0.5).clamp(-9, count + 9).floor().long()
        cell = nearest[..., None] + offset
        distance = (center_BG[..., None, None] - (cell + 0.5) * stride_L[:, None]).abs()
        near = distance < CENTER_RADIUS * stride_L[:, None]
        return cell.clamp(0, count - 1), near & (cell >= 0) & (cell < count)

    column, near_x = cells(box_BG4[..., 0], width)
    row, near_y = cells(box_BG4[..., 1], height)
    level = torch.arange(len(stride_L), device=stride_A.device)[:, None, None]
    anchor_BGLYX = anchor_of_cell[level, row[..., None], column[..., None, :]]
    near_BGLYX = near_y[..., None] & near_x[..., None, :] & (anchor_BGLYX >= 0)
    near_BGLYX &= valid_BG[..., None, None, None]
    image_P, gt_P = near_BGLYX.nonzero(as_tuple=True)[:2]
    return image_P, gt_P, anchor_BGLYX[near_BGLYX]


def _gather_anchors(values_BAx: Tensor, index_BN: Tensor) -> Tensor:
    num_images, num_anchors = values_BAx.shape[:2]
    first_B = torch.arange(num_images, device=index_BN.device) * num_anchors
    # Whole rows at a time: `gather` would look up every number of a row by itself.
    rows = values_BAx.flatten(0, 1).index_select(0, (index_BN + first_B[:, None]).flatten())
    return rows.view(*index_BN.shape, -1)


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
    image_P, gt_P, near_P = center_pairs(labels_BG5[..., 1:], valid_BG, grid_A2, stride_A)
    if not len(near_P):
        return Assignment(foreground_BA, gt_BA, iou_BA)

    # Pack each image's candidates to the front: a few hundred of some thousand anchors.
    candidate_BA = torch.zeros_like(foreground_BA)
    candidate_BA[image_P, near_P] = True
    slot_BA = candidate_BA.cumsum(dim=1) - 1
    num_candidates = int(slot_BA[:, -1].max()) + 1
    image_M, anchor_M = candidate_BA.nonzero(as_tuple=True)
    slot_M = slot_BA[image_M, anchor_M]
    index_BN = anchor_M.new_zeros(num_images, num_candidates)
    index_BN[image_M, slot_M] = anchor_M
    real_BN = torch.zeros_like(index_BN, dtype=torch.bool)
    real_BN[image_M, slot_M] = True

    iou_BGN = pairwise_iou(labels_BG5[..., 1:], _gather_anchors(box_BA4, index_BN))
    iou_BGN.masked_fill_(~real_BN[:, None], 0)
    wall_BGN = torch.where(real_BN, OUTSIDE_CENTER_COST, torch.inf)[:, None].repeat(1, num_rows, 1)
    wall_BGN[image_P, gt_P, slot_BA[image_P, near_P]] = 0
    cost_BGN = (
        class_cost(
            _gather_anchors(cls_BAC, index_BN).float(),
            obj_BA.gather(1, index_BN).float(),
            labels_BG5[..., 0].long(),
        )
        - (iou_BGN + 1e-8).log_().mul_(IOU_COST_WEIGHT)
        + wall_BGN
    )

    possible_BG = torch.zeros_like(valid_BG)
    possible_BG[image_P, gt_P] = True
    image_W, gt_W, slot_W = _dynamic_k_matches(cost_BGN, iou_BGN, possible_BG, real_BN)
    wanted_BN = torch.zeros_like(index_BN)
    wanted_BN.index_put_((image_W, slot_W), torch.ones_like(slot_W), accumulate=True)
    gt_BN = torch.zeros_like(index_BN)
    gt_BN[image_W, slot_W] = gt_W
    image_M, slot_M = (wanted_BN > 1).nonzero(as_tuple=True)
    rivals_MG = cost_BGN[image_M, :, slot_M].masked_fill(~possible_BG[image_M], torch.inf)
    gt_BN[image_M, slot_M] = rivals_MG.argmin(dim=1)

    image_M, slot_M = wanted_BN.nonzero(as_tuple=True)
    anchor_M, gt_M = index_BN[image_M, slot_M], gt_BN[image_M, slot_M]
    foreground_BA[image_M, anchor_M] = True
    gt_BA[image_M, anchor_M] = gt_M
    iou_BA[image_M, anchor_M] = iou_BGN[image_M, gt_M, slot_M].float()
    return Assignment(foreground_BA, gt_BA, iou_BA)


def _dynamic_k_matches(
    cost_BGN: Tensor, iou_BGN: Tensor, possible_BG: Tensor, real_BN: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Image, row and candidate (W,) of each object's k cheapest, k = its summed top IoUs ≥ 1."""
    limit = min(MAX_DYNAMIC_K, cost_BGN.shape[2])
    k_BG = iou_BGN.topk(limit, dim=2).values.sum(dim=2).int().clamp(min=1)
    cheapest_BGK = cost_BGN.topk(limit, dim=2, largest=False).indices
    real_BGK = real_BN.gather(1, cheapest_BGK.flatten(1)).view_as(cheapest_BGK)
    chosen_BGK = torch.arange(limit, device=k_BG.device) < k_BG[..., None]
    chosen_BGK = chosen_BGK & real_BGK & possible_BG[..., None]
    image_W, gt_W, _ = chosen_BGK.nonzero(as_tuple=True)
    return image_W, gt_W, cheapest_BGK[chosen_BGK]
