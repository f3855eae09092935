"""In which multiples of channels a runtime works: its time rises in steps of as many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from yolox.pruning.latency.table import ConvLayer, LatencyTable
from yolox.utils.conv_kind import ConvKind, LayerTimer, Pair

STEP_CANDIDATES = (32, 16, 8, 4, 2)
SWEPT_CHANNELS = (*range(33, 65), 72, 80, 88, 96)  # counts of channels
FREE_STEP_RATIO = 0.25  # of what the added channels would cost in proportion


def staircase(times: Mapping[int, float]) -> int:
    """The widest step to whose multiples a layer can be widened at next to no cost.

    Where a runtime computes in blocks of a step, a count half a step below a multiple takes as long
    as that multiple; without blocks the added channels cost their share. A step is taken if
    widening the multiples of its half to its own costs, in sum, at most a quarter of that share.
    Counts that are no multiple of the half tell nothing: an odd count can be slow on its own.

    Args:
        times: milliseconds by count of channels, one for each of `SWEPT_CHANNELS`.

    Returns:
        One of 32, 16, 8, 4, 2 and 1.
    """
    for step in STEP_CANDIDATES:
        between = [c for c in SWEPT_CHANNELS if c % step == step // 2 and c + step // 2 in times]
        cost = sum(times[count + step // 2] - times[count] for count in between)
        share = sum(times[count] * (step // 2) / count for count in between)
        if cost <= FREE_STEP_RATIO * share:
            return step
    return 1


def measure_steps(
    table: LatencyTable, measure: LayerTimer, layers: Sequence[ConvLayer]
) -> tuple[ConvKind, int, int]:
    """The dense kind of layer that does most of the work, and the steps of its inputs and outputs.

    Args:
        table: where the figures are kept.
        measure: times what the table lacks.
        layers: of the model; at least one is dense.
    """
    work: dict[ConvKind, int] = {}
    for layer in layers:
        if not layer.kind.depthwise:
            work[layer.kind] = work.get(layer.kind, 0) + layer.macs
    kind = max(work, key=lambda kind: work[kind])
    sweeps: tuple[list[Pair], ...] = (
        [(n, 64) for n in SWEPT_CHANNELS],
        [(64, n) for n in SWEPT_CHANNELS],
    )
    table.fill({kind: [pair for sweep in sweeps for pair in sweep]}, measure)
    inputs, outputs = (
        staircase({n: table.get(kind, pair) for n, pair in zip(SWEPT_CHANNELS, sweep, strict=True)})
        for sweep in sweeps
    )
    return kind, inputs, outputs
