"""YOLOX-s on DOTA, cut into tiles by tools/convert_dota.py."""

from yolox.exp import DOTAExp


class Exp(DOTAExp):
    def __init__(self) -> None:
        super().__init__()
        self.exp_name = "yolox_dota_s"
        self.depth, self.width = 0.33, 0.50
        self.data_dir = "datasets/DOTA/VOCdevkit"
