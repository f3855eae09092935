from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.data.helpers import Picture, coco_json, write_coco, write_image
from yolox.data import COCODataset, DataError, build_samples, read_coco, resolve_class_list
from yolox.data.datasets import coco_content
from yolox.data.datasets.records import BAD_ANNOTATION, BAD_CLASS_LIST, BAD_ENTRY

CLASSES = ("ant", "bee")
PICTURES = (
    Picture("a", (40, 60), [("bee", (10, 5, 30, 25), 0), ("ant", (0, 0, 60, 40), 1)]),
    Picture("b", (30, 20), []),
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_coco(tmp_path / "data", PICTURES, CLASSES)


def read(root: Path, **kwargs) -> COCODataset:
    return COCODataset(root, "train.json", "train", **kwargs)


def rewrite(root: Path, change) -> None:
    """Apply ``change`` to the content of the JSON file."""
    path = root / "annotations" / "train.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def problems(root: Path) -> list[tuple[str, str, str]]:
    found = read_coco(root, "train.json", "train").problems
    return [(p.kind, p.where.rpartition("/")[2], p.what) for p in found]


def test_ids_boxes_and_classes(root):
    dataset = read(root)
    first, second = dataset.samples
    assert dataset.class_names == CLASSES
    assert dataset.class_ids == [3, 6]
    assert (first.image_id, first.height, first.width) == (10, 40, 60)
    np.testing.assert_array_equal(first.boxes, [[10, 5, 30, 25], [0, 0, 60, 40]])
    assert first.classes.tolist() == [1, 0]
    assert (second.image_id, len(second.boxes), second.path.name) == (20, 0, "b.png")
    assert dataset.pull_item(1)[3].tolist() == [20]


def test_crowds_are_evaluated_as_such_and_not_trained_on(root):
    dataset = read(root)
    assert dataset.samples[0].difficult.tolist() == [False, True]
    np.testing.assert_array_equal(dataset.labels(0), [[10, 5, 30, 25, 1]])


def test_a_class_list_chooses_the_indices_and_keeps_the_category_ids(root):
    dataset = read(root, classes=["cat", "bee", "ant"])
    assert dataset.class_ids == [-1, 6, 3]
    assert dataset.samples[0].classes.tolist() == [1, 2]
    assert pickle.loads(pickle.dumps(dataset)).class_ids == [-1, 6, 3]
    with pytest.raises(DataError, match="'ant': 1 objects"):
        read(root, classes=["bee"])


def test_positions_and_the_default_folder(root, monkeypatch):
    monkeypatch.setenv("YOLOX_DATADIR", str(root.parent))
    root.rename(root.parent / "COCO")
    dataset = COCODataset(None, "train.json", "train", (32, 64), None, True, "ram")
    assert dataset.img_size == (32, 64)
    assert dataset.data_dir == root.parent / "COCO"


def test_test_images_need_no_annotations(root):
    rewrite(root, lambda content: content.pop("annotations"))
    dataset = read(root)
    assert [len(s.boxes) for s in dataset.samples] == [0, 0]
    assert dataset.class_ids == [3, 6]


@pytest.mark.parametrize("folder", ["train", "images/train", "images", "."])
def test_where_images_are_looked_for(root, folder):
    (root / "train").rename(root / "elsewhere")
    (root / folder).mkdir(parents=True, exist_ok=True)
    for image in (root / "elsewhere").iterdir():
        image.rename(root / folder / image.name)
    assert [s.path.parent for s in read(root).samples] == [root / folder] * 2


def test_images_that_are_nowhere_and_images_that_are_partly_there(root):
    (root / "train" / "b.png").unlink()
    with pytest.raises(DataError, match="1 images that the data names are not there"):
        read(root)
    (root / "train" / "a.png").unlink()
    with pytest.raises(DataError) as error:
        read(root)
    text = str(error.value)
    assert "none of the 2 images, the first of which is a.png, is there" in text
    for folder in ("train", "images/train", "images"):
        assert f"- {root / folder}\n" in text


def test_names_may_be_paths_with_either_slash(root):
    (root / "train" / "sub").mkdir()
    (root / "train" / "b.png").rename(root / "train" / "sub" / "b.png")
    rewrite(root, lambda content: content["images"][1].update(file_name="sub\\b.png"))
    assert read(root).samples[1].path == root / "train" / "sub" / "b.png"
    assert read(root).records.records[1].name == "sub/b.png"


@pytest.mark.parametrize(
    ("flags", "ignored"),
    [
        ({"iscrowd": "0"}, False),
        ({"iscrowd": "false"}, False),
        ({"iscrowd": None}, False),
        ({"iscrowd": False, "ignore": "0"}, False),
        ({"iscrowd": "1"}, True),
        ({"iscrowd": 1.0}, True),
        ({"iscrowd": True}, True),
        ({"iscrowd": 0, "ignore": 1}, True),
        ({"iscrowd": 0, "ignore": "True"}, True),
    ],
)
def test_flags_may_be_text_numbers_and_bools(root, flags, ignored):
    rewrite(root, lambda content: content["annotations"][0].update(flags))
    assert read(root).samples[0].difficult.tolist() == [ignored, True]


def test_everything_may_be_text(root):
    expected = read(root)

    def to_text(value):
        if isinstance(value, dict):
            return {key: to_text(v) for key, v in value.items()}
        return [to_text(v) for v in value] if isinstance(value, list) else str(value)

    path = root / "annotations" / "train.json"
    path.write_text(json.dumps(to_text(json.loads(path.read_text()))))
    found = read(root)
    assert found.class_ids == expected.class_ids
    for a, b in zip(found.records.records, expected.records.records, strict=True):
        assert a == b


def test_an_object_without_bbox_has_that_of_its_segmentation(root, log):
    def change(content):
        first, second = content["annotations"]
        first.update(bbox=[], segmentation=[[10, 5, 30, 9, 12, 25]])
        del second["bbox"]
        second["segmentation"] = {"size": [40, 60], "counts": [0, 2400]}

    rewrite(root, change)
    np.testing.assert_array_equal(read(root).samples[0].boxes, [[10, 5, 30, 25], [0, 0, 60, 40]])
    assert any("objects without a bbox (2)" in line for line in log("INFO"))
    rewrite(root, lambda content: content["annotations"][1].update(segmentation=[[1, 2]]))
    assert "neither polygons nor a mask" in problems(root)[0][2]


def boxes_of(dataset: COCODataset) -> list[list[float]]:
    return [sample.boxes.tolist() for sample in dataset.samples]


def test_a_file_that_was_given_is_the_file_that_is_read(root, log, monkeypatch):
    """By its path from the data folder, from the current folder, and absolute."""
    other = root / "fixed" / "train.json"
    other.parent.mkdir()
    other.write_text((root / "annotations" / "train.json").read_text())
    rewrite(root, lambda content: content.update(annotations=[]))
    assert boxes_of(read(root)) == [[], []]
    for name in ("fixed/train.json", str(other), other):
        dataset = COCODataset(root, name, "train")
        assert [len(boxes) for boxes in boxes_of(dataset)] == [2, 0]
        assert dataset.records.title == "fixed/train.json"
    monkeypatch.chdir(root.parent)
    assert boxes_of(COCODataset(root, "data/fixed/train.json", "train"))[0]
    assert not any("could mean" in line for line in log("WARNING"))
    shutil.copy(other, root / "train.json")
    assert boxes_of(read(root)) == [[], []]
    assert f"  - {root / 'train.json'}" in log("WARNING")[-2]


@pytest.mark.parametrize(
    ("file_name", "json_name"),
    [("a.png", "train/_annotations.coco.json"), ("images/a.png", "train/result.json")],
)
def test_images_beside_their_file(root, file_name, json_name):
    """As Roboflow and Label Studio lay them out."""
    rewrite(root, lambda content: content["images"][0].update(file_name=file_name))
    (root / "annotations" / "train.json").rename(root / json_name)
    target = root / "train" / file_name
    target.parent.mkdir(exist_ok=True)
    (root / "train" / "a.png").rename(target)
    dataset = COCODataset(root, json_name, "train2017")
    assert dataset.samples[0].path == target
    assert dataset.samples[1].path == root / "train" / "b.png"


@pytest.mark.parametrize(
    "file_name",
    [
        "../../label-studio/data/media/upload/3/b.png",
        "C:\\media\\upload\\b.png",
        "/data/local-files/?d=pictures/b.png",
        "s3://bucket/some/b.png",
        "upload/b%2Epng",
    ],
)
def test_images_are_found_by_the_end_of_what_their_name_was(root, file_name, log):
    rewrite(root, lambda content: content["images"][1].update(file_name=file_name))
    assert read(root).samples[1].path == root / "train" / "b.png"
    assert any("by the end of their file_name (1)" in line for line in log("INFO"))


def test_an_end_that_two_images_share_is_neither_s(root):
    def change(content):
        content["images"] = [
            {"id": number, "file_name": f"/{place}/b.png"}
            for number, place in ((10, "x"), (20, "y"))
        ]

    rewrite(root, change)
    assert [what for _, _, what in problems(root)] == [
        "file_name '/x/b.png' leads out of the image folder",
        "file_name '/y/b.png' leads out of the image folder",
    ]


def test_the_folder_with_the_most_images_is_theirs_and_another_one_is_told(root, log):
    (root / "images").mkdir()
    shutil.copy(root / "train" / "a.png", root / "images")
    assert [s.path.parent.name for s in read(root).samples] == ["train", "train"]
    assert f"  - {root / 'images'}" in log("WARNING")[0]
    (root / "train" / "a.png").rename(root / "images" / "a.png")
    (root / "train" / "b.png").rename(root / "images" / "b.png")
    shutil.copy(root / "images" / "a.png", root / "train")
    assert [s.path.parent.name for s in read(root).samples] == ["images", "images"]


@pytest.mark.parametrize(
    ("boxes", "words"),
    [
        ([[10, 5, 58, 25], [30, 20, 60, 40]], "seem to be two corners"),
        ([[0.1, 0.2, 0.3, 0.4], [0, 0, 1, 1]], "seem to be in fractions"),
        ([[10, 5, 20, 25], [30, 10, 25, 25]], None),
        ([[0, 0, 60, 40]], None),
        ([[-5, 0, 75, 40]], None),
    ],
)
def test_boxes_in_another_unit_or_form_are_noticed(root, log, boxes, words):
    def change(content):
        content["annotations"] = [{"image_id": 10, "category_id": 3, "bbox": box} for box in boxes]

    rewrite(root, change)
    read(root)
    found = [line for line in log("WARNING") if "seem to be" in line]
    assert len(found) == (words is not None)
    assert words is None or words in found[0]


def test_percent_in_place_of_pixels_is_noticed(tmp_path, log):
    boxes = [("bee", (i, 10, i + 20, 90), 0) for i in range(20)]
    read(write_coco(tmp_path, [Picture("a", (300, 400), boxes)], CLASSES))
    assert "seem to be in percent" in log("WARNING")[0]


def test_a_data_folder_that_is_a_file_says_where_it_goes(root):
    with pytest.raises(DataError, match="set data_dir to its folder"):
        COCODataset(root / "annotations" / "train.json", "train.json", "train")


# --------------------------------------------------------------------------------- what is wrong


def test_missing_files_say_what_is_there(root, tmp_path):
    with pytest.raises(DataError, match=r"val\.json is not there\. JSON files there: train\.json"):
        COCODataset(root, "val.json", "train")
    with pytest.raises(DataError, match=r"Nor is the data folder"):
        COCODataset(tmp_path / "no", "val.json", "train")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is not JSON"),
        ("\ufeff[]", "holds a list"),
        ("[" * 100_000, "nested deeper"),
        ("{}", "'images': not there"),
        ('{"images": {}, "categories": []}', "'images': a dict"),
        ('{"images": [], "categories": []}', "names no image"),
        ('{"images": [1], "annotations": null}', "'annotations': a NoneType"),
    ],
)
def test_files_that_are_no_coco(root, text, words):
    (root / "annotations" / "train.json").write_text(text)
    with pytest.raises(DataError) as error:
        read(root)
    assert words in str(error.value)
    assert "train.json" in str(error.value)


