"""How many threads PyTorch and OpenCV compute with, for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import torch


@contextmanager
def own_threads() -> Iterator[None]:
    """Thread counts of PyTorch and OpenCV as they are now, once the block has ended."""
    before = torch.get_num_threads(), cv2.getNumThreads()
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])


def set_threads(threads: int) -> None:
    """Let PyTorch and OpenCV use so many threads, within `own_threads`."""
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)


@contextmanager
def single_threaded() -> Iterator[None]:
    """One thread within the block, for work on small images.

    More gain nothing on a few pixels, and where other programs keep the processors busy each small
    operation waits for all of them: a proof of one second then took forty.
    """
    with own_threads():
        set_threads(1)
        yield
