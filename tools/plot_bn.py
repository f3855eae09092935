"""See python tools/plot_bn.py --help."""

from yolox.tools import cli
from yolox.tools.plot_bn import main

if __name__ == "__main__":
    cli.entry(main)
