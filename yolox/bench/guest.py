"""Detectors of other programs, to be measured and compared beside ours."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from torch import nn

from yolox.bench.cases import Case, OpenedCase
from yolox.models import ModelSpec


class Guest(ABC):
    """A detector in a file of another program.

    Attributes:
        memory_program: module that measures the memory of a case, see `yolox.bench.memory.main`.
        path: of the file.
        spec: its classes and the size that it was made for; what else a spec says is not of it.
        pruned: whether it is known to be pruned.
        sha256: of the checkpoint that it is; empty for an exported file, which does not tell.
        any_size: whether it takes other sizes than that of `spec`.
        batch: images a run, None for any number.
        precision: of the weights.
    """

    memory_program: ClassVar[str]

    path: Path
    spec: ModelSpec
    pruned: bool = False
    sha256: str = ""
    any_size: bool = True
    batch: int | None = None
    precision: str = "fp32"

    @abstractmethod
    def module(self) -> nn.Module | None:
        """Its layers, to be counted; None for an exported file."""

    @abstractmethod
    def network(self) -> nn.Module:
        """What is evaluated, in place of a model of ours.

        Images (B, 3, H, W) as ours take them, BGR in [0, 255] → decoded predictions
        (B, A, 5 + classes).
        """

    @abstractmethod
    def runnable(self, runtime: str, batch: int, size: tuple[int, int], folder: Path) -> Path:
        """The file that a runtime opens, exported into a folder if need be.

        Raises:
            ExportError: a package is missing, or the export fails.
        """

    @abstractmethod
    def open(self, case: Case) -> OpenedCase:
        """A case of a file of `runnable`, opened and run once.

        Raises:
            UserError: see `yolox.bench.cases.open_case`.
        """

    def prunings(self) -> list[Mapping[str, object]]:
        """The plan of each pruning, as a checkpoint of ours records it."""
        return []


Guests = Mapping[Path, Guest]  # by the path that a person gave
