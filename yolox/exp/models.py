"""The seven models as built-in recipes, on data in the COCO layout."""

from __future__ import annotations

from yolox.exp.yolox_base import Exp


def use_model(exp: Exp, name: str) -> None:
    """Take an Exp's model, and the input that goes with it, from one of the seven by name.

    Fields that a person sets, before or after, stay as they are set.
    """
    exp.suggest(exp_name=name.replace("-", "_"))
    if name == "yolov3":
        exp.suggest(architecture="yolov3", act="lrelu")
        return
    depth, width = SCALES[name]
    exp.suggest(depth=depth, width=width, depthwise=name == "yolox-nano")
    if name in ("yolox-nano", "yolox-tiny"):
        # A smaller input, and augmentation that does not drown these models.
        exp.suggest(input_size=(416, 416), test_size=(416, 416), random_size=(10, 20))
        exp.suggest(mosaic_scale=(0.5, 1.5), enable_mixup=False)


SCALES = {
    "yolox-nano": (0.33, 0.25),  # depthwise convolutions, 0.9 M parameters
    "yolox-tiny": (0.33, 0.375),  # 5.1 M
    "yolox-s": (0.33, 0.5),  # 9.0 M
    "yolox-m": (0.67, 0.75),  # 25.3 M
    "yolox-l": (1.0, 1.0),  # 54.2 M
    "yolox-x": (1.33, 1.25),  # 99.1 M
}
MODELS = (*SCALES, "yolov3")  # yolov3: Darknet-53 with the YOLOX head, 63.7 M
