"""YOLOX-tiny on BCCD (blood cells) at 320 × 320, from scratch; see benchmarks/log.md."""

from yolox.exp import VOCExp, use_model


class Exp(VOCExp):
    def __init__(self) -> None:
        super().__init__()
        use_model(self, "yolox-tiny")
        self.exp_name = "bccd_tiny"
        self.input_size = self.test_size = (320, 320)
        self.multiscale_range, self.random_size = 0, ()
        self.batch_size = 16
        self.basic_lr_per_img = 0.02 / 64
        self.max_epoch, self.no_aug_epochs, self.warmup_epochs = 60, 10, 3
        self.finetune_act = ""  # Mish takes what a cut leaves, see benchmarks/log.md
