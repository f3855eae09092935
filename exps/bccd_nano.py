"""YOLOX-nano on BCCD (blood cells) at 320 × 320, from the COCO weights; see benchmarks/log.md."""

from yolox.exp import VOCExp, use_model


class Exp(VOCExp):
    def __init__(self) -> None:
        super().__init__()
        use_model(self, "yolox-nano")
        self.exp_name = "bccd_nano"
        self.input_size = self.test_size = (320, 320)
        self.multiscale_range, self.random_size = 0, ()
        self.batch_size = 16
        self.max_epoch, self.no_aug_epochs, self.warmup_epochs = 40, 8, 1
        self.finetune_act = ""  # Mish takes what a cut leaves, see benchmarks/log.md
