from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from yolox.data import DetectionDataset, Draw, MosaicDetection, Sample, TrainTransform, VOCDetection
from yolox.data.datasets.mosaicdetection import tile_offset
from yolox.data.decoding import decode_factor

COLOURS = ((255, 0, 0), (0, 255, 0), (0, 0, 255))


class Rectangles(DetectionDataset):
    """Black images of several sizes with one solid rectangle of the class's colour each."""

    def __init__(self, sizes, tmp_path, fill=(0, 0, 0)):
        samples = []
        for i, (height, width) in enumerate(sizes):
            rng = np.random.default_rng(i)
            x1, y1 = int(rng.integers(0, width // 2)), int(rng.integers(0, height // 2))
            x2, y2 = x1 + int(width * 0.4), y1 + int(height * 0.4)
            img = np.full((height, width, 3), fill, dtype=np.uint8)
            if fill == (0, 0, 0):
                img[y1:y2, x1:x2] = COLOURS[i % 3]
            path = tmp_path / f"{i}.png"
            cv2.imwrite(str(path), img)
            samples.append(
                Sample(
                    image_id=100 + i,
                    name=str(i),
                    path=path,
                    height=height,
                    width=width,
                    boxes=np.array([[x1, y1, x2, y2]], dtype=np.float32),
                    classes=np.array([i % 3]),
                    difficult=np.array([False]),
                )
            )
        super().__init__(samples, ("blue", "green", "red"))


SIZES = [(120, 160), (200, 90), (64, 64), (300, 400), (90, 333), (128, 128)]


def pixels_of(img, channel):
    """Mask of the pixels that are clearly of one colour."""
    others = np.delete(img, channel, axis=2).max(axis=2).astype(int)
    return img[..., channel].astype(int) - others > 127


@pytest.mark.parametrize(
    "ranges",
    [
        {"degrees": 0.0, "shear": 0.0, "translate": 0.0, "mosaic_scale": (1.0, 1.0)},
        {"degrees": 0.0, "shear": 0.0, "translate": 0.1, "mosaic_scale": (0.5, 1.5)},
    ],
)
def test_upright_mosaic_boxes_are_the_pixels(tmp_path, ranges):
    """Without rotation the boxes of a colour cover its pixels, all of them, and nothing else."""
    dataset = Rectangles(SIZES, tmp_path)
    mosaic = MosaicDetection(dataset, (160, 192), enable_mixup=False, **ranges)
    checked = 0
    for seed in range(40):
        img, labels, info, _ = mosaic[Draw(seed % len(dataset), seed, True)]
        assert (img.shape, info) == ((160, 192, 3), (160, 192))
        for channel in range(3):
            covered = np.zeros(img.shape[:2], dtype=bool)
            for x1, y1, x2, y2 in labels[labels[:, 4] == channel, :4]:
                covered[round(y1) : round(y2), round(x1) : round(x2)] = True
                checked += 1
            found = pixels_of(img, channel)
            # a row of pixels either way at the rim, for rounding
            grown = cv2.dilate(covered.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
            shrunk = cv2.erode(covered.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
            assert not (found & ~grown).any()
            assert found[shrunk].all()
    assert checked > 50


def test_rotated_mosaic_boxes_surround_the_pixels(tmp_path):
    dataset = Rectangles(SIZES, tmp_path)
    mosaic = MosaicDetection(dataset, (160, 160), enable_mixup=False)
    tight = 0
    for seed in range(40):
        img, labels, _, _ = mosaic[Draw(seed % len(dataset), seed, True)]
        assert (labels[:, :4] >= 0).all()
        assert (labels[:, :4] <= 160).all()
        assert ((labels[:, 2:4] - labels[:, :2]) > 0).all()
        for channel in range(3):
            mine = labels[labels[:, 4] == channel, :4]
            found = pixels_of(img, channel)
            if not len(mine):
                assert found.sum() <= 4
                continue
            ys, xs = np.nonzero(found)
            assert (xs >= mine[:, 0].min() - 1.5).all()
            assert (xs + 1 <= mine[:, 2].max() + 1.5).all()
            assert (ys >= mine[:, 1].min() - 1.5).all()
            assert (ys + 1 <= mine[:, 3].max() + 1.5).all()
            inner = (mine[:, :2].min() > 2) and (mine[:, 2:].max() < 158)
            if len(mine) == 1 and inner and len(xs):  # nothing cut off by the frame
                tight += abs(xs.min() - mine[0, 0]) < 2 and abs(ys.max() + 1 - mine[0, 3]) < 2
    assert tight >= 3


def test_tiles_meet_without_padding_between_them(tmp_path):
    """Square white tiles: in the frame, grey appears only outside the canvas."""
    dataset = Rectangles([(100, 100)] * 4, tmp_path, fill=(255, 255, 255))
    mosaic = MosaicDetection(
        dataset, (100, 100), enable_mixup=False, translate=0.0, mosaic_scale=(1.0, 1.5)
    )
    for seed in range(30):
        img, _, _, _ = mosaic[Draw(0, seed, True)]
        assert np.isin(img, (114, 255)).all()  # no padding bleeds into a tile
        grey = (img == 114).all(axis=2).astype(np.uint8)
        thin = grey - cv2.morphologyEx(grey, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
        # the frame may cut a wedge of the canvas's outside thin; a seam is a line of about 100
        assert thin[2:-2, 2:-2].sum() < 10


def test_an_object_cut_off_by_the_canvas_has_no_label(tmp_path):
    """Even rotated, where the line that is left of its box would have an area again."""
    dataset = Rectangles([(100, 100)], tmp_path)
    mosaic = MosaicDetection(dataset, (100, 100))
    x2 = dataset.samples[0].boxes[0, 2]
    cos, sin = np.cos(0.15), np.sin(0.15)
    matrix = np.array([[cos, -sin, 40], [sin, cos, 10], [0, 0, 1]])
    for centre_x, n in ((100 - x2, 0), (100 - x2 + 5, 1)):  # the tile's right edge
        out = np.full((100, 100, 3), 114, dtype=np.uint8)
        labels = mosaic.draw_tile(out, 0, 0, (int(centre_x), 100), matrix)
        assert len(labels) == n


def test_reduced_decode_shows_the_same_picture(demo, monkeypatch):
    dataset = VOCDetection(demo, (("2007", "trainval"),))
    mosaic = MosaicDetection(dataset, (48, 48), enable_mixup=False)
    draw = Draw(1, 5, True)
    fast, fast_labels, _, _ = mosaic[draw]
    factors = []
    full = dataset.load_reduced

    def load_all(index, factor):
        factors.append(factor)
        img = full(index, 1)
        return cv2.resize(img, None, fx=1 / factor, fy=1 / factor, interpolation=cv2.INTER_AREA)

    monkeypatch.setattr(dataset, "load_reduced", load_all)
    slow, slow_labels, _, _ = mosaic[draw]
    assert max(factors) > 1
    np.testing.assert_array_equal(fast_labels, slow_labels)
    assert np.abs(fast.astype(int) - slow.astype(int)).mean() < 4


def test_decode_factor_never_enlarges_by_more_than_a_quarter():
    assert [decode_factor(s) for s in (1.0, 0.63, 0.62, 0.5, 0.3, 0.15, 0.01)] == [
        1, 1, 2, 2, 4, 8, 8,
    ]  # fmt: skip


def test_tile_offsets_meet_at_the_centre():
    centre, size = (50, 40), (20, 30)
    assert [tile_offset(q, centre, size) for q in range(4)] == [
        (20, 20), (50, 20), (20, 40), (50, 40),
    ]  # fmt: skip


@pytest.mark.parametrize("jitter", [0.5, 1.0, 1.5])
def test_mixup_appends_boxes_that_fit_the_second_image(tmp_path, jitter):
    """With the blend undone, the appended boxes lie on the colours of their classes."""
    dataset = Rectangles([(120, 160), (160, 120)], tmp_path)
    mosaic = MosaicDetection(dataset, (128, 128), mixup_scale=(jitter, jitter))
    base = MosaicDetection(dataset, (128, 128), enable_mixup=False)
    added = 0
    for seed in range(30):
        draw = Draw(seed % 2, seed, True)
        first, first_labels, _, _ = base[draw]
        img, labels, _, _ = mosaic[draw]
        np.testing.assert_array_equal(labels[: len(first_labels)], first_labels)
        if len(labels) == len(first_labels):
            continue
        second = 2 * img.astype(int) - first  # undo the blend
        for x1, y1, x2, y2, cls in labels[len(first_labels) :]:
            inner = second[int(y1) + 2 : int(y2) - 2, int(x1) + 2 : int(x2) - 2]
            if inner.size:
                np.testing.assert_allclose(
                    inner.reshape(-1, 3).mean(axis=0), COLOURS[int(cls)], atol=3
                )
                added += 1
    assert added > 10


def test_a_sample_is_a_function_of_its_draw(demo):
    dataset = VOCDetection(demo, (("2007", "trainval"),))
    mosaic = MosaicDetection(dataset, (64, 96), preproc=TrainTransform())
    for flag in (True, False):
        one, two, other = (mosaic[Draw(2, seed, flag)] for seed in (7, 7, 8))
        np.testing.assert_array_equal(one[0], two[0])
        np.testing.assert_array_equal(one[1], two[1])
        assert (one[0] != other[0]).any()
        assert (one[0].shape, one[0].dtype) == ((3, 64, 96), np.float32)
        assert one[1].shape[1:] == (5,)
        assert one[1][:, 3:].all()  # no padding
        assert one[3].tolist() == [2]
    assert (mosaic[2][0] != mosaic[2][0]).any()  # a plain index has fresh randomness


def test_without_mosaic_the_whole_image_is_shown(demo):
    dataset = VOCDetection(demo, (("2007", "trainval"),))
    plain = TrainTransform(flip_prob=0, hsv_prob=0)
    expected = VOCDetection(demo, (("2007", "trainval"),), img_size=(64, 64), preproc=plain)[3]
    off = MosaicDetection(dataset, (64, 64), preproc=plain)[Draw(3, 0, False)]
    never = MosaicDetection(dataset, (64, 64), mosaic=False, preproc=plain)[Draw(3, 0, True)]
    rare = MosaicDetection(dataset, (64, 64), mosaic_prob=0, preproc=plain)[Draw(3, 0, True)]
    for item in (off, never, rare):
        np.testing.assert_array_equal(item[0], expected[0])
        np.testing.assert_array_equal(item[1], expected[1])
        assert item[2] == (96, 128)


def crowded(tmp_path, count=4, side=192):
    """Images of a grid of 12-pixel squares, 256 each: of every image another colour and class."""
    samples = []
    corners = np.stack(np.meshgrid(np.arange(16), np.arange(16)), axis=-1).reshape(-1, 2) * 12
    boxes = np.concatenate([corners + 2, corners + 10], axis=1).astype(np.float32)
    for i in range(count):
        img = np.zeros((side, side, 3), dtype=np.uint8)
        for x1, y1, x2, y2 in boxes.astype(int):
            img[y1:y2, x1:x2, i % 3] = 255
        path = tmp_path / f"crowd{i}.png"
        cv2.imwrite(str(path), img)
        samples.append(
            Sample(
                image_id=i,
                name=str(i),
                path=path,
                height=side,
                width=side,
                boxes=boxes,
                classes=np.full(len(boxes), i % 3),
                difficult=np.zeros(len(boxes), dtype=bool),
            )
        )
    return DetectionDataset(samples, ("blue", "green", "red"))


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 2**32 - 1))
def test_every_object_that_a_mosaic_shows_is_in_its_labels(tmp_path, seed):
    """All that is seen of any of the four images lies in boxes, and no box is lost after that."""
    dataset = crowded(tmp_path)
    ranges = {"degrees": 5.0, "shear": 1.0, "mosaic_scale": (0.6, 1.5), "enable_mixup": False}
    draw, size = Draw(seed % 4, seed, True), (192, 192)
    img, boxes, _, _ = MosaicDetection(dataset, size, **ranges)[draw]
    for channel in range(3):
        covered = np.zeros(img.shape[:2], dtype=bool)
        for x1, y1, x2, y2 in boxes[boxes[:, 4] == channel, :4].astype(int):
            covered[max(y1 - 1, 0) : y2 + 2, max(x1 - 1, 0) : x2 + 2] = True
        # the rim of a tile may show a line of pixels of what the canvas cuts off
        missed = (pixels_of(img, channel) & ~covered).astype(np.uint8)
        assert not cv2.erode(missed, np.ones((3, 3), np.uint8)).any()
    plain = TrainTransform(flip_prob=0, hsv_prob=0)
    _, labels, _, _ = MosaicDetection(dataset, size, preproc=plain, **ranges)[draw]
    sides = boxes[:, 2:4] - boxes[:, :2]
    learned = sides.min(axis=1) > 1  # thinner ones cannot be
    np.testing.assert_array_equal(labels[:, 0], boxes[learned, 4])
    np.testing.assert_allclose(labels[:, 3:], sides[learned], atol=1e-4)


def test_all_images_of_a_mosaic_have_their_share_of_its_rows(tmp_path):
    """Without a cap all of their objects, with one a part of each image's."""
    dataset = crowded(tmp_path, count=3)
    upright = {"degrees": 0.0, "shear": 0.0, "translate": 0.0, "mosaic_scale": (0.5, 0.5)}
    for cap, least in ((None, 3 * 256), (120, 120)):
        mosaic = MosaicDetection(
            dataset,
            (192, 192),
            preproc=TrainTransform(cap),
            mixup_scale=(1.0, 1.0),
            **upright,
        )
        classes = [set(mosaic[Draw(s % 3, s, True)][1][:, 0]) for s in range(12)]
        rows = [len(mosaic[Draw(s % 3, s, True)][1]) for s in range(12)]
        assert max(rows) >= least
        assert set() not in classes
        assert {0.0, 1.0, 2.0} in classes


def test_labels_of_the_data_set_are_not_changed(demo):
    dataset = VOCDetection(demo, (("2007", "trainval"),))
    before = [s.boxes.copy() for s in dataset.samples]
    mosaic = MosaicDetection(dataset, (64, 64), preproc=TrainTransform())
    for seed in range(10):
        mosaic[Draw(seed % len(dataset), seed, True)]
    for sample, boxes in zip(dataset.samples, before, strict=True):
        np.testing.assert_array_equal(sample.boxes, boxes)


def test_what_the_data_set_leaves_out_of_its_labels_is_in_no_sample(tmp_path):
    """Neither in the tiles nor in the MixUp image, which is never one without labels."""
    easy = Rectangles([(90, 90)] * 3, tmp_path)
    samples = [dataclasses.replace(s, difficult=s.classes == 1) for s in easy.samples]
    names, kept, seconds = easy.class_names, set(), set()
    for train_difficult in (True, False):
        dataset = DetectionDataset(samples, names, train_difficult=train_difficult)
        mosaic = MosaicDetection(dataset, (64, 64), mosaic_scale=(0.9, 1.1))
        found = set()
        for seed in range(30):
            _, labels, _, _ = mosaic[Draw(seed % 3, seed, True)]
            found |= set(labels[:, 4].tolist())
        kept.add((train_difficult, *sorted(found)))
        seconds.add((train_difficult, *mosaic.with_objects))
    assert kept == {(True, 0, 1, 2), (False, 0, 2)}
    assert seconds == {(True, 0, 1, 2), (False, 0, 2)}


def test_images_without_objects_make_mosaics_too(tmp_path):
    dataset = Rectangles([(50, 50)] * 2, tmp_path)
    empty = [
        Sample(
            image_id=s.image_id,
            name=s.name,
            path=s.path,
            height=50,
            width=50,
            boxes=s.boxes[:0],
            classes=s.classes[:0],
            difficult=s.difficult[:0],
        )
        for s in dataset.samples
    ]
    mosaic = MosaicDetection(DetectionDataset(empty, ("x",)), (64, 64), preproc=TrainTransform())
    img, labels, _, _ = mosaic[Draw(0, 1, True)]
    assert img.shape == (3, 64, 64)
    assert not labels.any()
