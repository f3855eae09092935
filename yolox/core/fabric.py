"""Devices, processes and precision, by Lightning Fabric."""

from __future__ import annotations

from typing import Any, Literal

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.precision import MixedPrecision

from yolox.utils.device import resolve_precision
from yolox.utils.errors import UserError


class _AutocastOnly(MixedPrecision):
    """Mixed precision that leaves the inputs alone.

    Fabric's own casts every floating input of the model; box coordinates in bfloat16 would be off
    by up to two pixels.
    """

    def convert_input(self, data: Any) -> Any:
        return data


def make_fabric(
    *, devices: int | None = None, num_nodes: int = 1, precision: str = "auto"
) -> Fabric:
    """Fabric on the GPUs if there are any, on the CPU otherwise.

    Args:
        devices: processes on this machine; by default every GPU, or one on the CPU.
        num_nodes: machines.
        precision: auto, fp32, bf16 or fp16.

    Raises:
        UserError: more devices than there are, or a precision that the device does not have.
    """
    on_gpu = torch.cuda.is_available()
    if on_gpu and devices is not None and devices > torch.cuda.device_count():
        raise UserError(
            f"-d {devices} asks for more GPUs than the {torch.cuda.device_count()} here"
        )
    device = torch.device("cuda" if on_gpu else "cpu")
    try:
        resolved = resolve_precision(precision, device)
    except ValueError as error:
        raise UserError(str(error)) from error
    count = (torch.cuda.device_count() if on_gpu else 1) if devices is None else devices
    plugin = None
    if resolved != "fp32":
        fabric_name: Literal["16-mixed", "bf16-mixed"]
        fabric_name = "16-mixed" if resolved == "fp16" else "bf16-mixed"
        plugin = _AutocastOnly(fabric_name, device.type)
    return Fabric(
        accelerator="cuda" if on_gpu else "cpu",
        devices=count,
        num_nodes=num_nodes,
        strategy="ddp" if count * num_nodes > 1 else "auto",
        plugins=plugin,
    )
