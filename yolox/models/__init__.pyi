"""YOLOX models: blocks, backbones, necks, head, assignment, loss, and building from a spec."""

from .build import (
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
from .darknet import CSPDarknet, Darknet
from .loading import LoadedModel, load_model
from .network_blocks import ACTIVATIONS
from .yolo_fpn import YOLOFPN
from .yolo_head import YOLOXHead
from .yolo_pafpn import YOLOPAFPN
from .yolox import YOLOX

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
