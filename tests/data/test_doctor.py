"""The data doctor: every finding on records made by hand, files broken by hand."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.helpers import VocTree
from yolox.data import COCO_CLASSES, VOC_CLASSES, DataError
from yolox.data.datasets.records import (
    BAD_ANNOTATION,
    BAD_CLASS_LIST,
    Problem,
    Record,
    RecordSet,
    remark,
)
from yolox.data.doctor import (
    Finding,
    ImageFacts,
    Report,
    check,
    find_splits,
    inspect_image,
    inspect_images,
    quick_check,
)
from yolox.data.doctor.spelling import alike, nearest, pairs_alike

Box = tuple[float, float, float, float]
BOX: Box = (10, 10, 30, 30)
SIZE = (100, 200)


def record(name: str, *objects: tuple[str, Box], **fields: object) -> Record:
    fields = {"size": SIZE, "image": Path(f"/data/{name}.jpg"), **fields}
    names, boxes = tuple(n for n, _ in objects), tuple(b for _, b in objects)
    difficult = (False,) * len(names)
    return Record(
        name=name, source=Path("x"), names=names, boxes=boxes, difficult=difficult, **fields
    )


def records(*rows: Record, title: str = "some", **fields: object) -> RecordSet:
    return RecordSet(title=title, records=rows, **{"classes": None, **fields})


def examined(*rows: Record, classes: tuple[str, ...] | None = None, **kwargs: object) -> Report:
    return check({"train": records(*rows)}, classes, (50, 50), **kwargs)


def found(report: Report, words: str) -> Finding:
    (finding,) = [f for f in report.findings if words in f.title]
    return finding


def titles(report: Report) -> list[str]:
    return [f.title for f in report.findings]


# ----------------------------------------------------------------------------------------- spelling


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ("Small-Vehicle", "small vehicle ", True),
        ("small_vehicle", "SMALLVEHICLE", True),
        ("truck", "trucks", True),
        ("truck", "truk", True),
        ("truck", "trunk", True),
        ("truck", "trrukc", False),
        ("car", "cat", False),
        ("cars", "car", False),
        ("type 1", "type 2", False),
        ("type 1", "type 12", False),
        ("plane", "planets", False),
        ("abcde", "bcdef", False),
    ],
)
def test_class_names_that_are_alike(a: str, b: str, same: bool) -> None:
    assert alike(a, b) is same
    assert alike(b, a) is same


@given(st.lists(st.text("abA -1", max_size=7), max_size=12))
def test_pairs_alike_are_those_of_comparing_all(names: list[str]) -> None:
    every = combinations(sorted(set(names)), 2)
    assert pairs_alike(names) == [pair for pair in every if alike(*pair)]


def test_published_class_lists_have_no_pairs() -> None:
    assert pairs_alike(COCO_CLASSES) == []
    assert pairs_alike(VOC_CLASSES) == []


def test_nearest_prefers_the_same_folded() -> None:
    assert nearest("Trucks", ["truck", "trucks"]) == "trucks"
    assert nearest("Trucks", ["truck", "car"]) == "truck"
    assert nearest("boat", ["truck", "car"]) is None


# ------------------------------------------------------------------------------------------- labels


def test_class_not_in_the_list_is_an_error_with_counts_and_the_nearest() -> None:
    report = examined(
        record("a", ("dog", BOX), ("Small-Vehicle", BOX), ("Small-Vehicle", (0, 0, 5, 5))),
        classes=("dog", "small vehicle"),
    )
    finding = found(report, "not in the class list")
    assert finding.severity == "error"
    assert finding.examples == ("'Small-Vehicle': 2 objects in train; meant 'small vehicle'?",)
    assert "[dog, small vehicle]" in finding.advice
    assert found(report, "without any object").examples == ("'small vehicle'",)
    assert list(report.splits["train"].classes) == ["dog", "small vehicle", "Small-Vehicle"]


def test_list_is_the_given_one_then_the_stated_then_what_is_found() -> None:
    split = {"train": records(record("a", ("dog", BOX)), classes=("cat", "dog"))}
    assert check(split, None, (50, 50)).classes == ("cat", "dog")
    assert check(split, ("dog",), (50, 50)).classes == ("dog",)
    assert examined(record("a", ("dog", BOX), ("cat", BOX))).classes == ("cat", "dog")


def test_names_spelled_alike() -> None:
    rows = [record("a", ("truck", BOX), ("Truck", BOX)), record("b", ("trucks", BOX))]
    finding = found(examined(*rows), "spelled alike")
    assert finding.severity == "warning"
    assert finding.count == 3
    assert "'Truck' (1) and 'truck' (1)" in finding.examples
    report = examined(*rows, classes=("Truck", "truck", "trucks"))
    doubtful, meant = [f for f in report.findings if "spelled alike" in f.title]
    assert (doubtful.severity, doubtful.examples) == ("warning", ("'Truck' (1) and 'truck' (1)",))
    assert (meant.severity, meant.count) == ("note", 2)


def test_classes_that_a_split_lacks() -> None:
    splits = {
        "train": records(record("a", ("dog", BOX), ("cat", BOX))),
        "val": records(record("b", ("dog", BOX), ("cow", BOX))),
    }
    report = check(splits, ("dog", "cat", "cow", "emu"), (50, 50))
    assert found(report, "without objects in train").examples == ("'cow'",)
    assert found(report, "without objects to evaluate on").examples == ("'cat' in val",)
    assert found(report, "without any object").examples == ("'emu'",)
    assert {f.severity for f in report.findings} == {"warning"}


def test_imbalance_is_less_than_a_twentieth() -> None:
    rows = [record(f"i{n}", ("dog", BOX)) for n in range(21)]
    report = examined(*rows, record("c", ("cat", BOX)))
    assert found(report, "1/20").examples == ("'cat': 1, 'dog': 21",)
    assert titles(examined(*rows[:20], record("c", ("cat", BOX)))) == []


# -------------------------------------------------------------------------------------------- boxes


def test_each_fault_of_a_box_once() -> None:
    boxes = {
        "boxes without area": [(10, 10, 10, 20), (30, 10, 20, 20)],
        "wholly outside": [(200, 10, 220, 30), (-9, -9, -1, 0)],
        "more than 2 pixels over": [(-3, 10, 30, 30), (10, 10, 203, 30)],
        "up to 2 pixels over": [(-1, 10, 30, 31), (10, 10, 202, 30)],
        "a side of less than 2 pixels at 50×50": [(50, 50, 57.9, 80)],
        "there twice": [(70, 50, 90, 80)],
        "times as long": [(0, 90, 190, 99)],
    }
    fine = [(0, 0, 200, 100), (-0.4, 0, 40, 40), (50, 50, 58, 80), (70, 50, 90, 80)]
    every = [*fine, *(box for cases in boxes.values() for box in cases)]
    report = examined(record("a", *(("dog", box) for box in every)))
    counts = {words: len(cases) for words, cases in boxes.items()}
    assert {words: found(report, words).count for words in counts} == counts
    assert len(report.findings) == len(boxes)
    first = found(report, "without area")
    assert first.examples[0] == "a, object 5: dog (10, 10, 10, 20)"
    assert first.severity == "warning"
    assert {f.severity for f in report.findings if "up to" in f.title or "long" in f.title} == {
        "note"
    }


def test_messages_count_pixels_as_the_files_do() -> None:
    split = records(record("a", ("dog", (10, 10, 10, 20))), first_pixel=1)
    report = check({"train": split}, None, (50, 50))
    assert found(report, "area").examples == ("a, object 1: dog (11, 11, 11, 21)",)


def test_copy_needs_class_image_and_corners() -> None:
    report = examined(
        record("a", ("dog", BOX), ("dog", BOX), ("cat", BOX), ("dog", BOX)),
        record("b", ("dog", BOX)),
    )
    finding = found(report, "twice")
    assert finding.count == 2
    assert finding.examples[0].startswith("a, object 2: dog")
    assert finding.examples[1].startswith("a, object 4: dog")


def test_fractions_are_of_the_file_else_of_the_annotation() -> None:
    row = record("a", ("dog", (0.5, 0.5, 0.75, 1.0)), relative=True)
    sizes = examined(row).splits["train"].classes["dog"].sizes
    assert sizes == pytest.approx([np.sqrt(50 * 50) / 4] * 5)
    facts = {row.image: ImageFacts(size=(50, 50), digest="d")}
    sizes = examined(row, facts=facts).splits["train"].classes["dog"].sizes
    assert sizes == pytest.approx([np.sqrt(12.5 * 25)] * 5, abs=0.01)
    unknown = record("a", ("dog", (0.5, 0.5, 0.75, 1.0)), relative=True, size=None)
    report = examined(unknown)
    assert report.splits["train"].classes["dog"].sizes == ()
    assert titles(report) == []


def test_figures_of_a_split() -> None:
    report = check(
        {
            "train": records(
                record("a", ("dog", (0, 0, 200, 100)), ("dog", (-20, 0, 20, 20))),
                record("b", ("dog", (5, 5, 5, 9)), ("cat", BOX)),
                record("c"),
            )
        },
        None,
        (400, 400),
    )
    stats = report.splits["train"]
    assert (stats.title, stats.images, stats.without_objects, stats.objects) == ("some", 3, 1, 4)
    dog, cat = stats.classes["dog"], stats.classes["cat"]
    assert (dog.objects, dog.images, dog.scales) == (3, 2, (0, 1, 1))
    # at twice the size: 40 × 40 pixels of the clipped box, and the whole of 400 × 200
    small, large = 40, np.sqrt(400 * 200)
    expected = [small + q * (large - small) for q in (0.05, 0.25, 0.5, 0.75, 0.95)]
    assert dog.sizes == pytest.approx(expected, abs=0.01)
    assert (cat.objects, cat.scales) == (1, (0, 1, 0))
    assert found(report, "images without objects").examples == ("c",)


# -------------------------------------------------------------------------------------------- files


def jpeg(progressive: int = 0) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (64, 48, 3), dtype=np.uint8)
    return cv2.imencode(".jpg", noise, [cv2.IMWRITE_JPEG_PROGRESSIVE, progressive])[1].tobytes()


def png() -> bytes:
    return cv2.imencode(".png", np.zeros((64, 48, 3), np.uint8))[1].tobytes()


@pytest.mark.parametrize(
    ("data", "flaw"),
    [
        (b"", "empty"),
        (b"no image", "undecodable"),
        (jpeg()[:100], "truncated"),
        (png()[:-20], "truncated"),
        (None, "missing"),
    ],
)
def test_files_without_pixels(data: bytes | None, flaw: str, tmp_path: Path) -> None:
    path = tmp_path / "a.img"
    if data is not None:
        path.write_bytes(data)
    assert inspect_image(path) == ImageFacts(flaw=flaw)
    report = examined(record("a", ("dog", BOX), image=path), facts=inspect_images([path]))
    (finding,) = [f for f in report.findings if f.severity == "error"]
    assert finding.examples == (str(path),)
    assert report.failed()


def test_a_folder_in_an_image_s_place_cannot_be_read(tmp_path: Path) -> None:
    assert inspect_image(tmp_path).flaw == "unreadable"


@pytest.mark.parametrize("data", [jpeg(), jpeg(progressive=1), png()])
def test_whole_files(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(data)
    (tmp_path / "b").write_bytes(data)
    facts = inspect_images([tmp_path / "a", tmp_path / "b", tmp_path / "a"], workers=2)
    assert list(facts) == [tmp_path / "a", tmp_path / "b"]
    assert facts[tmp_path / "a"] == facts[tmp_path / "b"]
    assert facts[tmp_path / "a"].size == (64, 48)
    assert facts[tmp_path / "a"].complete
    assert facts[tmp_path / "a"].grey == 0


def test_jpeg_whose_lower_part_is_lost_but_ends_well(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg()[: len(jpeg()) * 2 // 3] + b"\xff\xd9")
    facts = inspect_image(path)
    assert (facts.flaw, facts.complete) == (None, True)
    assert 0.1 < facts.grey < 0.5
    report = examined(record("a", ("dog", BOX), image=path), facts={path: facts})
    finding = found(report, "lower part is missing")
    assert finding.severity == "error"
    assert finding.examples == (f"{path}: {facts.grey:.0%} grey",)


def test_truncated_jpegs_are_decoded_and_named(tmp_path: Path) -> None:
    paths = {cut: tmp_path / f"{cut}.jpg" for cut in (2, len(jpeg()) // 2)}
    for cut, path in paths.items():
        path.write_bytes(jpeg()[:-cut])
    facts = inspect_images(paths.values())
    assert all(entry.size == (64, 48) and not entry.complete for entry in facts.values())
    rows = [record(path.stem, ("dog", BOX), image=path) for path in facts]
    report = examined(*rows, facts=facts)
    little, half = paths.values()
    assert found(report, "truncated").examples == (str(little),)
    (example,) = found(report, "lower part is missing").examples
    assert example.startswith(str(half))
    assert example.endswith("grey, truncated")


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize(("bits", "dark"), [(10, True), (12, True), (15, False), (16, False)])
def test_pictures_that_use_the_lower_bits_alone(
    suffix: str, bits: int, dark: bool, tmp_path: Path
) -> None:
    path = tmp_path / f"a{suffix}"
    img = np.random.default_rng(0).integers(1 << (bits - 1), 1 << bits, (64, 48, 4))
    img[..., 3] = 65535  # the alpha channel says nothing of the pixels
    assert cv2.imwrite(str(path), img.astype(np.uint16))
    facts = inspect_images([path])
    assert facts[path].bits == bits
    report = examined(record("a", ("dog", BOX), image=path), facts=facts)
    findings = [f for f in report.findings if "nearly black" in f.title]
    assert [f.examples for f in findings] == [(f"{path}: {bits} bits of 16",)] * dark


def test_pictures_that_are_refused_for_their_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png())
    monkeypatch.setenv("YOLOX_MAX_IMAGE_PIXELS", "3071")
    report = examined(record("a", ("dog", BOX), image=path), facts=inspect_images([path]))
    (example,) = found(report, "more pixels").examples
    assert example.startswith(f"{path} claims 64 × 48")
    assert "YOLOX_MAX_IMAGE_PIXELS=3072" in example


def test_thumbnail_s_end_mark_is_not_the_picture_s(tmp_path: Path) -> None:
    thumbnail = cv2.imencode(".jpg", np.zeros((16, 16, 3), np.uint8))[1].tobytes()
    block = b"Exif\0\0" + thumbnail
    app1 = b"\xff\xe1" + (len(block) + 2).to_bytes(2, "big") + block
    whole = jpeg()[:2] + app1 + jpeg()[2:]
    (tmp_path / "a.jpg").write_bytes(whole)
    assert inspect_image(tmp_path / "a.jpg").complete
    (tmp_path / "a.jpg").write_bytes(whole[:-2])
    facts = inspect_image(tmp_path / "a.jpg")
    assert facts.flaw == "truncated" or not facts.complete


@pytest.mark.parametrize(("size", "turned"), [((48, 64), True), ((64, 50), False)])
def test_another_size_than_annotated(size: tuple[int, int], turned: bool, tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg())
    row = record("a", ("dog", (1, 1, 9, 9)), image=path, size=size)
    finding = found(examined(row, facts=inspect_images([path])), "another size")
    assert finding.severity == "warning"
    (example,) = finding.examples
    assert f"{size[0]}×{size[1]} in the annotation, 64×48 in truth" in example
    assert ("EXIF" in example) is turned


def test_decoding_gives_opencv_its_threads_back(tmp_path: Path) -> None:
    before = cv2.getNumThreads()
    inspect_images([tmp_path / "none"])
    assert cv2.getNumThreads() == before


# ------------------------------------------------------------------------------------------- copies


def test_same_bytes_in_two_splits_and_twice_in_one() -> None:
    rows = [record(name, ("dog", BOX)) for name in "abcd"]
    facts = {
        row.image: ImageFacts(size=SIZE, digest=digest)
        for row, digest in zip(rows, "1121", strict=True)
    }
    splits = {"train": records(*rows[:2]), "val": records(*rows[2:])}
    report = check(splits, None, (50, 50), facts)
    shared = found(report, "more than one split")
    assert shared.severity == "error"
    assert shared.examples == ("a in train = d in val",)
    repeated = found(report, "in a split again")
    assert repeated.examples == ("b = a in train",)
    assert check(splits, None, (50, 50)).findings == ()  # by name alone all differ


def test_copies_annotated_differently_are_told() -> None:
    rows = [record("a", ("dog", BOX)), record("b", ("cat", BOX))]
    facts = {row.image: ImageFacts(size=SIZE, digest="1") for row in rows}
    finding = found(examined(*rows, facts=facts), "again")
    assert finding.examples == ("b = a in train, annotated differently",)


def test_broken_images_are_not_copies_of_one_another() -> None:
    rows = [record("a", ("dog", BOX)), record("b", ("dog", BOX))]
    facts = {row.image: ImageFacts(flaw="empty") for row in rows}
    assert titles(examined(*rows, facts=facts)) == ["image files of 0 bytes"]


# ------------------------------------------------------------------------------------------- report


def test_problems_of_the_readers_are_errors_by_kind() -> None:
    problems = [
        Problem(kind=BAD_ANNOTATION, where=f"{n:02d}.xml", what="broken") for n in range(12)
    ]
    problems.append(Problem(kind=BAD_CLASS_LIST, where="classes.txt", what="empty"))
    split = {"train": records(record("a", ("dog", BOX)), problems=tuple(problems))}
    report = check(split, None, (50, 50))
    finding = found(report, "annotations that cannot be used")
    assert (finding.severity, finding.count, len(finding.examples)) == ("error", 12, 10)
    assert finding.examples[0] == "00.xml: broken"
    assert found(report, "class lists").severity == "error"
    assert found(check(split, ("dog",), (50, 50)), "class lists").severity == "note"


def test_split_without_objects() -> None:
    report = check({"train": records(record("a", ("dog", BOX))), "val": records()}, None, (50, 50))
    assert found(report, "splits without any object").examples == ("val",)
    assert report.splits["val"].images == 0
    assert len(report.tables()) == 2
    with pytest.raises(ValueError, match="no split"):
        check({}, None, (50, 50))


def test_errors_come_first_and_decide() -> None:
    row = record("a", ("dog", BOX), ("dog", BOX))
    report = examined(row, record("b"), classes=("cat",))
    assert [f.severity for f in report.findings] == ["error", "warning", "warning", "note"]
    assert report.summary() == "1 error, 2 warnings, 1 note"
    assert report.failed()
    report = examined(row, record("b"))
    assert not report.failed()
    assert report.failed(strict=True)
    assert not examined(record("a", ("dog", BOX)), record("b")).failed(strict=True)


def test_report_as_json() -> None:
    report = examined(record("a", ("dog", BOX), ("dog", BOX)))
    content = json.loads(json.dumps(report.to_dict()))
    assert content["splits"]["train"]["classes"]["dog"]["objects"] == 2
    (finding,) = content["findings"]
    assert finding["severity"] == "warning"
    assert (finding["count"], finding["splits"]) == (1, {"train": 1})


def test_quick_check_is_errors_and_warnings_in_a_line_each() -> None:
    shared = record("a", ("truck", BOX), ("Truck", BOX))
    splits = {
        "train": records(shared, record("n"), *(record(f"r{n}", ("cow", BOX)) for n in range(4))),
        "val": records(shared, record("b", ("truck", (0, 0, 0, 0)))),
    }
    lines = quick_check(splits, ("truck", "Truck", "emu"))
    assert all("\n" not in line for line in lines)
    assert lines[0].startswith("classes of the annotations that are not in the class list: 1")
    assert "'cow': 4 objects in train" in lines[0]
    assert "a in train = a in val" in lines[1]
    assert len(lines) == 4
    assert "without any object: 1: 'emu'" in lines[2]
    assert "'Truck' (2) and 'truck' (3)" in lines[3]
    assert quick_check({"train": records(record("a", ("dog", BOX)), record("b"))}) == []


def test_line_shows_three_examples() -> None:
    rows = [record(f"i{n}", ("dog", BOX), ("dog", BOX)) for n in range(5)]
    line = found(examined(*rows), "twice").line()
    assert "i2, object 2" in line
    assert "i3" not in line
    assert "; …. Each counts" in line


# --------------------------------------------------------------------------------------- data found


def test_voc_splits_without_those_made_of_others(tmp_path: Path) -> None:
    tree = VocTree(tmp_path)
    for name in "abc":
        tree.add(name, [("dog", (5, 5, 20, 20), 0)])
    for split, names in {"val": "b", "train": "a", "trainval": "ab", "dog_train": "a"}.items():
        tree.split(split, *names)
    for path in (tmp_path, tree.devkit, tree.voc):
        assert list(find_splits(path)) == ["train", "val"]
    tree.split("test", "c")
    (tree.voc / "ImageSets/Main/val.txt").unlink()
    found_splits = find_splits(tmp_path)
    assert list(found_splits) == ["train", "trainval", "test"]
    assert [r.name for r in found_splits["test"].records] == ["c"]


def test_voc_split_with_nothing_to_name(tmp_path: Path) -> None:
    tree = VocTree(tmp_path)
    with pytest.raises(DataError, match=r"no split in .*trainval\.txt"):
        find_splits(tree.devkit)


def test_coco_files_are_splits(tmp_path: Path) -> None:
    for name in ("train2017", "val2017"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.jpg").write_bytes(jpeg())
        content = {
            "images": [{"id": 1, "file_name": "a.jpg", "height": 64, "width": 48}],
            "categories": [{"id": 3, "name": "dog"}],
            "annotations": [{"id": 1, "image_id": 1, "category_id": 3, "bbox": [1, 2, 3, 4]}],
        }
        path = tmp_path / "annotations" / f"instances_{name}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content))
    (tmp_path / "annotations" / "captions_val2017.json").write_text("{}")
    splits = find_splits(tmp_path)
    assert list(splits) == ["train2017", "val2017"]
    assert splits["val2017"].records[0].boxes == ((1, 2, 4, 6),)
    assert list(find_splits(path)) == ["val2017"]
    facts = inspect_images([r.image for s in splits.values() for r in s.records])
    assert "more than one split" in check(splits, None, (64, 64), facts).findings[0].title


def test_yolo_splits_are_those_of_the_yaml(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for kind in ("images", "labels"):
            (tmp_path / kind / split).mkdir(parents=True)
        (tmp_path / "images" / split / "a.jpg").write_bytes(jpeg())
        (tmp_path / "labels" / split / "a.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    data = tmp_path / "data.yaml"
    data.write_text("val: images/val\ntrain: images/train\ntest:\nnames: [dog]\n")
    for path in (tmp_path, data):
        splits = find_splits(path)
        assert list(splits) == ["train", "val"]
        assert splits["val"].records[0].names == ("dog",)
    data.write_text("names: [dog]\n")
    with pytest.raises(DataError, match="train"):
        find_splits(data)


def coco_file(path: Path, *objects: dict[str, object]) -> Path:
    """A COCO file with one image, a.jpg, of 48 × 64 pixels, beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    (path.parent / "a.jpg").write_bytes(jpeg())
    one = {"image_id": 1, "category_id": 3, "bbox": [1, 2, 30, 40]}
    content = {
        "images": [{"id": 1, "file_name": "a.jpg"}],
        "categories": [{"id": 3, "name": "dog"}],
        "annotations": [{**one, **fields} for fields in objects],
    }
    path.write_text(json.dumps(content))
    return path


