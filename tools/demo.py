"""See python tools/demo.py --help."""

from yolox.tools import cli
from yolox.tools.demo import main

if __name__ == "__main__":
    cli.entry(main)
