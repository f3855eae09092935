from __future__ import annotations

import hashlib

import cv2
import numpy as np
import pytest

from yolox.data import DataError, VOCDetection, generate_demo_dataset, synthetic

SMALL = {"num_images": 10, "image_size": (96, 128)}


def digest(folder):
    value = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        value.update(str(path.relative_to(folder)).encode())
        value.update(path.read_bytes() if path.is_file() else b"")
    return value.hexdigest()


def test_same_arguments_same_bytes(tmp_path):
    one, two = (generate_demo_dataset(tmp_path / name, **SMALL) for name in "ab")
    other = generate_demo_dataset(tmp_path / "c", **SMALL, seed=1)
    assert digest(one) == digest(two) != digest(other)


def test_it_reads_as_voc(tmp_path, log):
    devkit = generate_demo_dataset(tmp_path, **SMALL)
    assert devkit == tmp_path / "VOCdevkit"
    sizes = {"train": 6, "val": 2, "trainval": 8, "test": 2}
    for split, size in sizes.items():
        dataset = VOCDetection(tmp_path, (("2007", split),))
        assert len(dataset) == size
        assert dataset.class_names == ("circle", "square", "triangle")
        for sample in dataset.samples:
            assert 1 <= len(sample.boxes) <= 8
            sides = sample.boxes[:, 2:] - sample.boxes[:, :2]
            assert ((sides.max(axis=1) >= 17) & (sides.max(axis=1) <= 92)).all()
            assert dataset.load_image(sample.image_id).shape == (96, 128, 3)
    assert log("WARNING") == []


def test_annotations_are_the_objects_drawn(demo):
    dataset = VOCDetection(demo, (("2007", "trainval"),))
    for i, sample in enumerate(dataset.samples):
        _, objects = synthetic.draw_picture((96, 128), np.random.default_rng([3, i]))
        assert sample.boxes.tolist() == [list(shape.box) for shape in objects]
        assert [dataset.class_names[c] for c in sample.classes] == [o.name for o in objects]


def test_boxes_are_tight():
    """The pixels that drawing changed are those of the box, and reach its every side."""
    found = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        img = np.full((120, 160, 3), 128, dtype=np.uint8)
        shape = synthetic.draw_object(img, rng, [])
        assert shape is not None
        changed = np.abs(img.astype(int) - 128).max(axis=2) > 30
        ys, xs = np.nonzero(changed)
        extent = np.array([xs.min(), ys.min(), xs.max(), ys.max()])
        assert np.abs(extent - shape.box).max() <= 2
        found += 1
    assert found == 40


def test_done_once_and_never_over_other_data(tmp_path):
    devkit = generate_demo_dataset(tmp_path, **SMALL)
    image = next((devkit / "VOC2007" / "JPEGImages").iterdir())
    image.write_bytes(b"kept")
    assert generate_demo_dataset(tmp_path, **SMALL) == devkit
    assert image.read_bytes() == b"kept"
    with pytest.raises(DataError, match="already holds the demo data made with"):
        generate_demo_dataset(tmp_path, **SMALL, seed=9)
    (tmp_path / "mine" / "VOCdevkit").mkdir(parents=True)
    with pytest.raises(DataError, match="already holds other data"):
        generate_demo_dataset(tmp_path / "mine", **SMALL)


def test_stopped_half_way_leaves_nothing(tmp_path, monkeypatch):
    calls = []
    encode = cv2.imencode

    def stop(*arguments):
        calls.append(arguments)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return encode(*arguments)

    monkeypatch.setattr(synthetic.cv2, "imencode", stop)
    with pytest.raises(KeyboardInterrupt):
        generate_demo_dataset(tmp_path, **SMALL)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wrong", [{"num_images": 4}, {"image_size": (85, 200)}])
def test_arguments_out_of_range(tmp_path, wrong):
    with pytest.raises(ValueError, match="expected"):
        generate_demo_dataset(tmp_path, **{**SMALL, **wrong})
