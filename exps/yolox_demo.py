"""A quarter-width YOLOX on the built-in demo data: drawn shapes, minutes on a laptop's CPU."""

from yolox.exp import VOCExp


class Exp(VOCExp):
    def __init__(self) -> None:
        super().__init__()
        self.exp_name = "yolox_demo"
        self.depth, self.width = 0.33, 0.25
        self.data_dir = "datasets/demo/VOCdevkit"
        self.input_size = self.test_size = (192, 256)
        self.multiscale_range = 0
        self.mosaic_scale = (0.5, 1.5)
        self.enable_mixup = False
        self.batch_size = 8
        self.basic_lr_per_img = 0.08 / 64
        self.max_epoch, self.no_aug_epochs, self.warmup_epochs = 40, 8, 2
        self.eval_interval = 10
        # Mish takes three times as long as SiLU in PyTorch on a CPU, where this runs.
        self.finetune_act = ""
