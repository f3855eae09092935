"""See python tools/convert_dota.py --help."""

from yolox.tools import cli
from yolox.tools.convert_dota import main

if __name__ == "__main__":
    cli.entry(main)
