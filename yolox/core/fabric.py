"""Devices, processes and precision, by Lightning Fabric."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Literal

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from lightning_fabric.accelerators.accelerator import Accelerator
from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning_fabric.plugins.precision import MixedPrecision
from lightning_fabric.strategies.ddp import DDPStrategy
from lightning_fabric.strategies.single_device import SingleDeviceStrategy
from lightning_fabric.strategies.strategy import Strategy

from yolox.utils.device import (
    accelerator,
    device_count,
    is_numbered,
    resolve_device,
    resolve_precision,
)
from yolox.utils.dist import ranks_here, slurm_step
from yolox.utils.errors import UserError

# How long a process waits for another one: for its start, an evaluation, a checkpoint on a slow
# disk. Where the connection breaks, it ends at once.
TIMEOUT = timedelta(minutes=10)
_ON_ONE = "; `device='cuda:0'` has all of them train on that one"


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
        local = ranks_here()
        return local, int(os.environ["WORLD_SIZE"]) // local
    step = slurm_step()
    return None if step == (1, 1) else step


def processes_here(devices: int | None, device: str | torch.device = "auto") -> int:
    """How many processes train on this machine.

    Args:
        devices: as asked for; by default one a device of that kind, which of CPUs there is one.
        device: see `yolox.utils.device.resolve_device`. On one with a number all of them train.

    Raises:
        UserError: more than there are devices, or than the launcher has started.
    """
    where = resolve_device(device)
    if outer := outer_launch():
        if devices not in (None, outer[0]):
            raise UserError(
                f"`devices={devices}`, but torchrun or srun started {outer[0]} processes on "
                "this machine: leave `devices` out"
            )
        devices = outer[0]
    if where.type == "cpu" or (where.type == "cuda" and is_numbered(where)):
        return devices or 1
    there = device_count(where) if where.type == "cuda" else 1  # Fabric drives one of another kind
    if devices is not None and devices > there:
        raise UserError(
            f"`devices={devices}` asks for more than the {there} {where.type} that can be used "
            f"together here{_ON_ONE if where.type == 'cuda' else ''}"
        )
    return devices or there


def make_fabric(
    *,
    devices: int | None = None,
    num_nodes: int = 1,
    precision: str = "auto",
    device: str | torch.device = "auto",
) -> Fabric:
    """Fabric on the accelerators if there are any, on the CPU otherwise.

    Args:
        devices: processes on this machine; by default one a device, or one on the CPU.
        num_nodes: machines; what torchrun or SLURM says counts before it.
        precision: auto, fp32, bf16 or fp16.
        device: see `yolox.utils.device.resolve_device`. On one with a number all processes train.

    Raises:
        UserError: more devices than there are, or a precision that the device does not have.
    """
    where = resolve_device(device)
    count = processes_here(devices, where)
    resolved = resolve_precision(precision, where)
    outer = outer_launch()
    # Named, or Fabric would take a SLURM job's batch script for one task of several.
    plugins: list[Any] = [_environment(outer is not None)]
    if resolved != "fp32":
        fabric_name: Literal["16-mixed", "bf16-mixed"]
        fabric_name = "16-mixed" if resolved == "fp16" else "bf16-mixed"
        plugins.append(_AutocastOnly(fabric_name, where.type))
    nodes = outer[1] if outer else num_nodes
    own = places(where, count)
    strategy: Strategy = SingleDeviceStrategy(device=own[0])
    if count * nodes > 1:
        strategy = DDPStrategy(
            parallel_devices=own, timeout=TIMEOUT, process_group_backend=_backend(own)
        )
    known = where.type in ("cpu", "cuda", "mps")
    numbers = sorted({place.index or 0 for place in own})
    return Fabric(
        accelerator=where.type if known else OtherAccelerator(),
        devices=count if where.type in ("cpu", "mps") else numbers,
        num_nodes=nodes,
        strategy=strategy,
        plugins=plugins,
    )


def places(device: torch.device, count: int) -> list[torch.device]:
    """The device of each process on this machine: all on one that has a number, or one on each."""
    if device.type == "cpu" or is_numbered(device):
        return [device] * count
    return [torch.device(device.type, index) for index in range(count)]


def _backend(places: Sequence[torch.device]) -> str:
    """What processes on such devices speak to each other by."""
    if len(set(places)) < len(places):
        return "gloo"  # NCCL cannot have two processes on one GPU
    return str(dist.get_default_backend_for_device(places[0]))


class OtherAccelerator(Accelerator):
    """What `torch.accelerator` drives and Fabric has no class for, such as Intel's GPUs."""

    def setup_device(self, device: torch.device) -> None:
        """Make it the one that this process uses."""
        torch.accelerator.set_device_index(device.index or 0)

    def teardown(self) -> None:
        """Nothing is held."""

    @staticmethod
    def parse_devices(devices: Any) -> Any:
        """Numbers of devices, as they are."""
        return devices

    @staticmethod
    def get_parallel_devices(devices: Any) -> list[torch.device]:
        """The devices of some numbers."""
        kind = accelerator()
        assert kind is not None
        return [torch.device(kind.type, index) for index in devices]

    @staticmethod
    def auto_device_count() -> int:
        """How many there are."""
        return torch.accelerator.device_count()

    @staticmethod
    def is_available() -> bool:
        """Whether there is any."""
        return accelerator() is not None

    @staticmethod
    def name() -> str:
        """Of all such."""
        return "other"


def _environment(launched: bool) -> ClusterEnvironment:
    if not launched:
        return LightningEnvironment()
    return TorchElasticEnvironment() if TorchElasticEnvironment.detect() else SLURMEnvironment()
