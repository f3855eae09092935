"""See python tools/export_onnx.py --help."""

from yolox.tools.door import run

if __name__ == "__main__":
    run("export_onnx")
