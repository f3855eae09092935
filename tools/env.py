"""See python tools/env.py --help."""

from yolox.tools.door import run

if __name__ == "__main__":
    run("env")
