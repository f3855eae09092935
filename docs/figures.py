"""The pictures of the documentation, each redone by this file; `make figures` does it.

    python docs/figures.py            # all but demo.jpg: seconds
    python docs/figures.py --demo     # demo.jpg too; about 5 minutes where `make demo` was not run

The charts are drawn from the measurements in benchmarks/results/. To measure again takes hours;
the laboratory log gives the commands.

    img/tradeoff.svg         recipe_s192.jsonl (AP), bench_s192.json (time): benchmarks/recipe.py
    pruning_criteria.png      pruning_criteria_tiny.jsonl: benchmarks/pruning_criteria.py
    img/{residual_group,concat,refit}.svg    drawn here
    demo.jpg                  the models that `make demo` trains
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import cv2
import numpy as np

import yolox
from yolox.data import generate_demo_dataset
from yolox.models import load_model
from yolox.report.svg import element, rising_ticks, text
from yolox.utils.model_utils import count_params

DOCS = Path(__file__).parent
ROOT = DOCS.parent
RESULTS = ROOT / "benchmarks" / "results"
OUTPUT = ROOT / "YOLOX_outputs"
DEMO_MODELS = {
    "trained": OUTPUT / "yolox_demo" / "best_ckpt.pth",
    "pruned and fine-tuned": OUTPUT / "yolox_demo_finetune" / "best_ckpt.pth",
}
DEMO_IMAGES = (160, 163, 171)  # of the test split
CRITERIA_TITLE = "yolox-tiny on BCCD, 320 × 320"

INK, LINE, RED, BLUE, PINK, PAPER = "#222", "#444", "#a03020", "#dfe7f7", "#f7d9d4", "#fafafa"
Point = tuple[float, float]


# ------------------------------------------------------------------------------------- drawings


def box(x: float, y: float, width: float, lines: str, *, fill: str, height: float = 50) -> str:
    """A layer, with one or two lines of text in its middle."""
    rows = lines.split("\n")
    first = y + height / 2 + 5 - 8.5 * (len(rows) - 1)
    return element(
        "rect", x=x, y=y, width=width, height=height, rx=6, fill=fill, stroke=LINE
    ) + "".join(label(row, x + width / 2, first + 17 * i) for i, row in enumerate(rows))


def arrow(*points: Point) -> str:
    """A line through the points, with a head at its end."""
    path = "M" + " ".join(f"{x:g} {y:g}" for x, y in points)
    return element("path", d=path, stroke=LINE, fill="none", marker_end="url(#head)")


def label(content: str, x: float, y: float, *, fill: str = INK, anchor: str = "middle") -> str:
    """A text."""
    return text(content, x, y, text_anchor=anchor, fill=fill)


def drawing(height: float, title: str, parts: Sequence[str], *, width: float = 640) -> str:
    """A picture on a light ground, which can be read on a dark page too."""
    tip = element("path", d="M0 0 8 4 0 8z", fill=LINE)
    head = element(
        "marker", tip, id="head", viewBox="0 0 8 8", refX=7, refY=4, markerWidth=7, orient="auto"
    )
    ground = element("rect", width=width, height=height, rx=8, fill=PAPER)
    return element(
        "svg",
        "\n" + "\n".join((element("title", title), element("defs", head), ground, *parts)) + "\n",
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {width:g} {height:g}",
        width=width,
        height=height,
        font_family="sans-serif",
        font_size=14,
        role="img",
    )


def residual_group() -> str:
    """The layers that an addition ties together."""
    parts = [
        box(20, 90, 120, "conv A\noutput channel i", fill=PINK),
        arrow((140, 115), (190, 115)),
        box(190, 90, 120, "conv B\noutput channel i", fill=PINK),
        arrow((310, 115), (360, 115)),
        element("circle", cx=375, cy=115, r=14, fill="#fff", stroke=LINE),
        label("+", 375, 120),
        arrow((165, 115), (165, 50), (375, 50), (375, 100)),
        arrow((389, 115), (450, 115)),
        box(450, 90, 140, "conv C\ninput channel i", fill=PINK),
        label("shortcut", 270, 40),
        label(
            "The red parts are one slot: they are removed together, or stay together.",
            320,
            180,
            fill=RED,
        ),
    ]
    return drawing(200, "A residual group", parts)


def concat() -> str:
    """Where a channel of one branch lies behind a concatenation."""
    parts = [
        box(20, 30, 150, "conv A\n64 output channels", fill=BLUE),
        box(20, 120, 150, "conv B\noutput channel i", fill=PINK),
        arrow((170, 55), (230, 55), (230, 92), (270, 92)),
        arrow((170, 145), (230, 145), (230, 108), (270, 108)),
        box(270, 75, 90, "concat", fill="#fff"),
        arrow((360, 100), (430, 100)),
        box(430, 75, 170, "conv C\ninput channel 64 + i", fill=PINK),
        label("The red parts are one slot. Conv A is a separate group.", 320, 202, fill=RED),
    ]
    return drawing(220, "A concatenation", parts)


def refit() -> str:
    """Two ways through a layer, which refitting brings close to each other."""
    parts = []
    for y, fill, names in (
        (25, BLUE, ("all inputs", "layer, old weights", "old output")),
        (125, PINK, ("remaining inputs", "layer, new weights", "new output")),
    ):
        parts += [
            box(20, y, 150, names[0], fill=fill),
            arrow((170, y + 25), (240, y + 25)),
            box(240, y, 160, names[1], fill=fill),
            arrow((400, y + 25), (470, y + 25)),
            box(470, y, 140, names[2], fill=fill),
        ]
    parts += [
        element("path", d="M540 75 540 125", stroke=RED, stroke_dasharray="4 3"),
        label("make close", 550, 105, fill=RED, anchor="start"),
        label(
            "Ridge regression finds the new weights on a few training images, without labels.",
            320,
            210,
            fill=RED,
        ),
    ]
    return drawing(230, "Refitting a layer", parts)


# --------------------------------------------------------------------------------------- charts

SHARES = (0.5, 0.3, 0.2, 0.1)
CONTROL = "unpruned, rate × 2"  # trained as long as the pruned ones, at their learning rate
# Runs that ended with batch-norm statistics behind the weights: the AP with statistics measured
# again, which the log has. A control must not look worse than it is.
RETAKEN = {("dense=0.2", 0): 0.459, ("dense=0.5", 2): 0.498}
LABELS = {0.5: "half", 0.3: "30 %", 0.2: "a fifth", 0.1: "a tenth"}
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 760, 410, 66, 24, 96, 54
SLOWEST, LOWEST, HIGHEST = 27.0, 0.37, 0.55  # ends of the axes: ms, AP50-95


def tradeoff() -> str:
    """AP against time in a runtime: the unpruned model, pruned ones, and narrower dense ones."""
    ap: dict[str, list[float]] = {}
    for line in (RESULTS / "recipe_s192.jsonl").read_text().splitlines():
        row = json.loads(line)
        ap.setdefault(row["row"], []).append(RETAKEN.get((row["row"], row["seed"]), row["ap"]))
    time = _medians(json.loads((RESULTS / "bench_s192.json").read_text()), "onnxruntime")
    whole = (time["base"], mean(ap[CONTROL]))
    pruned = [(time[f"macs_{s}"], mean(ap[f"macs={s}"])) for s in SHARES]
    dense = [(time[f"dense_{s}"], mean(ap[f"dense={s}"])) for s in SHARES]
    rows = {CONTROL: "base"} | {f"{k}={s}": f"{k}_{s}" for k in ("macs", "dense") for s in SHARES}
    kinds = {"base": "whole", "macs": "pruned", "dense": "dense"}
    parts = [
        *_axes(),
        *(_spread(time[at], ap[row], kinds[at.split("_")[0]]) for row, at in rows.items()),
        *_curve([whole, *dense], "dense", "narrower models, not pruned"),
        *_curve([whole, *pruned], "pruned", "pruned and fine-tuned"),
        _mark(whole, "whole"),
        _said(whole, "unpruned", -10, -14, "end", "whole"),
    ]
    for share, point in zip(SHARES, pruned, strict=True):
        parts.append(_said(point, f"{whole[0] / point[0]:.1f} ×", 6, -12, "start", "pruned"))
        parts.append(_said(point, LABELS[share], 7, 20, "start", "small"))
    style = (
        "text{font:14px system-ui,-apple-system,'Segoe UI',Helvetica,Arial,sans-serif;fill:#1f2328}"
        ".title{font-size:17px;font-weight:600}.small{font-size:12.5px;fill:#59636e}"
        ".paper{fill:#fff}.grid{stroke:#d1d9e0}.pruned{fill:#0a6b3d;stroke:#0a6b3d}"
        ".dense{fill:#9a5b00;stroke:#9a5b00}.whole{fill:#1f2328;stroke:#1f2328}"
        "text.pruned,text.dense,text.whole{stroke:none;font-weight:600}"
        "path{fill:none!important;stroke-width:2.5}.dense path,path.dense{stroke-dasharray:6 4}"
        "@media(prefers-color-scheme:dark){text{fill:#e6edf3}.small{fill:#a5aeb8}"
        ".paper{fill:#0d1117}.grid{stroke:#30363d}.pruned{fill:#3fb97a;stroke:#3fb97a}"
        ".dense{fill:#e3a04a;stroke:#e3a04a}.whole{fill:#e6edf3;stroke:#e6edf3}}"
    )
    ratio, cost = whole[0] / pruned[-1][0], 100 * (whole[1] - pruned[-1][1])
    title = f"Pruned to a tenth of the MACs: {ratio:.1f} × as fast, {cost:.1f} points of AP less"
    said = (
        "yolox-s on BCCD (blood cells), 192 × 192. Each point is the mean of three trainings, each "
        "bar their range."
    )
    return element(
        "svg",
        "\n"
        + "\n".join(
            (
                element("title", title),
                element("style", style),
                element("rect", width=WIDTH, height=HEIGHT, rx=8, class_="paper"),
                text(title, LEFT - 44, 30, class_="title"),
                text(said, LEFT - 44, 52, class_="small"),
                *parts,
            )
        )
        + "\n",
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        width=WIDTH,
        height=HEIGHT,
        role="img",
    )


def _medians(bench: Mapping[str, Any], runtime: str) -> dict[str, float]:
    """Milliseconds of a forward pass, by the run's row: `base`, `macs_0.5`, `dense_0.5`."""
    return {
        Path(m["path"]).parent.name.removeprefix("yolox-s_192_").removesuffix("_0"): m["forward"][
            "median"
        ]
        for m in bench["measurements"]
        if m["runtime"] == runtime
    }


