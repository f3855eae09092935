"""SimOTA against a slow reference, written from the paper's description with plain loops."""

from __future__ import annotations

import math
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from yolox.models import assigner
from yolox.models.assigner import center_pairs, pairwise_iou, simota

CLASSES = 3
SIZE = 128


def anchors(size: int = SIZE) -> tuple[Tensor, Tensor]:
    """Cell columns and rows (A, 2) and strides (A,) of a square image."""
    grid, stride = [], []
    for s in (8, 16, 32):
        n = size // s
        grid += [(float(x), float(y)) for y in range(n) for x in range(n)]
        stride += [float(s)] * (n * n)
    return torch.tensor(grid), torch.tensor(stride)


GRID, STRIDE = anchors()


def overlap_ratio(a: list[float], b: list[float]) -> float:
    """IoU of two boxes, cx, cy, w, h."""
    width = min(a[0] + a[2] / 2, b[0] + b[2] / 2) - max(a[0] - a[2] / 2, b[0] - b[2] / 2)
    height = min(a[1] + a[3] / 2, b[1] + b[3] / 2) - max(a[1] - a[3] / 2, b[1] - b[3] / 2)
    shared = max(width, 0) * max(height, 0)
    union = a[2] * a[3] + b[2] * b[3] - shared
    return shared / union if union > 0 else 0.0


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def reference(
    boxes: list[list[float]], obj: list[float], cls: list[list[float]], labels: list[list[float]]
) -> dict[int, tuple[int, float]]:
    """{anchor: (ground-truth row, IoU)} of one image."""
    cells = list(zip(GRID.tolist(), STRIDE.tolist(), strict=True))
    # 1. Candidates: anchors whose cell centre is within 1.5 strides of an object's centre.
    near: dict[int, set[int]] = {}
    for g, (_, cx, cy, w, h) in enumerate(labels):
        if w > 0 and h > 0:
            close = {
                a
                for a, ((x, y), s) in enumerate(cells)
                if abs((x + 0.5) * s - cx) < 1.5 * s and abs((y + 0.5) * s - cy) < 1.5 * s
            }
            if close:
                near[g] = close
    candidates = sorted(set().union(*near.values()))
    # 2. Cost of every pair: classification, 3 × IoU loss, and a wall around the centre region.
    iou: dict[tuple[int, int], float] = {}
    cost: dict[tuple[int, int], float] = {}
    for a in candidates:
        scores = [math.sqrt(sigmoid(c) * sigmoid(obj[a])) for c in cls[a]]
        for g, close in near.items():
            iou[g, a] = overlap_ratio(labels[g][1:], boxes[a])
            classification = -sum(
                math.log(p) if c == int(labels[g][0]) else math.log(1 - p)
                for c, p in enumerate(scores)
            )
            wall = 0 if a in close else 1e6
            cost[g, a] = classification - 3 * math.log(iou[g, a] + 1e-8) + wall
    # 3. Each object takes its k cheapest, k being the sum of its ten best IoUs.
    wanted_by: dict[int, list[int]] = {}
    for g in near:
        best = sorted((iou[g, a] for a in candidates), reverse=True)[:10]
        k = max(int(sum(best)), 1)
        for a in sorted(candidates, key=lambda a, g=g: cost[g, a])[:k]:
            wanted_by.setdefault(a, []).append(g)
    # 4. An anchor wanted by several goes to the object that it is cheapest for.
    matches = {}
    for a, wanting in wanted_by.items():
        g = min(near, key=lambda g, a=a: cost[g, a]) if len(wanting) > 1 else wanting[0]
        matches[a] = (g, iou[g, a])
    return matches


