"""A report of made-up figures that fills every section, and what reads a page."""

from __future__ import annotations

from html.parser import HTMLParser

from yolox.report import (
    ClassRow,
    Curve,
    Fact,
    Histogram,
    Latency,
    LayerBar,
    Mark,
    ModelRow,
    Pair,
    Picture,
    Report,
    ScaleHistograms,
)

# The smallest GIF there is.
DOT = "data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw=="
HOSTILE = "<script>window.broken = 1</script>\"'&\x07"

SECTIONS = (
    "tradeoff",
    "pictures",
    "channels",
    "models",
    "training",
    "classes",
    "curves",
    "scales",
    "asked",
)  # in the page's order


def full_report(name: str = "cat") -> Report:
    """Every section; the first class, layer, image and so on bear a name."""
    marks = (Mark(box=(10.0, 20.0, 110.0, 220.0), name=f"{name} 0.87"),)
    shot = Picture(label="before", uri=DOT, width=480, height=360, found=3, marks=marks)
    other = Picture(label="after", uri=DOT, width=480, height=360, found=2)
    return Report(
        title=f"{name}: report",
        date="2026-01-02T03:04:05+00:00",
        data="AP on 7 images.",
        dataset=f"datasets/{name}",
        input_size="192×256",
        certainty="AP is of one split of 7 images.",
        change_interval=(-0.05, 0.01),
        asked=(Fact(name="budget", value=f"half of {name}"),),
        models=(
            _row("before", "before", 4_000_000, 0.5, 0.8, 20.0),
            _row(name, "", 3_000_000, 0.55, 0.7, 15.0),
            _row("after", "after", 2_000_000, 0.48, 0.79, 12.5),
        ),
        classes=(
            ClassRow(name=name, objects=10, before=0.5, after=0.25),
            ClassRow(name="dog", objects=9, before=0.25, after=0.75),
            ClassRow(name="emu", objects=0, before=None, after=None),
            ClassRow(name="ant", objects=100, before=0.4, after=0.4),
        ),
        curves=(
            Curve(name="mean", objects=19, before=(1.0, 0.5, 0.0), after=(1.0, 0.25, 0.0)),
            Curve(name=name, objects=10, before=(1.0, 1.0, 0.0), after=(1.0, 0.0, 0.0)),
        ),
        layers=(
            LayerBar(name=f"backbone.{name}", part="backbone", stage="stem", before=64, after=16),
            LayerBar(name="backbone.b", part="backbone", stage=name, before=64, after=64),
            LayerBar(name="head.c", part="head", before=32, after=24),
        ),
        scales=ScaleHistograms(
            edges=(0.0, 0.5, 1.0),
            models=(
                Histogram(label=name, counts=(40, 60), median=0.6),
                Histogram(label="after", counts=(0, 50), median=0.7),
            ),
        ),
        pairs=(Pair(name=name, lost=2, gained=1, difference=1.5, pictures=(shot, other)),),
        score=0.3,
        commands=(f"python tools/report.py -c {name}",),
        versions=(Fact(name="torch", value="2.13.0"),),
    )


def _row(label: str, role: str, params: int, ap: float, ap50: float, ms: float) -> ModelRow:
    return ModelRow(
        label=label,
        role=role,
        params=params,
        macs=100 * params,
        file_bytes=4 * params,
        ap50_95=ap,
        ap50=ap50,
        ap_interval=(ap - 0.02, ap + 0.02),
        training="20 epochs" if role else "",
        latencies=(Latency(setting="onnxruntime, 1 thread", ms=ms),),
    )


class Page(HTMLParser):
    """Tags, attributes and text of a page, and whether its tags are balanced."""

    VOID = ("meta", "link", "img", "br", "input")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        """Whatever is between tags."""
        return " ".join("".join(self.words).split())

    def ids(self) -> set[str]:
        """Of the sections."""
        return {attrs["id"] or "" for tag, attrs in self.tags if tag == "section"}

    def attribute(self, name: str) -> list[str]:
        """Every value of an attribute."""
        return [attrs[name] or "" for _, attrs in self.tags if name in attrs]
