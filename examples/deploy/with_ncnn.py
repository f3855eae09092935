"""Runs an exported ncnn file without PyTorch: python with_ncnn.py model.param image.jpg.

pip install numpy ncnn opencv-python-headless, copy detections.py beside this file, and model.bin
and model.json beside model.param. It prints a line a detection (class, score, x1 y1 x2 y2) and
draws them into found.jpg.
"""

from __future__ import annotations

import json

import ncnn
import numpy as np
from detections import detections, letterbox, read_arguments, read_facts, report


def main() -> None:
    """Detect in the image."""
    path, image = read_arguments()
    facts = read_facts(json.loads(path.with_suffix(".json").read_text(encoding="utf-8")))
    pixels, ratio = letterbox(image, facts["input_size"], facts["letterbox_value"])
    net = ncnn.Net()
    # Float16, ncnn's default where the CPU has it, is faster on many ARM cores; scores then differ
    # from PyTorch's in the third digit.
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    net.opt.use_bf16_packed = net.opt.use_bf16_storage = False
    if net.load_param(str(path)) or net.load_model(str(path.with_suffix(".bin"))):
        raise SystemExit(f"ncnn cannot load {path} and the .bin beside it")
    with net.create_extractor() as extractor:
        extractor.input(facts["input_name"], ncnn.Mat(pixels[0]).clone())
        status, out = extractor.extract(facts["output_name"])
        if status:
            raise SystemExit(f"ncnn cannot run {path}: it gives status {status}")
        found = detections(np.array(out), facts)
    report(image, found, ratio, facts["class_names"])


if __name__ == "__main__":
    main()
