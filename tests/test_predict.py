"""One call for any file and any pictures: load, predict, plot, save."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.data.test_sources import write_video
from tests.runs import command, read
from yolox.predict import Detector, Prediction, load
from yolox.tools import demo
from yolox.utils.checkpoint import save_checkpoint
from yolox.utils.errors import UserError
from yolox.utils.video import writing_video

CONF = 1e-4  # of a model that was trained for two epochs


@pytest.fixture(scope="module")
def detector(trained: Path) -> Detector:
    return load(trained / "best_ckpt.pth", conf=CONF)


@pytest.fixture(scope="module")
def photos(devkit: Path) -> Path:
    return devkit / "VOC2007" / "JPEGImages"


def same(a: Prediction, b: Prediction) -> bool:
    """Whether two predictions are the same up to what the size of a batch does to rounding."""
    return a.classes.tolist() == b.classes.tolist() and np.allclose(a.boxes, b.boxes, atol=0.01)


def test_predict_folder_gives_one_prediction_an_image(detector: Detector, photos: Path) -> None:
    found = detector.predict(photos)
    assert [p.path for p in found] == sorted(photos.iterdir())
    assert [p.number for p in found] == list(range(12))
    first = found[0]
    assert len(first) == len(first.boxes) == len(first.scores) == len(first.classes) > 0
    assert first.boxes.dtype == first.scores.dtype == np.float32
    assert first.classes.dtype == np.int64
    assert (np.diff(first.scores) <= 0).all()
    assert set(first.class_names) <= {"circle", "square", "triangle"}
    height, width = first.size
    assert first.boxes.min() >= 0
    assert first.boxes[:, [0, 2]].max() <= width
    assert first.boxes[:, [1, 3]].max() <= height


def test_predict_does_not_depend_on_the_batch(detector: Detector, photos: Path) -> None:
    alone, together = (detector.predict(photos, batch_size=n) for n in (1, 5))
    assert all(map(same, alone, together))


def test_predict_array_is_what_its_file_is(detector: Detector, photos: Path) -> None:
    path = sorted(photos.iterdir())[0]
    (of_file,) = detector.predict(path)
    (of_array,) = detector.predict(cv2.imread(str(path)))
    assert same(of_file, of_array)
    assert of_array.path is None
    np.testing.assert_array_equal(of_file.image, of_array.image)


def test_predict_fields_fit_supervision(detector: Detector, photos: Path) -> None:
    found = detector.predict(photos)[0]
    assert found.xyxy is found.boxes
    assert found.confidence is found.scores
    assert found.class_id is found.classes


def test_nms_chooses_from_the_best_candidates_alone(detector: Detector, photos: Path) -> None:
    whole = detector.predict(photos)[0]
    best = replace(detector, max_candidates=1).predict(photos)[0]
    assert len(whole.boxes) > 1
    np.testing.assert_array_equal(best.boxes, whole.boxes[:1])


def test_prediction_plots_on_a_copy_and_saves(
    detector: Detector, photos: Path, tmp_path: Path
) -> None:
    found = detector.predict(photos)[0]
    plain = found.image.copy()
    assert (found.plot() != plain).any()
    np.testing.assert_array_equal(found.image, plain)
    path = found.save(tmp_path / "new" / "out.png")
    np.testing.assert_array_equal(cv2.imread(str(path)), found.plot())
    with pytest.raises(UserError, match=r"ends in \.jpg or \.png"):
        found.save(tmp_path / "out.txt")


def test_stream_hands_on_what_came_before_a_broken_file(
    detector: Detector, photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "a.jpg").write_bytes(sorted(photos.iterdir())[0].read_bytes())
    (tmp_path / "b.jpg").write_bytes(b"nothing")
    found: list[Prediction] = []
    with pytest.raises(UserError, match=r"1 of 2 files[\s\S]*b\.jpg"):
        found.extend(detector.stream(tmp_path))
    assert [p.name for p in found] == ["a.jpg"]


def test_predict_refuses_a_camera(detector: Detector) -> None:
    with pytest.raises(UserError, match=r"stream\(\)"):
        detector.predict(0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"conf": 2}, "conf must be in"),
        ({"max_candidates": 0}, "max_candidates must be at least 1"),
        ({"nms": -1}, "nms must be in"),
        ({"size": 100}, "multiples of 32"),
        ({"size": (64, 64, 64)}, "multiples of 32"),
    ],
)
def test_load_refuses_arguments_out_of_range(
    trained: Path, arguments: dict[str, object], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        load(trained / "best_ckpt.pth", **arguments)  # type: ignore[arg-type]


def test_predict_keeps_no_pixels_of_a_video(detector: Detector, tmp_path: Path) -> None:
    clip = write_video(tmp_path / "clip.avi")
    found = detector.predict(clip)
    assert [one.number for one in found] == list(range(12))
    with pytest.raises(UserError, match=r"frame 11 of .*clip.avi was not kept.*stream\(\)"):
        found[11].plot()
    with pytest.raises(UserError, match="was not kept"):
        found[0].save(tmp_path / "frame.png")
    for kept, streamed in zip(found, detector.stream(clip), strict=True):
        assert same(kept, streamed)
        assert streamed.image.shape[:2] == kept.size


@pytest.mark.parametrize("tile", [0, -64])
def test_predict_refuses_tiles_of_nothing(detector: Detector, tile: int) -> None:
    with pytest.raises(UserError, match=f"tile must be at least 1, got {tile}"):
        detector.predict(np.zeros((64, 64, 3), np.uint8), tile=tile)


def test_load_refuses_names_of_another_number(trained: Path, tmp_path: Path) -> None:
    content = read(trained / "best_ckpt.pth")
    nameless = tmp_path / "nameless.pth"
    save_checkpoint(nameless, {**content, "spec": {**content["spec"], "class_names": []}})
    with pytest.raises(UserError, match=r"`names` names 2, and .*nameless.pth has 3 classes"):
        load(nameless, names=("a", "b"))
    assert load(nameless, names=("a", "b", "c")).names == ("a", "b", "c")
    assert load(nameless).names == ()


def test_demo_writes_an_annotated_video(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = write_video(tmp_path / "clip.avi")
    args = ("-c", trained / "best_ckpt.pth", "--save_dir", tmp_path / "out", "--conf", 0.0001)
    assert command(demo.main, "video", *args, "--path", clip) == 0
    assert "12 frames" in capsys.readouterr().err
    written = cv2.VideoCapture(str(tmp_path / "out" / "clip.mp4"))
    assert written.get(cv2.CAP_PROP_FRAME_COUNT) == 12
    assert written.get(cv2.CAP_PROP_FPS) == 10
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["clip.mp4"]


def test_demo_keeps_what_was_found_before_a_video_ends_early(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = write_video(tmp_path / "clip.avi")
    data = clip.read_bytes()
    clip.write_bytes(data[: len(data) // 2])
    args = ("-c", trained / "best_ckpt.pth", "--save_dir", tmp_path / "out", "--path", clip)
    assert command(demo.main, *args) == 1
    assert "ends early" in capsys.readouterr().err
    assert cv2.VideoCapture(str(tmp_path / "out" / "clip.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) > 0


DEMO_BAD = [
    (["webcam"], "give --save_result"),
    (["webcam", "--save_result", "--camid", "97"], "no camera 97"),
    (["video"], "name what to look at"),
    (["image", "--path", "clip.avi"], "is a video"),
    (["video", "--path", "a.jpg"], "is no video"),
    (["--path", "missing"], "nothing to look at in missing"),
]


@pytest.mark.parametrize(("flags", "words"), DEMO_BAD, ids=[" ".join(f) for f, _ in DEMO_BAD])
def test_demo_refuses_a_source(
    flags: list[str],
    words: str,
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "clip.avi")
    cv2.imwrite("a.jpg", np.zeros((32, 32, 3), np.uint8))
    assert command(demo.main, *flags, "-c", trained / "best_ckpt.pth") == 1
    assert words in capsys.readouterr().err
    assert not list(tmp_path.glob("**/*.mp4"))


@pytest.mark.parametrize(("height", "fps"), [(64, 0.0), (0, 25.0)])
def test_a_video_that_opencv_cannot_write_is_one_line(
    tmp_path: Path, height: int, fps: float
) -> None:
    with (
        pytest.raises(UserError, match=rf"no encoder here for it, with frames of 64×{height} pix"),
        writing_video(tmp_path / "a.mp4", fps) as append,
    ):
        append(np.zeros((height, 64, 3), np.uint8))
    assert not list(tmp_path.iterdir())


def test_video_without_a_frame_leaves_no_file(tmp_path: Path) -> None:
    with writing_video(tmp_path / "none.mp4", 10):
        pass
    assert not list(tmp_path.iterdir())
    with (
        pytest.raises(UserError, match=r"\.mp4 or \.avi"),
        writing_video(tmp_path / "clip.mov", 10),
    ):
        pass
