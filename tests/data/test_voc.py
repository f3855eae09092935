from __future__ import annotations

import pickle

import cv2
import numpy as np
import pytest

from tests.data.helpers import VocTree, voc_xml
from yolox.data import (
    AnnotationTransform,
    DataError,
    ValTransform,
    VOCDetection,
    read_voc,
    resolve_classes,
)
from yolox.data.datasets import voc_splits
from yolox.data.datasets.records import BAD_ANNOTATION, BAD_CLASS_LIST, BAD_ENTRY, IMAGE_MISSING
from yolox.data.datasets.voc_xml import read_xml
from yolox.data.image_size import read_image_size
from yolox.exp.voc import VOCExp
from yolox.utils import workers

SETS = (("2007", "trainval"),)


def read(voc, **kwargs):
    return VOCDetection(voc.devkit, SETS, **kwargs)


def test_boxes_are_the_file_less_one_with_flags_and_sorted_classes(voc):
    dataset = read(voc)
    assert dataset.class_names == ("cat", "dog")
    first = dataset.samples[0]
    assert (first.image_id, first.name, first.height, first.width) == (0, "a", 40, 60)
    np.testing.assert_array_equal(first.boxes, [[10, 5, 30, 25], [0, 0, 59, 39]])
    assert first.boxes.dtype == np.float32
    assert first.classes.tolist() == [1, 0]
    assert first.classes.dtype == np.int64
    assert first.difficult.tolist() == [False, True]
    assert [len(s.boxes) for s in read(voc, keep_difficult=False).samples] == [1, 1]


def test_parent_folder_and_several_splits(voc):
    voc.split("test", "b")
    dataset = VOCDetection(voc.devkit.parent, (*SETS, ("2007", "test")))
    assert [s.name for s in dataset.samples] == ["a", "b", "b"]
    assert [s.image_id for s in dataset.samples] == [0, 1, 2]


def test_items_are_scaled_to_the_input(voc):
    dataset = read(voc, img_size=(20, 20))
    img, labels, info, image_id = dataset.pull_item(0)
    assert img.shape == (13, 20, 3)
    assert img.dtype == np.uint8
    assert info == (40, 60)
    assert image_id.tolist() == [0]
    np.testing.assert_allclose(labels[0], [10 / 3, 5 / 3, 10, 25 / 3, 1], rtol=1e-6)
    labels[:] = -1
    assert dataset.samples[0].boxes.min() >= 0  # a copy
    dataset.preproc = ValTransform()
    img, target, info, _ = dataset[0]
    assert (img.shape, img.dtype) == ((3, 20, 20), np.float32)
    assert target.shape == (1, 5)
    assert (img[:, 13:] == 114).all()


def test_data_set_can_be_sent_to_a_worker(voc):
    copy = pickle.loads(pickle.dumps(read(voc)))
    np.testing.assert_array_equal(copy.samples[1].boxes, [[4, 4, 19, 19]])


# ------------------------------------------------------------------------------------------ classes


def test_classes_come_from_argument_then_file_then_annotations(voc, log):
    assert resolve_classes(voc.devkit, SETS) == ("cat", "dog")
    assert len(log("INFO")) == 1
    (voc.devkit / "classes.txt").write_text("dog\n\ncat\n")
    assert resolve_classes(voc.devkit, SETS) == ("dog", "cat")
    assert read(voc).samples[0].classes.tolist() == [0, 1]
    assert resolve_classes("nowhere", SETS, ["x", "y"]) == ("x", "y")
    (voc.devkit / "classes.txt").rename(voc.voc / "classes.txt")
    assert resolve_classes(voc.devkit, SETS) == ("dog", "cat")


