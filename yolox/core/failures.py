"""What goes wrong outside this program's code, told in one line instead of a stack of calls."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist

from yolox.utils.dist import get_world_size
from yolox.utils.errors import UserError

# What torch raises where a connection cannot be made or breaks.
_LOST: tuple[type[RuntimeError], ...] = (dist.DistError,) if dist.is_available() else ()
_OUT_OF_MEMORY = (
    "can't allocate memory",  # PyTorch
    "ArrayMemoryError",  # NumPy, as text
    "\nMemoryError",
    "Insufficient memory",  # OpenCV
    "std::bad_alloc",
)
PEER_LOST_STATUS = 3  # exit status of a process that ended since another one had


class PeerLostError(UserError):
    """Another process of the run ended, and tells why itself."""


class ResourceError(UserError):
    """The machine ran out of something, or another program interfered."""


@contextmanager
def report_once() -> Iterator[None]:
    """Around what every process of a machine does alike: its error is the first one's to tell."""
    try:
        yield
    except UserError as error:
        if os.environ.get("LOCAL_RANK", "0") == "0":
            raise
        raise PeerLostError(str(error)) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out in PyTorch, NumPy, OpenCV or Python, here or in a loader's process."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    # What crosses from a process that loads images, or from C++, is text.
    return any(words in str(error) for words in _OUT_OF_MEMORY)


def _telling_line(text: str) -> str:
    """Of a message, or of a traceback in it, the line that tells what was wrong."""
    lines = [line.strip() for line in text.splitlines() if line.strip()] or ["MemoryError"]
    return lines[-1] if "Traceback (most recent call last)" in text else lines[0]


def explain(error: Exception) -> UserError | None:
    """The error as one for people, where it is known to come from outside; None for a bug."""
    text = str(error)
    if "DataLoader worker" in text and ("killed by signal" in text or "exited" in text):
        return ResourceError(
            "a process that loads images was killed, most often for want of memory or of shared "
            "memory (/dev/shm; docker run --shm-size): lower data_num_workers or the batch size "
            f"({text.splitlines()[0]})"
        )
    if is_out_of_memory(error):
        return ResourceError(
            "out of memory: lower the batch size, input_size or data_num_workers; "
            "on a GPU that is small or taken, CUDA_VISIBLE_DEVICES= means the CPU "
            f"({_telling_line(text)})"
        )
    if "Expected more than 1 value per channel when training" in text:
        return ResourceError(
            "a batch norm cannot train on one value a channel, all that is left of one small "
            f"image: raise the batch size or input_size ({_telling_line(text)})"
        )
    if "stack expects each tensor to be equal size" in text:
        return ResourceError(
            "the images of a batch have different numbers of objects, and the loader's own collate "
            "function cannot stack them: have it call yolox.data.collate_samples, or set max_labels"
        )
    if not isinstance(error, RuntimeError):
        return None
    if get_world_size() > 1 and (isinstance(error, _LOST) or "gloo" in text or "NCCL" in text):
        return PeerLostError(
            "another process of the run ended or cannot be reached: its own messages say why; "
            "the run's latest_ckpt.pth as `checkpoint`, with `resume`, continues it "
            f"({text.splitlines()[0]})"
        )
    if isinstance(error, _LOST):
        place = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        return ResourceError(
            f"the processes did not meet at {place}: start the same command on every machine, "
            "with its own number and an address that each of them can reach "
            f"({text.splitlines()[0]})"
        )
    return None
