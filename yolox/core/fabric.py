"""Devices, processes and precision, by Lightning Fabric."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any, Literal

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning_fabric.plugins.precision import MixedPrecision
from lightning_fabric.strategies.ddp import DDPStrategy

from yolox.utils.device import default_device, resolve_precision
from yolox.utils.errors import UserError

# How long a process waits for another one: for its start, an evaluation, a checkpoint on a slow
# disk. Where the connection breaks, it ends at once.
TIMEOUT = timedelta(minutes=10)


class _AutocastOnly(MixedPrecision):
    """Mixed precision that leaves the inputs alone.

    Fabric's own casts every floating input of the model; box coordinates in bfloat16 would be off
    by up to two pixels.
    """

    def convert_input(self, data: Any) -> Any:
        return data


def outer_launch() -> tuple[int, int] | None:
    """Processes a machine, and machines, where torchrun or SLURM's srun started this process."""
    if TorchElasticEnvironment.detect():
        local = int(os.environ["LOCAL_WORLD_SIZE"])
        return local, int(os.environ["WORLD_SIZE"]) // local
    tasks, nodes = (int(os.environ.get(f"SLURM_STEP_NUM_{n}", "1")) for n in ("TASKS", "NODES"))
    return (tasks // nodes, nodes) if tasks > 1 else None


def processes_here(devices: int | None) -> int:
    """How many processes train on this machine.

    Args:
        devices: as asked for; by default every GPU, or one on the CPU.

    Raises:
        UserError: more than there are GPUs, or than the launcher has started.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if outer := outer_launch():
        if devices not in (None, outer[0]):
            raise UserError(
                f"`devices={devices}`, but torchrun or srun started {outer[0]} processes on "
                "this machine: leave `devices` out"
            )
        devices = outer[0]
    if gpus and devices is not None and devices > gpus:
        raise UserError(f"`devices={devices}` asks for more GPUs than the {gpus} here")
    return devices or gpus or 1


def make_fabric(
    *, devices: int | None = None, num_nodes: int = 1, precision: str = "auto"
) -> Fabric:
    """Fabric on the GPUs if there are any, on the CPU otherwise.

    Args:
        devices: processes on this machine; by default every GPU, or one on the CPU.
        num_nodes: machines; what torchrun or SLURM says counts before it.
        precision: auto, fp32, bf16 or fp16.

    Raises:
        UserError: more devices than there are, or a precision that the device does not have.
    """
    on_gpu = torch.cuda.is_available()
    count = processes_here(devices)
    device = default_device()
    try:
        resolved = resolve_precision(precision, device)
    except ValueError as error:
        raise UserError(str(error)) from error
    outer = outer_launch()
    # Named, or Fabric would take a SLURM job's batch script for one task of several.
    plugins: list[Any] = [_environment(outer is not None)]
    if resolved != "fp32":
        fabric_name: Literal["16-mixed", "bf16-mixed"]
        fabric_name = "16-mixed" if resolved == "fp16" else "bf16-mixed"
        plugins.append(_AutocastOnly(fabric_name, device.type))
    nodes = outer[1] if outer else num_nodes
    return Fabric(
        accelerator="cuda" if on_gpu else "cpu",
        devices=count,
        num_nodes=nodes,
        strategy=DDPStrategy(timeout=TIMEOUT) if count * nodes > 1 else "auto",
        plugins=plugins,
    )


def _environment(launched: bool) -> ClusterEnvironment:
    if not launched:
        return LightningEnvironment()
    return TorchElasticEnvironment() if TorchElasticEnvironment.detect() else SLURMEnvironment()