def test_unknown_class_is_named_with_counts_and_near_spelling(voc):
    voc.add("c", [("traffic-light", (1, 1, 9, 9), 0)] * 3 + [("bird", (1, 1, 9, 9), 0)])
    voc.split("trainval", "a", "b", "c")
    with pytest.raises(DataError) as error:
        read(voc, classes=["dog", "cat", "Traffic Light"])
    text = str(error.value)
    assert "'traffic-light': 3 objects; meant 'Traffic Light'?" in text
    assert "'bird': 1 objects\n" in text
    assert "dog (2)" in text
    assert "[dog, cat, Traffic Light]" in text


@pytest.mark.parametrize(
    ("classes", "words"),
    [(["a", "a"], "'a' (2 times)"), ([], "no class"), (["a", " "], "empty name"), ("ab", "string")],
)
def test_class_list_must_name_each_once(voc, classes, words):
    with pytest.raises(DataError) as error:
        read(voc, classes=classes)
    assert words in str(error.value)


def test_class_lists_that_differ(voc):
    (voc.devkit / "classes.txt").write_text("dog\ncat\n")
    (voc.voc / "classes.txt").write_text("cat\ndog\n")
    with pytest.raises(DataError, match="differ"):
        read(voc)


def test_no_objects_no_classes(voc):
    voc.add("empty", [])
    voc.split("trainval", "empty")
    with pytest.raises(DataError, match="no object"):
        read(voc)
    assert len(read(voc, classes=["dog"]).samples[0].boxes) == 0


def test_the_order_of_arguments_that_exp_files_use(voc):
    given = AnnotationTransform({"cat": 1, "dog": 0}, keep_difficult=False)
    dataset = VOCDetection(voc.devkit, SETS, (32, 64), ValTransform(), given, "mine", True, "ram")
    assert dataset.class_names == ("dog", "cat")
    assert [s.classes.tolist() for s in dataset.samples] == [[0], [0]]
    assert (dataset.name, dataset.img_size) == ("mine", (32, 64))
    both = read(voc, target_transform=AnnotationTransform(), keep_difficult=False)
    assert [len(s.boxes) for s in both.samples] == [1, 1]
    assert dataset.records == both.records


@pytest.mark.parametrize("indices", [(0, 2), (1, 2), (0, 0), (-1, 0)])
def test_class_indices_count_from_0(indices):
    with pytest.raises(DataError, match="expected the indices 0 to 1"):
        AnnotationTransform(dict(zip(("cat", "dog"), indices, strict=True)))


def test_a_transform_must_agree_with_the_class_list_and_have_no_code(voc):
    given = AnnotationTransform({"cat": 1, "dog": 0})
    assert read(voc, target_transform=given, classes=["dog", "cat"]).class_names == ("dog", "cat")
    with pytest.raises(DataError, match="give one of them"):
        read(voc, target_transform=given, classes=["cat", "dog"])

    class Own(AnnotationTransform):
        def __call__(self, target):
            return target

    for transform in (Own(), print):
        with pytest.raises(DataError, match="expected an AnnotationTransform"):
            read(voc, target_transform=transform)


# ------------------------------------------------------------------------------- folders and splits


def test_reading_is_lenient_and_tells_every_problem(voc):
    voc.annotation("b", "<annotation>")
    voc.split("trainval", "a", "b", "no", "../a")
    (voc.devkit / "classes.txt").write_text("dog\ndog\n")
    records = read_voc(voc.devkit, SETS)
    assert records.title == "VOC2007/trainval"
    first, second = records.records
    assert (first.size, first.names, first.difficult) == ((40, 60), ("dog", "cat"), (False, True))
    assert first.boxes == ((10, 5, 30, 25), (0, 0, 59, 39))
    assert (second.name, second.boxes) == ("b", ())
    assert [p.kind for p in records.problems] == [
        BAD_ANNOTATION,
        IMAGE_MISSING,
        BAD_ENTRY,
        BAD_CLASS_LIST,
    ]
    assert records.classes is None
    with pytest.raises(DataError) as error:
        read(voc, classes=["dog", "cat"])
    for words in ("1 annotations", "no (VOC2007/trainval)", "../a is a path"):
        assert words in str(error.value)


