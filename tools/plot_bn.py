"""See python tools/plot_bn.py --help."""

from yolox.tools.door import run

if __name__ == "__main__":
    run("plot_bn")