BAD_OBJECTS = [
    ({"image_id": 99}, "image_id 99 is not among the images"),
    ({"image_id": [1]}, "image_id [1] is not among the images"),
    ({"category_id": 1}, "category_id 1 is not among the categories"),
    ({"category_id": None}, "category_id None is not among the categories"),
    ({"bbox": None}, "has no bbox"),
    ({"bbox": []}, "has no bbox"),
    ({"bbox": "1234"}, "not four finite numbers"),
    ({"bbox": [1, 2, 3, 4, 5]}, "not four finite numbers"),
    ({"bbox": [1, 2, 3, "x"]}, "not four finite numbers"),
    ({"bbox": [1, 2, 3, float("nan")]}, "not four finite numbers"),
    ({"bbox": [1, 2, 3, 10**400]}, "not four finite numbers"),
    ({"bbox": [1, 2, 3, True]}, "not four finite numbers"),
    ({"iscrowd": 2}, "iscrowd is '2': expected 0 or 1"),
    ({"ignore": "some"}, "ignore is 'some': expected 0 or 1"),
]


@pytest.mark.parametrize(("change", "words"), BAD_OBJECTS)
def test_annotations_that_cannot_be_used(root, change, words):
    rewrite(root, lambda content: content["annotations"][1].update(change))
    ((kind, where, what),) = problems(root)
    assert (kind, where) == (BAD_ANNOTATION, "train.json: annotations[1]")
    assert words in what
    first, _ = read_coco(root, "train.json", "train").records
    assert len(first.boxes) == (1 if "image_id" in change else 0)


