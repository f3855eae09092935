from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.data.helpers import Picture, write_image, write_yolo
from yolox.data import DataError, YOLODataset, read_yolo
from yolox.data.datasets.records import BAD_ANNOTATION, BAD_CLASS_LIST, BAD_ENTRY

CLASSES = ("ant", "bee")
PICTURES = (
    Picture("a", (40, 60), [("bee", (15, 10, 45, 30), 0), ("ant", (0, 0, 60, 40), 0)]),
    Picture("b", (30, 20), []),
)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return write_yolo(tmp_path / "data", PICTURES, CLASSES)


def read(config: Path, *lines: str, **kwargs) -> YOLODataset:
    """Read train, after writing lines over the data.yaml if there are any."""
    if lines:
        config.write_text("\n".join(lines))
    return YOLODataset(config, "train", **kwargs)


def label(config: Path, text: str) -> Path:
    path = config.parent / "labels" / "train" / "a.txt"
    path.write_bytes(text.encode())
    return path


def names(dataset: YOLODataset) -> list[str]:
    return [sample.path.stem for sample in dataset.samples]


def test_boxes_are_scaled_and_an_image_without_labels_is_background(config):
    dataset = read(config)
    assert dataset.class_names == CLASSES
    first, second = dataset.samples
    np.testing.assert_allclose(first.boxes, [[15, 10, 45, 30], [0, 0, 60, 40]], atol=1e-5)
    assert first.classes.tolist() == [1, 0]
    assert (first.image_id, first.name, first.height) == (0, "images/train/a.png", 40)
    assert (second.image_id, len(second.boxes)) == (1, 0)


def test_polygons_become_their_bounding_box_and_blank_lines_nothing(config):
    label(config, "1 0.25 0.5 0.75 0.25 0.5 1\n\n0.0 .5 .5 1 1\r\n")
    sample = read(config).samples[0]
    np.testing.assert_allclose(sample.boxes, [[15, 10, 45, 40], [0, 0, 60, 40]], atol=1e-5)
    assert sample.classes.tolist() == [1, 0]


def test_a_class_list_chooses_the_indices(config):
    assert read(config, classes=["cat", "bee", "ant"]).samples[0].classes.tolist() == [1, 2]
    with pytest.raises(DataError, match="'ant': 1 objects"):
        read(config, classes=["bee"])


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("0 0.5 0.5 0.5", "has 4 numbers"),
        ("0", "has 1 numbers"),
        ("0 .5 .5 .5 .5 1.2", "a number after the box that is no confidence"),
        ("1_0 .5 .5 .5 .5", "is not all numbers"),
        ("0 .1 .1 .2 .2 .3 .3 .4", "has 8 numbers"),
        ("ant .5 .5 .5 .5", "is not all numbers"),
        ("2 .5 .5 .5 .5", "class 2: expected a whole number from 0 to 1"),
        ("-1 .5 .5 .5 .5", "class -1"),
        ("0.5 .5 .5 .5 .5", "class 0.5"),
        ("nan .5 .5 .5 .5", "class nan"),
        ("0 1.002 .5 .5 .5", "not all fractions"),
        ("0 .5 -0.002 .5 .5", "not all fractions"),
        ("0 .5 .5 nan .5", "not all fractions"),
        ("0 30 20 10 10", "not all fractions"),
        ("0 .5 .5 .6 .6 .7 1.1", "not all fractions"),
    ],
)
def test_lines_that_cannot_be_used_are_named(config, line, words):
    path = label(config, f"0 .5 .5 .5 .5\n\n{line}\n")
    records = read_yolo(config, "train")
    (problem,) = records.problems
    assert (problem.kind, problem.where) == (BAD_ANNOTATION, f"{path}:3")
    assert words in problem.what
    assert records.records[0].boxes == ()


def test_all_lines_are_raised_at_once_and_files_that_are_no_text(config):
    (config.parent / "labels" / "train" / "b.txt").write_bytes(b"\xff\xd8\xff")
    path = label(config, "0\n1\n0 .5 .5 .5 .5")
    with pytest.raises(DataError) as error:
        read(config)
    assert str(error.value).startswith("3 annotations cannot be used")
    assert f"{path}:1: has 1 numbers" in str(error.value)
    assert "b.txt: is not text" in str(error.value)