def test_missing_folder_says_what_to_do(tmp_path):
    for folder in (tmp_path / "no", tmp_path):
        with pytest.raises(DataError) as error:
            VOCDetection(folder, SETS)
        for words in (str(folder), "VOC2007", "data_dir", "generate_demo_dataset"):
            assert words in str(error.value)


def test_missing_year_lists_years(voc):
    with pytest.raises(DataError, match=r"no VOC2012; it has VOC2007"):
        VOCDetection(voc.devkit, (*SETS, ("2012", "trainval")))
    with pytest.raises(DataError, match=r"has VOC2007"):
        VOCDetection(voc.devkit, (("2012", "trainval"),))


def test_missing_split_lists_splits(voc):
    voc.split("test", "a")
    with pytest.raises(DataError, match=r"val\.txt is not there.*test\.txt, trainval\.txt"):
        VOCDetection(voc.devkit, (("2007", "val"),))


def test_empty_split_and_no_image_sets(voc):
    voc.split("trainval", "", " ")
    with pytest.raises(DataError, match="names no image"):
        read(voc)
    with pytest.raises(DataError, match="no image sets"):
        VOCDetection(voc.devkit, ())


def test_missing_images_are_counted_and_ten_listed(voc):
    voc.split("trainval", "a", *(f"no{i:02d}" for i in range(12)))
    with pytest.raises(DataError) as error:
        read(voc)
    text = str(error.value)
    assert "12 images" in text
    assert "no09" in text
    assert "no10" not in text
    assert "2 more (12 in all)" in text


@pytest.mark.parametrize("line", ["../a", "/etc/passwd", "..\\a", "sub/a"])
def test_names_that_leave_the_folder_are_refused(voc, line):
    voc.split("trainval", "a", line)
    with pytest.raises(DataError) as error:
        read(voc)
    assert line in str(error.value)


def test_lines_with_flags_extensions_spaces_and_repeats(voc, log):
    voc.add("photo 1", [("dog", (1, 1, 9, 9), 0)])
    voc.split("trainval", "a  1", "b -1", "photo 1", "a.jpg", "")
    assert [s.name for s in read(voc).samples] == ["a", "b", "photo 1"]
    (warning,) = log("WARNING")
    assert "images named more than once (1)" in warning
    assert "- a in VOC2007/trainval" in warning


@pytest.mark.parametrize("name", ["c.JPG", "c.jpeg", "c.png", "c.BMP"])
def test_other_image_extensions(voc, name):
    voc.image(name, (30, 50))
    voc.annotation("c", voc_xml([("dog", (1, 1, 9, 9), 0)], (30, 50)))
    voc.split("trainval", "c")
    dataset = read(voc)
    assert dataset.samples[0].path.name == name
    assert (dataset.samples[0].height, dataset.samples[0].width) == (30, 50)
    assert dataset.load_image(0).shape == (30, 50, 3)


@pytest.mark.parametrize("year", ["", "2007", "2012"])
def test_a_folder_without_year_is_read_as_it_is(voc, year):
    """As CVAT and Datumaro write it."""
    moved = voc.voc.rename(voc.devkit.parent / "export")
    (moved / "classes.txt").write_text("dog\ncat\n")
    sets = ((year, "trainval"),)
    dataset = VOCDetection(moved, sets)
    assert dataset.class_names == resolve_classes(moved, sets) == ("dog", "cat")
    assert [s.name for s in dataset.samples] == ["a", "b"]
    assert dataset.records.title == "export/trainval"


def test_a_folder_of_another_year_is_not_taken_for_it(voc):
    assert len(VOCDetection(voc.voc, SETS)) == 2
    with pytest.raises(DataError, match="holds no VOC2012"):
        VOCDetection(voc.voc, (("2012", "trainval"),))


