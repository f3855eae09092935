"""A runtime that is counted, not timed: pruning to a latency in little time, the same each time."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from yolox.jobs import prune_latency as latency
from yolox.jobs.prune_latency import ModelClock, Work
from yolox.utils.conv_kind import ConvKind, LayerTimer, Pair


def an_abacus(monkeypatch: pytest.MonkeyPatch) -> list[tuple[ConvKind, Pair]]:
    """A runtime of whole blocks of four channels: models take 1.1 times what their layers take.

    Returns:
        The layers that it was asked to time.
    """
    asked: list[tuple[ConvKind, Pair]] = []

    def milliseconds(kind: ConvKind, pair: Pair) -> float:
        inputs, outputs = (-(-count // 4) for count in pair)
        return 0.001 * outputs * (1 if kind.depthwise else inputs) * kind.size[0] * kind.size[1]

    def timer(runtime: str, *, threads: int, openvino_precision: str, place: object) -> LayerTimer:
        def measure(kind: ConvKind, pairs: Sequence[Pair]) -> list[float]:
            asked.extend((kind, pair) for pair in pairs)
            return [milliseconds(kind, pair) for pair in pairs]

        return measure

    def open_model(self: ModelClock, model: object) -> Work:
        return lambda: model

    def time(self: ModelClock, works: Sequence[Work]) -> list[float]:
        size = self.loaded.spec.input_size
        example = latency.torch.zeros(1, 3, *size)
        return [
            1.1
            * sum(
                milliseconds(layer.kind, (layer.inputs, layer.outputs))
                for layer in latency.conv_layers(work(), example).values()
            )
            for work in works
        ]

    monkeypatch.setattr(latency, "layer_timer", timer)
    monkeypatch.setattr(ModelClock, "open", open_model)
    monkeypatch.setattr(ModelClock, "time", time)
    return asked