def test_values_may_miss_the_range_by_rounding(config):
    label(config, "0 0.5 0.5 1.0005 1.0005")
    sample = read(config).samples[0]
    np.testing.assert_array_equal(sample.boxes, [[0, 0, 60, 40]])


# ---------------------------------------------------------------------------- where the images are

NAMES = "names: [ant, bee]"


@pytest.mark.parametrize(
    "lines",
    [
        ["train: images/train"],
        ["train: ./images/train/", "path: ."],
        ["train: images"],
        ["train: ."],
        ["train: images\\train"],
        ["train: ../images/train"],
        ["train: train", "path: images"],
        ["train: data/images/train", "path: .."],
        ["train: [images/train/a.png.txt, b.txt]"],
        ["train: list.txt"],
        ["train: images/own.txt"],
        ["train: {root}/images/train"],
        ["train: images/train", "path: {root}"],
        ["train: absolute.txt"],
    ],
)
def test_ways_to_name_the_images(config, lines):
    root = config.parent
    (root / "images" / "train" / "a.png.txt").write_text("images/train/a.png\n")
    (root / "b.txt").write_text("\ufeff./images/train/b.png\n\n")
    (root / "list.txt").write_text("images/train/a.png\nimages\\train\\b.png\n")
    (root / "images" / "own.txt").write_text("./train/a.png\n./train/b.png\n")
    (root / "absolute.txt").write_text(f"{root}/images/train/a.png\n{root}/images/train/b.png\n")
    dataset = read(config, NAMES, *(line.format(root=root) for line in lines))
    assert names(dataset) == ["a", "b"]
    assert [len(sample.boxes) for sample in dataset.samples] == [2, 0]


def test_images_may_be_absolute_folders_elsewhere_and_hidden_files_are_none(config, tmp_path):
    other = tmp_path / "other" / "images"
    write_image(other / "sub" / "c.png")
    write_image(other / "._c.png")
    (other / "notes.md").write_text("no image")
    (tmp_path / "other" / "labels" / "sub").mkdir(parents=True)
    (tmp_path / "other" / "labels" / "sub" / "c.txt").write_text("1 .5 .5 1 1")
    dataset = read(config, NAMES, f"train: [images/train, {other}]")
    assert names(dataset) == ["a", "b", "c"]
    assert dataset.samples[2].name == str(other / "sub" / "c.png")
    assert dataset.samples[2].classes.tolist() == [1]


def test_the_last_folder_called_images_is_replaced(config, tmp_path):
    moved = tmp_path / "images" / "set"
    moved.parent.mkdir()
    shutil.move(config.parent, moved)
    assert len(read(moved / "data.yaml").samples[0].boxes) == 2


def test_without_such_a_folder_labels_are_beside_the_images(tmp_path, log):
    write_image(tmp_path / "photos" / "a.png")
    config = tmp_path / "data.yaml"
    read(config, NAMES, "train: photos")
    for warning in log("WARNING"):
        assert f"looked for in {tmp_path / 'photos' / 'a.txt'}" in warning
    assert len(log("WARNING")) == 2
    (tmp_path / "photos" / "a.txt").write_text("0 .5 .5 1 1")
    assert len(read(config).samples[0].boxes) == 1
    assert len(log("WARNING")) == 2


