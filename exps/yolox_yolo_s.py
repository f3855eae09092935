"""YOLOX-s on your YOLO-format data: the folder with data.yaml, or the file itself."""

from yolox.exp import YOLOExp


class Exp(YOLOExp):
    def __init__(self) -> None:
        super().__init__()
        self.exp_name = "yolox_yolo_s"
        self.depth, self.width = 0.33, 0.50
        self.data_dir = "datasets/YOLO"
