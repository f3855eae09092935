"""One geometry: a picture's header, its pixels and every path to them agree, in every format."""

from __future__ import annotations

import os
import re
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from loguru import logger
from PIL import Image

import yolox
from tests.data.pictures import KINDS, app1, claiming, exif, noise, pillow, with_chunk
from yolox.data import DataError, DetectionDataset, Sample, image_size
from yolox.data.contact_sheet import record_tile
from yolox.data.convert.cut import CutJob, TileSettings, cut
from yolox.data.datasets.build import build_samples
from yolox.data.datasets.records import Record, RecordSet
from yolox.data.decoding import FACTORS, decode, read_bytes, read_image, reduced_size
from yolox.data.doctor.facts import inspect_image
from yolox.data.image_header import ImageError, TooManyPixels
from yolox.data.image_size import read_file_header, read_file_headers, read_image_size
from yolox.data.tiles import WholeRecord
from yolox.tools import cli
from yolox.utils.errors import UserError

# OpenCV 4 turns fewer formats, and by fewer Exif blocks; it reads no GIF before 4.11
OPENCV_5 = int(cv2.__version__.split(".")[0]) >= 5
SIDES = st.one_of(st.integers(1, 20), st.sampled_from([31, 33, 63, 65, 100]))
SETTINGS = settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
)


def turned(img: np.ndarray, orientation: int) -> np.ndarray:
    """What EXIF's orientations mean, written apart from the project."""
    return {
        1: lambda x: x,
        2: lambda x: x[:, ::-1],
        3: lambda x: x[::-1, ::-1],
        4: lambda x: x[::-1],
        5: lambda x: x.swapaxes(0, 1),
        6: lambda x: np.rot90(x, -1),
        7: lambda x: np.rot90(x, 2).swapaxes(0, 1),
        8: lambda x: np.rot90(x),
    }[orientation](img)


