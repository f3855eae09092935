"""See python tools/prunmodel.py --help."""

from yolox.tools import cli
from yolox.tools.prunmodel import main

if __name__ == "__main__":
    cli.entry(main)
