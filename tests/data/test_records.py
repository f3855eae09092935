from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.helpers import Picture, write_coco, write_image, write_voc, write_yolo
from tests.data.pictures import deep, noise
from yolox.data import (
    COCODataset,
    DataError,
    DetectionDataset,
    Problem,
    Record,
    RecordSet,
    VOCDetection,
    YOLODataset,
    build_samples,
    require_objects,
    resolve_class_list,
)
from yolox.data.datasets.files import path_inside
from yolox.data.datasets.records import BAD_ANNOTATION, BAD_CLASS_LIST, BAD_ENTRY

CLASSES = ("ant", "bee", "cat")


def record(image: Path, **fields) -> Record:
    fields = {"name": image.stem, "image": image, "source": image.with_suffix(".txt")} | fields
    return Record(**fields)


def one_box(image: Path, box=(1, 2, 30, 20), **fields) -> Record:
    return record(image, names=("ant",), boxes=(box,), difficult=(False,), **fields)


def records(*rows: Record, **fields) -> RecordSet:
    return RecordSet(**({"title": "set", "records": rows, "classes": None} | fields))


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return write_image(tmp_path / "a.png", (40, 60))


# ---------------------------------------------------------------------------------- three layouts


@st.composite
def pictures(draw) -> list[Picture]:
    found = []
    for i in range(draw(st.integers(1, 3))):
        height, width = draw(st.integers(8, 40)), draw(st.integers(8, 40))
        xs = st.lists(st.integers(0, 4 * width), min_size=2, max_size=2, unique=True)
        ys = st.lists(st.integers(0, 4 * height), min_size=2, max_size=2, unique=True)
        objects = []
        for _ in range(draw(st.integers(0, 3))):
            (x1, x2), (y1, y2) = sorted(draw(xs)), sorted(draw(ys))
            box = (x1 / 4, y1 / 4, x2 / 4, y2 / 4)
            objects.append((draw(st.sampled_from(CLASSES)), box, draw(st.integers(0, 1))))
        found.append(Picture(f"p{i}", (height, width), objects))
    return found


@given(data=pictures())
@settings(max_examples=40, deadline=None)
def test_the_same_pictures_read_the_same_from_all_layouts(data):
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        devkit = write_voc(root / "voc", data)
        voc = VOCDetection(devkit, (("2007", "train"),), classes=CLASSES)
        coco = COCODataset(write_coco(root / "coco", data, CLASSES), "train.json", "train")
        yolo = YOLODataset(write_yolo(root / "yolo", data, CLASSES), "train")
    assert voc.class_names == coco.class_names == yolo.class_names == CLASSES
    for picture, *samples in zip(data, voc.samples, coco.samples, yolo.samples, strict=True):
        for sample in samples:
            assert sample.path.stem == picture.name
            assert (sample.height, sample.width) == picture.size
            assert sample.classes.tolist() == [CLASSES.index(o[0]) for o in picture.objects]
            assert (sample.boxes.dtype, sample.classes.dtype) == (np.float32, np.int64)
            expected = np.array([o[1] for o in picture.objects], dtype=np.float32).reshape(-1, 4)
            np.testing.assert_allclose(sample.boxes, expected, atol=1e-4)
        flags = [bool(o[2]) for o in picture.objects]
        assert [s.difficult.tolist() for s in samples] == [flags, flags, [False] * len(flags)]
    assert [s.image_id for s in voc.samples] == [s.image_id for s in yolo.samples]
    assert [s.image_id for s in coco.samples] == [10 * (i + 1) for i in range(len(data))]


# ---------------------------------------------------------------------------------------- samples


def test_fractions_are_scaled_by_the_image_and_everything_is_clipped(image):
    rows = (
        one_box(image, (0.25, 0.5, 1.25, 0.75), relative=True),
        record(image),
        one_box(image, (-3, 10, 20, 50), image_id=7),
    )
    first, empty, last = build_samples(records(*rows), ("ant",))
    np.testing.assert_array_equal(first.boxes, [[15, 20, 60, 30]])
    assert empty.boxes.shape == (0, 4)
    np.testing.assert_array_equal(last.boxes, [[0, 10, 20, 40]])
    assert [s.image_id for s in (first, empty, last)] == [0, 1, 7]


def test_dropped_boxes_are_named_by_the_numbers_of_the_file(image, log):
    rows = (one_box(image), one_box(image, (5, 5, 5, 9)))
    samples = build_samples(records(*rows, first_pixel=1), ("ant",))
    assert [len(s.boxes) for s in samples] == [1, 0]
    (warning,) = log("WARNING")
    assert warning.startswith("1 boxes have no area")
    assert "a: ant (6, 6, 6, 10)" in warning


def test_objects_stay_with_their_image_when_others_are_left_out(image):
    names, difficult = ("ant", "bee", "cat"), (True, False, True)
    boxes = ((1, 1, 2, 2), (3, 3, 4, 4), (5, 5, 5, 6))
    row = record(image, names=names, boxes=boxes, difficult=difficult)
    for kept, expected in ((True, [0, 1]), (False, [1])):
        for sample in build_samples(records(row, row), CLASSES, keep_difficult=kept):
            assert sample.classes.tolist() == expected
            np.testing.assert_array_equal(sample.boxes[-1], [3, 3, 4, 4])


