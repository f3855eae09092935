from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolox.data import TrainTransform, ValTransform
from yolox.data.data_augment import (
    affine_matrix,
    augment_hsv,
    clip_boxes,
    flip,
    preproc,
    transform_boxes,
)

GOLDEN = Path(__file__).parents[1] / "golden" / "detections_yolox_nano_coco.json"
IMAGES = Path(__file__).parents[2].parent / "shared" / "images"


def picture(height=30, width=40, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def boxes(*rows):
    return np.array(rows, dtype=np.float32).reshape(-1, 4)


def targets(*rows):
    return np.array(rows, dtype=np.float32).reshape(-1, 5)


# ---------------------------------------------------------------------------------------- letterbox


@pytest.mark.parametrize("name", ["dog.jpg", "coco_000000000016.jpg"])
def test_letterbox_as_recorded(name):
    image = IMAGES / name
    if not GOLDEN.is_file() or not image.is_file():
        pytest.skip("the recorded values or the shared images are not here")
    expected = json.loads(GOLDEN.read_text())[name]
    img, ratio = preproc(cv2.imread(str(image)), tuple(expected["input_size"]))
    assert ratio == pytest.approx(expected["resize_ratio"], abs=1e-9)
    assert img.mean(dtype=np.float64) == pytest.approx(expected["letterbox_mean"], abs=2e-3)


def test_letterbox_places_at_the_top_left_and_pads():
    img = picture(30, 40)
    out, ratio = preproc(img, (80, 80))
    assert (out.shape, out.dtype, ratio) == ((3, 80, 80), np.float32, 2.0)
    assert out.flags["C_CONTIGUOUS"]
    resized = cv2.resize(img, (80, 60), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(out[:, :60], resized.transpose(2, 0, 1))
    assert (out[:, 60:] == 114).all()
    hwc, _ = preproc(img, (80, 80), swap=(0, 1, 2))
    np.testing.assert_array_equal(hwc, out.transpose(1, 2, 0))


def test_letterbox_of_an_extreme_aspect_keeps_a_pixel():
    out, _ = preproc(picture(1, 200), (50, 50))
    assert (out[:, 1:] == 114).all()
    assert (out[:, 0] != 114).any()


# ---------------------------------------------------------------------------------------------- hsv


def test_hsv_shifts_a_channel_by_at_most_its_gain_or_not_at_all():
    hsv = np.full((4, 4, 3), (90, 128, 128), dtype=np.uint8)
    img = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)
    start = cv2.cvtColor(img, cv2.COLOR_BGR2HSV).astype(int)
    shifts = []
    for seed in range(200):
        out = augment_hsv(img, np.random.default_rng(seed))
        shifts.append((cv2.cvtColor(out, cv2.COLOR_BGR2HSV).astype(int) - start)[0, 0])
    low, high = np.min(shifts, axis=0), np.max(shifts, axis=0)
    assert (np.abs([low, high]) <= (6, 31, 30)).all()  # one step of 8-bit rounding
    assert (low < (-2, -20, -20)).all()
    assert (high > (2, 20, 20)).all()
    off = np.mean(np.abs(shifts) <= 1, axis=0)
    assert (off[1:] > 0.4).all()
    assert (off[1:] < 0.65).all()


def test_hue_turns_round_and_value_saturates():
    for hue in (0, 179):
        img = cv2.cvtColor(np.full((2, 2, 3), (hue, 255, 255), np.uint8), cv2.COLOR_HSV2BGR)
        for seed in range(20):
            out = augment_hsv(img, np.random.default_rng(seed), hgain=5, sgain=0, vgain=200)
            found = cv2.cvtColor(out, cv2.COLOR_BGR2HSV)[0, 0].astype(int)
            distance = abs(found[0] - hue)
            assert min(distance, 180 - distance) <= 6
            assert found[2] >= 55


# ----------------------------------------------------------------------------------------- geometry


def test_flip_moves_pixels_and_boxes_alike_and_twice_is_nothing():
    img = np.zeros((20, 30, 3), dtype=np.uint8)
    img[5:9, 3:11] = 255
    box = boxes([3, 5, 11, 9])
    out, moved = flip(img, box)
    x1, y1, x2, y2 = moved[0].astype(int)
    assert (out[y1:y2, x1:x2] == 255).all()
    assert out.sum() == img.sum()
    again, back = flip(out, moved)
    np.testing.assert_array_equal(again, img)
    np.testing.assert_array_equal(back, box)


@given(st.integers(0, 2**32 - 1))
def test_affine_matrix_stays_in_its_ranges(seed):
    matrix = affine_matrix((100, 200), 10.0, 0.1, (0.5, 1.5), 0.0, np.random.default_rng(seed))
    linear = matrix[:2, :2]
    scale = np.sqrt(np.linalg.det(linear))
    assert 0.5 <= scale <= 1.5
    np.testing.assert_allclose(linear @ linear.T, np.eye(2) * scale**2, atol=1e-9)
    assert abs(np.degrees(np.arctan2(linear[0, 1], linear[0, 0]))) <= 10 + 1e-9
    assert abs(matrix[0, 2]) <= 20
    assert abs(matrix[1, 2]) <= 10
    np.testing.assert_array_equal(matrix[2], [0, 0, 1])


def test_affine_matrix_without_ranges_is_the_identity():
    matrix = affine_matrix((10, 10), 0, 0, (1, 1), 0, np.random.default_rng(0))
    np.testing.assert_array_equal(matrix, np.eye(3))


def test_shear_tilts_the_axes():
    found = [
        affine_matrix((10, 10), 0, 0, (1, 1), 5.0, np.random.default_rng(s)) for s in range(20)
    ]
    tilts = np.array([[m[0, 1], m[1, 0]] for m in found])
    assert (np.abs(tilts) <= np.tan(np.radians(5))).all()
    assert (tilts.std(axis=0) > 0.01).all()


def test_boxes_follow_their_corners():
    quarter_turn = np.array([[0.0, -1, 50], [1, 0, 0], [0, 0, 1]])
    np.testing.assert_allclose(
        transform_boxes(quarter_turn, boxes([10, 5, 30, 15])), [[35, 10, 45, 30]]
    )
    assert transform_boxes(np.eye(3), boxes()).shape == (0, 4)
    np.testing.assert_array_equal(
        clip_boxes(boxes([-3, 2, 99, 8]), (0, 4), (50, 60)), [[0, 4, 50, 8]]
    )


# --------------------------------------------------------------------------------------- transforms


def test_train_transform_scales_labels_to_the_input():
    transform = TrainTransform(max_labels=3, flip_prob=0, hsv_prob=0)
    img, labels = transform(picture(30, 40), targets([4, 2, 12, 10, 7]), (60, 60))
    assert (img.shape, img.dtype) == ((3, 60, 60), np.float32)
    assert labels.dtype == np.float32
    np.testing.assert_allclose(labels, [[7, 12, 9, 12, 12], [0] * 5, [0] * 5], rtol=1e-6)


def test_train_transform_mirrors_image_and_labels():
    img = np.zeros((30, 40, 3), dtype=np.uint8)
    img[4:10, 2:12] = 255
    transform = TrainTransform(flip_prob=1, hsv_prob=0)
    out, labels = transform(img, targets([2, 4, 12, 10, 0]), (30, 40))
    _, cx, cy, w, h = labels[0]
    assert (cx, cy, w, h) == (33, 7, 10, 6)
    assert (out[:, 4:10, 28:38] == 255).all()


def test_train_transform_drops_slivers():
    rows = targets([0, 0, 2, 20, 1], [0, 0, 3, 20, 2], [5, 5, 20, 20, 3], [1, 1, 20, 20, 4])
    _, labels = TrainTransform(flip_prob=0, hsv_prob=0)(picture(40, 40), rows, (20, 20))
    assert labels[:, 0].tolist() == [2, 3, 4]


@given(n=st.integers(0, 400))
def test_train_transform_keeps_every_object(n):
    corners = np.random.default_rng(n).uniform(0, 20, (n, 2))
    rows = np.concatenate([corners, corners + 8, np.arange(n)[:, None]], axis=1).astype(np.float32)
    _, labels = TrainTransform(flip_prob=0, hsv_prob=0)(picture(30, 30), rows, (30, 30))
    np.testing.assert_array_equal(labels[:, 0], np.arange(n))
    np.testing.assert_allclose(labels[:, 1:3], corners + 4, rtol=1e-5)


def test_a_cap_cuts_others_each_time_and_pads_what_is_below_it():
    rows = np.tile(targets([2, 2, 12, 12, 0]), (30, 1))
    rows[:, 4] = np.arange(30)
    transform, seen = TrainTransform(max_labels=10, flip_prob=0, hsv_prob=0), set()
    for seed in range(30):
        arguments = picture(20, 20), rows, (20, 20)
        _, labels = transform(*arguments, np.random.default_rng(seed))
        _, again = transform(*arguments, np.random.default_rng(seed))
        np.testing.assert_array_equal(labels, again)
        assert labels.shape == (10, 5)
        assert (np.diff(labels[:, 0]) > 0).all()  # in their order, each once
        seen |= set(labels[:, 0])
    assert seen == set(range(30))
    _, labels = transform(picture(20, 20), rows[:3], (20, 20))
    assert labels[:, 0].tolist() == [0, 1, 2] + [0] * 7
    assert not labels[3:].any()


@pytest.mark.parametrize("rows", [0, -1])
def test_a_cap_of_no_object_is_refused(rows):
    with pytest.raises(ValueError, match=f"at least 1, got {rows}"):
        TrainTransform(rows)


def test_train_transform_without_usable_objects_is_not_augmented():
    img, rows = picture(40, 40), targets([0, 0, 2, 20, 1])
    for seed in range(5):
        out, labels = TrainTransform(flip_prob=1)(img, rows, (20, 20), np.random.default_rng(seed))
        np.testing.assert_array_equal(out, preproc(img, (20, 20))[0])
        np.testing.assert_array_equal(labels[0], [1, 0.5, 5, 1, 10])
    out, labels = TrainTransform(flip_prob=1)(img, targets(), (20, 20))
    np.testing.assert_array_equal(out, preproc(img, (20, 20))[0])
    assert not labels.any()


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(0, 8))
def test_train_transform_is_a_function_of_its_generator_and_mutates_nothing(seed, n):
    rng = np.random.default_rng(seed)
    img = picture(24, 32, seed)
    corners = np.sort(rng.uniform(0, 24, (n, 2, 2)), axis=1).reshape(n, 4)
    rows = np.concatenate([corners, rng.integers(0, 3, (n, 1))], axis=1).astype(np.float32)
    before = img.copy(), rows.copy()
    transform = TrainTransform(max_labels=5)
    one = transform(img, rows, (32, 32), np.random.default_rng(seed))
    two = transform(img, rows, (32, 32), np.random.default_rng(seed))
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(img, before[0])
    np.testing.assert_array_equal(rows, before[1])
    _, cx, cy, w, h = one[1].T
    assert (cx - w / 2 >= -1e-3).all()
    assert (cx + w / 2 <= 32 + 1e-3).all()
    assert (cy + h / 2 <= 32 + 1e-3).all()


def test_val_transform_and_its_legacy_scaling():
    img = picture(30, 40)
    plain, labels = ValTransform()(img, None, (40, 40))
    np.testing.assert_array_equal(plain, preproc(img, (40, 40))[0])
    assert labels.shape == (1, 5)
    legacy, _ = ValTransform(legacy=True)(img, None, (40, 40))
    assert legacy.dtype == np.float32
    red = (plain[2] / 255 - 0.485) / 0.229
    np.testing.assert_allclose(legacy[0], red, atol=1e-5)
