"""The built-in demo data set: circles, squares and triangles on busy backgrounds, as Pascal VOC.

Small enough to learn in minutes on a CPU, and wholly made by this file: the same arguments give
the same bytes.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from yolox.data.datasets.outlines import Box
from yolox.data.datasets.voc_xml import VocObject, annotation_xml
from yolox.data.errors import DataError
from yolox.utils.documents import read_json
from yolox.utils.files import is_full

CLASSES = ("circle", "square", "triangle")
_RECIPE_FILE = "demo.json"  # what the data set was made with; written last
_SIDE_RANGE = (24, 80)  # pixels
_OBJECT_RANGE = (4, 8)  # fewest and most wanted of an image
_MAX_ROTATION = 0.3  # most a shape is turned from upright, radians
_MAX_OVERLAP = 0.15  # share of the smaller box
_SUBPIXEL_BITS = 4

Image = npt.NDArray[np.uint8]


def generate_demo_dataset(
    root: Path,
    *,
    num_images: int = 200,
    image_size: tuple[int, int] = (192, 256),
    seed: int = 0,
) -> Path:
    """Write the demo data set to ``root/VOCdevkit`` and return that path.

    Args:
        root: made if not there.
        num_images: at least 5; four fifths are trainval (of which four fifths train, the others
            val), the others test.
        image_size: (height, width) in pixels, each at least 96.
        seed: another seed gives other pictures.

    The folder appears all at once: stopped half-way, this leaves no data set. If it is there
    already, made with the same arguments, nothing is done. Raises DataError if something else is
    there, ValueError for arguments out of range.
    """
    if num_images < 5:
        raise ValueError(f"num_images is {num_images}: expected at least 5")
    if min(image_size) < _SIDE_RANGE[1] + 6:
        raise ValueError(
            f"image_size is {image_size}: expected at least {_SIDE_RANGE[1] + 6} a side"
        )
    root = Path(root)
    devkit = root / "VOCdevkit"
    recipe = {"num_images": num_images, "image_size": list(image_size), "seed": seed, "version": 1}
    if devkit.exists():
        _require_same(devkit, recipe)
        return devkit
    try:
        root.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=".demo-", dir=root))
    except OSError as error:
        raise DataError(
            f"cannot write into {root} ({error.strerror}): choose another folder"
        ) from error
    try:
        made = work / devkit.name
        _write(made, num_images, image_size, seed)
        (made / _RECIPE_FILE).write_text(json.dumps(recipe) + "\n", encoding="utf-8")
        try:
            made.rename(devkit)
        except OSError:  # another process was quicker
            if not devkit.exists():
                raise
            _require_same(devkit, recipe)
    except OSError as error:
        room = "make room, or " if is_full(error) else ""
        raise DataError(
            f"cannot write the demo data into {root} ({error.strerror}): {room}choose another "
            "folder"
        ) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return devkit


def _require_same(devkit: Path, recipe: dict[str, object]) -> None:
    path = devkit / _RECIPE_FILE
    try:
        found = read_json(path)
    except (OSError, ValueError):
        found = None
    if found != recipe:
        what = f"the demo data made with {found}" if found else "other data"
        raise DataError(
            f"{devkit} already holds {what}; the demo data set asked for is {recipe}. Choose "
            f"another folder, or move that one away"
        )


def _write(devkit: Path, num_images: int, image_size: tuple[int, int], seed: int) -> None:
    voc = devkit / "VOC2007"
    for folder in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (voc / folder).mkdir(parents=True)
    names = [f"demo_{i:05d}" for i in range(num_images)]
    for i, name in enumerate(names):
        img, objects = draw_picture(image_size, np.random.default_rng([seed, i]))
        encoded = cv2.imencode(".jpg", img, [cv2.IMWRITE_JPEG_QUALITY, 92])[1]
        (voc / "JPEGImages" / f"{name}.jpg").write_bytes(encoded.tobytes())
        document = annotation_xml(f"{name}.jpg", image_size, objects, folder="VOC2007")
        (voc / "Annotations" / f"{name}.xml").write_bytes(document)
    trainval = num_images * 4 // 5
    train = trainval * 4 // 5
    splits = {
        "train": names[:train],
        "val": names[train:trainval],
        "trainval": names[:trainval],
        "test": names[trainval:],
    }
    for split, members in splits.items():
        text = "\n".join(members) + "\n"
        (voc / "ImageSets" / "Main" / f"{split}.txt").write_text(text, encoding="utf-8")
    (devkit / "classes.txt").write_text("\n".join(CLASSES) + "\n", encoding="utf-8")


# ----------------------------------------------------------------------------------------- pictures


def draw_picture(size: tuple[int, int], rng: np.random.Generator) -> tuple[Image, list[VocObject]]:
    """A picture of a size (H, W), BGR uint8 (H, W, 3), and the objects that are drawn on it."""
    img = _background(size, rng)
    objects: list[VocObject] = []
    wanted = int(rng.integers(_OBJECT_RANGE[0], _OBJECT_RANGE[1] + 1))
    for _ in range(20 * wanted):  # a full picture takes no more: then fewer objects will do
        if len(objects) == wanted:
            break
        shape = draw_object(img, rng, [other.box for other in objects])
        if shape is not None:
            objects.append(shape)
    return img, objects


def _background(size: tuple[int, int], rng: np.random.Generator) -> Image:
    """A colour gradient with blotches, fine noise and a few thin lines."""
    height, width = size
    corners = rng.uniform(40, 215, (2, 2, 3)).astype(np.float32)
    img = cv2.resize(corners, (width, height), interpolation=cv2.INTER_LINEAR)
    blotches = rng.normal(0, 12, (height // 16, width // 16, 3)).astype(np.float32)
    img = img + cv2.resize(blotches, (width, height), interpolation=cv2.INTER_CUBIC)
    img = img + rng.normal(0, 5, (height, width, 3)).astype(np.float32)
    out: Image = np.clip(img, 0, 255).astype(np.uint8)
    for _ in range(int(rng.integers(2, 7))):
        start, end = (rng.uniform(0, 1, (2, 2)) * (width, height)).astype(int).tolist()
        colour = rng.integers(0, 256, 3).tolist()
        cv2.line(out, start, end, colour, int(rng.integers(1, 3)), cv2.LINE_AA)
    return out


def draw_object(img: Image, rng: np.random.Generator, taken: list[Box]) -> VocObject | None:
    """Draw one shape in place; None, and nothing drawn, if its place is taken."""
    height, width = img.shape[:2]
    name = CLASSES[int(rng.integers(len(CLASSES)))]
    extent = float(np.exp(rng.uniform(*np.log(_SIDE_RANGE))))
    outline = _outline(name, rng)
    low, high = outline.min(axis=0), outline.max(axis=0)
    outline = (outline - low) / (high - low).max() * extent
    span = outline.max(axis=0)
    outline = outline + rng.uniform(2, np.array([width, height]) - 2 - span)
    mask = np.zeros((height, width), dtype=np.uint8)
    points = np.rint(outline * (1 << _SUBPIXEL_BITS)).astype(np.int32)
    cv2.fillPoly(mask, [points], 255, cv2.LINE_AA, _SUBPIXEL_BITS)
    rows, columns = np.flatnonzero((mask > 127).any(1)), np.flatnonzero((mask > 127).any(0))
    box = (int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1]))
    if any(_overlap(box, other) > _MAX_OVERLAP for other in taken):
        return None
    alpha = (mask / np.float32(255))[..., None]
    fill = _contrasting(img[mask > 127].mean(axis=0), rng)
    texture = fill + rng.normal(0, 6, img.shape).astype(np.float32)
    img[:] = np.clip(img * (1 - alpha) + texture * alpha, 0, 255).astype(np.uint8)
    return VocObject(name=name, box=box)


def _outline(name: str, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Corners (n, 2) of a shape about the origin, upright but for a small turn."""
    corners = {"circle": 64, "square": 4, "triangle": 3}[name]
    upright = np.pi / 4 if name == "square" else -np.pi / 2
    start = upright + rng.uniform(-_MAX_ROTATION, _MAX_ROTATION)
    angles = start + np.arange(corners) * (2 * np.pi / corners)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _contrasting(
    behind: npt.NDArray[np.float64], rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    """A colour clearly unlike the one behind it."""
    while True:
        colour = rng.uniform(0, 255, 3).astype(np.float32)
        if np.abs(colour - behind).max() > 90:
            return colour


def _overlap(a: Box, b: Box) -> float:
    """Shared area as a part of the smaller box's."""
    width = min(a[2], b[2]) - max(a[0], b[0]) + 1
    height = min(a[3], b[3]) - max(a[1], b[1]) + 1
    areas = [(box[2] - box[0] + 1) * (box[3] - box[1] + 1) for box in (a, b)]
    return max(0, width) * max(0, height) / min(areas)