def moved(config: Path, images: str, labels: str) -> list[int]:
    """The objects of each image after its folders got other names."""
    root = config.parent
    for old, new in (("images", images), ("labels", labels)):
        (root / new).parent.mkdir(parents=True, exist_ok=True)
        (root / old / "train").rename(root / new)
    dataset = read(config, NAMES, f"train: {images}")
    return [len(sample.boxes) for sample in dataset.samples]


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        ("train/images", "train/labels"),
        ("Images/all", "Labels/all"),
        ("IMAGES/all", "labels/all"),
        ("images/images/a", "images/labels/a"),
        ("images/x/images/a", "labels/x/images/a"),
        ("photos/a", "photos/a"),
        ("more/images", "more/images"),
    ],
)
def test_labels_are_below_the_root_or_beside(config, images, labels):
    if images == labels:
        for label_file in (config.parent / "labels" / "train").iterdir():
            label_file.rename(config.parent / "images" / "train" / label_file.name)
        shutil.rmtree(config.parent / "labels")
        (config.parent / images).parent.mkdir(parents=True)
        (config.parent / "images" / "train").rename(config.parent / images)
        read(config, NAMES, f"train: {images}")
        assert [len(s.boxes) for s in read(config).samples] == [2, 0]
    else:
        assert moved(config, images, labels) == [2, 0]


def test_folders_above_the_root_do_not_count(config, tmp_path):
    root = tmp_path / "images" / "set"
    root.parent.mkdir()
    shutil.move(config.parent, root)
    (root / "images" / "train").rename(root / "photos")
    shutil.copy(root / "labels" / "train" / "a.txt", root / "photos" / "a.txt")
    wrong = tmp_path / "labels" / "set" / "photos" / "a.txt"
    wrong.parent.mkdir(parents=True)
    wrong.write_text("0 .5 .5 1 1")
    dataset = read(root / "data.yaml", NAMES, "train: photos")
    assert len(dataset.samples[0].boxes) == 2


def test_label_files_that_are_there_twice_or_of_two_images_are_told(config, log):
    root = config.parent
    shutil.copy(root / "labels/train/a.txt", root / "images/train/a.txt")
    write_image(root / "images" / "train" / "a.jpg", (40, 60))
    read(config)
    twice, shared = log("WARNING")
    assert f"  - {root / 'images/train/a.txt'} is not read" in twice
    assert f"  - {root / 'labels/train/a.txt'}: 2 images" in shared


def test_images_without_label_files_are_counted(config, log):
    read(config)
    assert any("images without a label file (1)" in line for line in log("INFO"))


def test_another_order_of_the_same_classes_is_told(config, log):
    (config.parent / "labels" / "train" / "classes.txt").write_text("bee\r\nant\r\n")
    read(config)
    (warning,) = log("WARNING")
    assert "classes.txt: bee, ant" in warning
    (config.parent / "labels" / "train" / "classes.txt").write_text("ant\nbee\n")
    read(config)
    assert len(log("WARNING")) == 1


def test_repeats_are_read_once(config, log):
    (config.parent / "more.txt").write_text("images/train/b.png\n" * 2)
    assert names(read(config, NAMES, "train: [images/train, more.txt]")) == ["a", "b"]
    (warning,) = log("WARNING")
    assert "images named more than once (1)" in warning
    assert "images/train/b.png" in warning


@pytest.mark.parametrize(
    "line", ["../secret.png", "images/../../secret.png", "/etc/passwd.png", "..\\secret.png"]
)
def test_lists_do_not_lead_out_of_the_data_set(config, line):
    write_image(config.parent.parent / "secret.png")
    (config.parent / "list.txt").write_text(f"images/train/a.png\n{line}\n")
    config.write_text(f"{NAMES}\ntrain: list.txt")
    records = read_yolo(config, "train")
    assert [r.image.name for r in records.records] == ["a.png"]
    (problem,) = records.problems
    assert (problem.kind, problem.where) == (BAD_ENTRY, str(config.parent / "list.txt"))
    assert "leads out of" in problem.what
    with pytest.raises(DataError, match="1 entries of images cannot be used"):
        read(config)


def test_images_of_a_list_that_are_not_there(config):
    (config.parent / "list.txt").write_text("images/train/no.png\n")
    with pytest.raises(DataError, match=r"(?s)1 images that .*no\.png: named by data\.yaml/train"):
        read(config, NAMES, "train: list.txt")


# --------------------------------------------------------------------------------------- data.yaml


