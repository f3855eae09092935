"""A COCO Exp that sets where its data are, and nothing else of it."""
# ruff: noqa

import os

from yolox.data import get_yolox_datadir
from yolox.exp import Exp as MyExp


class Exp(MyExp):
    def __init__(self):
        super(Exp, self).__init__()
        self.depth = 0.33
        self.width = 0.125
        self.exp_name = os.path.split(os.path.realpath(__file__))[1].split(".")[0]

        self.data_dir = os.path.join(get_yolox_datadir(), "coco")
        self.train_ann = "train.json"
        self.val_ann = "val.json"

        self.num_classes = 3
        self.max_epoch = 2
        self.no_aug_epochs = 1
        self.warmup_epochs = 1
        self.data_num_workers = 0
        self.eval_interval = 1
        self.input_size = self.test_size = (64, 64)
        self.random_size = (2, 3)
