"""See python tools/compare.py --help."""

from yolox.tools import cli
from yolox.tools.compare import main

if __name__ == "__main__":
    cli.entry(main)
