"""YOLOX-s on DOTA, cut into tiles by tools/convert_dota.py."""

from yolox.exp import VOCExp


class Exp(VOCExp):
    def __init__(self) -> None:
        super().__init__()
        self.exp_name = "yolox_dota_s"
        self.depth, self.width = 0.33, 0.50
        self.data_dir = "datasets/DOTA/VOCdevkit"
        self.train_sets = ("2007/train",)
        self.val_sets = ("2007/val",)
        self.input_size = self.test_size = (1024, 1024)
        # Seen from above, an object has no upright direction.
        self.degrees = 180.0