def random_labels(count: int, seed: int, low: float = 6, high: float = 90) -> Tensor:
    """Objects (count, 5) all over the image."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.rand(count, 5, generator=generator)
    labels[:, 0] = (labels[:, 0] * CLASSES).floor()
    labels[:, 1:3] *= SIZE
    labels[:, 3:] = low + labels[:, 3:] * (high - low)
    return labels


def predictions(labels: Tensor, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes, half of them near objects, so that k is often above 1; and logits."""
    generator = torch.Generator().manual_seed(seed)
    shape = (len(labels), len(GRID))
    center = (GRID + 0.5 + torch.rand((*shape, 2), generator=generator) - 0.5) * STRIDE[:, None]
    size = torch.rand((*shape, 2), generator=generator) * 80 + 4
    box = torch.cat((center, size), dim=2)
    real = (labels[..., 3] > 0) & (labels[..., 4] > 0)
    for b in range(len(labels)):
        if real[b].any():
            objects = labels[b][real[b]][:, 1:]
            nearest = torch.cdist(center[b], objects[:, :2]).argmin(dim=1)
            blend = torch.rand(len(GRID), 1, generator=generator) < 0.5
            jitter = torch.randn((len(GRID), 4), generator=generator)
            box[b] = torch.where(blend, (objects[nearest] + jitter).clamp(min=1), box[b])
    obj = torch.randn(shape, generator=generator)
    cls = torch.randn((*shape, CLASSES), generator=generator) * 2
    return box, obj, cls


def padded(*images: Tensor) -> Tensor:
    rows = max(len(image) for image in images)
    return torch.stack([torch.cat((i, torch.zeros(rows - len(i), 5))) for i in images])


def holes(labels: Tensor) -> Tensor:
    """The same objects with padding before, between and after them."""
    spaced = torch.zeros(2 * len(labels) + 3, 5)
    spaced[2 : 2 + 2 * len(labels) : 2] = labels
    return spaced


def with_flat_rows(labels: Tensor) -> Tensor:
    """Rows with a class and a centre but no width, no height, or less than none."""
    flat = labels.clone()
    flat[0::3, 3] = 0
    flat[1::3, 4] = -5
    return flat


SCENES: dict[str, Tensor] = {
    "plain": padded(random_labels(4, 1), random_labels(9, 2)),
    "one object": padded(random_labels(1, 3)),
    "padding between": padded(holes(random_labels(5, 4)), random_labels(3, 5)),
    "rows without area": padded(with_flat_rows(random_labels(8, 6))),
    "empty image between": padded(random_labels(4, 7), torch.zeros(0, 5), random_labels(2, 8)),
    "smaller than a stride": padded(random_labels(12, 9, low=0.5, high=5)),
    "centres outside the image": padded(
        torch.cat((random_labels(3, 10) + torch.tensor([0, 300.0, 0, 0, 0]), random_labels(2, 11)))
    ),
    "a little outside the image": padded(
        torch.tensor([[0, -6.0, 40, 30, 30], [1, 133, 133, 40, 40], [2, 64, 139, 50, 60]])
    ),
    "same object three times": padded(random_labels(1, 12).repeat(3, 1)),
    "crowd": padded(random_labels(60, 13)),
    "200 objects": padded(random_labels(200, 14)),
}


@pytest.mark.parametrize("scene", SCENES)
def test_matches_are_those_of_the_reference(scene: str) -> None:
    labels = SCENES[scene]
    box, obj, cls = predictions(labels, seed=len(scene))
    # Boxes in float64: the wall of a million leaves float32 no digits to tell costs apart with.
    found = simota(box.double(), obj, cls, GRID, STRIDE, labels)
    matched = 0
    for b, rows in enumerate(labels.tolist()):
        expected = reference(box[b].tolist(), obj[b].tolist(), cls[b].tolist(), rows)
        anchors_found = found.foreground_BA[b].nonzero().squeeze(1).tolist()
        assert anchors_found == sorted(expected)
        assert {a: int(found.gt_BA[b, a]) for a in expected} == {
            a: g for a, (g, _) in expected.items()
        }
        for a, (_, iou) in expected.items():
            assert float(found.iou_BA[b, a]) == pytest.approx(iou, abs=1e-5)
        matched += len(expected)
    assert matched > 0


@pytest.mark.parametrize("scene", SCENES)
def test_a_batch_is_its_images_one_by_one(scene: str) -> None:
    labels = padded(*SCENES[scene], *SCENES["plain"], torch.zeros(0, 5))
    box, obj, cls = predictions(labels, seed=len(scene))
    box = box.double()
    whole = simota(box, obj, cls, GRID, STRIDE, labels)
    for b in range(len(labels)):
        alone = simota(
            box[b : b + 1], obj[b : b + 1], cls[b : b + 1], GRID, STRIDE, labels[b : b + 1]
        )
        for together, single in zip(whole, alone, strict=True):
            assert torch.equal(together[b], single[0])


