"""Runs an exported ONNX file without PyTorch: python with_onnxruntime.py model.onnx image.jpg.

pip install numpy onnxruntime opencv-python-headless, and copy detections.py beside this file. It
prints a line a detection (class, score, x1 y1 x2 y2) and draws them into found.jpg. The file may
hold NMS, undecoded boxes, float16 or int8 weights, and take any number of images or any size.
"""

from __future__ import annotations

import numpy as np
import onnxruntime
from detections import detections, letterbox, read_arguments, read_facts, report


def main() -> None:
    """Detect in the image."""
    path, image = read_arguments()
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    facts = read_facts(session.get_modelmeta().custom_metadata_map)
    pixels, ratio = letterbox(image, facts["input_size"], facts["letterbox_value"])
    # A file for several images a run is given the same one so often.
    batch = np.repeat(pixels, facts["batch_size"] or 1, axis=0)
    (out,) = session.run([facts["output_name"]], {facts["input_name"]: batch})
    if facts["nms"]:  # image, x1, y1, x2, y2, objectness, class probability, class
        rows = out[out[:, 0] == 0]
        found = np.column_stack([rows[:, 1:5], rows[:, 5] * rows[:, 6], rows[:, 7]])
        found = found[np.argsort(-found[:, 4], kind="stable")]
    else:
        found = detections(out[0], facts)
    report(image, found, ratio, facts["class_names"])


if __name__ == "__main__":
    main()
