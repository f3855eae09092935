"""Annotated samples side by side in one picture: what a person should look at before training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from yolox.data.data_augment import Image, fit_size
from yolox.data.datasets.mosaicdetection import MosaicDetection
from yolox.data.datasets.records import Record
from yolox.data.decoding import read_image
from yolox.data.errors import DataError
from yolox.data.samplers import Draw
from yolox.utils.files import write_bytes
from yolox.utils.printable import printable
from yolox.utils.visualize import class_color, ink_on

_TILE_WIDTH = 480  # pixels
_ASPECT_RANGE = (0.5, 1.5)  # height / width that a tile may have
_GAP = 8
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_FONT_SCALE = 0.5  # of the font in captions and legend
_LABEL_FONT_SCALE = 0.38  # of the font at boxes
_LINE_HEIGHT = 22  # height of a line of text
_MAX_NAMED_OBJECTS = 40  # objects of a tile, above which they are not named one by one
_TRIES = 8  # draws of an augmented sample, until one has objects
_PAPER, _INK = (32, 32, 32), (230, 230, 230)

Color = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True, eq=False)
class Tile:
    """One picture of a sheet.

    Attributes:
        image: BGR uint8 (height, width, 3).
        boxes: (n, 4), x1 y1 x2 y2 in pixels of the image; may reach outside it.
        names: class name of each box.
        caption: what is written below.
    """

    image: Image
    boxes: npt.NDArray[Any]
    names: tuple[str, ...]
    caption: str


# ------------------------------------------------------------------------------------------ samples


def choose_images(classes: Sequence[Collection[str]], number: int, seed: int) -> list[int]:
    """Images that together show every class, as far as `number` allows; by chance otherwise.

    The rarest class not shown yet gets an image, of those that have it one that shows most other
    such classes; what room is left goes to random images.

    Args:
        classes: class names in each image.
        number: of images wanted; fewer come where there are fewer.
        seed: of chance.

    Returns:
        Indices into `classes`, each once, in the order chosen.
    """
    order = np.random.default_rng(seed).permutation(len(classes)).tolist()
    sets = [set(names) for names in classes]
    images = Counter(name for names in sets for name in names)
    missing = set(images)
    chosen: list[int] = []
    while missing and len(chosen) < number:
        rarest = min(missing, key=lambda name: (images[name], name))
        having = [i for i in order if rarest in sets[i]]
        best = max(having, key=lambda i: len(sets[i] & missing))
        chosen.append(best)
        missing -= sets[best]
    taken = set(chosen)
    return [*chosen, *(i for i in order if i not in taken)][:number]


def record_tile(record: Record) -> Tile | None:
    """An image with its objects as annotated; None if it cannot be decoded."""
    try:
        image = read_image(record.image)
    except DataError:
        return None
    height, width = image.shape[:2]
    boxes = np.array(record.boxes, dtype=float).reshape(-1, 4)
    if record.relative:
        boxes = boxes * (width, height, width, height)
    return Tile(image=image, boxes=boxes, names=record.names, caption=record.name)


def record_tiles(records: Sequence[Record], number: int, seed: int) -> list[Tile]:
    """Tiles of records that `choose_images` picks; others are taken for those not to be decoded."""
    order = choose_images([record.names for record in records], len(records), seed)
    tiles = (record_tile(records[i]) for i in order)
    return list(islice((tile for tile in tiles if tile is not None), number))


def augmented_tiles(dataset: MosaicDetection, number: int, seed: int) -> list[Tile]:
    """Training samples as the network gets them, made around images that `choose_images` picks.

    Images and draws with objects are preferred; a caption says where eight draws had none.

    Args:
        dataset: of the training loader, with a `TrainTransform`.
        number: of samples; where there are fewer images they come again, augmented anew.
        seed: of choice and augmentation.
    """
    samples, names = dataset.dataset.samples, dataset.dataset.class_names
    shown = [i for i, sample in enumerate(samples) if len(sample.classes)] or range(len(samples))
    classes = [[names[c] for c in samples[i].classes] for i in shown]
    order = [shown[i] for i in choose_images(classes, number, seed)]
    tiles = []
    for position in islice(count(), number if order else 0):
        index = order[position % len(order)]
        chw, labels = _draw_with_objects(dataset, index, seed + position, step=number)
        lost = "" if len(labels) else f", nothing left of it in {_TRIES} draws"
        centre, half = labels[:, 1:3], labels[:, 3:] / 2
        tiles.append(
            Tile(
                image=np.ascontiguousarray(chw.transpose(1, 2, 0)).round().astype(np.uint8),
                boxes=np.concatenate([centre - half, centre + half], axis=1),
                names=tuple(names[int(c)] for c in labels[:, 0]),
                caption=f"around {samples[index].name}{lost}",
            )
        )
    return tiles


def _draw_with_objects(
    dataset: MosaicDetection, index: int, seed: int, *, step: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """The first of some draws that objects are left in, or the first of all; pixels and labels.

    A mosaic may be moved and shrunk until little but padding is seen, of which a sheet tells
    nothing.
    """
    drawn = []
    for attempt in range(_TRIES):
        chw, labels, _, _ = dataset[Draw(index, seed + attempt * step, dataset.mosaic)]
        drawn.append((chw, labels[(labels[:, 3] > 0) & (labels[:, 4] > 0)]))
        if len(drawn[-1][1]):
            return drawn[-1]
    return drawn[0]


# ------------------------------------------------------------------------------------------ drawing


def draw_sheet(tiles: Sequence[Tile], classes: Sequence[str], title: str = "") -> Image:
    """The tiles in a grid that is about square, under a legend of the classes they show.

    Args:
        tiles: at least one.
        classes: the class list; it decides colours. Other names are drawn in further colours.
        title: a line above.

    Returns:
        BGR uint8 (height, width, 3).

    Raises DataError where there is no tile.
    """
    if not tiles:
        raise DataError("no image to draw a sheet of: none can be decoded")
    shown = Counter(name for tile in tiles for name in tile.names)
    order = [*classes, *sorted(set(shown) - set(classes))]
    colors = {name: class_color(i) for i, name in enumerate(order)}
    columns = int(np.ceil(np.sqrt(len(tiles))))
    rows = -(-len(tiles) // columns)
    aspect = np.median([tile.image.shape[0] / tile.image.shape[1] for tile in tiles])
    size = (round(_TILE_WIDTH * float(np.clip(aspect, *_ASPECT_RANGE))), _TILE_WIDTH)
    step = (size[0] + _LINE_HEIGHT + _GAP, size[1] + _GAP)
    width = columns * step[1] + _GAP
    head = _legend(title, [(n, shown[n], colors[n]) for n in order if shown[n]], width)
    sheet: Image = np.full((len(head) + rows * step[0], width, 3), _PAPER, dtype=np.uint8)
    sheet[: len(head)] = head
    for i, tile in enumerate(tiles):
        top, left = len(head) + i // columns * step[0], _GAP + i % columns * step[1]
        sheet[top : top + size[0] + _LINE_HEIGHT, left : left + size[1]] = _draw_tile(
            tile, size, colors
        )
    return sheet


def _draw_tile(tile: Tile, size: tuple[int, int], colors: dict[str, Color]) -> Image:
    """A tile of (height, width) pixels, with its caption below."""
    out: Image = np.full((size[0] + _LINE_HEIGHT, size[1], 3), _PAPER, dtype=np.uint8)
    (height, width), ratio = fit_size(tile.image.shape[:2], size)
    shrinks = cv2.INTER_AREA if ratio < 1 else cv2.INTER_LINEAR
    picture = cv2.resize(tile.image, (width, height), interpolation=shrinks)
    # Beyond the picture there is nothing to see, and OpenCV refuses coordinates beyond 32 bits.
    boxes = np.nan_to_num(tile.boxes * ratio).clip(-2, max(size) + 2).round().astype(int)
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    large_first = np.argsort(-areas, kind="stable").tolist()
    for i in large_first:
        x1, y1, x2, y2 = boxes[i].tolist()
        cv2.rectangle(picture, (x1, y1), (x2, y2), colors[tile.names[i]], 2)
    # In a crowd, names would hide the objects; the legend's colours tell.
    for i in large_first if len(boxes) <= _MAX_NAMED_OBJECTS else []:
        _draw_label(picture, printable(tile.names[i]), boxes[i].tolist(), colors[tile.names[i]])
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    out[top : top + height, left : left + width] = picture
    objects = f"{len(tile.names)} objects"
    _write(out, objects, (size[1] - _text_width(objects) - 4, size[0] + _LINE_HEIGHT - 7))
    room = size[1] - _text_width(objects) - 20
    _write(out, _shortened(tile.caption, room), (4, size[0] + _LINE_HEIGHT - 7))
    return out


def _draw_label(picture: Image, text: str, box: Sequence[int], color: Color) -> None:
    """A class name on its colour in a corner of the box, or above a box that it would cover."""
    x1, y1, x2, y2 = box
    (width, height), baseline = cv2.getTextSize(text, _FONT, _LABEL_FONT_SCALE, 1)
    width, height = width + 4, height + baseline + 2
    fits = width < x2 - x1 and 3 * height < y2 - y1
    left = max(0, min(x1, picture.shape[1] - width))
    top = max(0, min(y1 if fits else y1 - height, picture.shape[0] - height))
    cv2.rectangle(picture, (left, top), (left + width, top + height), color, cv2.FILLED)
    origin = (left + 2, top + height - baseline)
    cv2.putText(picture, text, origin, _FONT, _LABEL_FONT_SCALE, ink_on(color), 1, cv2.LINE_AA)


def _legend(title: str, entries: Sequence[tuple[str, int, Color]], width: int) -> Image:
    """Title and classes with their number of objects, in as many lines as that takes."""
    places, x, line = [], _GAP, 1 if title else 0
    for name, objects, _ in entries:
        text = _shortened(f"{printable(name)} {objects}", width - 2 * _GAP - 40)
        needed = 18 + _text_width(text) + 22
        if x > _GAP and x + needed > width:
            x, line = _GAP, line + 1
        places.append((text, x, _GAP + line * _LINE_HEIGHT))
        x += needed
    out: Image = np.full((2 * _GAP + (line + 1) * _LINE_HEIGHT, width, 3), _PAPER, dtype=np.uint8)
    if title:
        _write(out, _shortened(title, width - 2 * _GAP), (_GAP, _GAP + _LINE_HEIGHT - 7))
    for (text, x, y), (_, _, color) in zip(places, entries, strict=True):
        cv2.rectangle(out, (x, y + 4), (x + 12, y + 16), color, cv2.FILLED)
        _write(out, text, (x + 18, y + _LINE_HEIGHT - 7))
    return out


def _write(out: Image, text: str, origin: tuple[int, int]) -> None:
    cv2.putText(out, text, origin, _FONT, _FONT_SCALE, _INK, 1, cv2.LINE_AA)


def _text_width(text: str) -> int:
    width: int = cv2.getTextSize(text, _FONT, _FONT_SCALE, 1)[0][0]
    return width


def _shortened(text: str, room: int) -> str:
    """The text, or its end after two dots where it is wider than `room` pixels."""
    if _text_width(text) <= room:
        return text
    start = next((i for i in range(len(text)) if _text_width(f"..{text[i:]}") <= room), len(text))
    return f"..{text[start:]}"


def save_sheet(path: Path, sheet: Image) -> None:
    """Write a PNG, its folder made where needed. Raises `UserError` where it cannot be."""
    write_bytes(path, cv2.imencode(".png", sheet)[1].tobytes())
