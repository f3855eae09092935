"""The network as a drawing: a column a stage, a bar a convolution, as wide as its channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from yolox.report.data import LayerBar
from yolox.report.formats import share
from yolox.report.svg import element, picture, short, text, tooltip

__all__ = ["Part", "draw_network"]

COLUMN = 116.0  # width of a stage
_WIDEST, _TOP, _HEIGHT, _MOST_BAR = 100.0, 46.0, 200.0, 15.0


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part of the network: its name, what is left of it, how many columns, the drawing."""

    name: str
    kept: str
    columns: int
    svg: str


def draw_network(layers: Sequence[LayerBar]) -> list[Part]:
    """Each part of the network as columns of bars; the same scale in all of them.

    Stages stand from left to right, the convolutions of each from top to bottom, both in the order
    of the network. What was there is outlined, what is left is filled.

    Args:
        layers: at least one.
    """
    widest = max(layer.before for layer in layers)
    parts: dict[str, dict[str, list[LayerBar]]] = {}
    for layer in layers:
        parts.setdefault(layer.part, {}).setdefault(layer.stage, []).append(layer)
    tallest = max(len(stage) for stages in parts.values() for stage in stages.values())
    bar = min(_MOST_BAR, _HEIGHT / tallest)
    return [_drawn(name, stages, widest, bar) for name, stages in parts.items()]


def _drawn(part: str, stages: dict[str, list[LayerBar]], widest: int, bar: float) -> Part:
    markup, said = [], []
    for number, (stage, layers) in enumerate(stages.items()):
        middle = (number + 0.5) * COLUMN
        kept = _kept(layers)
        said.append(f"{stage or part}: {kept} kept")
        markup.append(
            text(short(stage or part, 15), middle, 16, class_="name", text_anchor="middle")
        )
        markup.append(text(f"{kept} kept", middle, 34, class_="tick", text_anchor="middle"))
        for row, layer in enumerate(layers):
            markup.append(_bar(layer, middle, _TOP + row * bar, _WIDEST / widest, bar))
    tallest = max(map(len, stages.values()))
    drawing = picture(
        COLUMN * len(stages),
        _TOP + bar * tallest + 6,
        markup,
        title=f"Channels kept in the {part}",
        description="; ".join(said),
    )
    kept = _kept([layer for layers in stages.values() for layer in layers])
    return Part(name=part, kept=kept, columns=len(stages), svg=drawing)


def _bar(layer: LayerBar, middle: float, top: float, scale: float, height: float) -> str:
    rects = [
        element(
            "rect",
            class_=name,
            x=middle - channels * scale / 2,
            y=top + gap,
            width=channels * scale,
            height=height - 2 * gap,
        )
        for name, channels, gap in (
            ("whole", layer.before, 0.1 * height),
            ("kept", layer.after, 0.2 * height),
        )
    ]
    # As wide as the column, so that a small bar can be pointed at.
    target = element(
        "rect", class_="target", x=middle - COLUMN / 2, y=top, width=COLUMN, height=height
    )
    left = f"{layer.after} of {layer.before} channels ({share(layer.after, layer.before)})"
    return element("g", tooltip(f"{layer.name}: {left}") + "".join(rects) + target)


def _kept(layers: Sequence[LayerBar]) -> str:
    return share(sum(layer.after for layer in layers), sum(layer.before for layer in layers))
