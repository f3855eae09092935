"""The seven models as built-in recipes."""

from __future__ import annotations

from yolox.exp.voc import VOCExp


def small_input(exp: VOCExp) -> None:
    """What nano and tiny share: a smaller input, and augmentation that does not drown them."""
    exp.input_size = exp.test_size = (416, 416)
    exp.random_size = (10, 20)
    exp.mosaic_scale = (0.5, 1.5)
    exp.enable_mixup = False


class YOLOXNano(VOCExp):
    """Depthwise convolutions, 0.9 M parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.exp_name = "yolox_nano"
        self.depth, self.width, self.depthwise = 0.33, 0.25, True
        small_input(self)


class YOLOXTiny(VOCExp):
    """5.1 M parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.exp_name = "yolox_tiny"
        self.depth, self.width = 0.33, 0.375
        small_input(self)


class YOLOXS(VOCExp):
    """9.0 M parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.exp_name = "yolox_s"
        self.depth, self.width = 0.33, 0.5


class YOLOXM(VOCExp):
    """25.3 M parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.exp_name = "yolox_m"
        self.depth, self.width = 0.67, 0.75


class YOLOXL(VOCExp):
    """54.2 M parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.exp_name = "yolox_l"
        self.depth, self.width = 1.0, 1.0


class YOLOXX(VOCExp):
    """99.1 M parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.exp_name = "yolox_x"
        self.depth, self.width = 1.33, 1.25


class YOLOv3(VOCExp):
    """Darknet-53 with the YOLOX head, 63.7 M parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.exp_name = "yolov3"
        self.architecture = "yolov3"
        self.act = "lrelu"


DEFAULT_EXPS: dict[str, type[VOCExp]] = {
    "yolox-nano": YOLOXNano,
    "yolox-tiny": YOLOXTiny,
    "yolox-s": YOLOXS,
    "yolox-m": YOLOXM,
    "yolox-l": YOLOXL,
    "yolox-x": YOLOXX,
    "yolov3": YOLOv3,
}
