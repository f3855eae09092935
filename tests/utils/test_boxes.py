import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from yolox.utils.boxes import (
    batched_nms,
    bboxes_iou,
    cxcywh2xyxy,
    nms,
    postprocess,
    xyxy2cxcywh,
    xyxy2xywh,
)

GOLDEN = Path(__file__).parents[1] / "golden" / "postprocess.npz"

relaxed = settings(deadline=None)  # the machine may be busy


@st.composite
def xyxy_arrays(draw, max_boxes=12):
    n = draw(st.integers(0, max_boxes))
    numbers = st.floats(0, 1024, width=32)
    points = draw(hnp.arrays(np.float32, (n, 2, 2), elements=numbers))
    return np.concatenate([points.min(axis=1), points.max(axis=1)], axis=1)


@st.composite
def pixel_boxes(draw):
    """Boxes of whole pixels, scores with ties, classes: IoU against a dyadic threshold is exact."""
    n = draw(st.integers(0, 40))
    corner = draw(hnp.arrays(np.int64, (n, 2), elements=st.integers(0, 20)))
    size = draw(hnp.arrays(np.int64, (n, 2), elements=st.integers(0, 12)))
    scores = draw(hnp.arrays(np.int64, n, elements=st.integers(0, 8)))
    classes = draw(hnp.arrays(np.int64, n, elements=st.integers(0, 2)))
    boxes = np.concatenate([corner, corner + size], axis=1)
    return boxes, scores, classes


thresholds = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])


def naive_nms(boxes, scores, classes, threshold):
    """By the book, in exact integers."""
    kept = []
    for i in sorted(range(len(scores)), key=lambda i: (-scores[i], i)):
        for j in kept:
            w = min(boxes[i][2], boxes[j][2]) - max(boxes[i][0], boxes[j][0])
            h = min(boxes[i][3], boxes[j][3]) - max(boxes[i][1], boxes[j][1])
            inter = max(w, 0) * max(h, 0)
            areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (boxes[i], boxes[j])]
            if classes[i] == classes[j] and inter > threshold * (sum(areas) - inter):
                break
        else:
            kept.append(i)
    return kept


def as_tensors(boxes, scores, classes):
    return (
        torch.from_numpy(boxes).float(),
        torch.from_numpy(scores).float() / 8,
        torch.from_numpy(classes),
    )


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor])
def test_converters_on_a_known_box(kind):
    box = kind(np.array([[10.0, 20.0, 50.0, 100.0]], np.float32))
    before = np.asarray(box).copy()
    assert np.asarray(xyxy2xywh(box)).tolist() == [[10, 20, 40, 80]]
    assert np.asarray(xyxy2cxcywh(box)).tolist() == [[30, 60, 40, 80]]
    assert np.asarray(cxcywh2xyxy(xyxy2cxcywh(box))).tolist() == before.tolist()
    assert type(xyxy2xywh(box)) is type(box)
    assert xyxy2cxcywh(box).dtype == box.dtype
    assert np.array_equal(np.asarray(box), before), "the argument was changed"


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor])
def test_integer_boxes_keep_half_pixels(kind):
    box = kind(np.array([[0, 0, 3, 5]]))
    assert np.asarray(xyxy2cxcywh(box)).tolist() == [[1.5, 2.5, 3, 5]]
    assert np.asarray(cxcywh2xyxy(kind(np.array([[1, 2, 3, 5]])))).tolist() == [
        [-0.5, -0.5, 2.5, 4.5]
    ]


@relaxed
@given(xyxy_arrays())
def test_converters_round_trip(boxes):
    for value in (boxes, torch.from_numpy(boxes)):
        back = cxcywh2xyxy(xyxy2cxcywh(value))
        np.testing.assert_allclose(np.asarray(back), boxes, atol=1e-3)


@pytest.mark.parametrize("convert", [xyxy2xywh, xyxy2cxcywh, cxcywh2xyxy])
def test_converters_refuse_other_shapes(convert):
    with pytest.raises(ValueError, match=r"expected shape \(\.\.\., 4\)"):
        convert(np.zeros((3, 5)))


def test_converters_take_leading_dimensions():
    boxes = torch.rand(2, 5, 4)
    assert torch.equal(xyxy2xywh(boxes)[1], xyxy2xywh(boxes[1]))


@relaxed
@given(xyxy_arrays(), xyxy_arrays())
def test_iou_is_symmetric_and_bounded(a, b):
    a, b = torch.from_numpy(a), torch.from_numpy(b)
    iou = bboxes_iou(a, b)
    assert iou.shape == (len(a), len(b))
    assert torch.equal(iou, bboxes_iou(b, a).T)
    assert bool(((iou >= 0) & (iou <= 1)).all())


@relaxed
@given(xyxy_arrays())
def test_iou_with_itself(boxes):
    boxes = torch.from_numpy(boxes)
    size = boxes[:, 2:] - boxes[:, :2]
    # Below this an area underflows float32.
    solid = (size > 1e-3).all(dim=1)
    assert torch.equal(bboxes_iou(boxes, boxes).diagonal()[solid], torch.ones(int(solid.sum())))


def test_iou_by_hand():
    a = torch.tensor([[0.0, 0.0, 10.0, 10.0], [3.0, 3.0, 3.0, 9.0]])
    b = torch.tensor([[5.0, 0.0, 15.0, 10.0], [20.0, 20.0, 30.0, 30.0], [3.0, 3.0, 3.0, 9.0]])
    expected = torch.tensor([[1 / 3, 0, 0], [0, 0, 0]])
    torch.testing.assert_close(bboxes_iou(a, b), expected)
    torch.testing.assert_close(bboxes_iou(xyxy2cxcywh(a), xyxy2cxcywh(b), xyxy=False), expected)
    with pytest.raises(ValueError, match="bboxes_b"):
        bboxes_iou(a, b[0])


