"""A nano Exp that builds its depthwise model itself, on top of the VOC data sets."""
# ruff: noqa

import torch.nn as nn

from tests.exp.official_style.voc_datasets import Exp as VOCStyleExp


class Exp(VOCStyleExp):
    def __init__(self):
        super(Exp, self).__init__()
        self.exp_name = "nano_model"
        self.width = 0.125

    def get_model(self, sublinear=False):
        def no_momentum(module):
            for m in module.modules():
                if isinstance(m, nn.BatchNorm2d):
                    m.eps = 1e-3
                    m.momentum = 0.03

        if "model" not in self.__dict__:
            from yolox.models import YOLOX, YOLOPAFPN, YOLOXHead

            in_channels = [256, 512, 1024]
            backbone = YOLOPAFPN(
                self.depth, self.width, in_channels=in_channels, act=self.act, depthwise=True
            )
            head = YOLOXHead(
                self.num_classes, self.width, in_channels=in_channels, act=self.act, depthwise=True
            )
            self.model = YOLOX(backbone, head)

        self.model.apply(no_momentum)
        self.model.head.initialize_biases(1e-2)
        return self.model
