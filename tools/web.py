"""See python tools/web.py --help."""

from yolox.tools import cli
from yolox.tools.web import main

if __name__ == "__main__":
    cli.entry(main)
