"""See python tools/compress.py --help."""

from yolox.tools import cli
from yolox.tools.compress import main

if __name__ == "__main__":
    cli.entry(main)
