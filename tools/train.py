"""See python tools/train.py --help."""

from yolox.tools import cli
from yolox.tools.train import main

if __name__ == "__main__":
    cli.entry(main)