def means(img: np.ndarray, factor: int) -> np.ndarray:
    """Blocks of factor × factor pixels averaged, the last ones filled up by their edge."""
    pads = [(0, -side % factor) for side in img.shape[:2]]
    img = np.pad(img, [*pads, (0, 0)], mode="edge").astype(float)
    height, width = (side // factor for side in img.shape[:2])
    return img.reshape(height, factor, width, factor, 3).mean(axis=(1, 3))


def sample(path: Path, size: tuple[int, int]) -> Sample:
    return Sample(
        image_id=0,
        name=path.stem,
        path=path,
        height=size[0],
        width=size[1],
        boxes=np.zeros((0, 4), np.float32),
        classes=np.zeros(0, np.int64),
        difficult=np.zeros(0, np.bool_),
    )


def record_set(*paths: Path) -> RecordSet:
    rows = tuple(
        Record(
            name=path.stem,
            image=path,
            boxes=((1, 1, 3, 3),),
            names=("a",),
            difficult=(False,),
            source="test",
        )
        for path in paths
    )
    return RecordSet(title="test", records=rows, problems=(), classes=("a",))


# ------------------------------------------------------------------------------------- agreement


@pytest.mark.parametrize("kind", KINDS)
@SETTINGS
@given(height=SIDES, width=SIDES, orientation=st.integers(1, 8))
def test_header_pixels_and_reductions_agree(kind, height, width, orientation, tmp_path):
    suffix, has_orientation, write = KINDS[kind]
    orientation = orientation if has_orientation else 1
    path = tmp_path / f"picture{suffix}"
    img = noise(height, width)
    path.write_bytes(write(img, 1))
    upright = read_image(path)
    assert upright.shape == (height, width, 3)
    path.write_bytes(write(img, orientation))
    whole = read_image(path)
    np.testing.assert_array_equal(whole, turned(upright, orientation))
    size = whole.shape[:2]
    assert read_image_size(path) == size
    assert inspect_image(path).size == size
    if OPENCV_5 and not (suffix.startswith(".tif") and orientation >= 5):  # there it gives nothing
        np.testing.assert_array_equal(whole, cv2.imread(str(path)))
    for factor in FACTORS:
        for recorded in (None, size):
            small = decode(path, read_bytes(path), factor, recorded)
            assert small.shape[:2] == reduced_size(size, factor)
        if not suffix.startswith((".j", ".mpo")):
            assert np.abs(small - means(whole, factor)).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG RGB", "JPEG CMYK", "MPO"])
def test_a_jpeg_decoded_small_is_the_whole_one_smaller(kind, orientation, tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(KINDS[kind][2](noise(128, 96), orientation))
    whole = read_image(path)
    for factor in FACTORS:
        small = decode(path, read_bytes(path), factor)
        assert np.abs(small - means(whole, factor)).mean() < 3


@pytest.mark.parametrize("kind", KINDS)
def test_every_path_shows_the_same_pixels(kind, tmp_path):
    suffix, has_orientation, write = KINDS[kind]
    path = tmp_path / f"P1{suffix}"
    path.write_bytes(write(noise(37, 70), 6 if has_orientation else 1))
    img = read_image(path)  # what demo, bench and export show the network
    (item,) = build_samples(record_set(path), ("a",))
    assert (item.height, item.width) == img.shape[:2]
    plain = DetectionDataset([item], ("a",), (64, 64))
    cached = DetectionDataset([item], ("a",), (640, 640), cache=True)
    np.testing.assert_array_equal(plain.load_image(0), img)
    for factor in FACTORS:
        np.testing.assert_array_equal(
            cached.image_cache.get(path, factor), plain.load_reduced(0, factor)
        )
    np.testing.assert_array_equal(record_tile(record_set(path).records[0]).image, img)
    np.testing.assert_array_equal(tile_of(path, img.shape[:2], tmp_path), img)


def tile_of(path: Path, size: tuple[int, int], folder: Path) -> np.ndarray:
    for name in ("Whole", "JPEGImages", "Annotations"):
        (folder / name).mkdir()
    record = WholeRecord(
        name="P1",
        height=size[0],
        width=size[1],
        size=100,
        overlap=0,
        settings={},
        names=(),
        boxes=(),
        difficult=(),
    )
    job = CutJob(
        image=path,
        folder=folder,
        shapes=(),
        record=record,
        settings=TileSettings(size=100, overlap=0),
    )
    done = cut(job)
    assert done.problem is None
    return cv2.imread(str(folder / "JPEGImages" / f"{done.tiles[0]}.png"))


def test_pictures_are_decoded_in_one_place():
    root = Path(yolox.__file__).parent
    found = [
        path.relative_to(root).as_posix()
        for path in root.rglob("*.py")
        if re.search(r"\b(imread|imdecode|imdecodemulti|Image\.open)\(", path.read_text())
    ]
    assert found == ["data/decoding.py"]


# --------------------------------------------------------------------------------- odd orientation


def jpeg_with(*segments: bytes, before: bytes | None = None) -> bytes:
    data = pillow(noise(20, 50), "JPEG", "RGB", 1)
    at = 2 if before is None else data.rindex(before)
    return data[:at] + b"".join(segments) + data[at:]


SIX, ONE = (app1(b"Exif\0\0" + exif(value)) for value in (6, 1))
LONG = b"MM\0*\0\0\0\x08\0\x01" + struct.pack(">HHII", 0x0112, 4, 1, 6) + bytes(4)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize(
    ("data", "size"),
    [
        (jpeg_with(SIX, ONE), (50, 20)),
        (jpeg_with(ONE, SIX), (20, 50)),
        (jpeg_with(SIX, before=b"\xff\xda"), (50, 20)),
        (jpeg_with(app1(b"http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation='6'/>")), (20, 50)),
        (jpeg_with(app1(b"http://ns.adobe.com/xap/1.0/\0<x/>"), SIX), (50, 20)),
        (jpeg_with(app1(b"Exif\0\0II*\0\xff\xff\xff\xff"), SIX), (50, 20)),
        (jpeg_with(app1(b"Exif\0\0" + exif(0)), SIX), (20, 50)),
        (jpeg_with(app1(b"Exif\0\0" + exif(6).replace(b"*", b"+"))), (20, 50)),
        (jpeg_with(app1(b"Exif\0\0")), (20, 50)),
        (jpeg_with(app1(b"Exif\0\0" + exif(9))), (20, 50)),
        (jpeg_with(app1(b"Exif\0\0" + exif(0))), (20, 50)),
        (jpeg_with(app1(b"Exif\0\0" + LONG)), (20, 50)),
        (with_chunk(with_chunk(pillow(noise(20, 50), "PNG", "RGB", 1), 6), 1, b"IEND"), (50, 20)),
        (pillow(noise(20, 50), "TIFF", "RGB", 9), (20, 50)),
    ],
)
def test_the_first_orientation_decides_as_in_opencv(data, size, tmp_path):
    path = tmp_path / "picture"
    path.write_bytes(data)
    assert read_image_size(path) == size
    assert read_image(path).shape[:2] == size
    if OPENCV_5:
        np.testing.assert_array_equal(read_image(path), cv2.imread(str(path)))


def test_what_pillow_cannot_read_is_decoded(tmp_path):
    data = pillow(noise(20, 50), "PNG", "RGB", 1)
    at = data.index(b"IDAT") - 4
    broken = b"\0\0\0\x01tEXtx" + bytes(4)  # a text of which the checksum is wrong
    path = tmp_path / "a.png"
    path.write_bytes(data[:at] + broken + data[at:])
    assert read_image_size(path) == read_image(path).shape[:2] == (20, 50)
    assert cv2.imwrite(str(tmp_path / "a.hdr"), noise(20, 50).astype(np.float32))
    assert read_image_size(tmp_path / "a.hdr") == (20, 50)


# ------------------------------------------------------------------------------------- comparison


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("factor", FACTORS)
def test_a_picture_of_another_size_is_named_with_both(suffix, factor, tmp_path):
    path = tmp_path / f"a{suffix}"
    assert cv2.imwrite(str(path), noise(40, 60))
    (item,) = build_samples(record_set(path), ("a",))
    assert cv2.imwrite(str(path), noise(24, 80))
    decoded = f"is {24 // factor} × {80 // factor} (height × width) as decoded"
    if suffix == ".png" or factor == 1:
        decoded = "is 24 × 80 (height × width) as decoded,"
    with pytest.raises(DataError) as error:
        DetectionDataset([item], ("a",)).load_reduced(0, factor)
    for text in (str(path), decoded, "40 × 60 when its size was recorded", "24 × 80 by its header"):
        assert text in str(error.value)


def test_pixels_that_are_not_as_the_header_says_are_named(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    assert cv2.imwrite(str(path), noise(40, 60))
    monkeypatch.setattr(cv2, "imdecode", lambda *_: np.zeros((60, 40, 3), np.uint8))
    with pytest.raises(
        DataError, match=r"60 × 40 \(height × width\) as decoded, but 40 × 60 by its"
    ):
        read_image(path)
    assert inspect_image(path).flaw == "missized"


# -------------------------------------------------------------------------------- truncated, thin


@pytest.mark.parametrize("cut_bytes", [1, 2, 20, 700])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_truncated_jpeg_is_decoded_as_far_as_it_goes(cut_bytes, progressive, tmp_path):
    path = tmp_path / "a.jpg"
    whole = pillow(noise(200, 300), "JPEG", "RGB", 6, progressive=progressive)
    path.write_bytes(whole[:-cut_bytes])
    assert read_file_header(path).cut_off
    img = read_image(path)
    assert img.shape[:2] == (300, 200)
    np.testing.assert_array_equal(img, cv2.imread(str(path)))
    for factor in FACTORS:
        assert decode(path, read_bytes(path), factor).shape[:2] == reduced_size((300, 200), factor)


@pytest.mark.parametrize("processes", [1, 2])
def test_headers_read_by_several_processes_are_those_of_one(processes, tmp_path, monkeypatch):
    contents = [
        pillow(noise(50, 60), "JPEG", "RGB", 6),
        pillow(noise(50, 60), "JPEG", "RGB", 1)[:-20],
        pillow(noise(30, 40), "PNG", "RGB", 1),
        b"no image",
        pillow(noise(20, 70), "BMP", "RGB", 1),
    ]
    paths = [tmp_path / f"{number}" for number in range(6)]  # the last one is not there
    for path, content in zip(paths, contents, strict=False):
        path.write_bytes(content)
    monkeypatch.setattr(image_size, "PART", 2)
    monkeypatch.setattr(image_size, "MANY", 1)
    monkeypatch.setattr(image_size, "processes_to_use", lambda: processes)
    headers = list(read_file_headers(len(paths), paths.__getitem__))
    assert [(h.size, h.cut_off) for h in headers if not isinstance(h, ImageError)] == [
        ((60, 50), False),
        ((50, 60), True),
        ((30, 40), False),
        ((20, 70), False),
    ]
    for index in (3, 5):
        with pytest.raises(ImageError) as error:
            read_file_header(paths[index])
        assert str(headers[index]) == str(error.value)


def test_truncated_jpegs_are_named_once_before_training(tmp_path):
    paths = [tmp_path / f"{number}.jpg" for number in range(4)]
    for number, path in enumerate(paths):
        data = pillow(noise(50, 60), "JPEG", "RGB", 1)
        path.write_bytes([data, data[:-20], data[:-300], data + b"more"][number])
    lines = []
    handle = logger.add(lines.append, level="WARNING", format="{message}")
    try:
        build_samples(record_set(*paths), ("a",))
    finally:
        logger.remove(handle)
    (line,) = lines
    assert "2 JPEGs are truncated" in line
    assert all((str(path) in line) is (path in paths[1:3]) for path in paths)


def test_a_truncated_png_is_found_before_training(tmp_path):
    path = tmp_path / "a.png"
    data = pillow(noise(50, 60), "PNG", "RGB", 1)
    path.write_bytes(data + bytes(200))  # what follows the end is no matter
    assert read_image_size(path) == (50, 60)
    path.write_bytes(data[:-200])
    with pytest.raises(DataError, match=r"a\.png: cannot be decoded \(\d+ bytes, 50 × 60"):
        build_samples(record_set(path), ("a",))


@pytest.mark.parametrize("size", [(6, 600), (600, 6), (1, 1), (1, 500)])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif", ".webp"])
def test_thin_pictures_have_every_reduction(size, suffix, tmp_path):
    path = tmp_path / f"a{suffix}"
    assert cv2.imwrite(str(path), noise(*size))
    dataset = DetectionDataset([sample(path, size)], ("a",))
    for factor in FACTORS:
        assert dataset.load_reduced(0, factor).shape[:2] == reduced_size(size, factor)


# -------------------------------------------------------------------------------------- the limit


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "TIFF"])
def test_too_many_pixels_are_refused_before_they_are_decoded(kind, tmp_path, monkeypatch):
    path = tmp_path / "a.img"
    path.write_bytes(claiming(kind, 60000))
    monkeypatch.setattr(cv2, "imdecode", None)  # would fail if called
    for read in (read_image, read_image_size):
        with pytest.raises(TooManyPixels) as error:
            read(path)
        for text in (str(path), "60000 × 60000", "YOLOX_MAX_IMAGE_PIXELS=3600000000"):
            assert text in str(error.value)
    assert inspect_image(path).flaw == "oversized"
    with pytest.raises(DataError, match=r"a.img: claims 60000 × 60000 .*YOLOX_MAX_IMAGE_PIXELS"):
        build_samples(record_set(path), ("a",))


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_file_too_small_for_its_pixels_is_refused(kind, tmp_path, monkeypatch):
    path = tmp_path / "a.img"
    path.write_bytes(claiming(kind, 32000))
    monkeypatch.setattr(cv2, "imdecode", None)
    with pytest.raises(TooManyPixels, match=rf"{path.stat().st_size} bytes cannot hold"):
        read_image(path)


def test_the_limit_can_be_set(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    assert cv2.imwrite(str(path), noise(40, 60))
    monkeypatch.setenv("YOLOX_MAX_IMAGE_PIXELS", "2400")
    assert read_image(path).shape == (40, 60, 3)
    monkeypatch.setenv("YOLOX_MAX_IMAGE_PIXELS", "2399")
    with pytest.raises(TooManyPixels, match="at most 2399 are decoded"):
        read_image(path)
    for wrong in ("many", "-1", "0", "1e9", "9" * 99):
        monkeypatch.setenv("YOLOX_MAX_IMAGE_PIXELS", wrong)
        with pytest.raises(UserError, match="expected a number of pixels"):
            read_image(path)


def test_pillow_s_own_settings_are_left_alone():
    assert Image.MAX_IMAGE_PIXELS is not None
    assert cli  # the commands import all that could change it


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a system without named pipes")
def test_a_pipe_is_no_image_and_is_not_waited_for(tmp_path):
    pipe = tmp_path / "a.jpg"
    os.mkfifo(pipe)
    for read in (read_image, read_image_size):
        with pytest.raises(ImageError, match=r"a\.jpg is no regular file"):
            read(pipe)
