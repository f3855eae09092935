"""DOTA to tiles: outlines cut by tile borders, files that say so, and every way to go wrong."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yolox.data import DataError, VOCDetection
from yolox.data.convert import DOTA_CLASSES, TileSettings, convert_dota
from yolox.data.convert.labels import dota_classes, read_labels
from yolox.data.convert.polygons import bounds, clip_polygon, convex_hull, polygon_area
from yolox.data.tiles import WholeRecord, whole_images

# ----------------------------------------------------------------------------------------- polygons


def test_a_diamond_cut_in_half():
    diamond = np.array([[0.0, 10], [10, 0], [20, 10], [10, 20]])
    assert polygon_area(diamond) == 200
    half = clip_polygon(diamond, (10, 0, 100, 100))
    assert polygon_area(half) == 100
    assert bounds(half) == (10, 0, 20, 20)
    corner = clip_polygon(diamond, (15, 0, 100, 100))
    assert polygon_area(corner) == 25
    assert bounds(corner) == (15, 5, 20, 15)
    assert clip_polygon(diamond, (0, 0, 20, 20)) is diamond
    assert clip_polygon(diamond, (30, 0, 40, 20)).shape == (0, 2)
    assert polygon_area(clip_polygon(diamond, (20, 0, 40, 20))) == 0


corner = st.tuples(st.integers(-50, 150), st.integers(-50, 150))


@settings(deadline=None)
@given(st.lists(corner, min_size=4, max_size=4), st.integers(1, 99), st.integers(1, 99))
def test_the_parts_of_an_object_are_the_object(corners, x, y):
    outline = convex_hull(np.array(corners, dtype=float))
    quarters = [(-99, -99, x, y), (x, -99, 199, y), (-99, y, x, 199), (x, y, 199, 199)]
    parts = [clip_polygon(outline, quarter) for quarter in quarters]
    assert sum(map(polygon_area, parts)) == pytest.approx(polygon_area(outline), abs=1e-6)
    for part, (x1, y1, x2, y2) in zip(parts, quarters, strict=True):
        assert np.all((part >= (x1, y1)) & (part <= (x2, y2)))


def test_corners_in_a_crossed_order_are_the_same_object():
    crossed = np.array([[0.0, 0], [10, 10], [10, 0], [0, 10]])
    assert polygon_area(convex_hull(crossed)) == 100
    assert polygon_area(convex_hull(np.full((4, 2), 3.0))) == 0
    assert polygon_area(convex_hull(np.array([[0.0, 0], [5, 5], [9, 9], [2, 2]]))) == 0


# ------------------------------------------------------------------------------------------- labels


def test_labels_with_and_without_their_optional_parts(tmp_path):
    path = tmp_path / "P1.txt"
    path.write_bytes(
        b"\xef\xbb\xbfimagesource:GoogleEarth\r\ngsd:0.25\r\n"
        b"1 2 3.5 4 5 6 7 8 ship 1\r\n\r\n1 2 3 4 5 6 -7 8 small-vehicle\r\n0 0 1 0 1 1 0 1 x 2"
    )
    objects, problems = read_labels(path)
    assert problems == []
    assert [(o.name, o.difficult) for o in objects] == [
        ("ship", True),
        ("small-vehicle", False),
        ("x", True),
    ]
    assert objects[0].corners.tolist() == [[1, 2], [3.5, 4], [5, 6], [7, 8]]
    path.write_text("")
    assert read_labels(path) == ([], [])


def test_every_bad_line_is_named(tmp_path):
    path = tmp_path / "P1.txt"
    good = "1 2 3 4 5 6 7 8"
    path.write_text(
        f"gsd:null\n{good}\n{good} ship 0\n{good[:-1]}x ship 0\n{good[:-1]}inf ship 0\n"
        f"{good} ship no\n{good} ship 0 extra\n"
    )
    objects, problems = read_labels(path)
    assert len(objects) == 1
    assert [problem.removeprefix(str(path)).split(" (")[0] for problem in problems] == [
        ":2: expected 8 numbers, a class and perhaps a difficulty, got 8 words",
        ":4: corners are not 8 numbers",
        ":5: corners are not 8 finite numbers",
        ":6: difficulty: expected 0 or 1, got no",
        ":7: expected 8 numbers, a class and perhaps a difficulty, got 11 words",
    ]
    path.write_bytes(b"\xff\xfe\x00")
    assert read_labels(path)[1] == [f"{path}: is not UTF-8 text"]
    assert "cannot be read" in read_labels(tmp_path / "none.txt")[1][0]


def test_the_class_list_is_that_of_the_release():
    assert [len(names) for names in DOTA_CLASSES.values()] == [15, 16, 18]
    assert dota_classes({"ship", "harbor"}) == DOTA_CLASSES["1.0"]
    assert dota_classes({"ship", "container-crane"}) == DOTA_CLASSES["1.5"]
    assert dota_classes({"helipad"}) == DOTA_CLASSES["2.0"]
    assert dota_classes({"ship", "car", "bus"}) == ("bus", "car", "ship")
    # Classes listed already keep their indices.
    assert dota_classes({"helipad"}, DOTA_CLASSES["1.0"]) == DOTA_CLASSES["2.0"]
    assert dota_classes({"plane"}, DOTA_CLASSES["1.5"]) == DOTA_CLASSES["1.5"]
    assert dota_classes({"ship", "bus"}, ("car", "ship")) == ("car", "ship", "bus")
    assert dota_classes({"ship"}, ("ship", "harbor")) == ("ship", "harbor")


# --------------------------------------------------------------------------------------- conversion


class Dota:
    """A folder of images and labels, 150 wide and 100 high unless said otherwise."""

    def __init__(self, root: Path) -> None:
        self.images, self.labels, self.devkit = root / "images", root / "labelTxt", root / "devkit"
        self.images.mkdir()
        self.labels.mkdir()

    def add(self, name: str, *lines: str, size: tuple[int, int] = (100, 150)) -> np.ndarray:
        rng = np.random.default_rng(len(name))
        img = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        assert cv2.imwrite(str(self.images / f"{name}.png"), img)
        self.label(name, *lines)
        return img

    def label(self, name: str, *lines: str) -> None:
        (self.labels / f"{name}.txt").write_text("\n".join(["imagesource:x", "gsd:1", *lines]))

    def convert(self, split: str = "train", year: str = "2007", workers: int = 1, **settings):
        defaults = {"size": 100, "overlap": 20}
        return convert_dota(
            self.images,
            self.labels,
            self.devkit,
            year=year,
            split=split,
            settings=TileSettings(**(defaults | settings)),
            workers=workers,
        )

    def read(self, split: str = "train") -> VOCDetection:
        return VOCDetection(self.devkit, [("2007", split)])

    def files(self) -> dict[str, tuple[bytes, int]]:
        return {
            str(path.relative_to(self.devkit)): (path.read_bytes(), path.stat().st_mtime_ns)
            for path in sorted(self.devkit.rglob("*"))
            if path.is_file()
        }


@pytest.fixture
def dota(tmp_path: Path) -> Dota:
    return Dota(tmp_path)


def square(x: float, y: float, side: float = 20) -> str:
    x2, y2 = x + side, y + side
    return f"{x} {y} {x2} {y} {x2} {y2} {x} {y2}"


def objects(sample, names):
    return [
        (names[k], *box, bool(d))
        for box, k, d in zip(sample.boxes.tolist(), sample.classes, sample.difficult, strict=True)
    ]


def test_tiles_hold_their_pixels_and_their_objects(dota):
    img = dota.add("P1", f"{square(10, 10)} ship 0", f"{square(60, 50.25)} plane 1")
    made = dota.convert()
    assert (made.images, made.tiles, made.objects, made.difficult) == (1, 2, 3, 2)
    assert made.classes == DOTA_CLASSES["1.0"]
    data = dota.read()
    assert data.class_names == DOTA_CLASSES["1.0"]
    left, right = data.samples
    assert (left.name, right.name) == ("P1__1__0___0", "P1__1__50___0")
    np.testing.assert_array_equal(data.load_image(0), img[:, :100])
    np.testing.assert_array_equal(data.load_image(1), img[:, 50:])
    assert objects(left, data.class_names) == [
        ("ship", 10, 10, 30, 30, False),
        ("plane", 60, 50.25, 80, 70.25, True),
    ]
    assert objects(right, data.class_names) == [("plane", 10, 50.25, 30, 70.25, True)]


# From x = 90 to 134, 4 pixels thick: a fifth of it lies left of x = 100, at the top.
SLANTED = "90 10 94 6 134 46 130 50 ship 0"


def test_a_rotated_object_gets_the_tight_box_of_what_a_tile_shows(dota):
    dota.add("P1", SLANTED)
    dota.convert(min_area=0.2)
    left, right = dota.read().samples
    np.testing.assert_allclose(left.boxes, [[90, 6, 100, 20]])
    assert left.difficult.tolist() == [True], "less than 0.7 of it"
    np.testing.assert_allclose(right.boxes, [[40, 6, 84, 50]])
    assert right.difficult.tolist() == [False]
    xml = dota.devkit / "VOC2007" / "Annotations" / "P1__1__0___0.xml"
    assert ElementTree.parse(xml).findtext("object/truncated") == "1"


def test_a_sliver_is_left_out(dota):
    dota.add("P1", SLANTED)
    dota.convert(min_area=0.21)
    left, right = dota.read().samples
    assert (len(left.boxes), len(right.boxes)) == (0, 1)


@pytest.mark.parametrize(("x", "difficult"), [(86, False), (87, True), (92, True), (93, None)])
def test_how_much_of_an_object_counts(dota, x, difficult):
    """Of 20 columns, 14 and more are an ordinary object; fewer than 8 none."""
    dota.add("P1", f"{square(x, 10)} ship 0")
    dota.convert()
    found = dota.read().samples[0].difficult.tolist()
    assert found == ([] if difficult is None else [difficult])


def test_what_lies_outside_the_image_does_not_count_against_an_object(dota, log):
    dota.add("P1", f"{square(-15, 10)} ship 0", f"{square(-30, 10)} ship 0", "1 1 1 1 2 2 2 2 ship")
    dota.convert()
    left = dota.read().samples[0]
    assert objects(left, dota.read().class_names) == [("ship", 0, 10, 5, 30, False)]
    assert "2 objects have no area inside their image" in "".join(log("WARNING"))


def test_whole_images_hold_each_object_once(dota):
    dota.add("P1", f"{square(60, 50)} plane 1", SLANTED)
    dota.convert(difficult="drop")
    data = dota.read()
    assert [len(sample.boxes) for sample in data.samples] == [0, 1], "the plane is dropped"
    (whole,) = whole_images(data.samples, data.class_names)
    assert objects(whole, data.class_names) == [
        ("plane", 60, 50, 80, 70, True),
        ("ship", 90, 6, 134, 50, False),
    ]
    assert whole.tiles == {0: (0, 0), 1: (50, 0)}


def test_empty_tiles_are_kept_by_their_names(dota):
    dota.add("P1", f"{square(10, 10)} ship 0", size=(100, 1000))
    assert dota.convert(year="1", keep_empty=0.0).tiles == 1
    assert dota.convert(year="2", keep_empty=1.0).tiles == 13
    some = dota.convert(year="3", keep_empty=0.5)
    assert 1 < some.tiles < 13
    listed = dota.devkit / "VOC3" / "ImageSets" / "Main" / "train.txt"
    names = listed.read_text().split()
    written = sorted(path.stem for path in (dota.devkit / "VOC3" / "JPEGImages").iterdir())
    assert names == written
    assert "P1__1__0___0" in names
    assert dota.convert(year="3", keep_empty=0.5) == some
    dota.label("P1")
    with pytest.raises(DataError, match=r"no tile of .* holds an object: raise keep_empty"):
        dota.convert(year="4", keep_empty=0.0)


def test_a_second_run_changes_nothing(dota):
    dota.add("P1", SLANTED)
    first = dota.convert()
    before = dota.files()
    assert dota.convert() == first
    after = dota.files()
    tiles = [name for name in before if "ImageSets" not in name and "classes" not in name]
    assert {name: after[name] for name in tiles} == {name: before[name] for name in tiles}
    assert {n: content for n, (content, _) in after.items()} == {
        n: content for n, (content, _) in before.items()
    }


def test_a_stopped_run_goes_on(dota):
    dota.add("P1", SLANTED)
    dota.add("P2", f"{square(10, 10)} ship 0")
    dota.convert()
    before = {name: content for name, (content, _) in dota.files().items()}
    voc = dota.devkit / "VOC2007"
    for name in ("Whole/P2.json", "JPEGImages/P2__1__50___0.png", "ImageSets/Main/train.txt"):
        (voc / name).unlink()
    dota.convert()
    assert {name: content for name, (content, _) in dota.files().items()} == before


def test_a_second_part_joins_the_split(dota, tmp_path):
    dota.add("P1", SLANTED)
    dota.convert()
    (tmp_path / "more").mkdir()
    more = Dota(tmp_path / "more")
    more.devkit = dota.devkit
    more.add("P0", f"{square(10, 10)} helipad 0", size=(50, 50))
    assert more.convert().tiles == 1
    data = dota.read()
    assert [s.name for s in data.samples] == ["P0__1__0___0", "P1__1__0___0", "P1__1__50___0"]
    assert data.class_names == DOTA_CLASSES["2.0"]


def test_the_number_of_workers_changes_nothing(dota, tmp_path):
    for i in range(3):
        dota.add(f"P{i}", SLANTED, f"{square(10 * i, 10)} ship 0")
    dota.convert(workers=2)
    together = {name: content for name, (content, _) in dota.files().items()}
    dota.devkit = tmp_path / "alone"
    dota.convert(workers=1)
    assert {name: content for name, (content, _) in dota.files().items()} == together


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"overlap": 30}, "made with overlap 20, not 30"),
        ({"split": "val"}, "made with split train, not val"),
        ({"min_area": 0.5, "keep_empty": 0.5}, "min_area 0.4, not 0.5, keep_empty 1.0, not 0.5"),
        ({}, "made with other labels"),
    ],
)
def test_another_conversion_is_not_mixed_in(dota, change, words):
    dota.add("P1", SLANTED)
    dota.convert()
    before = dota.files()
    if not change:
        dota.label("P1", SLANTED, f"{square(1, 1)} ship 0")
    with pytest.raises(DataError, match=words) as caught:
        dota.convert(**change)
    assert "P1 is in" in str(caught.value)
    assert "`output` or `year`" in str(caught.value)
    assert dota.files() == before


def test_other_data_is_left_alone(dota):
    dota.add("P1", SLANTED)
    (dota.devkit / "VOC2007" / "JPEGImages").mkdir(parents=True)
    with pytest.raises(DataError, match="holds data that this converter did not write"):
        dota.convert()
    assert dota.files() == {}


def test_all_problems_are_named_before_anything_is_written(dota):
    dota.add("P1", SLANTED, "1 2 3 ship")
    dota.add("P2", f"{SLANTED} 5")
    dota.add("P3", SLANTED)
    (dota.images / "P4.png").write_bytes(b"no picture")
    dota.label("P4", SLANTED)
    with pytest.raises(DataError, match="nothing was converted, problems: 3") as caught:
        dota.convert()
    for word in ("P1.txt:4: ", "P2.txt:3: ", "P4.png: cannot be decoded (10 bytes)"):
        assert word in str(caught.value)
    assert not dota.devkit.exists()


def test_an_image_that_breaks_off_is_named_after_the_others_are_done(dota):
    dota.add("P1", SLANTED)
    dota.add("P2", SLANTED)
    broken = dota.images / "P1.png"
    whole = broken.read_bytes()
    at = whole.index(b"IDAT") + 6
    broken.write_bytes(whole[:at] + b"no zlib" + whole[at + 7 :])
    with pytest.raises(DataError, match="1 of 2 images cannot be cut") as caught:
        dota.convert()
    assert f"{broken}: cannot be decoded" in str(caught.value)
    voc = dota.devkit / "VOC2007"
    assert [path.name for path in (voc / "Whole").iterdir()] == ["P2.json"]
    assert not (voc / "ImageSets").exists()
    broken.write_bytes(whole)
    assert dota.convert().tiles == 4


def test_images_and_labels_must_fit_together(dota, log):
    dota.add("P1", SLANTED)
    dota.add("P2", SLANTED)
    (dota.labels / "P1.txt").unlink()
    (dota.images / "P2.JPG").write_bytes(b"")
    with pytest.raises(DataError, match="do not fit together") as caught:
        dota.convert()
    assert "P1: no P1.txt" in str(caught.value)
    assert "several images of one name: P2.JPG, P2.png" in str(caught.value)
    (dota.images / "P2.JPG").unlink()
    dota.label("P1", SLANTED)
    dota.label("P9", SLANTED)
    assert dota.convert().images == 2
    assert "1 label files have no image" in "".join(log("WARNING"))


def test_folders_must_be_there(dota):
    with pytest.raises(DataError, match=r"no image in .*looked for \.png"):
        dota.convert()
    dota.labels.rmdir()
    with pytest.raises(DataError, match=r"the folder of labels .*labelTxt is not there"):
        dota.convert()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"overlap": 100}, "overlap: expected 0 to 99 for tiles of 100, got 100"),
        ({"min_area": 1.5}, "min_area: expected a fraction"),
        ({"keep_empty": -1}, "keep_empty: expected a fraction"),
        ({"difficult": "no"}, "expected keep or drop, got 'no'"),
        ({"year": "../2007"}, "year: expected letters"),
        ({"split": ""}, "split: expected letters"),
    ],
)
def test_settings_are_checked(dota, wrong, words):
    dota.add("P1", SLANTED)
    with pytest.raises(DataError, match=words):
        dota.convert(**wrong)


@pytest.mark.parametrize("variable", ["YOLOX_MAX_IMAGE_PIXELS", "OPENCV_IO_MAX_IMAGE_PIXELS"])
def test_an_image_of_too_many_pixels_says_what_to_set(dota, monkeypatch, variable):
    dota.add("P1", SLANTED)
    monkeypatch.setenv(variable, "14999")
    with pytest.raises(DataError, match=rf"P1.png: claims 100 × 150 .*set {variable}=15000 in"):
        dota.convert()


def test_records_are_what_was_asked_for(dota):
    dota.add("P1", SLANTED)
    dota.convert()
    record = WholeRecord.read(dota.devkit / "VOC2007" / "Whole" / "P1.json")
    assert (record.height, record.width, record.size, record.overlap) == (100, 150, 100, 20)
    assert record.settings["split"] == "train"
