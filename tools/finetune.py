"""See python tools/finetune.py --help."""

from yolox.tools.door import run

if __name__ == "__main__":
    run("finetune")
