"""See python tools/export.py --help."""

from yolox.tools.door import run

if __name__ == "__main__":
    run("export")
