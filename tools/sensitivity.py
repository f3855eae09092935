"""See python tools/sensitivity.py --help."""

from yolox.tools import cli
from yolox.tools.sensitivity import main

if __name__ == "__main__":
    cli.entry(main)
