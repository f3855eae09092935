"""An Exp that trains the head alone."""
# ruff: noqa

from tests.exp.official_style.voc_datasets import Exp as VOCStyleExp


class Exp(VOCStyleExp):
    def __init__(self):
        super(Exp, self).__init__()
        self.exp_name = "frozen_backbone"

    def get_model(self):
        from yolox.utils import freeze_module

        model = super().get_model()
        freeze_module(model.backbone.backbone)
        return model
