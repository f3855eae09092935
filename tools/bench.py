"""See python tools/bench.py --help."""

from yolox.tools import cli
from yolox.tools.bench import main

if __name__ == "__main__":
    cli.entry(main)