def test_the_json_file_that_was_given_is_read(tmp_path: Path) -> None:
    coco_file(tmp_path / "annotations" / "train.json")
    fixed = coco_file(tmp_path / "fixed" / "train.json", {}, {})
    ((name, split),) = find_splits(fixed).items()
    assert (name, split.records[0].source) == ("train", fixed)
    assert len(split.records[0].boxes) == 2


def test_splits_of_coco_are_named_one_way_or_another(tmp_path: Path) -> None:
    folder = tmp_path / "annotations"
    for name in ("instances_train", "val", "person_keypoints_train", "stuff_val"):
        coco_file(folder / f"{name}.json")
    (tmp_path / "a.jpg").write_bytes(jpeg())
    assert list(find_splits(tmp_path)) == ["train", "val"]
    coco_file(folder / "train.json")
    both = rf"{folder / 'instances_train.json'} and {folder / 'train.json'} both are the split"
    with pytest.raises(DataError, match=f"{both} train"):
        find_splits(tmp_path)


def test_exports_with_the_json_beside_the_images(tmp_path: Path) -> None:
    for split in ("train", "valid", "test"):
        coco_file(tmp_path / split / "_annotations.coco.json", {})
    assert list(find_splits(tmp_path)) == ["train", "valid", "test"]
    assert list(find_splits(tmp_path / "valid")) == ["valid"]
    coco_file(tmp_path / "studio" / "result.json", {})
    (tmp_path / "studio" / "notes.json").write_text("{}")
    assert list(find_splits(tmp_path / "studio")) == ["studio"]


