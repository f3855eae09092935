"""Tiny data sets that tests may break, and the same pictures written in three layouts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

Objects = list[tuple[str, tuple[float, float, float, float], int]]


def voc_xml(objects: Objects, size: tuple[int, int] | None = (40, 60)) -> str:
    """Boxes are written as given: 1-based, inclusive. Size is (height, width)."""
    parts = ["<annotation>"]
    if size is not None:
        parts.append(f"<size><width>{size[1]}</width><height>{size[0]}</height></size>")
    for name, box, difficult in objects:
        corners = "".join(
            f"<{tag}>{value}</{tag}>"
            for tag, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
        )
        parts.append(
            f"<object><name>{name}</name><difficult>{difficult}</difficult>"
            f"<bndbox>{corners}</bndbox></object>"
        )
    return "".join([*parts, "</annotation>"])


class VocTree:
    """Builds VOCdevkit/VOC2007 under a folder."""

    def __init__(self, root: Path) -> None:
        self.devkit = root / "VOCdevkit"
        self.voc = self.devkit / "VOC2007"
        for folder in ("Annotations", "ImageSets/Main", "JPEGImages"):
            (self.voc / folder).mkdir(parents=True)

    def image(self, name: str, size: tuple[int, int] = (40, 60)) -> Path:
        path = self.voc / "JPEGImages" / name
        img = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
        path.write_bytes(cv2.imencode(Path(name).suffix.lower(), img)[1].tobytes())
        return path

    def annotation(self, name: str, text: str) -> Path:
        path = self.voc / "Annotations" / f"{name}.xml"
        path.write_text(text, encoding="utf-8")
        return path

    def split(self, name: str, *lines: str) -> None:
        path = self.voc / "ImageSets" / "Main" / f"{name}.txt"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def add(self, name: str, objects: Objects, size: tuple[int, int] = (40, 60)) -> None:
        self.image(f"{name}.jpg", size)
        self.annotation(name, voc_xml(objects, size))


@dataclass(frozen=True)
class Picture:
    """One image: size (height, width); objects as class, x1 y1 x2 y2 (0-based), difficult."""

    name: str
    size: tuple[int, int]
    objects: Objects


def write_image(path: Path, size: tuple[int, int] = (40, 60)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    encoded = cv2.imencode(path.suffix, np.zeros((*size, 3), dtype=np.uint8))[1]
    path.write_bytes(encoded.tobytes())
    return path


def write_voc(root: Path, pictures: Sequence[Picture], split: str = "train") -> Path:
    """Returns the devkit; the image sets are (("2007", split),)."""
    tree = VocTree(root)
    for picture in pictures:
        tree.image(f"{picture.name}.png", picture.size)
        objects = [(name, tuple(v + 1 for v in box), flag) for name, box, flag in picture.objects]
        tree.annotation(picture.name, voc_xml(objects, picture.size))
    tree.split(split, *(picture.name for picture in pictures))
    return tree.devkit


def coco_json(pictures: Sequence[Picture], classes: Sequence[str]) -> dict[str, Any]:
    """Image ids are 10, 20, ...; category ids 3, 6, ... in the order of the classes."""
    images, annotations = [], []
    for i, picture in enumerate(pictures, start=1):
        height, width = picture.size
        images.append(
            {"id": 10 * i, "file_name": f"{picture.name}.png", "height": height, "width": width}
        )
        for name, (x1, y1, x2, y2), flag in picture.objects:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": 10 * i,
                    "category_id": 3 * (classes.index(name) + 1),
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "iscrowd": flag,
                }
            )
    # categories in falling order of their ids: readers sort them
    categories = [{"id": 3 * (i + 1), "name": name} for i, name in enumerate(classes)][::-1]
    return {"images": images, "annotations": annotations, "categories": categories}


def write_coco(
    root: Path, pictures: Sequence[Picture], classes: Sequence[str], split: str = "train"
) -> Path:
    """Returns the data folder; the file is annotations/{split}.json, the images in {split}."""
    for picture in pictures:
        write_image(root / split / f"{picture.name}.png", picture.size)
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    content = json.dumps(coco_json(pictures, classes))
    (root / "annotations" / f"{split}.json").write_text(content, encoding="utf-8")
    return root


def write_yolo(root: Path, pictures: Sequence[Picture], classes: Sequence[str]) -> Path:
    """Returns the data.yaml; its only split is train. Flags are lost: there is no place for one."""
    for picture in pictures:
        write_image(root / "images" / "train" / f"{picture.name}.png", picture.size)
        height, width = picture.size
        lines = [
            f"{classes.index(name)} {(x1 + x2) / 2 / width} {(y1 + y2) / 2 / height} "
            f"{(x2 - x1) / width} {(y2 - y1) / height}\n"
            for name, (x1, y1, x2, y2), _ in picture.objects
        ]
        labels = root / "labels" / "train" / f"{picture.name}.txt"
        labels.parent.mkdir(parents=True, exist_ok=True)
        if lines:
            labels.write_text("".join(lines), encoding="utf-8")
    path = root / "data.yaml"
    path.write_text(f"train: images/train\nnames: {json.dumps(list(classes))}\n", encoding="utf-8")
    return path
