"""Each way of suppression keeps the same boxes, to the bit, also where rounding decides."""

import sys
import types

import numpy as np
import pytest
import torch

from yolox.utils import nms as module
from yolox.utils import nms_cpu
from yolox.utils.boxes import postprocess
from yolox.utils.nms import batched_nms


def by_the_book(boxes, scores, classes, threshold):
    """From the highest score down, one box at a time, in the boxes' own precision."""
    left = np.argsort(-scores, kind="stable")
    kept = []
    while len(left):
        first, left = left[0], left[1:]
        kept.append(int(first))
        a, b = boxes[first], boxes[left]
        width = np.maximum(np.minimum(a[2], b[:, 2]) - np.maximum(a[0], b[:, 0]), 0)
        height = np.maximum(np.minimum(a[3], b[:, 3]) - np.maximum(a[1], b[:, 1]), 0)
        areas = [
            np.maximum(c[..., 2] - c[..., 0], 0) * np.maximum(c[..., 3] - c[..., 1], 0)
            for c in (a, b)
        ]
        inter = width * height
        over = inter > threshold * (areas[0] + areas[1] - inter)
        left = left[~(over & (classes[left] == classes[first]))]
    return kept


def crowd(seed, count=400, dtype=np.float32):
    """Boxes about a few places, some of them twice, some empty; few different scores."""
    rng = np.random.default_rng(seed)
    place = rng.uniform(-50, 300, (8, 2))[rng.integers(0, 8, count)]
    corner = place + rng.normal(0, 8, (count, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(-2, 40, (count, 2))], axis=1)
    boxes[::20] = boxes[5::20]
    scores = rng.integers(0, 60, count) / 64
    return boxes.astype(dtype), scores.astype(np.float32), rng.integers(0, 4, count)


def an_iou(boxes):
    """The IoU of two of them, as float32 has it: a threshold that rounding decides at."""
    size = boxes[:, 2:] - boxes[:, :2]
    for a in range(len(boxes)):
        for b in range(a):
            near = np.minimum(boxes[a, 2:], boxes[b, 2:]) - np.maximum(boxes[a, :2], boxes[b, :2])
            if (near > 0).all() and (size[[a, b]] > 0).all():
                union = size[a].prod() + size[b].prod() - near.prod()
                if 0.2 < near.prod() / union < 0.8:
                    return float(near.prod() / union)
    raise AssertionError("no two boxes overlap")


def kernel(boxes, scores, threshold):
    """As torchvision's: IoU by a division."""
    order = scores.argsort(descending=True, stable=True)
    x1, y1, x2, y2 = boxes[order].unbind(1)
    area = (x2 - x1) * (y2 - y1)
    width = (torch.minimum(x2[:, None], x2) - torch.maximum(x1[:, None], x1)).clamp(min=0)
    height = (torch.minimum(y2[:, None], y2) - torch.maximum(y1[:, None], y1)).clamp(min=0)
    inter = width * height
    over = inter / (area[:, None] + area - inter) > threshold
    alive = torch.ones(len(order), dtype=torch.bool)
    for i in range(len(order)):
        if alive[i]:
            alive[i + 1 :] &= ~over[i, i + 1 :]
    return order[alive]


