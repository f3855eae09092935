"""A model's operations as it runs: their names, what they read, and the chance in them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

SEED = 0

aten = torch.ops.aten


class Ops(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes operations and the tensors they read, and lets dropout keep everything.

    Attributes:
        names: operations since the last layer.
        storages: addresses of all that was read.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: list[str] = []
        self.storages: set[int] = set()

    def __str__(self) -> str:
        return f", after {', '.join(dict.fromkeys(self.names))}" if self.names else ""

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Operations of the comparison itself are none of the model's."""
        self.__exit__(None, None, None)  # type: ignore[no-untyped-call]
        try:
            yield
        finally:
            self.names.clear()
            self.__enter__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        packet = func.overloadpacket
        self.names.append(packet.__name__)
        for arg in args:
            for value in arg if isinstance(arg, (list, tuple)) else (arg,):
                if isinstance(value, Tensor):
                    self.storages.add(value.untyped_storage().data_ptr())
        # Dropout draws a mask of its input's shape, which no seed makes the same in two models of
        # different widths: each value takes its mean.
        if func is aten.bernoulli_.float:
            return args[0].fill_(args[1])
        if packet in (aten.dropout, aten.feature_dropout, aten.alpha_dropout):
            return args[0].clone()
        if packet is aten.native_dropout:
            return args[0].clone(), torch.ones_like(args[0], dtype=torch.bool)
        return func(*args, **(kwargs or {}))


@contextmanager
def same_chance() -> Iterator[None]:
    """Random numbers from a fixed seed; afterwards the generators are as they were."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            random.seed(SEED)
            np.random.seed(SEED)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