def _place(point: Point) -> Point:
    x = LEFT + point[0] / SLOWEST * (WIDTH - LEFT - RIGHT)
    y = TOP + (HIGHEST - point[1]) / (HIGHEST - LOWEST) * (HEIGHT - TOP - BOTTOM)
    return x, y


def _axes() -> Iterator[str]:
    for ap in rising_ticks(LOWEST, HIGHEST, 4):
        (x1, y), (x2, _) = _place((0, ap)), _place((SLOWEST, ap))
        yield element("line", x1=x1, y1=y, x2=x2, y2=y, class_="grid")
        yield text(f"{ap:.2f}", x1 - 8, y + 4, class_="small", text_anchor="end")
    for ms in range(0, int(SLOWEST) + 1, 5):
        x, y = _place((ms, LOWEST))
        yield text(f"{ms}", x, y + 18, class_="small", text_anchor="middle")
    x, y = _place((SLOWEST, LOWEST))
    said = "milliseconds an image, ONNX Runtime, one thread"
    yield text(said, x, y + 38, class_="small", text_anchor="end")
    yield text("AP50-95", LEFT - 44, TOP - 14, class_="small")


def _curve(points: Sequence[Point], kind: str, name: str) -> Iterator[str]:
    path = "M" + " ".join(f"{x:.1f} {y:.1f}" for x, y in map(_place, points))
    yield element("path", d=path, class_=kind)
    for point in points[1:]:
        yield _mark(point, kind)
    above, below = (points[1], -44), (points[2], 34)
    point, dy = above if kind == "pruned" else below
    yield _said(point, name, 12 if kind == "dense" else 0, dy, "start", kind)