def test_all_annotations_that_cannot_be_used_are_raised_at_once(root):
    bad = [change for change, _ in BAD_OBJECTS]
    rewrite(root, lambda content: content["annotations"].extend([1, *bad]))
    with pytest.raises(DataError) as error:
        read(root)
    assert str(error.value).startswith(f"{len(bad) + 1} annotations cannot be used")
    assert "annotations[2]: is not an object" in str(error.value)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"id": 10, "file_name": "c.png"}, "id 10 is that of another entry"),
        ({"id": 30, "file_name": "a.png"}, "'a.png' is that of another entry"),
        ({"id": 30, "file_name": "sub/../a.png"}, "'a.png' is that of another entry"),
        ({"id": "thirty", "file_name": "c.png"}, "id is 'thirty': expected a whole number"),
        ({"id": "10", "file_name": "c.png"}, "id 10 is that of another entry"),
        ({"id": 30.5, "file_name": "c.png"}, "id is 30.5: expected a whole number"),
        ({"id": True, "file_name": "c.png"}, "id is True"),
        ({"id": 2**63, "file_name": "c.png"}, "expected a whole number"),
        ({"id": 30}, "file_name is None"),
        ({"id": 30, "file_name": "../a.png"}, "leads out of the image folder"),
        ({"id": 30, "file_name": "/etc/passwd"}, "leads out of the image folder"),
        ({"id": 30, "file_name": "x/..\\..\\a.png"}, "leads out of the image folder"),
        ({"id": 30, "file_name": "\0"}, "leads out of the image folder"),
        ([], "is not an object"),
    ],
)
def test_entries_of_images_that_cannot_be_used(root, entry, words):
    rewrite(root, lambda content: content["images"].append(entry))
    ((kind, where, what),) = problems(root)
    assert (kind, where) == (BAD_ENTRY, "train.json: images[2]")
    assert words in what
    assert [r.image_id for r in read_coco(root, "train.json", "train").records] == [10, 20]
    with pytest.raises(DataError, match="1 entries of images cannot be used"):
        read(root)


