import numpy as np
import pytest
import torch

from yolox.utils.visualize import class_color, vis


def gray(height, width):
    return np.full((height, width, 3), 90, np.uint8)


def test_returns_a_copy_with_the_box_in_its_class_colour():
    img = gray(200, 200)
    out = vis(img, [[50, 60, 150, 160]], [0.9], [3], class_names=list("abcd"))
    assert (img == 90).all()
    assert out.shape == img.shape
    assert out.dtype == np.uint8
    assert tuple(out[110, 50]) == class_color(3)
    assert tuple(out[160, 100]) == class_color(3)
    assert tuple(out[110, 100]) == (90, 90, 90), "the inside stays free"


def test_draws_only_what_is_sure_enough():
    img = gray(100, 100)
    assert (vis(img, [[10, 10, 50, 50]], [0.49], [0]) == img).all()
    assert (vis(img, [[10, 10, 50, 50]], [0.5], [0]) != img).any()
    assert (vis(img, np.zeros((0, 4)), [], []) == img).all()


def test_annotations_have_a_class_and_no_score():
    img = gray(200, 200)
    boxes, names = [[50, 60, 150, 160]], ["a cell"]
    annotated = vis(img, boxes, None, [0], 0.5, names)
    detected = vis(img, boxes, [1.0], [0], 0.5, names)
    assert tuple(annotated[160, 100]) == class_color(0)
    strips = [(out[:60] == class_color(0)).all(axis=2).sum() for out in (annotated, detected)]
    assert 0 < strips[0] < strips[1]


def test_colours_are_distinct_and_fixed():
    colours = [class_color(i) for i in range(240)]
    assert len(set(colours)) == 240
    assert class_color(240) == class_color(0) == (0, 0, 255)
    first = np.array(colours[:20], float)
    apart = np.linalg.norm(first[:, None] - first[None], axis=2) + 1e3 * np.eye(20)
    assert apart.min() > 60


@pytest.mark.parametrize("size", [160, 640, 3000])
def test_label_is_readable_at_any_size(size):
    """The label's strip is above the box, tall enough to read, small beside the image."""
    out = vis(gray(size, size), [[size // 4, size // 2, size - 10, size - 10]], [0.9], [0], 0.5)
    strip = (out[: size // 2 - size // 100, size // 4] == class_color(0)).all(axis=1)
    assert max(9, size // 70) <= strip.sum() <= size // 8


def test_labels_stay_inside_the_image():
    img = gray(120, 160)
    boxes = [[-20, -30, 60, 70], [150, 2, 400, 50], [3, 118, 30, 400]]
    out = vis(img, boxes, [0.9, 0.8, 0.7], [0, 1, 2], class_names=["top left", "right", "bottom"])
    for class_id in range(3):
        assert (out == class_color(class_id)).all(axis=2).sum() > 100


def test_takes_tensors_and_survives_odd_boxes():
    boxes = torch.tensor([[1e12, float("inf"), float("nan"), 5], [10.2, 10.2, 30.7, 30.7]])
    out = vis(gray(64, 64), boxes, torch.tensor([0.9, 0.9]), torch.tensor([0.0, 7.0]), 0.5, ["a"])
    assert tuple(out[31, 20]) == class_color(7)


def test_refuses_what_it_cannot_draw():
    with pytest.raises(ValueError, match="uint8"):
        vis(np.zeros((8, 8, 3), np.float32), [], [], [])
    with pytest.raises(ValueError, match="2 boxes, 1 scores"):
        vis(gray(8, 8), np.zeros((2, 4)), [0.5], [0, 0])
