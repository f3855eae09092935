"""See python tools/check_data.py --help."""

from yolox.tools.door import run

if __name__ == "__main__":
    run("check_data")
