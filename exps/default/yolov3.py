"""YOLOv3 with the YOLOX head on COCO-format data: put it into datasets/COCO, or set data_dir."""

from yolox.exp import Exp as COCOExp
from yolox.exp import use_model


class Exp(COCOExp):
    def __init__(self) -> None:
        super().__init__()
        use_model(self, "yolov3")
