"""The XML file of an image, as Pascal VOC and those who follow it write it, read and written."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError, SubElement, indent, tostring

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from yolox.data.datasets.outlines import Box, points_box
from yolox.data.datasets.records import Record
from yolox.data.datasets.values import as_flag, as_number
from yolox.data.errors import DataError
from yolox.utils.documents import MAX_XML_BYTES, DocumentError, read_bounded

_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_MOST = 2**31 - 1  # pixels of a side
_ROTATED_FIELDS = ("cx", "cy", "w", "h", "angle")


@dataclass(frozen=True, kw_only=True)
class VocObject:
    """An object to write.

    Attributes:
        name: of its class.
        box: x1 y1 x2 y2 of the first and last pixel, 0-based.
        truncated: whether it reaches over the edge of the image.
        difficult: whether evaluation neither rewards nor punishes it.
    """

    name: str
    box: Box
    truncated: bool = False
    difficult: bool = False


def annotation_xml(
    filename: str, size: tuple[int, int], objects: Sequence[VocObject], *, folder: str = ""
) -> bytes:
    """The document of an image, boxes as VOC writes them, from 1.

    Args:
        filename: of the image.
        size: its (height, width), pixels.
        objects: in the order in which they are written.
        folder: left out where it is empty.
    """
    root = Element("annotation")
    if folder:
        _child(root, "folder", folder)
    _child(root, "filename", filename)
    size_node = _child(root, "size")
    for tag, side in (("width", size[1]), ("height", size[0]), ("depth", 3)):
        _child(size_node, tag, str(side))
    for entry in objects:
        node = _child(root, "object")
        _child(node, "name", entry.name)
        _child(node, "truncated", str(int(entry.truncated)))
        _child(node, "difficult", str(int(entry.difficult)))
        box = _child(node, "bndbox")
        for tag, value in zip(_CORNERS, entry.box, strict=True):
            _child(box, tag, f"{value + 1:.2f}".removesuffix(".00"))
    indent(root)
    document: bytes = tostring(root, encoding="utf-8", xml_declaration=True)
    return document + b"\n"


def _child(parent: Element, tag: str, text: str | None = None) -> Element:
    node = SubElement(parent, tag)
    node.text = text
    return node


def read_xml(source: Path, image: Path) -> tuple[Record, list[int]]:
    """An image's objects, and the numbers (from 1) of those that have an outline but no box.

    The box of these is that around their <polygon> or <robndbox>. Raises DataError with what is
    wrong in the file (without its path).
    """
    root = _root(source)
    names: list[str] = []
    boxes: list[Box] = []
    difficult: list[bool] = []
    outlined: list[int] = []
    for number, obj in enumerate(root.findall("object"), start=1):
        name = (obj.findtext("name") or "").strip()
        if not name:
            raise DataError(f"object {number} has no <name>")
        names.append(name)
        bndbox = obj.find("bndbox")
        if bndbox is None:
            outlined.append(number)
        boxes.append(_outline(obj, number) if bndbox is None else _bndbox(bndbox, number))
        difficult.append(_difficult(obj, number))
    record = Record(
        name=image.stem,
        image=image,
        source=source,
        size=_size(root),
        names=tuple(names),
        boxes=tuple(boxes),
        difficult=tuple(difficult),
    )
    return record, outlined


def _root(source: Path) -> Element:
    try:
        root: Element = fromstring(read_bounded(source, MAX_XML_BYTES))
    except FileNotFoundError:
        raise DataError("the file is not there") from None
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})") from None
    except DocumentError as error:
        raise DataError(f"cannot be read: {error}") from None
    except DefusedXmlException:
        raise DataError("defines XML entities, which are refused as unsafe") from None
    except (ParseError, ValueError, LookupError) as error:
        raise DataError(f"is not well-formed XML ({error})") from None
    if root.find("object") is None:
        inner = next(
            (tag for tag in map(_plain_tag, root.iter()) if tag in ("object", "bndbox")), ""
        )
        if inner or _plain_tag(root) != "annotation":
            raise DataError(
                f"is not in VOC's format: expected <annotation> with each <object> directly in it, "
                f"found <{root.tag}>{f' with <{inner}> elsewhere' if inner else ''}"
            )
    return root


def _plain_tag(element: Element) -> str:
    """Without a namespace, in small letters."""
    return str(element.tag).rpartition("}")[2].casefold()


def _difficult(obj: Element, number: int) -> bool:
    text = obj.findtext("difficult")
    flag = as_flag(text)
    if flag is None:
        raise DataError(f"object {number}: <difficult> is {text!r}: expected 0 or 1")
    return flag


def _bndbox(bndbox: Element, number: int) -> Box:
    # by one pass over the children: findtext four times is slower than the rest of the parse
    texts = {child.tag: child.text for child in bndbox}
    x1, y1, x2, y2 = _numbers(texts, _CORNERS, f"object {number}: <bndbox>", "four")
    return x1 - 1, y1 - 1, x2 - 1, y2 - 1


def _numbers(
    texts: dict[str, str | None], names: tuple[str, ...], where: str, words: str
) -> list[float]:
    found = []
    for name in names:
        if name not in texts:
            raise DataError(f"{where} has no <{name}>")
        number = as_number(texts[name])
        if number is None:
            what = f"is not {words} numbers, all of them finite: <{name}> is {texts[name]!r}"
            raise DataError(f"{where} {what}")
        found.append(number)
    return found


def _outline(obj: Element, number: int) -> Box:
    """Around a polygon, as <x1> <y1> <x2> ... or as <pt>s of <x> <y>; or around a turned box."""
    polygon, turned = obj.find("polygon"), obj.find("robndbox")
    if turned is not None:
        texts = {child.tag: child.text for child in turned}
        x, y, width, height, angle = _numbers(
            texts, _ROTATED_FIELDS, f"object {number}: <robndbox>", "five"
        )
        cos, sin = abs(math.cos(angle)), abs(math.sin(angle))
        half_x, half_y = (width * cos + height * sin) / 2, (width * sin + height * cos) / 2
        return x - half_x - 1, y - half_y - 1, x + half_x - 1, y + half_y - 1
    if polygon is None:
        raise DataError(f"object {number} has no <bndbox>")
    values = [(_plain_tag(leaf), as_number(leaf.text)) for leaf in polygon.iter() if not len(leaf)]
    xs, ys = ([value for tag, value in values if tag.startswith(axis)] for axis in "xy")
    if len(xs) != len(ys) or len(xs) < 3 or None in (*xs, *ys):
        raise DataError(
            f"object {number} has no <bndbox>, and a <polygon> that is not 3 or more points"
        )
    x1, y1, x2, y2 = points_box([x for x in xs if x is not None], [y for y in ys if y is not None])
    return x1 - 1, y1 - 1, x2 - 1, y2 - 1


def _size(root: Element) -> tuple[int, int] | None:
    """(height, width) as the file says, None if it does not, or says what no image has."""
    height, width = (as_number(root.findtext(f"size/{side}")) for side in ("height", "width"))
    if height is None or width is None or not (1 <= height <= _MOST and 1 <= width <= _MOST):
        return None
    return int(height), int(width)