def on_an_accelerator(suppress, boxes, scores, classes, threshold):
    """What `batched_nms` does there, in the CPU's tensors."""
    rank = torch.argsort(-torch.from_numpy(scores), stable=True)
    rank = rank[torch.argsort(torch.from_numpy(classes)[rank], stable=True)]
    kept = suppress(torch.from_numpy(boxes)[rank], torch.from_numpy(classes)[rank], threshold)
    return None if kept is None else sorted(rank[kept].tolist())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_way_keeps_the_same_boxes(monkeypatch, seed, dtype):
    for name, small in {"BLOCK": 48, "ACCELERATOR_PAIRS": 500}.items():
        monkeypatch.setattr(module, name, small)
    for name, small in {
        "FIRST_BLOCK": 32, "PAIRS": 100, "DENSE_BLOCK": 16, "MOST_DENSE": 32,
    }.items():  # fmt: skip
        monkeypatch.setattr(nms_cpu, name, small)
    boxes, scores, classes = crowd(seed, dtype=dtype)
    for threshold in (0.0, 0.45, 1.0, an_iou(boxes)):
        for labels in (classes, np.zeros_like(classes), classes * 1.5 - 2):
            expected = by_the_book(boxes, scores, labels, threshold)
            case = [torch.from_numpy(array) for array in (boxes, scores, labels)]
            assert batched_nms(*case, threshold).tolist() == expected
            case = [boxes, scores, labels, threshold]
            assert on_an_accelerator(module.kept_on_device, *case) == sorted(expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
@pytest.mark.parametrize("more", [[], [np.nan, -np.nan], [np.inf, -np.inf, -0.0, 0.0, 1e-40]])
def test_ranks_are_those_of_a_stable_sort(dtype, more):
    values = np.round(np.random.default_rng(0).normal(0, 2, 300), 1)
    with np.errstate(invalid="ignore"):
        values = np.concatenate([more, values, more, values[:50], [-0.0, 0.0]]).astype(dtype)
    expected = np.argsort(-values, kind="stable")
    np.testing.assert_array_equal(nms_cpu.ranked(values), expected)


@pytest.mark.parametrize("odd", [np.nan, np.inf, 1e30])
@pytest.mark.parametrize("spread", [1, 20], ids=["crowded", "spread"])
def test_crowds_and_spread_boxes_of_any_number(monkeypatch, spread, odd):
    used = set()
    for name in ("kept_by_dense_blocks", "kept_by_pairs"):
        own = getattr(nms_cpu, name)

        def spied(*args, own=own, name=name):
            used.add(name)
            return own(*args)

        monkeypatch.setattr(nms_cpu, name, spied)
    boxes, scores, classes = crowd(5, 700)
    boxes[:, 2:] += 40  # of which few are kept
    boxes += spread * np.random.default_rng(1).uniform(0, 100, (700, 1)).astype(np.float32)
    boxes[7], boxes[50, 2], boxes[90, 1:3] = odd, odd, -odd
    with np.errstate(all="ignore"):
        expected = by_the_book(boxes, scores, classes, 0.3)
    case = [torch.from_numpy(array) for array in (boxes, scores, classes)]
    assert batched_nms(*case, 0.3).tolist() == expected
    assert ("kept_by_pairs" in used) == (spread > 1)


def test_classes_of_very_different_sizes():
    boxes, scores, classes = crowd(6, 600)
    classes[:] = np.where(np.arange(600) < 60, np.arange(600), 60)
    expected = by_the_book(boxes, scores, classes, 0.45)
    case = [torch.from_numpy(array) for array in (boxes, scores, classes)]
    assert batched_nms(*case, 0.45).tolist() == expected


def test_the_kernel_decides_only_what_rounding_cannot():
    boxes, scores, classes = crowd(3, 60)
    boxes = boxes[(boxes[:, 2:] > boxes[:, :2]).all(axis=1)]  # torchvision's are not empty
    scores, classes = scores[: len(boxes)], classes[: len(boxes)]

    def ask(boxes, threshold):
        def suppress(*arguments):
            return module.kept_by_kernel(kernel, *arguments)

        return on_an_accelerator(suppress, boxes, scores, classes, threshold)

    assert ask(boxes, 0.45) == sorted(by_the_book(boxes, scores, classes, 0.45))
    pair = np.array([[0, 0, 10, 10], [0, 5, 10, 15]], np.float32)
    scores, classes = np.array([0.5, 0.75], np.float32), np.array([1, 1])
    assert ask(pair, 0.3) == [1]
    assert ask(pair, 1 / 3) is None, "the IoU is the threshold"
    assert ask(pair * np.float32(1e-18), 0.3) is None, "areas underflow"
    assert ask(pair * np.float32(1e18), 0.3) is None, "areas overflow"
    scores, classes = np.array([0.5, 0.75], np.float32), np.array([1, 2])
    assert ask(pair, 0.3) == [0, 1]
    tiny = np.array([[1e-12, 0, 10, 10], [1e-12, 0, 10, 1e5]], np.float32)
    assert ask(tiny, 0.3) is None, "a class cannot be shifted away without rounding"


def test_the_kernel_is_torchvisions_where_it_imports(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", types.ModuleType("torchvision"))
    ops = types.ModuleType("torchvision.ops")
    ops.nms = kernel
    monkeypatch.setitem(sys.modules, "torchvision.ops", ops)
    assert module.torchvision_nms.__wrapped__() is kernel
    monkeypatch.setitem(sys.modules, "torchvision.ops", None)
    assert module.torchvision_nms.__wrapped__() is None


def test_a_kernel_without_the_device_is_not_used():
    def missing(*_):
        raise NotImplementedError

    boxes, classes = torch.tensor([[0.0, 0, 1, 1]]), torch.zeros(1)
    assert module.kept_by_kernel(missing, boxes, classes, 0.5) is None


@pytest.mark.parametrize("class_agnostic", [False, True])
def test_images_of_a_batch_do_not_compete(class_agnostic):
    torch.manual_seed(0)
    prediction = torch.rand(4, 300, 5 + 3)
    prediction[..., :4] *= 60
    prediction[2, :, 4] = 0
    together = postprocess(prediction, 3, 0.3, 0.4, class_agnostic)
    for image, found in zip(prediction, together, strict=True):
        (alone,) = postprocess(image[None], 3, 0.3, 0.4, class_agnostic)
        assert (found is None) == (alone is None)
        assert found is None or torch.equal(found, alone)
    assert together[2] is None
    assert sum(found is not None for found in together) == 3


def test_the_highest_candidates_of_each_image():
    prediction = torch.zeros(2, 4, 6)
    prediction[..., :4] = torch.tensor([[10.0, 10, 4, 4], [30, 10, 4, 4], [50, 10, 4, 4]] * 2)[:4]
    prediction[..., 5] = 1
    prediction[0, :, 4] = torch.tensor([0.5, 0.75, 0.75, 0.25])
    prediction[1, :, 4] = torch.tensor([0.0, 0.5, 0.5, 0.5])
    first, second = postprocess(prediction, 1, 0.2, 0.5, max_candidates=2)
    assert first[:, 0].tolist() == [28, 48]
    assert second[:, 0].tolist() == [28, 48], "among equal scores the lower index goes first"
    with pytest.raises(ValueError, match="max_candidates"):
        postprocess(prediction, 1, max_candidates=0)


def test_no_image_and_no_candidate():
    assert postprocess(torch.zeros(0, 5, 7), 2) == []
    assert postprocess(torch.zeros(2, 0, 7), 2) == [None, None]
