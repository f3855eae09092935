"""See python tools/check_data.py --help."""

from yolox.tools import cli
from yolox.tools.check_data import main

if __name__ == "__main__":
    cli.entry(main)
