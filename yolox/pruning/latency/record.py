"""What was measured of a pruned model and its parent in a runtime."""

from __future__ import annotations

from dataclasses import dataclass

from yolox.pruning.config import LatencyTarget
from yolox.pruning.latency.plan import LATENCY_TOLERANCE, Attempt
from yolox.utils.printable import threads_of


@dataclass(frozen=True, kw_only=True)
class LatencyRecord:
    """A model and its parent in a runtime, in turns: the parent's median, and its share of that.

    Attributes:
        runtime: name and version.
        threads: of a run.
        place: the accelerator that it ran on; empty for the CPU.
        parent_ms, result_ms: milliseconds of one image, measured on the finished plan.
        target: what was asked for, None where it was only measured.
        step: multiples of channels that were left; for a target only.
        attempts: models that were measured on the way to the target.
        best: number of the one that was chosen.
    """

    runtime: str
    threads: int
    parent_ms: float
    result_ms: float
    place: str = ""
    target: LatencyTarget | None = None
    step: int | None = None
    attempts: tuple[Attempt, ...] = ()
    best: int | None = None

    @property
    def setting(self) -> str:
        """What it was measured in."""
        return f"{self.runtime}, {self.place or threads_of(self.threads)}"

    @property
    def met(self) -> bool:
        """Whether the result is within a twentieth of the target; true where there is none."""
        if self.target is None:
            return True
        return (
            abs(self.result_ms / self.target.milliseconds(self.parent_ms) - 1) <= LATENCY_TOLERANCE
        )

    @property
    def outcome(self) -> str:
        """Whether the target was met, in one sentence; empty where there was none."""
        if self.target is None:
            return ""
        reached = (
            f"{self.result_ms:.2f} ms, {self.result_ms / self.parent_ms:.3f} of its parent's "
            f"{self.parent_ms:.2f} ms"
        )
        if self.met:
            return f"{self.target.text} is met within {LATENCY_TOLERANCE:.0%}: {reached}"
        return (
            f"{self.target.text} is not met within {LATENCY_TOLERANCE:.0%}: {reached}, the nearest "
            f"of {len(self.attempts)} models measured"
        )

    def rows(self) -> list[tuple[str, ...]]:
        """The attempts: number, budget, predicted and measured milliseconds, fraction."""
        return [
            (
                f"{number + 1}{' (chosen)' if number == self.best else ''}",
                *(f"{ms:.2f}" for ms in (a.budget, a.predicted, a.result, a.parent)),
                f"{a.result / a.parent:.3f}",
            )
            for number, a in enumerate(self.attempts)
        ]