def test_images_in_folders_and_lines_that_are_paths(voc):
    for name in ("sub/c", "sub/d"):
        for folder in ("JPEGImages", "Annotations"):
            (voc.voc / folder / "sub").mkdir(exist_ok=True)
        voc.add(name, [("dog", (5, 5, 20, 20), 0)])
    voc.split("trainval", "VOC2007/JPEGImages/a.jpg", "sub/c", "C:\\x\\JPEGImages\\sub\\d.jpg 1")
    samples = read(voc).samples
    assert [s.name for s in samples] == ["a", "sub/c", "sub/d"]
    assert [len(s.boxes) for s in samples] == [2, 1, 1]


# -------------------------------------------------------------------------------------- annotations


@pytest.mark.parametrize(
    ("text", "difficult"),
    [("1", True), (" 1 ", True), ("true", True), ("True", True), ("yes", True), ("1.0", True),
     ("0", False), ("false", False), ("", False), ("Unspecified", False)],
)  # fmt: skip
def test_difficult_may_be_any_yes_or_no(voc, text, difficult):
    voc.annotation("b", voc_xml([("dog", (5, 5, 20, 20), text)]))
    assert read(voc).samples[1].difficult.tolist() == [difficult]


OUTLINES = [
    "<polygon><x1>11</x1><y1>6</y1><x2>31</x2><y2>9</y2><x3>12</x3><y3>26</y3></polygon>",
    "<polygon><pt><x>11</x><y>6</y></pt><pt><x>31</x><y>9</y></pt><pt><x>12</x><y>26</y></pt></polygon>",
    "<robndbox><cx>21</cx><cy>16</cy><w>20</w><h>20</h><angle>0</angle></robndbox>",
    "<robndbox><cx>21</cx><cy>16</cy><w>20</w><h>20</h><angle>1.5707963267948966</angle></robndbox>",
]


@pytest.mark.parametrize("outline", OUTLINES)
def test_an_object_without_bndbox_has_the_box_of_its_outline(voc, outline, log):
    text = f"<annotation><object><name>dog</name>{outline}</object></annotation>"
    voc.annotation("b", text)
    np.testing.assert_allclose(read(voc).samples[1].boxes, [[10, 5, 30, 25]], atol=1e-5)
    assert any("objects without a <bndbox> (1)" in line for line in log("INFO"))


ENTITIES = (
    '<!DOCTYPE x [<!ENTITY e "dog">]><annotation><object><name>&e;</name></object></annotation>'
)


NAMED = ("<annotation><object><name>dog</name>", "</object></annotation>")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "not there"),
        ("<annotation><object>", "not well-formed"),
        ("", "not well-formed"),
        (ENTITIES, "entities"),
        ("<annotation><object><name> </name></object></annotation>", "object 1 has no <name>"),
        ("<annotation><object><name>x</name></object></annotation>", "no <bndbox>"),
        (voc_xml([("dog", (1, 2, 3, "x"), 0)]), "not four numbers"),
        (voc_xml([("dog", (1, 2, 3, "nan"), 0)]), "finite"),
        (voc_xml([("dog", (1, 2, 3, ""), 0)]), "not four numbers"),
        (voc_xml([("dog", (1, 2, 3, 4), 0)]).replace("xmin", "left"), "no <xmin>"),
        (voc_xml([("dog", (1, 2, 3, "4,5"), 0)]), "<ymax> is '4,5'"),
        (voc_xml([("dog", (1, 2, 3, 4), 2)]), "<difficult> is '2': expected 0 or 1"),
        (voc_xml([("dog", (1, 2, 3, 4), "maybe")]), "<difficult> is 'maybe'"),
        (OUTLINES[0].join(NAMED).replace("<y3>26</y3>", ""), "<polygon> that is not 3 or more"),
        ("<annotations><image id='0'/></annotations>", "found <annotations>"),
        ("<annotation><objects><object/></objects></annotation>", "with <object> elsewhere"),
        ("<annotation><Object/></annotation>", "with <object> elsewhere"),
    ],
)
def test_broken_annotations_are_collected(voc, text, words):
    for name in ("c", "d"):
        voc.image(f"{name}.jpg")
        if text is not None:
            voc.annotation(name, text)
    voc.split("trainval", "a", "c", "d")
    with pytest.raises(DataError) as error:
        read(voc)
    message = str(error.value)
    assert message.startswith("2 annotations")
    assert message.count(words) == 2
    assert "c.xml" in message
    assert "d.xml" in message


