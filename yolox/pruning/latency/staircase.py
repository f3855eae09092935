"""In which multiples of channels a runtime works: its time rises in steps of as many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from yolox.pruning.latency.table import ConvLayer, LatencyTable
from yolox.utils.conv_kind import ConvKind, LayerTimer, Pair


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Layers that are timed to find a step.

    Attributes:
        channels: counts on the axis that is looked at.
        others: channels on the other one.
        candidates: steps, the widest first.
    """

    channels: tuple[int, ...]
    others: int
    candidates: tuple[int, ...]


CPU_SWEEP = Sweep(
    channels=(*range(33, 65), 72, 80, 88, 96), others=64, candidates=(32, 16, 8, 4, 2)
)
# On an accelerator a layer of few channels takes what its start takes.
ACCELERATOR_SWEEP = Sweep(
    channels=(*range(193, 257), 272, 288, 304, 320, 352, 384),
    others=256,
    candidates=(64, 32, 16, 8, 4, 2),
)
FREE_STEP_RATIO = 0.25  # of what the added channels would cost in proportion


def staircase(times: Mapping[int, float], candidates: Sequence[int] = CPU_SWEEP.candidates) -> int:
    """The widest step to whose multiples a layer can be widened at next to no cost.

    Where a runtime computes in blocks of a step, a count half a step below a multiple takes as long
    as that multiple; without blocks the added channels cost their share. A step is taken if
    widening the multiples of its half to its own costs, in sum, at most a quarter of that share.
    Counts that are no multiple of the half tell nothing: an odd count can be slow on its own.

    Args:
        times: milliseconds by count of channels, one for each of a `Sweep`.
        candidates: steps to look for, the widest first.

    Returns:
        One of them, or 1.
    """
    for step in candidates:
        between = [c for c in times if c % step == step // 2 and c + step // 2 in times]
        cost = sum(times[count + step // 2] - times[count] for count in between)
        share = sum(times[count] * (step // 2) / count for count in between)
        if cost <= FREE_STEP_RATIO * share:
            return step
    return 1


def measure_steps(
    table: LatencyTable,
    measure: LayerTimer,
    layers: Sequence[ConvLayer],
    sweep: Sweep = CPU_SWEEP,
) -> tuple[ConvKind, int, int]:
    """The dense kind of layer that does most of the work, and the steps of its inputs and outputs.

    Args:
        table: where the figures are kept.
        measure: times what the table lacks.
        layers: of the model; at least one is dense.
        sweep: what is timed.
    """
    work: dict[ConvKind, int] = {}
    for layer in layers:
        if not layer.kind.depthwise:
            work[layer.kind] = work.get(layer.kind, 0) + layer.macs
    kind = max(work, key=lambda kind: work[kind])
    axes: tuple[list[Pair], ...] = (
        [(n, sweep.others) for n in sweep.channels],
        [(sweep.others, n) for n in sweep.channels],
    )
    table.fill({kind: [pair for pairs in axes for pair in pairs]}, measure)
    inputs, outputs = (
        staircase(
            {n: table.get(kind, pair) for n, pair in zip(sweep.channels, pairs, strict=True)},
            sweep.candidates,
        )
        for pairs in axes
    )
    return kind, inputs, outputs