def test_missing_and_broken_images_are_told_apart_and_told_at_once(tmp_path, image):
    broken = tmp_path / "b.png"
    broken.write_bytes(b"no image")
    rows = [
        record(tmp_path / "no.png"),
        record(broken),
        record(image),
        record(tmp_path / ("c" * 300)),
    ]
    with pytest.raises(DataError) as error:
        build_samples(records(*rows), ("ant",))
    text = str(error.value)
    assert "2 images that the data names are not there" in text
    assert f"{tmp_path / 'no.png'}: named by set" in text
    assert "1 files are no images that can be decoded" in text
    assert f"{broken}: cannot be decoded (8 bytes)" in text
    assert str(image) not in text


def test_problems_are_raised_at_once_by_kind(image):
    problems = (
        *(Problem(kind=BAD_ANNOTATION, where=f"f{i:02d}", what="is odd") for i in range(12)),
        Problem(kind=BAD_ENTRY, where="list", what="is odd, too"),
    )
    with pytest.raises(DataError) as error:
        build_samples(records(record(image), problems=problems), ("ant",))
    text = str(error.value)
    assert text.startswith("12 annotations cannot be used")
    assert "f09: is odd" in text
    assert "f10" not in text
    assert "1 entries of images cannot be used" in text
    assert "list: is odd, too" in text


@pytest.mark.parametrize("count", [0, 3])
def test_nothing_to_learn_is_an_error_that_says_why(tmp_path, count, log):
    objects = [("ant", (1, 1, 9, 9 + number), 1) for number in range(count)]
    root = write_coco(tmp_path, [Picture("a", (40, 60), objects)], CLASSES)
    dataset = COCODataset(root, "train.json", "train")
    assert len(log("WARNING")) == 1
    with pytest.raises(DataError, match="3 are crowds" if count else "no object is annotated"):
        require_objects(dataset)
    with pytest.raises(DataError, match="1 training images have nothing to learn"):
        require_objects(DetectionDataset(dataset.samples, CLASSES, train_difficult=False))


def test_one_object_is_something_to_learn(tmp_path):
    objects = [("ant", (1, 1, 9, 9), 1), ("bee", (1, 1, 9, 9), 0)]
    root = write_coco(tmp_path, [Picture("a", (40, 60), objects)], CLASSES)
    require_objects(COCODataset(root, "train.json", "train"))
    difficult = [Picture("a", (40, 60), objects[:1])]
    require_objects(VOCDetection(write_voc(tmp_path, difficult), (("2007", "train"),)))


def test_no_images():
    with pytest.raises(DataError, match="set names no image"):
        build_samples(records(), ("ant",))


# ---------------------------------------------------------------------------------------- classes


def test_a_given_list_comes_before_that_of_the_data_and_that_of_the_annotations(image):
    row = one_box(image)
    assert resolve_class_list(records(row)) == ("ant",)
    assert resolve_class_list(records(row, classes=("bee", "ant"))) == ("bee", "ant")
    assert resolve_class_list(records(row, classes=("bee",)), [" cat ", "dog"]) == ("cat", "dog")


def test_a_faulty_class_list_matters_only_where_it_is_used(image):
    fault = Problem(kind=BAD_CLASS_LIST, where="classes.txt", what="is odd")
    row = records(one_box(image), problems=(fault,))
    with pytest.raises(DataError, match=r"(?s)1 class lists .*classes\.txt: is odd"):
        resolve_class_list(row)
    assert len(build_samples(row, resolve_class_list(row, ["ant"]))[0].boxes) == 1


def test_classes_are_not_guessed_from_half_the_annotations(image):
    fault = Problem(kind=BAD_ANNOTATION, where="b.xml", what="is odd")
    with pytest.raises(DataError, match=r"b\.xml: is odd"):
        resolve_class_list(records(one_box(image), problems=(fault,)))


# ------------------------------------------------------------------------------------------ paths


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("a.jpg", "a.jpg"),
        ("./sub//a.jpg", "sub/a.jpg"),
        ("sub\\a.jpg", "sub/a.jpg"),
        ("sub/../a.jpg", "a.jpg"),
        ("..a.jpg", "..a.jpg"),
        ("../a.jpg", None),
        ("sub/../../a.jpg", None),
        ("..\\a.jpg", None),
        ("/etc/passwd", None),
        ("C:\\a.jpg", None),
        ("a\0.jpg", None),
        ("\ud800.jpg", None),
        ("..", None),
        ("", None),
    ],
)
def test_paths_stay_inside_their_folder(name, place):
    assert path_inside(Path("root"), name) == (None if place is None else Path("root") / place)


@pytest.mark.parametrize(("bits", "told"), [(16, False), (12, True)])
def test_16_bit_images_that_use_the_lower_bits_are_told(bits, told, tmp_path, log):
    config = write_yolo(tmp_path / "data", [Picture("a", (40, 60), [])], ["ant"])
    path = config.parent / "images" / "train" / "a.png"
    path.write_bytes(deep(noise(40, 60) | 1, ".png", bits, 1))
    YOLODataset(config, "train")
    warnings = [line for line in log("WARNING") if "nearly black to the network" in line]
    assert len(warnings) == told
    assert all(f"{path}: 12 bits of 16" in line for line in warnings)