def test_objects_of_an_entry_that_cannot_be_used_are_no_second_problem(root):
    rewrite(root, lambda content: content["images"][0].update(file_name="/c.png"))
    assert [kind for kind, _, _ in problems(root)] == [BAD_ENTRY]


@pytest.mark.parametrize(
    ("categories", "words"),
    [
        ([{"id": 3, "name": "ant"}, {"id": 3, "name": "bee"}], "id 3 is taken by 'ant'"),
        ([{"id": 3, "name": "ant"}, {"id": 6, "name": "ant "}], "'ant' (2 times)"),
        ([{"id": 3, "name": " "}], "categories[0]: expected a whole number as id, and a name"),
        ([5], "categories[0]: expected"),
        ([], "holds no class"),
    ],
)
def test_categories_that_make_no_class_list(root, categories, words):
    def change(content):
        content["categories"] = categories
        content["annotations"] = []

    rewrite(root, change)
    ((kind, _, what),) = problems(root)
    assert kind == BAD_CLASS_LIST
    assert words in what
    with pytest.raises(DataError, match="class lists cannot be used"):
        read(root)
    assert read(root, classes=["ant"]).class_names == ("ant",)


def test_a_size_that_is_not_the_image_s_is_told_and_odd_ones_pass(root, log):
    rewrite(root, lambda content: content["images"][0].update(height=60, width=40))
    assert read(root).samples[0].height == 40
    assert "a.png: (60, 40) in the annotation, (40, 60) in truth" in log("WARNING")[0]
    rewrite(root, lambda content: content["images"][0].update(height=None, width="x"))
    assert read(root).records.records[0].size is None


