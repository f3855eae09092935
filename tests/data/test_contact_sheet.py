"""Contact sheets: which images are chosen, that boxes are where they belong."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolox.data import (
    DataError,
    DetectionDataset,
    MosaicDetection,
    Sample,
    TrainTransform,
    VOCDetection,
)
from yolox.data.contact_sheet import (
    Tile,
    augmented_tiles,
    choose_images,
    draw_sheet,
    record_tile,
    record_tiles,
    save_sheet,
)
from yolox.data.datasets.records import Record
from yolox.data.samplers import Draw
from yolox.utils.visualize import class_color

GREY = 77


def tile(
    boxes: list[list[float]], names: tuple[str, ...], size: tuple[int, int] = (60, 80)
) -> Tile:
    image = np.full((*size, 3), GREY, dtype=np.uint8)
    return Tile(
        image=image, boxes=np.array(boxes, dtype=float).reshape(-1, 4), names=names, caption="a"
    )


# ------------------------------------------------------------------------------------------- choice


def test_rarest_class_first_and_images_that_show_more() -> None:
    classes = [{"dog"}, {"dog"}, {"dog", "cat"}, {"cat"}, {"emu"}, set()]
    for seed in range(5):
        assert choose_images(classes, 2, seed) == [4, 2]
        assert sorted(choose_images(classes, 9, seed)) == [0, 1, 2, 3, 4, 5]
    assert choose_images(classes, 4, 1) == choose_images(classes, 4, 1)
    assert len({tuple(choose_images(classes, 4, seed)) for seed in range(20)}) > 1
    assert choose_images([], 3, 0) == []


@given(st.lists(st.sets(st.sampled_from("abcdef")), max_size=12), st.integers(0, 9))
def test_every_class_is_shown_where_there_is_room(classes: list[set[str]], seed: int) -> None:
    every = set().union(*classes)
    chosen = choose_images(classes, len(every), seed)
    assert len(chosen) == len(set(chosen)) == min(len(every), len(classes))
    assert set().union(*(classes[i] for i in chosen)) == every


# ------------------------------------------------------------------------------------------- tiles


def written(path: Path, name: str, **fields: object) -> Record:
    path.write_bytes(cv2.imencode(".png", np.zeros((40, 60, 3), np.uint8))[1].tobytes())
    return Record(name=name, image=path, source=path, **fields)


def test_tiles_of_records_in_pixels_without_broken_ones(tmp_path: Path) -> None:
    fields = {"names": ("dog",), "boxes": ((0.5, 0.25, 1.0, 0.5),), "relative": True}
    good = [written(tmp_path / f"{i}.png", f"i{i}", **fields) for i in range(2)]
    broken = written(tmp_path / "2.png", "i2", names=("cat",), boxes=((0, 0, 9, 9),))
    broken.image.write_bytes(b"no image")
    gone = Record(name="i3", image=tmp_path / "no.png", source=tmp_path)
    assert record_tile(broken) is None
    assert record_tile(gone) is None
    tiles = record_tiles([broken, *good, gone], 2, 0)
    assert sorted(t.caption for t in tiles) == ["i0", "i1"]
    np.testing.assert_allclose(tiles[0].boxes, [[30, 10, 60, 20]])
    assert tiles[0].image.shape == (40, 60, 3)


def test_augmented_without_augmentation_is_the_letterboxed_sample(tmp_path: Path) -> None:
    """Mosaic, colour and mirror off: the boxes drawn back are the annotated ones, scaled."""
    image = written(tmp_path / "a.png", "a").image
    sample = Sample(
        image_id=0, name="a", path=image, height=40, width=60,
        boxes=np.array([[10, 5, 30, 25], [0, 0, 60, 40]], np.float32),
        classes=np.array([1, 0]), difficult=np.zeros(2, bool),
    )  # fmt: skip
    plain = TrainTransform(max_labels=5, flip_prob=0, hsv_prob=0)
    dataset = MosaicDetection(
        DetectionDataset([sample], ["cat", "dog"]), (96, 96), mosaic=False, preproc=plain
    )
    tiles = augmented_tiles(dataset, 2, seed=0)
    assert [t.caption for t in tiles] == ["around a", "around a"]
    assert tiles[0].names == ("dog", "cat")
    np.testing.assert_allclose(tiles[0].boxes, [[16, 8, 48, 40], [0, 0, 96, 64]], atol=1e-4)
    assert tiles[0].image.dtype == np.uint8
    assert (tiles[0].image[:64] == 0).all()
    assert (tiles[0].image[64:] == 114).all()


def test_augmented_tiles_follow_the_seed(demo: Path) -> None:
    data = VOCDetection(demo, (("2007", "train"),))
    dataset = MosaicDetection(data, (96, 128), preproc=TrainTransform(50))
    first, again, other = (augmented_tiles(dataset, 3, seed) for seed in (1, 1, 2))
    assert all((a.image == b.image).all() for a, b in zip(first, again, strict=True))
    assert any((a.image != b.image).any() for a, b in zip(first, other, strict=True))
    assert {name for t in first for name in t.names} <= set(data.class_names)


class Drawn:
    """A mosaic whose draws show their object with some seeds only."""

    mosaic = True

    def __init__(self, objects: list[int], seeds: set[int]) -> None:
        self.seeds = seeds
        samples = [
            SimpleNamespace(name=f"image {i}", classes=np.zeros(n, int))
            for i, n in enumerate(objects)
        ]
        self.dataset = SimpleNamespace(samples=samples, class_names=["cat"])

    def __getitem__(self, draw: Draw) -> tuple[np.ndarray, np.ndarray, None, None]:
        grey = np.full((3, 32, 32), 114, np.float32)
        labels = np.zeros((5, 5), np.float32)
        if draw.seed in self.seeds:
            labels[0] = (0, 16, 16, 8, 8)
        return grey, labels, None, None


def test_augmented_tiles_show_objects_where_a_draw_has_any() -> None:
    tiles = augmented_tiles(Drawn([0, 2, 0, 1], {10, 15}), 2, seed=10)  # type: ignore[arg-type]
    assert {tile.caption for tile in tiles} == {"around image 1", "around image 3"}
    assert [tile.names for tile in tiles] == [("cat",), ("cat",)]


def test_an_augmented_tile_without_objects_says_why() -> None:
    (tile,) = augmented_tiles(Drawn([1], set()), 1, seed=0)  # type: ignore[arg-type]
    assert tile.names == ()
    assert tile.caption == "around image 0, nothing left of it in 8 draws"
    (empty,) = augmented_tiles(Drawn([0], {0}), 1, seed=0)  # type: ignore[arg-type]
    assert empty.caption == "around image 0"


# ----------------------------------------------------------------------------------------- drawing


def test_boxes_are_drawn_where_they_are_in_their_class_s_colour() -> None:
    sheet = draw_sheet([tile([[20, 15, 70, 55]], ("dog",))], ["cat", "dog"])
    colour = (sheet == class_color(1)).all(axis=2)
    grey = (sheet == GREY).all(axis=2)
    rows, columns = np.flatnonzero(grey.any(axis=1)), np.flatnonzero(grey.any(axis=0))
    top, left = rows[0], columns[0]
    scale = (columns[-1] + 1 - left) / 80
    assert scale == 6
    below = colour[top:]  # the legend above has the colour too
    ys, xs = np.flatnonzero(below.any(axis=1)), np.flatnonzero(below.any(axis=0))
    box = (xs[0] - left, ys[0], xs[-1] - left, ys[-1])
    assert np.abs(np.array(box) - scale * np.array([20, 15, 70, 55])).max() <= 2


def test_sheet_is_about_square_and_takes_any_box() -> None:
    wild = [[-1e9, -5, 1e12, 30], [np.nan, 0, 5, 5], [9, 9, 3, 3]]
    tiles = [tile(wild, ("dog", "dog", "unknown"))] * 3 + [tile([], (), (300, 20))]
    sheet = draw_sheet(tiles, ["dog"], "a title " * 50)
    assert sheet.dtype == np.uint8
    assert sheet.shape[1] == 2 * (480 + 8) + 8
    assert sheet.shape[0] > 2 * 360
    assert draw_sheet(tiles[:2], ["dog"]).shape[0] < sheet.shape[0] - 360
    with pytest.raises(DataError, match="no image"):
        draw_sheet([], ["dog"])


def test_long_legends_wrap() -> None:
    names = tuple(f"a rather long class name {i}" for i in range(30))
    few = draw_sheet([tile([[0, 0, 9, 9]], names[:1])], names)
    many = draw_sheet([tile([[0, 0, 9, 9]] * 30, names)], names)
    assert many.shape[1] == few.shape[1]
    assert many.shape[0] > few.shape[0] + 200


def test_sheet_is_saved_as_it_is(tmp_path: Path) -> None:
    sheet = draw_sheet([tile([[5, 5, 50, 50]], ("dog",))], ["dog"])
    save_sheet(tmp_path / "new" / "s.png", sheet)
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "new" / "s.png")), sheet)
