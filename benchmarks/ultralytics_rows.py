"""Detectors of Ultralytics, pruned here and trained on in their trainer, beside controls.

    python benchmarks/ultralytics_rows.py -o u.jsonl --data $BCCD                      # everything
    python benchmarks/ultralytics_rows.py -o u.jsonl --data $BCCD --seeds 0 --models yolov8n
    python benchmarks/ultralytics_rows.py -o u.jsonl --table

The road is the commands, each printed as it would be typed. Everything is trained from scratch, by
SGD with a step a batch, every other setting of Ultralytics as it is, on BCCD in the VOC layout,
which is written anew in theirs. Rows of a model and a seed, each trained for as many epochs:

    unpruned   control: `--base-epochs`, and then `--epochs` more
    default    the same start, pruned by what the command does by default (Taylor, refitted), and
               `--epochs` more
    slimming   `--base-epochs` with a penalty on the scales (`--sparsity`), pruned by the scales and
               not refitted, and `--epochs` more

AP is that of Ultralytics' validator on the test split, the latency that of its ONNX file in
onnxruntime, one thread, the rows of a model and a seed in turns. Lines that the file holds are not
measured again; a training that was finished is not done again.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from recipe import claim

from yolox.data.datasets.voc import read_voc
from yolox.jobs.prune_latency import LatencySettings
from yolox.ultralytics.installed import require_ultralytics
from yolox.utils.device import processor
from yolox.utils.model_utils import count_macs, count_params
from yolox.utils.scratch import scratch_folder

ROOT = Path(__file__).parents[1]
MODELS = ("yolov5nu", "yolov8n")
YAMLS = {"yolov5nu": "yolov5n.yaml", "yolov8n": "yolov8n.yaml"}
ROWS = ("unpruned", "default", "slimming")
# What decides a row of a model and a seed.
SETTINGS = ("imgsz", "batch", "base_epochs", "epochs", "target", "sparsity", "set")
SPLITS = {"train": "trainval", "val": "test"}


def main() -> None:
    """Train, prune, measure, write a line a row; or print them."""
    args = parse_args()
    if args.table:
        print_table(read_lines(args.output))
        return
    settings = {key: str(getattr(args, key)) for key in SETTINGS}
    claim(args.folder, settings)
    data = write_yolo(args.data, args.folder / "data")
    require_ultralytics(safely=True)
    for name in args.models:
        for seed in args.seeds:
            done = {
                row["row"] for row in read_lines(args.output) if same(row, name, seed, settings)
            }
            if not set(ROWS) <= done:
                measure(args, data, name, seed)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("-o", "--output", type=Path, required=True, help="JSON lines, added to")
    add("--data", type=Path, help="VOCdevkit of BCCD")
    add("--folder", type=Path, default=Path("ultralytics_rows"), help="for runs and data")
    add("--models", nargs="+", choices=MODELS, default=list(MODELS))
    add("--seeds", type=int, nargs="+", default=[0, 1])
    add("--imgsz", type=int, default=160)
    add("--batch", type=int, default=16)
    add("--base-epochs", type=int, default=40)
    add("--epochs", type=int, default=30)
    add("--target", default="macs=0.5")
    add("--sparsity", type=float, default=0.01)
    add("--set", nargs="*", default=[], metavar="key=value", help="more settings of Ultralytics")
    add("--table", action="store_true", help="print what the file holds")
    args = parser.parse_args()
    if not args.table and args.data is None:
        parser.error("--data is needed")
    return args


def measure(args: argparse.Namespace, data: Path, name: str, seed: int) -> None:
    """The rows of a model and a seed."""
    # These import Ultralytics, which has to be told before to read safely.
    from yolox.ultralytics.clock import DetectorClock
    from yolox.ultralytics.data import average_precision
    from yolox.ultralytics.files import read_detector

    folder = (args.folder / f"{name}_{seed}").resolve()
    more = (
        f"data={data}",
        f"imgsz={args.imgsz}",
        f"batch={args.batch}",
        f"seed={seed}",
        "plots=False",
    )
    more = (*more, f"nbs={args.batch}", "optimizer=SGD", f"project={folder}", "exist_ok=True")
    more = (*more, *args.set)

    def train(run: str, start: object, epochs: int, *flags: object) -> Path:
        best = folder / run / "weights" / "best.pt"
        # Its last act on a file is to take the optimizer out.
        marker = folder / f"{run}.done"
        if not marker.exists():
            words = (f"epochs={epochs}", f"name={run}", *more)
            command("train", start, *words, *flags)
            marker.touch()
        return best

    def prune(run: str, start: Path, *flags: object) -> Path:
        output = folder / f"{run}.pt"
        if not output.exists():
            words = ("--data", data, "--target", args.target, "--eval", "--no-latency")
            command("prune", start, "-o", output, *words, "--seed", seed, *flags)
        return output

    base = train("base", YAMLS[name], args.base_epochs)
    sparse = train("sparse", YAMLS[name], args.base_epochs, "--sparsity", args.sparsity)
    cuts = {
        "default": prune("default_cut", base),
        "slimming": prune("slimming_cut", sparse, "--importance", "bn", "--reconstruct", 0),
    }
    files = {"unpruned": train("unpruned", base, args.epochs)}
    files |= {row: train(row, cut, args.epochs) for row, cut in cuts.items()}
    models = {row: read_detector(file) for row, file in files.items()}
    size = (args.imgsz, args.imgsz)
    settings = LatencySettings(runtime="onnxruntime", threads=1)
    with scratch_folder() as scratch:
        clock = DetectorClock(size, settings, scratch)
        times = clock.time([clock.open(model) for model in models.values()])
    for (row, model), latency in zip(models.items(), times, strict=True):
        ap, ap50 = average_precision(model, str(data), args.imgsz, args.batch)
        stages = _stages(cuts[row]) if row in cuts else []
        line = {
            "model": name,
            "seed": seed,
            "row": row,
            "params": count_params(model),
            "macs": count_macs(model, torch.zeros(1, 3, *size))[""],
            "ap_start": stages[0]["ap50_95"] if stages else None,
            "ap_cut": stages[-1]["ap50_95"] if stages else None,
            "ap": ap,
            "ap50": ap50,
            "latency_ms": latency,
            "runtime": settings.version,
            "machine": processor(),
            "settings": {k: str(v) for k, v in vars(args).items() if k not in ("output", "table")},
        }
        with args.output.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        print(json.dumps(line))


def command(name: str, *words: object) -> None:
    """Run a command of the adapter, printed as it would be typed."""
    texts = [str(word) for word in words]
    print(f"$ yolox ultralytics {name} {shlex.join(texts)}", flush=True)
    subprocess.run(
        [sys.executable, "-m", "yolox.tools.door", "ultralytics", name, *texts],
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), *_python_path()))},
    )


def _python_path() -> list[str]:
    found = os.environ.get("PYTHONPATH")
    return [found] if found else []


def write_yolo(devkit: Path, folder: Path) -> Path:
    """A VOC data set in Ultralytics' layout, images copied; its YAML. Empty boxes are left out."""
    yaml = folder / "data.yaml"
    if yaml.exists():
        return yaml.resolve()
    sets = {split: read_voc(devkit, [("2007", name)]) for split, name in SPLITS.items()}
    names = sorted({name for found in sets.values() for r in found.records for name in r.names})
    for split, found in sets.items():
        (folder / "images" / split).mkdir(parents=True, exist_ok=True)
        (folder / "labels" / split).mkdir(parents=True, exist_ok=True)
        for record in found.records:
            shutil.copy(record.image, folder / "images" / split)
            lines = _label_lines(record, names)
            text = folder / "labels" / split / f"{record.image.stem}.txt"
            text.write_text("".join(lines), encoding="utf-8")
    listed = "".join(f"  {number}: {name}\n" for number, name in enumerate(names))
    places = "train: images/train\nval: images/val\n"
    yaml.write_text(f"path: {folder.resolve()}\n{places}names:\n{listed}", encoding="utf-8")
    return yaml.resolve()