def test_a_hundred_thousand_boxes_read_whole(tmp_path):
    boxes = [("bee", (i % 50, 1, i % 50 + 5, 9), 0) for i in range(100_000)]
    content = coco_json([Picture("a", (40, 60), boxes)], CLASSES)
    write_image(tmp_path / "train" / "a.png")
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "train.json").write_text(json.dumps(content))
    records = read_coco(tmp_path, "train.json", "train")
    (sample,) = build_samples(records, resolve_class_list(records))
    assert sample.boxes.shape == (100_000, 4)
    assert sample.boxes[50_049].tolist() == [49, 1, 54, 9]


def test_faults_of_a_list_that_is_not_taken_and_copies_are_told(tmp_path, log):
    content = {
        "images": [{"id": 1, "file_name": "a.png"}],
        "categories": [{"id": 1, "name": "dog"}, {"id": 1, "name": "cat"}],
        "annotations": [
            {"id": n, "image_id": 1, "category_id": 1, "bbox": [1, 1, 8, 8]} for n in (1, 2)
        ],
    }
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "a.json").write_text(json.dumps(content))
    write_image(tmp_path / "val" / "a.png")
    data = COCODataset(data_dir=tmp_path, json_file="a.json", name="val", classes=("dog",))
    assert len(data.samples[0].boxes) == 2
    told = "\n".join(log("WARNING"))
    assert "the id 1 is taken by 'dog'" in told
    assert "objects that are there twice" in told


@pytest.fixture
def cached(monkeypatch, tmp_path) -> Path:
    """The folder of what was read of large files, which all are here."""
    monkeypatch.setenv("YOLOX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(coco_content, "LARGE_FILE", 1)
    return tmp_path / "cache" / "annotations"


def streamed(monkeypatch) -> list[Path]:
    """The files that are read from now on."""
    read, files = coco_content.stream_content, []
    monkeypatch.setattr(coco_content, "stream_content", lambda p: (files.append(p), read(p))[1])
    return files


def test_a_large_file_is_read_once_until_it_changes(root, cached, monkeypatch, log):
    files = streamed(monkeypatch)
    first, second = read(root), read(root)
    assert len(files) == 1
    assert first.records.records == second.records.records
    assert first.class_ids == second.class_ids
    assert first.samples[0].boxes.tolist() == second.samples[0].boxes.tolist()
    assert any("are those read before" in line for line in log("INFO"))
    rewrite(root, lambda content: content["annotations"].pop())
    assert len(read(root).samples[0].boxes) == 1
    assert len(files) == 2


def test_what_was_read_is_not_believed_where_it_is_damaged(root, cached, monkeypatch):
    read(root)
    (kept,) = cached.glob("*.pt")
    kept.write_bytes(kept.read_bytes()[:200])
    files = streamed(monkeypatch)
    assert len(read(root).samples) == 2
    assert len(files) == 1


def test_a_file_with_faults_is_read_again(root, cached):
    rewrite(root, lambda content: content["annotations"][0].update(bbox=[1]))
    assert problems(root) == problems(root) != []
    assert not list(cached.glob("*.pt"))


def test_without_a_cache_folder_it_is_read_each_time(root, cached, monkeypatch):
    cached.parent.write_text("no folder")
    files = streamed(monkeypatch)
    assert len(read(root).samples) == len(read(root).samples) == 2
    assert len(files) == 2


def test_objects_come_in_the_order_of_the_file_however_they_are_written(root):
    def mixed(content):
        content["annotations"] = [
            {"image_id": image, "category_id": 6, "bbox": [i, 0, 5, 5]}
            for i, image in enumerate([10, "10", 20, 10.0, 10])
        ]

    rewrite(root, mixed)
    first, second = read(root).samples
    assert first.boxes[:, 0].tolist() == [0, 1, 3, 4]
    assert second.boxes[:, 0].tolist() == [2]


def test_sides_and_numbers_beyond_any_array_are_no_crash(root):
    def huge(content):
        content["images"][0].update(height=1e300)
        content["annotations"][0].update(bbox=[10**400, 0, 1, 1])
        content["annotations"][1].update(image_id=2**70)

    rewrite(root, huge)
    assert [kind for kind, _, _ in problems(root)] == [BAD_ANNOTATION] * 2
