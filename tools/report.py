"""See python tools/report.py --help."""

from yolox.tools import cli
from yolox.tools.report import main

if __name__ == "__main__":
    cli.entry(main)
