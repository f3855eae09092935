"""Which of several processes this is, and what they tell each other.

Without a process group there is one process, of rank 0. Functions marked *collective* have to be
called by every process, in the same order.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

T = TypeVar("T")


def _running() -> bool:
    return dist.is_available() and dist.is_initialized()


def get_rank() -> int:
    """This process's number over all machines."""
    return dist.get_rank() if _running() else 0


def get_world_size() -> int:
    """Processes over all machines."""
    return dist.get_world_size() if _running() else 1


def get_local_rank() -> int:
    """This process's number on its machine, as the launcher says."""
    return int(os.environ.get("LOCAL_RANK", "0")) if _running() else 0


def ranks_here() -> int:
    """Processes of this run on this machine, as what started them says; 1 where nothing does."""
    return int(os.environ.get("LOCAL_WORLD_SIZE") or slurm_step()[0])


def slurm_step() -> tuple[int, int]:
    """Processes a machine, and machines, that SLURM's srun started this one with; 1 and 1 if none.

    A batch script is no step, whatever it says of the tasks that it may start.
    """
    tasks, nodes = (int(os.environ.get(f"SLURM_STEP_NUM_{n}", "1")) for n in ("TASKS", "NODES"))
    return tasks // nodes, nodes


def is_main_process() -> bool:
    """Whether this process is the one that writes."""
    return get_rank() == 0


def synchronize() -> None:
    """Wait until every process is here. Collective."""
    if get_world_size() > 1:
        dist.barrier()


@contextmanager
def wait_for_the_master(local_rank: int | None = None) -> Iterator[None]:
    """Let the machine's first process do something before the others do it.

    Args:
        local_rank: of this process, by default `get_local_rank`.
    """
    first = (get_local_rank() if local_rank is None else local_rank) == 0
    if not first:
        synchronize()
    try:
        yield
    finally:
        if first:
            synchronize()


def gather_values(values: Tensor) -> Tensor:
    """Every process's values (N,) as (processes, N), by rank. Collective."""
    if get_world_size() == 1:
        return values[None]
    parts = [torch.empty_like(values) for _ in range(get_world_size())]
    dist.all_gather(parts, values)
    return torch.stack(parts)


def from_first_process(value: T) -> T:
    """The first process's value, of any plain type, on every process. Collective."""
    if get_world_size() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


@torch.no_grad()
def take_buffers_of_first_process(*models: nn.Module) -> None:
    """Overwrite the floating-point buffers of models with the first process's. Collective.

    Each process's batch norms follow the statistics of its own images.
    """
    if get_world_size() == 1:
        return
    buffers = [b for model in models for b in model.buffers() if b.is_floating_point()]
    for kind in sorted({buffer.dtype for buffer in buffers}, key=str):
        alike = [buffer for buffer in buffers if buffer.dtype == kind]
        flat = torch.cat([buffer.reshape(-1) for buffer in alike])
        dist.broadcast(flat, src=0)
        sizes = [buffer.numel() for buffer in alike]
        for buffer, values in zip(alike, torch.split(flat, sizes), strict=True):
            buffer.copy_(values.view_as(buffer))
