"""Other people's networks, and which share of their channels can be pruned.

A share is of the output channels of all convolutions and linear layers. It may rise, never fall.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from tests.networks.libraries import library
from yolox.exp import get_exp


@dataclass(frozen=True)
class Network:
    """One network.

    Attributes:
        make: builds it, with random weights.
        share: of its channels that can be pruned, at least.
        size: side in pixels of the square images that it is run on.
    """

    make: Callable[[], nn.Module]
    share: float
    size: int = 64


class RawPredictions(nn.Module):
    """An Ultralytics model that gives what its loss reads, without the maps and decoded boxes."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Any:
        return self._raw(self.model(x))

    def _raw(self, output: Any) -> Any:
        if isinstance(output, tuple):
            return self._raw(output[-1])
        if isinstance(output, dict):
            return {key: self._raw(value) for key, value in output.items() if key != "feats"}
        return output


class DensePart(nn.Module):
    """Backbone and dense head of one of torchvision's detectors, without boxes and suppression."""

    def __init__(self, detector: Any) -> None:
        super().__init__()
        self.backbone = detector.backbone
        self.head = detector.rpn.head if hasattr(detector, "rpn") else detector.head

    def forward(self, x: Tensor) -> Any:
        maps = self.backbone(x)
        return self.head(list(maps.values()) if isinstance(maps, dict) else [maps])


def ours(name: str) -> Callable[[], nn.Module]:
    return lambda: get_exp(None, name).get_model()


def timm(name: str, **options: Any) -> Callable[[], nn.Module]:
    return lambda: library("timm").create_model(name, **options)


def torchvision(name: str) -> Callable[[], nn.Module]:
    return lambda: library("torchvision").models.get_model(name, weights=None)


def detector(name: str) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        models = library("torchvision").models
        return DensePart(models.get_model(name, weights=None, weights_backbone=None))

    return make


def ultralytics(name: str) -> Callable[[], nn.Module]:
    return lambda: RawPredictions(library("ultralytics").YOLO(f"{name}.yaml").model)


NETWORKS = {
    "yolox-nano": Network(ours("yolox-nano"), 0.967),
    "yolox-tiny": Network(ours("yolox-tiny"), 0.97),
    "yolox-s": Network(ours("yolox-s"), 0.97),
    "yolox-m": Network(ours("yolox-m"), 0.98),
    "yolox-l": Network(ours("yolox-l"), 0.98),
    "yolox-x": Network(ours("yolox-x"), 0.98),
    "yolov3": Network(ours("yolov3"), 0.98),
    # Classifiers.
    "resnet18": Network(timm("resnet18"), 0.82),
    "resnet50": Network(timm("resnet50"), 0.96),
    "resnext50": Network(timm("resnext50_32x4d"), 0.97),
    "mobilenet-v2": Network(timm("mobilenetv2_100"), 0.94),
    "mobilenet-v3": Network(timm("mobilenetv3_large_100"), 0.948),
    "efficientnet-b0": Network(timm("efficientnet_b0"), 0.96),
    "convnext-tiny": Network(timm("convnext_tiny"), 0.62),
    "regnet-x": Network(timm("regnetx_004"), 0.94),
    "regnet-y": Network(timm("regnety_004"), 0.94),
    "densenet121": Network(timm("densenet121"), 0.91),
    "shufflenet-v2": Network(torchvision("shufflenet_v2_x1_0"), 0.88),
    "inception-v3": Network(timm("inception_v3"), 0.94, size=96),
    "hrnet-w18": Network(timm("hrnet_w18_small"), 0.92),
    "vgg11-bn": Network(timm("vgg11_bn"), 0.91),
    # Feature maps that are given out and read inside.
    "resnet18, features": Network(timm("resnet18", features_only=True), 0.40),
    "mobilenet-v3, features": Network(timm("mobilenetv3_large_100", features_only=True), 0.91),
    # Detectors.
    "retinanet": Network(detector("retinanet_resnet50_fpn"), 0.97),
    "fcos": Network(detector("fcos_resnet50_fpn"), 0.93),
    "ssd": Network(detector("ssd300_vgg16"), 0.69, size=300),
    "ssdlite": Network(detector("ssdlite320_mobilenet_v3_large"), 0.85, size=320),
    "faster r-cnn": Network(detector("fasterrcnn_resnet50_fpn"), 0.99),
    "faster r-cnn v2": Network(detector("fasterrcnn_resnet50_fpn_v2"), 0.99),
    "yolov5n": Network(ultralytics("yolov5nu"), 0.92),
    "yolov8n": Network(ultralytics("yolov8n"), 0.92),
    "yolov9t": Network(ultralytics("yolov9t"), 0.94),
    "yolov10n": Network(ultralytics("yolov10n"), 0.84),
    "yolo11n": Network(ultralytics("yolo11n"), 0.83),
    "yolo12n": Network(ultralytics("yolo12n"), 0.70),
    "yolo26n": Network(ultralytics("yolo26n"), 0.76),
    "yolov8n-seg": Network(ultralytics("yolov8n-seg"), 0.89),
    "yolov8n-pose": Network(ultralytics("yolov8n-pose"), 0.93),
    "yolov8n-obb": Network(ultralytics("yolov8n-obb"), 0.92),
}

REFUSED = {
    # Each weight is standardised before it is used.
    "nf-resnet50": (Network(timm("nf_resnet50"), 0.0), "native_batch_norm of its weight"),
}
