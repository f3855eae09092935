"""Drawing detections on an image."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch

from yolox.utils.printable import printable

__all__ = ["class_color", "vis"]

_FONT = cv2.FONT_HERSHEY_SIMPLEX


def class_color(class_id: int) -> tuple[int, int, int]:
    """BGR colour (0–255 each) of a class: always the same; 240 classes before one comes again."""
    palette = _palette()
    blue, green, red = palette[class_id % len(palette)]
    return blue, green, red


def ink_on(color: tuple[int, int, int]) -> tuple[int, int, int]:
    """Black or white, whichever can be read on a BGR colour (0–255 each)."""
    blue, green, red = color
    dark = 0.114 * blue + 0.587 * green + 0.299 * red < 128  # ITU-R BT.601 luma
    return (255, 255, 255) if dark else (0, 0, 0)


@cache
def _palette() -> tuple[tuple[int, int, int], ...]:
    """Vivid colours, BGR, each as unlike those before it as can be.

    Farthest-point order in CIE L*a*b*, where distance is close to how different two colours look.
    """
    hues, saturations, values = np.arange(0, 360, 9), (1.0, 0.7, 0.45), (1.0, 0.65)
    hsv = np.array([[hue, s, v] for hue in hues for s in saturations for v in values], np.float32)
    bgr_N3 = cv2.cvtColor(hsv[None], cv2.COLOR_HSV2BGR)
    lab_N3 = cv2.cvtColor(bgr_N3, cv2.COLOR_BGR2Lab)[0].astype(float)
    order = [0]
    apart_N = np.full(len(hsv), np.inf)
    while len(order) < len(hsv):
        apart_N = np.minimum(apart_N, np.linalg.norm(lab_N3 - lab_N3[order[-1]], axis=1))
        apart_N[order[-1]] = -1.0
        order.append(int(apart_N.argmax()))
    rows = (255 * bgr_N3[0, order]).round().astype(int).tolist()
    return tuple((blue, green, red) for blue, green, red in rows)


def vis(
    img: npt.NDArray[np.uint8],
    boxes: Any,
    scores: Any,
    cls_ids: Any,
    conf: float = 0.5,
    class_names: Sequence[str] | None = None,
) -> npt.NDArray[np.uint8]:
    """Draw detections with their class and score on a copy of an image.

    Args:
        img: uint8 (H, W, 3), BGR; not changed.
        boxes: tensor, array or list (n, 4), xyxy in pixels of ``img``; may reach outside it.
        scores: (n,), in [0, 1]; None for annotations, which have none and are all drawn.
        cls_ids: (n,), class indices.
        conf: detections that score less are not drawn.
        class_names: label by class index; None, or an index beyond the names, shows the number.

    Returns:
        uint8 (H, W, 3), BGR: the annotated copy.

    Raises:
        ValueError: when ``img`` is not such an image, or the lengths differ.
    """
    if img.ndim != 3 or img.shape[2] != 3 or img.dtype != np.uint8:
        raise ValueError(
            f"img: expected uint8 (height, width, 3), got {img.dtype} {tuple(img.shape)}"
        )
    boxes_N4 = _as_numpy(boxes).reshape(-1, 4)
    annotated = scores is None
    scores_N = np.ones(len(boxes_N4)) if annotated else _as_numpy(scores).reshape(-1)
    classes_N = _as_numpy(cls_ids).reshape(-1).astype(int)
    if not len(boxes_N4) == len(scores_N) == len(classes_N):
        raise ValueError(
            "expected one score and one class a box, got "
            f"{len(boxes_N4)} boxes, {len(scores_N)} scores, {len(classes_N)} classes"
        )
    canvas = np.ascontiguousarray(img).copy()
    # Weakest first: the surest detection ends on top.
    drawn = [i for i in np.argsort(scores_N, kind="stable") if scores_N[i] >= conf]
    # No line may reach this far, and OpenCV refuses coordinates beyond 32 bits.
    limit = 4 * max(canvas.shape[:2])
    corners_N4 = np.nan_to_num(boxes_N4, posinf=limit, neginf=-limit).clip(-limit, limit)
    corners_N4 = corners_N4.round().astype(int)
    thickness = max(1, round(min(canvas.shape[:2]) / 320))
    for i in drawn:
        x1, y1, x2, y2 = corners_N4[i].tolist()
        cv2.rectangle(canvas, (x1, y1), (x2, y2), class_color(int(classes_N[i])), thickness)
    for i in drawn:
        x1, y1 = corners_N4[i, :2].tolist()
        class_id = int(classes_N[i])
        named = class_names is not None and 0 <= class_id < len(class_names)
        name = class_names[class_id] if class_names is not None and named else str(class_id)
        name = printable(name)
        text = name if annotated else f"{name} {scores_N[i]:.2f}"
        _draw_label(canvas, text, (x1, y1), class_color(class_id))
    return canvas


def _draw_label(
    canvas: npt.NDArray[np.uint8], text: str, corner: tuple[int, int], color: tuple[int, int, int]
) -> None:
    """Write ``text`` on a filled strip above the box corner (x, y), or below it at the top edge."""
    height, width = canvas.shape[:2]
    scale = max(0.35, min(height, width) / 1000)
    stroke = max(1, round(scale * 1.5))
    (text_w, text_h), baseline = cv2.getTextSize(text, _FONT, scale, stroke)
    pad = max(1, round(3 * scale))
    strip_w, strip_h = text_w + 2 * pad, text_h + baseline + 2 * pad
    left = max(0, min(corner[0], width - strip_w))
    top = corner[1] - strip_h if corner[1] >= strip_h else corner[1]
    top = max(0, min(top, height - strip_h))
    cv2.rectangle(canvas, (left, top), (left + strip_w, top + strip_h), color, cv2.FILLED)
    origin = (left + pad, top + pad + text_h)
    cv2.putText(canvas, text, origin, _FONT, scale, ink_on(color), stroke, cv2.LINE_AA)


def _as_numpy(values: Any) -> npt.NDArray[Any]:
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().float().numpy()
    return np.asarray(values)