def test_padding_and_its_place_change_only_row_numbers() -> None:
    plain = padded(random_labels(5, 4))
    spaced = padded(holes(random_labels(5, 4)))
    box, obj, cls = predictions(plain, seed=0)
    a = simota(box, obj, cls, GRID, STRIDE, plain)
    b = simota(box, obj, cls, GRID, STRIDE, spaced)
    assert torch.equal(a.foreground_BA, b.foreground_BA)
    assert torch.equal(a.iou_BA, b.iou_BA)
    foreground = a.foreground_BA
    assert torch.equal(2 + 2 * a.gt_BA[foreground], b.gt_BA[foreground])


@pytest.mark.parametrize("pairs", [1, 300, 5_000, 60_000])
@pytest.mark.parametrize("scene", SCENES)
def test_matches_do_not_depend_on_the_blocks(
    scene: str, pairs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of an image, or images, at a time: the same bits, ties of costs among them."""
    labels = padded(*SCENES[scene], torch.zeros(0, 5), *SCENES["crowd"], *SCENES["plain"])
    box, obj, cls = predictions(labels, seed=len(scene))
    whole = simota(box, obj, cls, GRID, STRIDE, labels)
    monkeypatch.setattr(assigner, "PAIRS_AT_ONCE", pairs)
    for at_once, blocks in zip(whole, simota(box, obj, cls, GRID, STRIDE, labels), strict=True):
        assert torch.equal(at_once, blocks)


@settings(max_examples=40, deadline=None)
@given(
    counts=st.lists(st.integers(0, 70), min_size=1, max_size=5),
    pairs=st.integers(1, 200_000),
    seed=st.integers(0, 2**31),
)
def test_any_blocks_give_the_same_matches(counts: list[int], pairs: int, seed: int) -> None:
    labels = padded(*(random_labels(n, seed + i) for i, n in enumerate(counts)))
    box, obj, cls = predictions(labels, seed)
    with mock.patch.object(assigner, "PAIRS_AT_ONCE", 2**40):
        whole = simota(box, obj, cls, GRID, STRIDE, labels)
    with mock.patch.object(assigner, "PAIRS_AT_ONCE", pairs):
        parts = simota(box, obj, cls, GRID, STRIDE, labels)
    for at_once, blocks in zip(whole, parts, strict=True):
        assert torch.equal(at_once, blocks)


def test_memory_does_not_grow_with_the_number_of_objects() -> None:
    """No tensor of all pairs of objects and anchors: here 3,000 × 5,376, of 64 MB each."""
    grid, stride = anchors(512)
    labels = random_labels(3000, 0)[None] * torch.tensor([1, 4, 4, 1, 1])
    box = torch.cat(((grid + 0.5) * stride[:, None], torch.full((len(grid), 2), 20.0)), dim=1)
    obj, cls = torch.zeros(1, len(grid)), torch.zeros(1, len(grid), CLASSES)
    sizes: list[int] = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            out = func(*args, **(kwargs or {}))
            sizes.extend(t.numel() for t in tree_leaves(out) if isinstance(t, Tensor))
            return out

    with Watch():
        found = simota(box[None], obj, cls, grid, stride, labels)
    assert found.foreground_BA.sum() > 1000
    assert len(grid) * 3000 > 3 * assigner.PAIRS_AT_ONCE
    assert max(sizes) <= assigner.PAIRS_AT_ONCE


@pytest.mark.parametrize("rows", [0, 1, 50])
def test_nothing_to_find(rows: int) -> None:
    labels = torch.zeros(2, rows, 5)
    box, obj, cls = predictions(labels, seed=0)
    found = simota(box, obj, cls, GRID, STRIDE, labels)
    assert found.foreground_BA.shape == found.gt_BA.shape == found.iou_BA.shape == obj.shape
    assert not found.foreground_BA.any()
    assert not found.gt_BA.any()
    assert not found.iou_BA.any()


def test_an_object_whose_centre_is_far_outside_gets_nothing() -> None:
    labels = torch.tensor([[[0, 500.0, 500, 800, 800]]])
    box, obj, cls = predictions(labels, seed=0)
    assert not simota(box, obj, cls, GRID, STRIDE, labels).foreground_BA.any()


def test_every_object_inside_the_image_gets_an_anchor_unless_outbid() -> None:
    labels = padded(random_labels(1, 3))
    box, obj, cls = predictions(labels, seed=0)
    box[..., :2] += 1000  # no prediction touches it: k is 1 all the same
    found = simota(box, obj, cls, GRID, STRIDE, labels)
    assert int(found.foreground_BA.sum()) == 1
    assert not found.iou_BA.any()


def test_perfect_predictions_reach_the_largest_k() -> None:
    labels = torch.tensor([[[1, 64.0, 64, 60, 60]]])
    box, obj, cls = predictions(labels, seed=0)
    box[:] = labels[:, :, 1:]
    found = simota(box, obj, cls, GRID, STRIDE, labels)
    assert int(found.foreground_BA.sum()) == 10
    assert (found.iou_BA[found.foreground_BA] == 1).all()


@pytest.mark.parametrize("logit", [-1e4, -60.0, 60.0, 1e4])
def test_extreme_logits_leave_the_matching_finite(logit: float) -> None:
    labels = SCENES["plain"]
    box, obj, cls = predictions(labels, seed=0)
    found = simota(
        box, torch.full_like(obj, logit), torch.full_like(cls, logit), GRID, STRIDE, labels
    )
    assert found.foreground_BA.any(dim=1).all()
    assert found.iou_BA.isfinite().all()


def test_arguments_are_untouched() -> None:
    labels = padded(holes(random_labels(5, 4)))
    arguments = (*predictions(labels, seed=0), GRID.clone(), STRIDE.clone(), labels)
    before = [argument.clone() for argument in arguments]
    simota(*arguments)
    for argument, copy in zip(arguments, before, strict=True):
        assert torch.equal(argument, copy)


@pytest.mark.parametrize("scene", SCENES)
def test_center_pairs_are_those_of_comparing_all(scene: str) -> None:
    """Whatever the order of the anchors."""
    labels = SCENES[scene]
    order = torch.randperm(len(GRID), generator=torch.Generator().manual_seed(0))
    grid, stride = GRID[order], STRIDE[order]
    valid = (labels[..., 3] > 0) & (labels[..., 4] > 0)
    center = (grid + 0.5) * stride[:, None]
    distance = (labels[:, :, None, 1:3] - center).abs().amax(dim=-1)
    expected = (distance < 1.5 * stride) & valid[..., None]
    pairs = torch.stack(center_pairs(labels[..., 1:], valid, grid, stride), dim=1)
    assert sorted(pairs.tolist()) == expected.nonzero().tolist()


def test_a_center_region_is_open_at_its_rim() -> None:
    """On a cell's edge 4 columns are within 1.5 strides or at it: those at it are out."""
    grid = torch.cartesian_prod(torch.arange(8.0), torch.arange(8.0))
    box = torch.tensor([[[32.0, 36, 10, 10], [28, 0, 10, 10], [1e9, -1e9, 10, 10]]])
    valid = torch.ones(1, 3, dtype=torch.bool)
    _, gt, anchor = center_pairs(box, valid, grid, torch.full((64,), 8.0))
    # x = 32: columns 3 and 4 (28, 36), not 2 and 5 (20, 44); y = 36: rows 4 and its neighbours
    assert sorted(grid[anchor[gt == 0]].tolist()) == [
        [3, 3],
        [3, 4],
        [3, 5],
        [4, 3],
        [4, 4],
        [4, 5],
    ]
    # x = 28: column 3 and its neighbours; y = 0: row 0 (4), not row 1 (12)
    assert sorted(grid[anchor[gt == 1]].tolist()) == [[2, 0], [3, 0], [4, 0]]
    assert not (gt == 2).any()


def test_iou_by_hand() -> None:
    a = torch.tensor([[[2, 2, 4, 4.0], [50, 50, 2, 2], [0, 0, 0, 0]]])
    b = torch.tensor([[[4, 2, 4, 4.0], [50, 50, 4, 4], [0, 0, 0, 0]]])
    expected = torch.tensor([[[8 / 24, 0, 0], [0, 4 / 16, 0], [0, 0, 0]]])
    torch.testing.assert_close(pairwise_iou(a, b), expected)
