"""See python tools/export.py --help."""

from yolox.tools import cli
from yolox.tools.export import main

if __name__ == "__main__":
    cli.entry(main)
