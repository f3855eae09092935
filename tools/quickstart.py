"""See python tools/quickstart.py --help."""

from yolox.tools import cli
from yolox.tools.quickstart import main

if __name__ == "__main__":
    cli.entry(main)
