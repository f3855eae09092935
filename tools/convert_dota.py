"""See python tools/convert_dota.py --help."""

from yolox.tools.door import run

if __name__ == "__main__":
    run("convert_dota")
