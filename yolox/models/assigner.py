"""SimOTA label assignment (Ge et al. 2021, arXiv:2107.08430, sec. 2.1) for a whole batch at once.

Shape suffixes: B images, G ground-truth rows (padded), A anchor points, N candidate anchors of an
image (padded to the batch's largest count), C classes; P pairs of an object and an anchor near it,
L levels, W wanted pairs, R rivals for an anchor, M an index list, K places of the k cheapest.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

CENTER_RADIUS = 1.5  # in strides
IOU_COST_WEIGHT = 3.0
OUTSIDE_CENTER_COST = 1e6
MAX_DYNAMIC_K = 10
LOG_FLOOR = -100.0  # binary cross entropy's own clamp, keeps log(0) finite
# Pairs of an object and a candidate that are compared at once, about 16 bytes each: few enough to
# stay in a processor's cache, too.
PAIRS_AT_ONCE = 2**22


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


def class_terms(cls_BNC: Tensor, obj_BN: Tensor) -> tuple[Tensor, Tensor]:
    """What `class_cost` takes: own_BCN and all_negative_BN, of p = sqrt(p_class · p_obj).

    Binary cross entropy against a one-hot class is that against no class at all, and a correction
    for the object's own one. Only the latter differs between objects, so the sum over classes is
    taken once an anchor, instead of building (B, G, N, C).
    """
    p = cls_BNC.sigmoid().mul_(obj_BN.sigmoid()[..., None]).sqrt_()
    log_not_p = (1 - p).log_().clamp_(min=LOG_FLOOR)
    log_p = p.log_().clamp_(min=LOG_FLOOR)
    all_negative_BN = -log_not_p.sum(dim=-1)
    return log_not_p.sub_(log_p).transpose(1, 2), all_negative_BN


def class_cost(own_BCN: Tensor, all_negative_BN: Tensor, class_BG: Tensor) -> Tensor:
    """Binary cross entropy (B, G, N) of each anchor's scores against each object's class."""
    index_BGN = class_BG[..., None].expand(-1, -1, own_BCN.shape[2])
    return own_BCN.gather(1, index_BGN).add_(all_negative_BN[:, None])


def center_pairs(
    box_BG4: Tensor, valid_BG: Tensor, grid_A2: Tensor, stride_A: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Image, row and anchor (P,) of all pairs of an object and an anchor in its centre region.

    In it means: the anchor's cell centre lies within 1.5 strides of the object's centre. That is
    at most 3 × 3 cells of a level, so they are looked up instead of comparing all anchors.
    """
    # A level's anchors usually follow each other: few runs to sort instead of all anchors.
    run, run_A = torch.unique_consecutive(stride_A, return_inverse=True)
    stride_L, level = torch.unique(run, return_inverse=True)
    level_A = level[run_A]
    cell_A2 = grid_A2.long()
    width, height = (cell_A2.amax(dim=0) + 1).tolist()
    column_A, row_A = cell_A2.unbind(1)
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
    index = near_BGLYX.nonzero(as_tuple=True)
    return index[0], index[1], anchor_BGLYX[index]


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

    Memory is bounded whatever the number of objects: they are compared in blocks, see
    `PAIRS_AT_ONCE`, which changes no match.

    Args:
        box_BA4: predicted boxes, cx, cy, w, h in input pixels, float32.
        obj_BA: objectness logits.
        cls_BAC: class logits.
        grid_A2: cell column and row of each anchor.
        stride_A: stride of each anchor in input pixels.
        labels_BG5: (class, cx, cy, w, h) in input pixels; rows without area are padding.
    """
    num_images, num_anchors = obj_BA.shape
    foreground_BA = torch.zeros(obj_BA.shape, dtype=torch.bool, device=obj_BA.device)
    gt_BA = torch.zeros_like(foreground_BA, dtype=torch.int64)
    iou_BA = torch.zeros_like(foreground_BA, dtype=torch.float32)
    nothing = Assignment(foreground_BA, gt_BA, iou_BA)

    valid_BG = (labels_BG5[..., 3] > 0) & (labels_BG5[..., 4] > 0)
    if not valid_BG.numel():
        return nothing
    number_G = torch.arange(1, valid_BG.shape[1] + 1, device=valid_BG.device)
    rows_B: list[int] = (valid_BG * number_G).amax(dim=1).tolist()  # up to the last object
    num_rows = max(rows_B)
    if not num_rows:
        return nothing
    labels_BG5, valid_BG = labels_BG5[:, :num_rows].float(), valid_BG[:, :num_rows]
    image_P, gt_P, near_P = center_pairs(labels_BG5[..., 1:], valid_BG, grid_A2, stride_A)
    if not len(near_P):
        return nothing

    # Pack each image's candidates to the front: a few hundred of some thousand anchors. From here
    # on images' anchors, candidates and objects are numbered through, A, N and G an image.
    anchor_P = image_P * num_anchors + near_P
    candidate_BA = torch.zeros_like(foreground_BA)
    candidate_BA.view(-1)[anchor_P] = True
    slot_BA = candidate_BA.cumsum(dim=1) - 1
    last_B = slot_BA[:, -1]
    num_candidates = int(last_B.max()) + 1
    anchor_M = candidate_BA.view(-1).nonzero().squeeze(1)
    place_M = anchor_M // num_anchors * num_candidates + slot_BA.view(-1)[anchor_M]
    anchor_BN = anchor_M.new_zeros(num_images, num_candidates)
    anchor_BN.view(-1)[place_M] = anchor_M
    real_BN = torch.arange(num_candidates, device=last_B.device) <= last_B[:, None]

    object_P, slot_P = image_P * num_rows + gt_P, slot_BA.view(-1)[anchor_P]
    found = []
    for block in _blocks(rows_B, object_P, num_candidates, cls_BAC.shape[2]):
        anchor_bN = anchor_BN[block.images]
        object_W, *values = _compare(
            labels_BG5[block.images, block.rows],
            _rows_of(box_BA4, anchor_bN),
            _rows_of(obj_BA[..., None], anchor_bN).squeeze(-1).float(),
            _rows_of(cls_BAC, anchor_bN).float(),
            real_BN[block.images],
            object_P[block.pairs] - block.first,
            slot_P[block.pairs],
        )
        found.append((object_W + block.first, *values))
    object_W, slot_W, iou_W, cost_P, iou_P = (
        torch.cat(parts) for parts in zip(*found, strict=True)
    )

    # An anchor that several want goes to the cheapest.
    place_W = object_W // num_rows * num_candidates + slot_W
    place_P = image_P * num_candidates + slot_P
    wanted_M = place_W.new_zeros(anchor_BN.numel())
    wanted_M.index_add_(0, place_W, torch.ones_like(place_W))
    gt_M, iou_M = torch.zeros_like(wanted_M), iou_W.new_zeros(len(wanted_M))
    gt_M[place_W], iou_M[place_W] = object_W % num_rows, iou_W
    rival_R = (wanted_M[place_P] > 1).nonzero().squeeze(1)
    cheapest = _cheapest(place_P[rival_R], cost_P[rival_R], gt_P[rival_R], len(wanted_M))
    rival_R = rival_R[cheapest]
    place_R = place_P[rival_R]
    gt_M[place_R], iou_M[place_R] = gt_P[rival_R], iou_P[rival_R]

    place_F = wanted_M.nonzero().squeeze(1)
    anchor_F = anchor_BN.view(-1)[place_F]
    foreground_BA.view(-1)[anchor_F] = True
    gt_BA.view(-1)[anchor_F] = gt_M[place_F]
    iou_BA.view(-1)[anchor_F] = iou_M[place_F].float()
    return Assignment(foreground_BA, gt_BA, iou_BA)


def _rows_of(values_BAx: Tensor, anchor_BN: Tensor) -> Tensor:
    """The values (B, N, x) of anchors that are numbered through."""
    # Whole rows at a time: `gather` would look up every number of a row by itself.
    rows = values_BAx.flatten(0, 1).index_select(0, anchor_BN.flatten())
    return rows.view(*anchor_BN.shape, -1)


class _Block(NamedTuple):
    """A part of the comparison: all rows of some images, or some rows of one.

    Attributes:
        images, rows: which.
        first: number of its first object, counted through equally many rows an image.
        pairs: those of its objects.
    """

    images: slice
    rows: slice
    first: int
    pairs: slice


def _blocks(rows_B: Sequence[int], object_P: Tensor, candidates: int, classes: int) -> list[_Block]:
    """All of it in blocks of at most `PAIRS_AT_ONCE`; the pairs' objects rise."""
    most = max(rows_B)
    images = PAIRS_AT_ONCE // (candidates * max(most, classes))
    if images >= len(rows_B):
        return [_Block(slice(None), slice(None), 0, slice(None))]
    if images > 1:
        parts = [(slice(b, b + images), slice(0, most)) for b in range(0, len(rows_B), images)]
    else:
        step = max(PAIRS_AT_ONCE // candidates, 1)
        parts = [
            (slice(b, b + 1), slice(row, min(row + step, rows)))
            for b, rows in enumerate(rows_B)
            for row in range(0, rows, step)
        ]
    firsts = [images.start * most + rows.start for images, rows in parts]
    cuts = [*torch.searchsorted(object_P, object_P.new_tensor(firsts)).tolist(), len(object_P)]
    return [
        _Block(images, rows, first, slice(*pairs))
        for (images, rows), first, pairs in zip(parts, firsts, pairwise(cuts), strict=True)
    ]


def _compare(
    labels_BG5: Tensor,
    box_BN4: Tensor,
    obj_BN: Tensor,
    cls_BNC: Tensor,
    real_BN: Tensor,
    object_P: Tensor,
    slot_P: Tensor,
) -> tuple[Tensor, ...]:
    """What the objects of a block want, and what its pairs cost; objects are numbered through.

    Returns:
        object_W, slot_W, iou_W: each one's k cheapest, k = its summed top IoUs, at least 1.
        cost_P, iou_P: of the pairs.
    """
    iou_BGN = pairwise_iou(labels_BG5[..., 1:], box_BN4).masked_fill_(~real_BN[:, None], 0)
    cost_BGN = class_cost(*class_terms(cls_BNC, obj_BN), labels_BG5[..., 0].long())
    cost_BGN = cost_BGN.to(iou_BGN.dtype).sub_((iou_BGN + 1e-8).log_().mul_(IOU_COST_WEIGHT))
    candidates = cost_BGN.shape[2]
    flat_iou, flat_cost = iou_BGN.view(-1), cost_BGN.view(-1)
    pair_P = object_P * candidates + slot_P
    cost_P = flat_cost[pair_P]
    cost_BGN += torch.where(real_BN, OUTSIDE_CENTER_COST, torch.inf)[:, None]
    flat_cost[pair_P] = cost_P

    limit = min(MAX_DYNAMIC_K, candidates)
    k_BG = iou_BGN.topk(limit, dim=2).values.sum(dim=2).int().clamp(min=1)
    possible_BG = torch.zeros_like(k_BG)
    possible_BG.view(-1)[object_P] = 1
    cheapest_BGK = cost_BGN.topk(limit, dim=2, largest=False).indices
    chosen_BGK = torch.arange(limit, device=k_BG.device) < (k_BG * possible_BG)[..., None]
    chosen_BGK &= real_BN.gather(1, cheapest_BGK.flatten(1)).view_as(cheapest_BGK)
    chosen_W = chosen_BGK.view(-1).nonzero().squeeze(1)
    object_W, slot_W = chosen_W // limit, cheapest_BGK.view(-1)[chosen_W]
    return object_W, slot_W, flat_iou[object_W * candidates + slot_W], cost_P, flat_iou[pair_P]


def _cheapest(place_R: Tensor, cost_R: Tensor, gt_R: Tensor, places: int) -> Tensor:
    """Indices of the rivals that win their places: the cheapest, of equal ones the first row.

    Rivals for an anchor that several want are all objects in whose centre region it lies, whether
    they want it or not: one outside costs more than any other costs add up to.
    """
    if not len(place_R):
        return place_R
    least = cost_R.new_full((places,), torch.inf).scatter_reduce_(0, place_R, cost_R, "amin")
    equal_R = (cost_R == least[place_R]).nonzero().squeeze(1)
    place_R, gt_R = place_R[equal_R], gt_R[equal_R]
    first = gt_R.new_full((places,), torch.iinfo(gt_R.dtype).max)
    first.scatter_reduce_(0, place_R, gt_R, "amin")
    return equal_R[gt_R == first[place_R]]