def _spread(ms: float, ap: Sequence[float], kind: str) -> str:
    """A bar from the lowest to the highest AP."""
    (x, low), (_, high) = _place((ms, min(ap))), _place((ms, max(ap)))
    return element("line", x1=x, y1=low, x2=x, y2=high, class_=kind, stroke_width=1.5, opacity=0.55)


def _mark(point: Point, kind: str) -> str:
    x, y = _place(point)
    return element("circle", cx=x, cy=y, r=5.5, class_=kind)


def _said(point: Point, content: str, dx: float, dy: float, anchor: str, kind: str) -> str:
    x, y = _place(point)
    return text(content, x + dx, y + dy, class_=kind, text_anchor=anchor)


def criteria(path: Path) -> None:
    """The picture of benchmarks/pruning_criteria.py; its tables go nowhere."""
    source = RESULTS / "pruning_criteria_tiny.jsonl"
    script = ROOT / "benchmarks" / "pruning_criteria.py"
    line = [script, "-o", source, "--draw", path, "--title", CRITERIA_TITLE]
    subprocess.run([sys.executable, *map(str, line)], check=True, stdout=subprocess.DEVNULL)


def demo(path: Path) -> None:
    """Detections on the demo data, by the model before pruning above those after fine-tuning."""
    pictures = generate_demo_dataset(ROOT / "datasets" / "demo") / "VOC2007" / "JPEGImages"
    images = [pictures / f"demo_{number:05d}.jpg" for number in DEMO_IMAGES]
    rows = []
    for name, file in DEMO_MODELS.items():
        params = count_params(load_model(file).model)
        found = yolox.load(file, conf=0.4).predict(images)
        row = np.hstack([one.plot() for one in found])
        strip = np.full((44, row.shape[1], 3), 255, np.uint8)
        said = f"{name}: {params / 1e6:.2f} million parameters"
        cv2.putText(
            strip, said, (8, 30), cv2.FONT_HERSHEY_SIMPLEX, 0.8, (40, 35, 31), 2, cv2.LINE_AA
        )
        rows += [strip, row]
    whole = np.vstack(rows)
    cv2.imwrite(str(path), whole, [cv2.IMWRITE_JPEG_QUALITY, 85])


# Their bytes may differ from one library's version to the next.
PIXELS = ("demo.jpg", "pruning_criteria.png")
DRAWINGS = {
    "img/tradeoff.svg": tradeoff,
    "img/residual_group.svg": residual_group,
    "img/concat.svg": concat,
    "img/refit.svg": refit,
}


def main(argv: Sequence[str] | None = None) -> None:
    """Draw them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-o", "--output", type=Path, default=DOCS, help="folder (default: docs)")
    parser.add_argument("--demo", action="store_true", help="demo.jpg too, trained where it has to")
    args = parser.parse_args(argv)
    (args.output / "img").mkdir(parents=True, exist_ok=True)
    for name, draw in DRAWINGS.items():
        (args.output / name).write_text(draw() + "\n", encoding="utf-8")
    criteria(args.output / "pruning_criteria.png")
    if args.demo:
        if not all(file.exists() for file in DEMO_MODELS.values()):
            subprocess.run([sys.executable, "tools/quickstart.py"], cwd=ROOT, check=True)
        demo(args.output / "demo.jpg")


if __name__ == "__main__":
    main()