def test_boxes_are_clipped_and_empty_ones_reported_once(voc, log):
    voc.add(
        "c",
        [
            ("dog", (-5, 11, 21, 99), 0),
            ("dog", (9, 9, 9, 20), 0),
            ("dog", (20, 9, 10, 20), 0),
            ("dog", (90, 9, 99, 20), 0),
            ("cat", (2, 3, 4, 5), 1),
        ],
    )
    voc.split("trainval", "a", "c")
    sample = read(voc).samples[1]
    np.testing.assert_array_equal(sample.boxes, [[0, 10, 20, 40], [1, 2, 3, 4]])
    assert sample.classes.tolist() == [1, 0]
    assert sample.difficult.tolist() == [False, True]
    cut, warning = log("WARNING")
    assert cut.startswith("1 boxes reach more than 2 pixels over the edge")
    assert "c: dog (-5, 11, 21, 99)" in cut
    assert warning.startswith("3 boxes")
    assert "c: dog (9, 9, 9, 20)" in warning


@pytest.mark.parametrize("size", [None, (0, 0), (10**12, 60)])
def test_size_missing_in_the_annotation_is_read_from_the_image(voc, size, log):
    voc.annotation("a", voc_xml([("dog", (1, 1, 9, 9), 0)], size))
    assert (read(voc).samples[0].height, read(voc).samples[0].width) == (40, 60)
    assert log("WARNING") == []


def test_wrong_size_in_the_annotation_is_told(voc, log):
    voc.annotation("a", voc_xml([("dog", (1, 1, 9, 9), 0)], (60, 40)))
    assert read(voc).samples[0].height == 40
    (warning,) = log("WARNING")
    assert "(60, 40)" in warning


def test_files_that_are_no_images(voc):
    (voc.voc / "JPEGImages" / "a.jpg").write_bytes(b"")
    (voc.voc / "JPEGImages" / "b.jpg").write_bytes(b"\xff\xd8 not a jpeg")
    with pytest.raises(DataError, match="2 files are no images") as error:
        read(voc)
    assert "a.jpg" in str(error.value)
    assert "b.jpg" in str(error.value)


def test_image_lost_or_broken_after_reading_is_named(voc):
    dataset = read(voc)
    path = dataset.samples[0].path
    path.write_bytes(path.read_bytes()[:10])
    with pytest.raises(DataError, match=r"a\.jpg cannot be decoded"):
        dataset.load_image(0)
    path.unlink()
    with pytest.raises(DataError, match=r"a\.jpg cannot be read"):
        dataset.load_image(0)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_size_follows_exif_orientation(tmp_path, orientation):
    encoded = cv2.imencode(".jpg", np.zeros((20, 50, 3), np.uint8))[1].tobytes()
    tiff = b"II*\0\x08\0\0\0\x01\0" + b"\x12\x01\x03\0\x01\0\0\0" + bytes([orientation, 0, 0, 0])
    block = b"Exif\0\0" + tiff + b"\0\0\0\0"
    app1 = b"\xff\xe1" + (len(block) + 2).to_bytes(2, "big") + block
    path = tmp_path / "x.jpg"
    path.write_bytes(encoded[:2] + app1 + encoded[2:])
    assert read_image_size(path) == cv2.imread(str(path)).shape[:2]
    assert read_image_size(path) == ((20, 50) if orientation < 5 else (50, 20))


# --------------------------------------------------------------------------------------- many files


