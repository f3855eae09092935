"""YOLOX-s on your VOC data: put it into datasets/VOCdevkit, or set data_dir."""

from yolox.exp import VOCExp


class Exp(VOCExp):
    def __init__(self) -> None:
        super().__init__()
        self.exp_name = "yolox_voc_s"
        self.depth = 0.33
        self.width = 0.50
