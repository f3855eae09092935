"""See python tools/ultralytics_train.py --help."""

from yolox.tools.door import run

if __name__ == "__main__":
    run("ultralytics_train")