def _label_lines(record: Any, names: Sequence[str]) -> Iterator[str]:
    height, width = record.size
    for name, (x0, y0, x1, y1) in zip(record.names, record.boxes, strict=True):
        x0, x1 = max(0.0, x0), min(float(width), x1)
        y0, y1 = max(0.0, y0), min(float(height), y1)
        if x1 > x0 and y1 > y0:
            box = (
                (x0 + x1) / 2 / width,
                (y0 + y1) / 2 / height,
                (x1 - x0) / width,
                (y1 - y0) / height,
            )
            yield f"{names.index(name)} {' '.join(f'{value:.6f}' for value in box)}\n"


def _stages(cut: Path) -> list[dict[str, Any]]:
    """What the report beside a pruned file says of AP."""
    report = json.loads(cut.with_suffix(".report.json").read_text(encoding="utf-8"))
    return list(report["stages"])


def same(row: dict[str, Any], name: str, seed: int, settings: dict[str, str]) -> bool:
    """Whether a line is of a model and a seed, made with these settings."""
    is_own = row["model"] == name and row["seed"] == seed
    return is_own and bool(row["settings"].items() >= settings.items())


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The rows that a file holds."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def print_table(rows: Sequence[dict[str, Any]]) -> None:
    """Markdown: a line a row, seeds beside each other."""
    print("| model | row | params | MACs | AP start | AP cut | AP tuned | AP50 | ms |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name in MODELS:
        for row in ROWS:
            own = [r for r in rows if r["model"] == name and r["row"] == row]
            if own:
                cells = (
                    _cell(own, "params", "{:,}"),
                    _cell(own, "macs", "{:,}"),
                    *(_cell(own, key, "{:.3f}") for key in ("ap_start", "ap_cut", "ap", "ap50")),
                    _cell(own, "latency_ms", "{:.2f}"),
                )
                print(f"| {name} | {row} | {' | '.join(cells)} |")


def _cell(rows: Sequence[dict[str, Any]], key: str, form: str) -> str:
    values = [row[key] for row in sorted(rows, key=lambda row: row["seed"])]
    return " / ".join("–" if value is None else form.format(value) for value in values)


if __name__ == "__main__":
    main()
