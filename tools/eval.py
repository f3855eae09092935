"""See python tools/eval.py --help."""

from yolox.tools import cli
from yolox.tools.eval import main

if __name__ == "__main__":
    cli.entry(main)
