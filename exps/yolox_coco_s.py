"""YOLOX-s on your COCO-format data: its folder, and the names of its annotation files."""

from yolox.exp import Exp as COCOExp


class Exp(COCOExp):
    def __init__(self) -> None:
        super().__init__()
        self.exp_name = "yolox_coco_s"
        self.depth, self.width = 0.33, 0.50
        self.data_dir = "datasets/COCO"
        self.train_ann = "instances_train2017.json"
        self.val_ann = "instances_val2017.json"
