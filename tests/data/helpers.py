"""A tiny VOC tree that tests may break."""

from __future__ import annotations

from pathlib import Path

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
