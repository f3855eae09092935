"""YOLOX models: blocks, backbones, necks, head, assignment, loss, and building from a spec."""

from yolox.models.build import (
    ARCHITECTURES,
    ModelSpec,
    activation_of,
    build_model,
    channel_table,
    checkpoint_payload,
    infer_spec,
    resize_to_channels,
    swap_activation,
    transfer_weights,
)
from yolox.models.darknet import CSPDarknet, Darknet
from yolox.models.loading import LoadedModel, load_model
from yolox.models.network_blocks import ACTIVATIONS
from yolox.models.yolo_fpn import YOLOFPN
from yolox.models.yolo_head import YOLOXHead
from yolox.models.yolo_pafpn import YOLOPAFPN
from yolox.models.yolox import YOLOX

__all__ = [
    "ACTIVATIONS",
    "ARCHITECTURES",
    "YOLOFPN",
    "YOLOPAFPN",
    "YOLOX",
    "CSPDarknet",
    "Darknet",
    "LoadedModel",
    "ModelSpec",
    "YOLOXHead",
    "activation_of",
    "build_model",
    "channel_table",
    "checkpoint_payload",
    "infer_spec",
    "load_model",
    "resize_to_channels",
    "swap_activation",
    "transfer_weights",
]
