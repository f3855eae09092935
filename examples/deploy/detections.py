"""What running an exported file takes beside its runtime: NumPy and OpenCV, no PyTorch.

python with_onnxruntime.py model.onnx image.jpg and python with_ncnn.py model.param image.jpg use
it; copy it beside them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np

# How every exported file wants its input; a file that says otherwise is none of this project's.
INPUT = {"input_layout": "NCHW", "input_color": "BGR", "letterbox": "top left"}


def read_facts(metadata: dict[str, str]) -> dict[str, Any]:
    """What a file says of itself that it takes to run it; what is no word is JSON."""
    if any(metadata.get(key) != value for key, value in INPUT.items()):
        sys.exit("the file does not say how it is to be run: export the checkpoint with yolox")
    keys = ["input_size", "batch_size", "letterbox_value", "decoded", "nms", "strides"]
    keys += ["conf_threshold", "nms_threshold", "class_names"]
    facts: dict[str, Any] = {key: json.loads(metadata[key]) for key in keys}
    return facts | {key: metadata[key] for key in ("input_name", "output_name")}


def letterbox(image: np.ndarray, size: list[int], value: int) -> tuple[np.ndarray, float]:
    """The network's input (1, 3, height, width), BGR from 0 to 255; and resized / original."""
    ratio = min(size[0] / image.shape[0], size[1] / image.shape[1])
    height, width = (max(1, int(side * ratio)) for side in image.shape[:2])
    canvas = np.full((*size, 3), value, np.uint8)
    canvas[:height, :width] = cv2.resize(image, (width, height))
    return np.ascontiguousarray(canvas.transpose(2, 0, 1)[None], np.float32), ratio


def decode(rows: np.ndarray, size: list[int], strides: list[int]) -> np.ndarray:
    """Rows (anchors, 5 + classes) with cx, cy, w, h in pixels, from offsets and log sizes."""
    grids = [(size[0] // stride, size[1] // stride) for stride in strides]
    cells = np.concatenate([np.indices(grid)[::-1].reshape(2, -1).T for grid in grids])
    stride = np.repeat(strides, [height * width for height, width in grids])[:, None]
    centre, side = (rows[:, :2] + cells) * stride, np.exp(rows[:, 2:4]) * stride
    return np.concatenate([centre, side, rows[:, 4:]], axis=1)


def candidates(rows: np.ndarray, conf: float) -> np.ndarray:
    """Rows x1, y1, x2, y2, score, class of decoded anchors that score enough, the best first."""
    kinds = rows[:, 5:].argmax(axis=1)
    scores = rows[:, 4] * rows[:, 5:].max(axis=1)
    half = rows[:, 2:4] / 2
    found = np.column_stack([rows[:, :2] - half, rows[:, :2] + half, scores, kinds])
    found = found[(scores >= conf) & np.isfinite(found).all(axis=1)]
    return found[np.argsort(-found[:, 4], kind="stable")]


def suppress(found: np.ndarray, threshold: float) -> np.ndarray:
    """Greedy NMS within each class: a box goes if one that scores more overlaps it too much."""
    kept: list[np.ndarray] = []
    for row in found:
        rivals = np.array([other for other in kept if other[5] == row[5]]).reshape(-1, 6)
        low, high = np.maximum(rivals[:, :2], row[:2]), np.minimum(rivals[:, 2:4], row[2:4])
        shared = np.prod(np.maximum(high - low, 0), axis=1)
        areas = np.prod(rivals[:, 2:4] - rivals[:, :2], axis=1) + np.prod(row[2:4] - row[:2])
        if not (shared > threshold * (areas - shared)).any():
            kept.append(row)
    return np.array(kept).reshape(-1, 6)


def detections(rows: np.ndarray, facts: dict[str, Any]) -> np.ndarray:
    """Rows x1, y1, x2, y2, score, class in pixels of the input, from one image's raw output."""
    rows = rows.astype(np.float64)
    if not facts["decoded"]:
        rows = decode(rows, facts["input_size"], facts["strides"])
    return suppress(candidates(rows, facts["conf_threshold"]), facts["nms_threshold"])


def report(image: np.ndarray, found: np.ndarray, ratio: float, names: list[str]) -> None:
    """Print detections in pixels of the image, and draw them into found.jpg."""
    height, width = image.shape[:2]
    for *corners, score, kind in found.tolist():
        box = np.clip(np.array(corners) / ratio, 0, [width, height, width, height])
        name = names[int(kind)] if names else str(int(kind))
        print(f"{name} {score:.4f}", *(f"{corner:.2f}" for corner in box))
        x1, y1, x2, y2 = box.round().astype(int).tolist()
        cv2.rectangle(image, (x1, y1), (x2, y2), (0, 200, 0), 2)
        cv2.putText(image, f"{name} {score:.2f}", (x1, max(12, y1 - 4)), 0, 0.5, (0, 0, 255))
    cv2.imwrite("found.jpg", image)


def read_arguments() -> tuple[Path, np.ndarray]:
    """The model's file and the image, as the command line names them."""
    if len(sys.argv) != 3:
        sys.exit(f"usage: python {sys.argv[0]} MODEL IMAGE")
    model, image = Path(sys.argv[1]), cv2.imread(sys.argv[2])
    if not model.is_file():
        sys.exit(f"{model}: no such file")
    if image is None:
        sys.exit(f"{sys.argv[2]}: no image that OpenCV can read")
    return model, image