def test_names_may_be_a_mapping_and_nc_may_be_given(config):
    dataset = read(config, "names: {1: bee, 0: ant}", "nc: 2", "train: images/train")
    assert dataset.class_names == CLASSES


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["train: images/train"], "names is None"),
        (["names: ant", "train: images/train"], "names is 'ant'"),
        (["names: {0: ant, 2: bee}", "train: images/train"], "indices 0, 2: expected 0 to 1"),
        (["names: [ant, no]", "train: images/train"], "names holds False: put names into quotes"),
        ([NAMES, "nc: 3", "train: images/train"], "nc is 3, but names are 2"),
        ([NAMES, "val: images/train"], "names no images for train (it says None"),
        ([NAMES, "train: []"], "names no images for train"),
        ([NAMES, "train: [1]"], "names no images for train"),
        ([NAMES, "train: images/no"], "'images/no' is not there"),
        ([NAMES, "train: /no/such"], "'/no/such' is not there"),
        ([NAMES, "train: x/../../data"], "leads out of the data set's folder"),
        ([NAMES, "train: empty"], "holds no image"),
        ([NAMES, "train: empty.txt"], "names no image"),
        ([NAMES, "train: images/train/a.png"], "is not UTF-8 text"),
        ([NAMES, "train: images/train", "path: nowhere"], "is not there (path: nowhere)"),
        ([NAMES, "train: images/train", "path: 5"], "path is 5"),
        (["names: [ant"], "it is not YAML"),
        (["a: !!python/object/apply:os.getcwd []"], "is not YAML"),
        (["d: 2020-99-99"], "is not YAML"),
        (["[" * 5000], "nested deeper"),
        (["just text"], "is no mapping"),
    ],
)
def test_files_that_say_too_little(config, lines, words):
    (config.parent / "empty").mkdir()
    (config.parent / "empty.txt").write_text("\n")
    with pytest.raises(DataError) as error:
        read(config, *lines)
    assert words in str(error.value)


def test_a_class_named_twice(config):
    config.write_text("names: [ant, ant]\ntrain: images/train")
    (problem,) = read_yolo(config, "train").problems
    assert (problem.kind, problem.where) == (BAD_CLASS_LIST, f"{config}: names")
    with pytest.raises(DataError, match=r"'ant' \(2 times\)"):
        read(config)


def test_no_file_and_no_such_split(config):
    with pytest.raises(DataError, match=r"no\.yaml cannot be read"):
        YOLODataset(config.parent / "no.yaml", "train")
    with pytest.raises(DataError, match="expected one of train, val, test"):
        YOLODataset(config, "valid")


# ------------------------------------------------------------------------------- files left unread


def test_a_picture_of_another_format_that_has_labels_is_told(config, log):
    folder = config.parent / "images" / "train"
    (folder / "c.heic").write_bytes(b"ftypheic")
    (folder / "d.avif").write_bytes(b"ftypavif")  # background, if anything
    (config.parent / "labels" / "train" / "c.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    assert names(read(config)) == ["a", "b"]
    (warning,) = log("WARNING")
    assert "no images by their name (1). They are not read: save them as one of .jpg" in warning
    assert f"{folder / 'c.heic'}: its label file is" in warning
    assert "label files without an image" not in warning


@pytest.mark.parametrize(("count", "severity"), [(1, "note"), (2, "warning")])
def test_labels_without_an_image_are_told(config, count, severity):
    labels = config.parent / "labels" / "train"
    for number in range(count):
        (labels / f"gone{number}.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (labels / "classes.txt").write_text("ant\nbee\n")
    remarks = read_yolo(config, "train").remarks
    (remark,) = (remark for remark in remarks if remark.title == "label files without an image")
    assert remark.severity == severity
    assert remark.cases == tuple(str(labels / f"gone{number}.txt") for number in range(count))


def test_other_files_beside_images_and_labels_are_let_be(config):
    folder = config.parent / "images" / "train"
    shutil.copytree(config.parent / "labels" / "train", folder, dirs_exist_ok=True)
    shutil.rmtree(config.parent / "labels")
    for name in ("README.txt", "classes.txt", "a.json", "a.xml", ".DS_Store"):
        (folder / name).write_text("{}")
    assert not [remark for remark in read_yolo(config, "train").remarks if "read" in remark.advice]