@relaxed
@given(pixel_boxes(), thresholds)
def test_nms_equals_the_naive_one(case, threshold):
    boxes, scores, classes = case
    one_class = np.zeros_like(classes)
    tensors = as_tensors(*case)
    assert nms(*tensors[:2], threshold).tolist() == naive_nms(boxes, scores, one_class, threshold)
    expected = naive_nms(boxes, scores, classes, threshold)
    assert batched_nms(*tensors, threshold).tolist() == expected


@relaxed
@given(xyxy_arrays(max_boxes=40), st.floats(0, 1), st.randoms(use_true_random=False))
def test_nms_keeps_no_pair_over_the_threshold(boxes, threshold, random):
    boxes = torch.from_numpy(boxes)
    scores = torch.tensor([random.random() for _ in boxes])
    keep = nms(boxes, scores, threshold)
    iou = bboxes_iou(boxes[keep], boxes[keep]).fill_diagonal_(0)
    assert bool((iou <= threshold + 1e-5).all())
    assert scores[keep].tolist() == sorted(scores[keep].tolist(), reverse=True)


def test_nms_across_its_blocks():
    """More boxes than are settled at once, each block suppressed partly by those before it."""
    rng = np.random.default_rng(0)
    corner = rng.integers(0, 200, (700, 2))
    boxes = np.concatenate([corner, corner + rng.integers(5, 60, (700, 2))], axis=1)
    scores, classes = rng.integers(0, 500, 700), rng.integers(0, 2, 700)
    for labels in (classes, np.zeros_like(classes)):
        keep = batched_nms(*as_tensors(boxes, scores, labels), 0.5).tolist()
        assert keep == naive_nms(boxes.tolist(), scores.tolist(), labels.tolist(), 0.5)


def test_nms_of_far_away_boxes_is_exact():
    """Coordinates so large that a shift by class would round the boxes together."""
    near = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.5, 0.0, 1.5, 1.0], [3e7, 3e7, 4e7, 4e7]])
    keep = batched_nms(near, torch.tensor([0.9, 0.8, 0.7]), torch.tensor([5, 5, 0]), 0.5)
    assert keep.tolist() == [0, 1, 2]


def test_nms_of_boxes_whose_area_overflows_is_silent():
    huge = torch.tensor([[-1e30, -1e30, 1e30, 1e30], [0, 0, 4, 4], [0, 0, 4, 3.9]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert nms(huge, torch.tensor([0.9, 0.8, 0.7]), 0.5).tolist() == [0, 1]


def test_nms_takes_nothing_and_half_precision():
    assert nms(torch.zeros(0, 4), torch.zeros(0), 0.5).tolist() == []
    empty = batched_nms(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0), 0.5)
    assert empty.dtype == torch.int64
    assert empty.shape == (0,)
    boxes = torch.tensor([[0, 0, 8, 8], [0, 0, 8, 8]]).bfloat16()
    assert nms(boxes, torch.tensor([0.5, 0.75]).bfloat16(), 0.5).tolist() == [1]


def test_nms_refuses_bad_arguments():
    boxes, scores = torch.zeros(2, 4), torch.zeros(2)
    with pytest.raises(ValueError, match="boxes"):
        nms(torch.zeros(2, 5), scores, 0.5)
    with pytest.raises(ValueError, match="scores"):
        nms(boxes, torch.zeros(3), 0.5)
    with pytest.raises(ValueError, match="iou_threshold"):
        nms(boxes, scores, 45)
    with pytest.raises(ValueError, match="classes"):
        batched_nms(boxes, scores, torch.zeros(3), 0.5)


@pytest.mark.parametrize(
    ("key", "class_agnostic"), [("detections", False), ("detections_class_agnostic", True)]
)
def test_postprocess_equals_the_reference(key, class_agnostic):
    golden = np.load(GOLDEN)
    prediction = torch.from_numpy(golden["prediction"])
    before = prediction.clone()
    first, second = postprocess(
        prediction,
        int(golden["num_classes"]),
        float(golden["conf"]),
        float(golden["nms"]),
        class_agnostic,
    )
    np.testing.assert_allclose(first, golden[key], atol=1e-5, rtol=1e-5)
    assert second is None
    assert torch.equal(prediction, before), "the argument was changed"


def test_postprocess_drops_boxes_that_are_not_finite():
    prediction = torch.tensor([[[5, 5, 4, 4, 0.9, 0.9], [5, 5, float("inf"), 4, 1, 1]]])
    (rows,) = postprocess(prediction, 1, 0.5)
    torch.testing.assert_close(rows, torch.tensor([[3, 3, 7, 7, 0.9, 0.9, 0]]))


def test_postprocess_computes_half_precision_in_float32():
    prediction = torch.tensor([[[300, 300, 10, 10, 0.75, 0.5]]], dtype=torch.bfloat16)
    (rows,) = postprocess(prediction, 1, 0.1)
    assert rows.dtype == torch.float32
    assert rows[0, :4].tolist() == [295, 295, 305, 305]


def test_postprocess_names_the_mismatch():
    with pytest.raises(ValueError, match="does num_classes fit the model"):
        postprocess(torch.zeros(1, 10, 85), 3)
