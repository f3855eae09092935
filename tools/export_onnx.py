"""See python tools/export_onnx.py --help."""

from yolox.tools import cli
from yolox.tools.export_onnx import main

if __name__ == "__main__":
    cli.entry(main)
