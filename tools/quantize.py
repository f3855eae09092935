"""See python tools/quantize.py --help."""

from yolox.tools import cli
from yolox.tools.quantize import main

if __name__ == "__main__":
    cli.entry(main)
