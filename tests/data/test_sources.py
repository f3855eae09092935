"""What a person names as pictures: each form gives the same frames, or one clear error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image as Pillow

from yolox.data.errors import DataError
from yolox.data.sources import Camera, Frame, Images, Video, find_images, open_source

FRAMES = 12


def picture(seed: int = 0, size: tuple[int, int] = (24, 32)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def write_video(path: Path, codec: str = "MJPG") -> Path:
    """Frames whose brightness rises, so that their order shows; noise, so that each has a size."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), 10, (64, 48))
    noise = np.random.default_rng(0).integers(0, 30, (48, 64, 3), dtype=np.uint8)
    for number in range(FRAMES):
        writer.write(np.uint8(20 * number) + noise)
    writer.release()
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with two pictures, one of them in a folder below, and a text file."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for number, name in enumerate(("b.png", "more/a.png")):
        cv2.imwrite(str(folder / name), picture(number))
    (folder / "notes.txt").write_text("no picture")
    return folder


def test_source_folder_holds_images_below_it(photos: Path) -> None:
    frames = list(open_source(photos))
    assert [frame.name for frame in frames] == ["b.png", str(Path("more/a.png"))]
    assert [frame.number for frame in frames] == [0, 1]
    np.testing.assert_array_equal(frames[1].image, picture(1))
    assert find_images(photos) == [frame.path for frame in frames]


def test_source_pattern(photos: Path) -> None:
    names = [frame.name for frame in open_source(f"{photos}/**/*.png")]
    assert names == ["b.png", str(Path("more/a.png"))]
    assert len(open_source(f"{photos}/b.*")) == 1


def test_source_forms_of_one_image_are_the_same_pixels(photos: Path) -> None:
    path, image = photos / "b.png", picture(0)
    forms: list[Any] = [path, str(path), image, Pillow.open(path), [path], [image]]
    forms += [np.dstack((image, np.full(image.shape[:2], 9, np.uint8)))]  # alpha
    for form in forms:
        (frame,) = open_source(form)
        np.testing.assert_array_equal(frame.image, image)


def test_source_grey_array_becomes_bgr() -> None:
    grey = picture()[:, :, 0]
    (frame,) = open_source(grey)
    np.testing.assert_array_equal(frame.image, np.dstack([grey] * 3))


def test_source_list_mixes_files_and_arrays(photos: Path) -> None:
    frames = list(open_source([photos / "b.png", picture(5)]))
    assert [frame.name for frame in frames] == ["b.png", "image_1.jpg"]
    assert [frame.path is None for frame in frames] == [False, True]


def test_source_broken_file_is_told_after_the_others(photos: Path) -> None:
    (photos / "a.png").write_bytes(b"nothing")
    frames = iter(open_source(photos))
    assert [next(frames).name, next(frames).name] == ["b.png", str(Path("more/a.png"))]
    with pytest.raises(DataError, match=r"1 of 3 files cannot be decoded.*\n.*a\.png"):
        next(frames)


def test_source_video_frames_in_order(tmp_path: Path) -> None:
    video = open_source(write_video(tmp_path / "clip.avi"))
    assert isinstance(video, Video)
    assert (len(video), video.fps) == (FRAMES, 10)
    frames = list(video)
    brightness = [float(frame.image.mean()) for frame in frames]
    assert np.diff(brightness) == pytest.approx(20, abs=3)
    assert frames[3].name == "clip_000003.jpg"
    assert len(list(video)) == FRAMES, "a second look starts anew"


def test_source_video_that_ends_early(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.avi")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    seen: list[Frame] = []
    with pytest.raises(DataError, match=rf"ends early: \d+ of the {FRAMES} frames"):
        seen.extend(open_source(path))
    assert 0 < len(seen) < FRAMES


def test_source_video_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"nothing" * 100)
    with pytest.raises(DataError, match="cannot be decoded"):
        open_source(path)


def test_source_camera_that_is_not_there(capfd: pytest.CaptureFixture[str]) -> None:
    camera = open_source(97)
    assert isinstance(camera, Camera)
    with pytest.raises(DataError, match="no camera 97"):
        next(iter(camera))
    assert capfd.readouterr() == ("", "")


BAD: list[tuple[Any, str]] = [
    ("no/such/place", "nothing to look at in no/such/place"),
    ([], "list of pictures is empty"),
    (True, "got True"),
    (3.5, "got float"),
    (None, "got NoneType"),
    ([3], "got int"),
    (np.zeros((4, 4, 3)), "got float64"),
    (np.zeros((4, 4, 2), np.uint8), "1, 3 or 4 channels"),
    (np.zeros((0, 4, 3), np.uint8), r"\(0, 4, 3\)"),
]


@pytest.mark.parametrize(("source", "words"), BAD, ids=[str(words) for _, words in BAD])
def test_source_that_is_none(source: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        open_source(source)


def test_source_folder_without_images(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no image in the folder"):
        open_source(tmp_path)


def test_source_video_in_a_list(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a list holds images alone"):
        open_source([write_video(tmp_path / "clip.avi")])


def test_source_single_files_are_images(photos: Path) -> None:
    assert isinstance(open_source(photos / "b.png"), Images)