def test_a_voc_folder_without_year(tmp_path: Path) -> None:
    tree = VocTree(tmp_path)
    tree.add("a", [("dog", (5, 5, 20, 20), 0)])
    for split in ("default", "dog_default"):
        tree.split(split, "a")
    export = tree.voc.rename(tmp_path / "export")
    splits = find_splits(export)
    assert list(splits) == ["default"]
    assert splits["default"].title == "export/default"


def test_objects_that_are_all_left_out(tmp_path: Path) -> None:
    bare = {"bbox": [1, 1, 0, 5]}
    path = coco_file(tmp_path / "train.json", {"iscrowd": 1}, {"ignore": "1"}, bare)
    report = check(find_splits(path), None, (64, 64))
    finding = found(report, "all left out")
    assert finding.severity == "error"
    assert "3 objects, of which 2 are crowds or to be ignored and 1 have no area" in str(finding)
    coco_file(path, {"iscrowd": 1}, {})
    assert "all left out" not in str(titles(check(find_splits(path), None, (64, 64))))


def test_remarks_of_the_readers_and_on_boxes_are_findings() -> None:
    remarks = remark("warning", "odd things", ["one", "two"], "Look.")
    split = records(record("a", ("dog", (0.1, 0.2, 0.5, 0.9))), remarks=tuple(remarks))
    report = check({"train": split, "val": split}, None, (50, 50))
    finding = found(report, "odd things")
    assert (finding.severity, finding.splits) == ("warning", {"train": 2, "val": 2})
    assert finding.examples == ("train: one", "train: two", "val: one", "val: two")
    assert found(report, "seem to be in fractions").count == 2


def test_nothing_found_says_what_was_looked_for(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "no"):
        with pytest.raises(DataError) as error:
            find_splits(path)
        for words in (str(path), "VOC<year>", "annotations/*.json", "data.yaml", "`exp`"):
            assert words in str(error.value)


def test_real_voc_trees_read_and_examined(tmp_path: Path) -> None:
    """Through the reader: 1-based corners, an annotation that is no XML, an image not there."""
    tree = VocTree(tmp_path)
    tree.add("a", [("dog", (5, 5, 20, 20), 0), ("dog", (7, 7, 7, 9), 0)])
    tree.image("b.jpg")
    tree.annotation("b", "<annotation>")
    tree.split("train", "a", "b", "gone")
    splits = find_splits(tmp_path)
    report = check(
        splits, None, (64, 64), inspect_images([r.image for r in splits["train"].records])
    )
    assert found(report, "area").examples == ("a, object 2: dog (7, 7, 7, 9)",)
    assert found(report, "annotations that cannot be used").examples[0].count("b.xml") == 1
    assert "gone" in found(report, "images that are not there").examples[0]
    assert found(report, "in a split again").examples[0].startswith("b = a in train")