def make_many(voc, count):
    """Annotations of which some are faulty, and names without image."""
    voc.image("p.jpg")
    names = [f"n{i}" for i in range(count)]
    for i, name in enumerate(names):
        if i % 7 != 3:
            (voc.voc / "JPEGImages" / f"{name}.jpg").hardlink_to(voc.voc / "JPEGImages" / "p.jpg")
        objects = [(f"class {i % 5}", (1 + i, 2, 30, 20.5), i % 2)] * (i % 3)
        voc.annotation(name, "<annotation>" if i % 11 == 5 else voc_xml(objects))
    points = "".join(
        f"<x{i}>{x}</x{i}><y{i}>{y}</y{i}>" for i, x, y in [(1, 1, 1), (2, 9, 5), (3, 2, 8)]
    )
    outlined = f"<object><name>dog</name><polygon>{points}</polygon></object>"
    voc.annotation("n0", f"<annotation>{outlined}</annotation>")
    voc.split("many", *names[: count // 2], "../out", *names[count // 2 :])
    return (("2007", "many"), *SETS)


def test_several_processes_read_what_one_reads(voc, monkeypatch):
    sets = make_many(voc, 40)
    alone = read_voc(voc.devkit, sets)
    started = []

    def spied(function, items, processes):
        started.append((len(items), processes))
        return workers.in_processes(function, items, processes)

    monkeypatch.setattr(voc_splits, "in_processes", spied)
    monkeypatch.setattr(voc_splits, "PART", 7)
    monkeypatch.setattr(voc_splits, "MANY", 20)
    monkeypatch.setattr(voc_splits, "processes_to_use", lambda: 3)
    together = read_voc(voc.devkit, sets)
    assert started == [(5, 3), (1, 1)]
    assert together == alone
    assert together.records.class_names == alone.records.class_names
    assert len(alone.problems) > 5
    kinds = [problem.kind for problem in alone.problems]
    assert kinds != sorted(kinds)  # in the order of the names, not of the kinds
    assert [len(found.cases) for found in alone.remarks] == [1]


def test_progress_is_told_in_images(voc, monkeypatch):
    told = []

    def counted(iterable, description, total):
        told.append((description, total, 0))
        for item in iterable:
            told[-1] = (description, total, told[-1][2] + 1)
            yield item

    sets = make_many(voc, 10)[:1]
    monkeypatch.setattr(voc_splits, "PART", 4)
    monkeypatch.setattr(voc_splits, "track", counted)
    found = len(read_voc(voc.devkit, sets).records)
    assert told == [("Reading annotations", found, found)]


def test_an_exp_reads_annotations_once(voc, monkeypatch):
    voc.add("c", [("cow", (5, 5, 20, 20), 0)])
    voc.split("test", "c")
    files = []

    def counted(source, image):
        files.append(source.stem)
        return read_xml(source, image)

    monkeypatch.setattr(voc_splits, "read_xml", counted)
    exp = VOCExp()
    exp.give(data_dir=str(voc.devkit))
    exp.resolve_classes()
    assert exp.class_names == ("cat", "cow", "dog")
    train, test = exp.get_dataset(), exp.get_eval_dataset()
    assert files == ["a", "b", "c"]
    assert ([s.name for s in train.samples], [s.name for s in test.samples]) == (["a", "b"], ["c"])
    voc.add("b", [("cow", (5, 5, 20, 20), 0)])
    again = exp.get_dataset()  # as the files are by then
    assert again.samples[1].classes.tolist() == [1]
    assert files == ["a", "b", "c", "a", "b"]


def test_other_data_are_not_those_read_before(voc, tmp_path):
    exp = VOCExp()
    exp.give(data_dir=str(voc.devkit), val_sets=("2007/trainval",))
    exp.resolve_classes()
    other = VocTree(tmp_path / "other")
    other.add("z", [("dog", (5, 5, 20, 20), 0)])
    other.split("trainval", "z")
    exp.give(data_dir=str(other.devkit))
    assert [sample.name for sample in exp.get_dataset().samples] == ["z"]
