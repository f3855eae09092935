"""Sparsify, prune, fine-tune: AP after equal training, beside two controls, over seeds.

    python benchmarks/recipe.py -o s.jsonl --data $BCCD                     # everything, 3 seeds
    python benchmarks/recipe.py -o s.jsonl --data $BCCD --seeds 0 --rows base unpruned macs=0.2
    python benchmarks/recipe.py -o s.jsonl --table
    python benchmarks/recipe.py -o s.jsonl --table --against default=0.5    # instead of control

The road is the commands of tools/, each printed as it would be typed. A seed's rows share one
trained model, `base`. Every row ends after as many epochs: those of `base` and `--epochs` more.

    control        `base`, trained on for as long as the pruned ones, by the same recipe
    default=<share>  `base`, pruned to that share of the MACs and fine-tuned by the defaults of the
                   commands
    unpruned       control: as `control`, by the Exp's own recipe
    dense=<share>  control: a narrower network with that share of the MACs, from scratch
    macs=<share>   as `default`, but as the first series was: with `base` as teacher, at twice the
                   rate, channels by `--per none`, batch norms as they are after the last step
    others         `macs=<--at>`, or the control, with what their names say changed, or another
                   share behind a `=`; those of `sparse` start from `sparse base`: `base` trained
                   with a penalty on its scales

With --folds every row is trained once a fold, on all images of trainval and test but the fold's,
and tested on those: every image is a test image once. The table then ends with the difference of
each row from its control, over the images of all folds (a paired bootstrap): an interval that
leaves out 0 is a real difference.

Lines that the file holds are not measured again, and what was stopped goes on: with the same
--folder several of these, for other rows, seeds, models or sizes, may run side by side. Other
lengths, shares or weights need another one.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from folds import write_folds

from yolox.evaluators import Difference, ap_draws, difference_of
from yolox.exp import get_exp
from yolox.exp.follow import follow_checkpoint
from yolox.exp.models import MODELS, SCALES
from yolox.jobs.paired import find
from yolox.models import build_model, load_model
from yolox.utils.checkpoint import file_digest, load_checkpoint
from yolox.utils.device import processor
from yolox.utils.errors import UserError
from yolox.utils.model_utils import count_macs, count_params

ROOT = Path(__file__).parents[1]
EXP = ROOT / "exps" / "bccd_s.py"
SHARES = (0.5, 0.3, 0.2, 0.1)
SETTINGS = ("base_epochs", "epochs", "at", "sparsity", "ckpt")
TEACHER = ("--distill", "{start}")
DRAWS = 400  # of the test images, a line


@dataclass(frozen=True, kw_only=True)
class Variant:
    """What a row does otherwise than the recipe.

    Attributes:
        start: the row that it starts from.
        prune, tune: flags of pruning and of fine-tuning.
        fields: Exp fields of fine-tuning.
    """

    start: str = "base"
    prune: tuple[str, ...] = ("--per", "none")
    tune: tuple[str, ...] = TEACHER
    fields: tuple[str, ...] = ("finetune_lr", "2", "retake_statistics", "False")


DEFAULT = Variant(prune=(), tune=(), fields=())
RECIPE = Variant()
BARE = ("--no-absorb", "--reconstruct", "0")
OBS_UNIFORM = ("--importance", "obs", "--scope", "uniform")
AS_THEY_ARE = ("retake_statistics", "False")
VARIANTS = {
    "default": DEFAULT,
    "default, cut bare": Variant(prune=BARE, tune=(), fields=()),
    "default, per none": Variant(tune=(), fields=()),
    "default, rate × 1": Variant(prune=(), tune=(), fields=("finetune_lr", "1")),
    "default, obs uniform": Variant(prune=OBS_UNIFORM, tune=(), fields=()),
    "default, search": Variant(prune=("--search", "60"), tune=(), fields=()),
    "default, statistics as they are": Variant(prune=(), tune=(), fields=AS_THEY_ARE),
    "no teacher": Variant(tune=()),
    "no refit": Variant(prune=("--per", "none", "--reconstruct", "0")),
    "no absorption": Variant(prune=("--per", "none", *BARE)),
    "no absorption, per cost": Variant(prune=(*BARE, "--per", "cost")),
    "no absorption, rate × 4": Variant(
        prune=("--per", "none", *BARE), fields=("finetune_lr", "4", *AS_THEY_ARE)
    ),
    "random": Variant(prune=("--importance", "random")),
    "l1": Variant(prune=("--importance", "l1")),
    "bn": Variant(prune=("--importance", "bn")),
    "isomorphic": Variant(prune=("--scope", "isomorphic")),
    "per cost": Variant(prune=("--per", "cost")),
    "steps": Variant(prune=("--per", "none", "--steps", "3", "--step-epochs", "{between}")),
    "rate × 1": Variant(fields=("finetune_lr", "1", *AS_THEY_ARE)),
    "rate × 4": Variant(fields=("finetune_lr", "4", *AS_THEY_ARE)),
    "per cost, rate × 4": Variant(
        prune=("--per", "cost"), fields=("finetune_lr", "4", *AS_THEY_ARE)
    ),
    "sparse": Variant(start="sparse base"),
    "sparse, bn": Variant(start="sparse base", prune=("--importance", "bn")),
}
KINDS = (
    "base",
    "control",
    "unpruned",
    "unpruned, rate × 2",
    "macs",
    "dense",
    "sparse base",
    *VARIANTS,
)
ROWS = tuple(
    row
    for kind in KINDS
    for row in (
        [f"{kind}={share:g}" for share in SHARES]
        if kind in ("default", "macs", "dense")
        else [kind]
    )
)


def row_name(text: str) -> str:
    """A row of the command line, any share being allowed."""
    kind, _, share = text.partition("=")
    shared = kind in ("macs", "dense", *VARIANTS) and 0 < float(share or 0) < 1
    if text not in ROWS and not shared:
        raise ValueError
    return text


def order(row: str) -> tuple[int, float]:
    """Where a row stands in the table."""
    kind, _, share = row.partition("=")
    return KINDS.index(kind), -float(share or 0)


class Road:
    """The rows of a seed, and of a fold where there are some, in a folder each."""

    def __init__(self, args: argparse.Namespace, seed: int, fold: int | None) -> None:
        self.args, self.seed, self.fold = args, seed, fold
        self.fields = model_fields(args.model)
        side = f"{args.size},{args.size}"
        fields = {
            "input_size": side,
            "test_size": side,
            "seed": seed,
            "data_dir": args.data,
            "output_dir": args.folder,
            "data_num_workers": args.workers,
            "print_interval": 1000,
            "eval_interval": 1000,
        }
        if fold is not None:
            fields["data_dir"] = folds_of(args)
            fields["train_sets"], fields["val_sets"] = (
                f"2007/fold{fold}_train",
                f"2007/fold{fold}_test",
            )
        self.common = [str(word) for pair in fields.items() for word in pair]

    def name(self, row: str) -> str:
        words = row.replace(",", "").replace("=", " ").replace("×", "times").replace(" ", "_")
        part = "" if self.fold is None else f"_fold{self.fold}of{self.args.folds}"
        return f"{self.args.model}_{self.args.size}_{words}_{self.seed}{part}"

    def latest(self, row: str) -> Path:
        return self.args.folder / self.name(row) / "latest_ckpt.pth"

    def run(self, tool: str, *words: str) -> None:
        """A command of the project; its output goes to a log beside the lines."""
        line = ["tools/" + tool, *words]
        print("$ python", shlex.join(line), flush=True)
        with (self.args.folder / f"{self.name(tool)}.log").open("a", encoding="utf-8") as log:
            env = os.environ | {"OMP_NUM_THREADS": str(self.args.threads)}
            subprocess.run(
                [sys.executable, *line], cwd=ROOT, check=True, stdout=log, stderr=log, env=env
            )

    def train(
        self, row: str, epochs: int, start: Path | None, *words: str, fields: Sequence[str] = ()
    ) -> None:
        """Train into a row's folder from a checkpoint, or go on there."""
        latest = self.latest(row)
        if latest.is_file():
            if load_checkpoint(latest)["train"]["epoch"] == epochs:
                return
            start, words = latest, (*words, "--resume")
        if start is not None:
            words = ("-c", str(start), *words)
        plain = max(epochs // 8, 1)
        words = ("-f", str(EXP), "-expn", self.name(row), *words)
        length = ["max_epoch", str(epochs), "no_aug_epochs", str(plain)]
        self.run("train.py", *words, *length, *self.fields, *fields, *self.common)

    def base(self, row: str) -> Path:
        """The trained model that rows start from."""
        sparsity = ("--sparsity", str(self.args.sparsity)) if row.startswith("sparse") else ()
        self.train(row, self.args.base_epochs, self.args.ckpt, *sparsity)
        return self.latest(row)

    def prune(self, row: str, start: Path, target: str, *flags: str) -> Path:
        """Cut, with the AP before and after."""
        output = self.latest(row).parent / "pruned.pth"
        if not output.is_file():
            words = ["-c", str(start), "--target", target, "-o", str(output)]
            words += ["--no-latency", "--eval", *flags, "-f", str(EXP)]
            words += ["exp_name", self.name(row), "no_aug_epochs", "1"]
            self.run("prunmodel.py", *words, *self.common)
        return output

    def row(self, row: str) -> dict[str, Any]:
        """Train a row to its end and evaluate it."""
        epochs = self.args.epochs
        more: dict[str, Any] = {}
        if row in ("base", "sparse base"):
            checkpoint = self.base(row)
        elif row == "control":
            self.train(row, epochs, self.base("base"), "--control")
        elif row.startswith("unpruned"):
            rate = get_exp(str(EXP), None).basic_lr_per_img * (2 if "×" in row else 1)
            fields = ["basic_lr_per_img", str(rate)]
            self.train(row, epochs, self.base("base"), fields=fields)
        elif row.startswith("dense="):
            width = width_for(self.args.model, self.args.size, float(row.partition("=")[2]))
            self.train(row, self.args.base_epochs + epochs, None, fields=["width", str(width)])
        else:
            kind, _, share = row.partition("=")
            variant = VARIANTS.get(kind, RECIPE)
            start = self.base(variant.start)
            words = {"start": str(start), "between": str(epochs // 4)}
            flags = [flag.format(**words) for flag in variant.prune]
            if "--steps" in flags:
                epochs -= 2 * (epochs // 4)
            target = f"macs={float(share or self.args.at):g}"
            pruned = self.prune(row, start, target, *flags)
            flags = [flag.format(**words) for flag in variant.tune]
            self.train(row, epochs, pruned, *flags, fields=variant.fields)
            report = json.loads(pruned.with_suffix(".report.json").read_text(encoding="utf-8"))
            more = {stage["label"]: stage["ap50_95"] for stage in report["stages"]}
        checkpoint = self.latest(row)
        loaded = load_model(checkpoint)
        exp = get_exp(str(EXP), None)
        exp.merge(self.common)
        followed = follow_checkpoint(exp, loaded.spec, checkpoint, pruned=loaded.is_pruned)
        found = find(loaded.model, checkpoint, followed)
        data = found.evaluator.dataset
        # Rows of a seed and fold are drawn on the same images: their draws may be subtracted.
        (draws,) = ap_draws(
            data.samples,
            [found.detections],
            len(data.class_names),
            found.evaluator.headline,
            draws=DRAWS,
            seed=self.fold or 0,
        )
        image = torch.zeros(1, 3, self.args.size, self.args.size)
        return {
            "ap": found.result.ap50_95,
            "ap50": found.result.ap50,
            "images": len(data.samples),
            "classes": list(data.class_names),
            "macs": count_macs(loaded.model, image)[""],
            "params": count_params(loaded.model),
            "cut": more,
            "draws": [round(float(ap), 4) for ap in draws],
        }


def model_fields(name: str) -> list[str]:
    """Exp fields that make the Exp's model another one."""
    exp = get_exp(None, name)
    names = ("architecture", "depth", "width", "depthwise", "act")
    return [word for field in names for word in (field, str(getattr(exp, field)))]


def folds_of(args: argparse.Namespace) -> Path:
    """The devkit folder of the folds."""
    return args.folder / f"folds_{args.folds}"


def width_for(name: str, size: int, share: float) -> float:
    """The width whose network comes closest to a share of the MACs of a model of the family."""
    depth, full = SCALES[name]
    image = torch.zeros(1, 3, size, size)

    def macs(width: float) -> float:
        exp = get_exp(None, name)
        exp.depth, exp.width = depth, width
        return count_macs(build_model(exp.model_spec()), image)[""]

    whole = macs(full)
    # Stages of 64 channels and more: a step changes each by a channel at least.
    steps = [step / 64 for step in range(4, round(full * 64))]
    return min(steps, key=lambda width: abs(macs(width) / whole - share))


def table(lines: Sequence[dict[str, Any]], against: str | None = None) -> str:
    """Means over seeds or folds and their spread, as Markdown; then what differences are real.

    A block is of one model, size and length. What rows are held against is `control`, or where
    there is none `unpruned`, unless `against` names another row.
    """
    rows = [
        "| model | row | runs | MACs | params | AP after the cut: bare → compensated "
        f"| AP50-95 | AP50 | against {against or 'the control'} |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    runs = ("model", "size", "folds", *SETTINGS)
    told: list[str] = []
    for run in dict.fromkeys(tuple(line.get(key) for key in runs) for line in lines):
        block = [line for line in lines if tuple(line.get(key) for key in runs) == run]
        base = {part_of(line): line for line in block if line["row"] == "base"}
        kinds = {line["row"] for line in block}
        other = against or ("control" if "control" in kinds else "unpruned")
        control = {part_of(line): line["ap"] for line in block if line["row"] == other}
        for row in sorted({line["row"] for line in block}, key=order):
            found = sorted(
                (line for line in block if line["row"] == row),
                key=lambda line: (line["seed"], line.get("fold") or 0),
            )
            cuts = [list(line["cut"].values())[1:] for line in found if line["cut"]]
            after = " → ".join(
                f"{statistics.mean(values):.3f}" for values in zip(*cuts, strict=True)
            )
            apart = [
                line["ap"] - control[part_of(line)] for line in found if part_of(line) in control
            ]
            whole = [line for line in found if part_of(line) in base]
            macs, params = (
                f"{statistics.mean(line[key] / base[part_of(line)][key] for line in whole):.1%}"
                if whole
                else ""
                for key in ("macs", "params")
            )
            rows.append(
                f"| {run[0]} at {run[1]} | {row} | {len(found)} | {macs} | {params} "
                f"| {after} | {spread([line['ap'] for line in found])} "
                f"| {spread([line['ap50'] for line in found])} "
                f"| {spread(apart, sign=True) if apart else ''} |"
            )
            if row not in (other, "base") and (difference := paired(block, other, row)):
                told.append(f"{run[0]} at {run[1]}, {row} against {other}: {difference.text()}")
    return "\n".join([*rows, "", *told] if told else rows)


def part_of(line: dict[str, Any]) -> tuple[int, int | None]:
    """The seed and the fold of a line."""
    return line["seed"], line.get("fold")


def paired(lines: Sequence[dict[str, Any]], against: str, row: str) -> Difference | None:
    """A row's AP minus that of another over the images that both were tested on.

    It is the mean over the folds and seeds that both have; the images of a fold are drawn anew with
    replacement, the same for both. None where nothing was drawn.

    Raises:
        UserError: the rows were tested on other images or classes.
    """
    sides: list[dict[Any, dict[str, Any]]] = [
        {part_of(line): line for line in lines if line["row"] == name and "draws" in line}
        for name in (against, row)
    ]
    common = sorted(set(sides[0]) & set(sides[1]), key=str)
    for part in common:
        one, two = (side[part] for side in sides)
        for key in ("images", "classes"):
            if one[key] != two[key]:
                raise UserError(
                    f"{row} and {against} of seed {part[0]} were tested on other {key}: "
                    f"{two[key]} and {one[key]}; measure one of them again"
                )
    if not common:
        return None
    first, second = (
        np.mean([np.asarray(side[part]["draws"], float) for part in common], axis=0)
        for side in sides
    )
    return difference_of(first, second)


def spread(values: Sequence[float], *, sign: bool = False) -> str:
    """Mean ± standard deviation."""
    mean = f"{statistics.mean(values):{'+' if sign else ''}.3f}"
    return f"{mean} ± {statistics.stdev(values):.3f}" if len(values) > 1 else mean


def read(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def claim(folder: Path, settings: dict[str, Any]) -> None:
    """Keep a folder of checkpoints for runs of the same settings."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "settings.json"
    if not file.exists():
        file.write_text(json.dumps(settings, indent=1), encoding="utf-8")
    before = json.loads(file.read_text(encoding="utf-8"))
    differ = [f"{key} {before.get(key)} → {value}" for key, value in settings.items()
              if before.get(key) != value]  # fmt: skip
    if differ:
        sys.exit(f"{folder} holds runs with {', '.join(differ)}: give another --folder")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("-o", "--output", type=Path, required=True, help="file of lines, gone on with")
    add("--data", type=Path, help="VOCdevkit folder of BCCD")
    add("--folder", type=Path, default=Path("YOLOX_outputs/recipe"), help="of the checkpoints")
    add("--model", choices=MODELS, default="yolox-s")
    add("-c", "--ckpt", type=Path, help="weights that base starts from (none)")
    add("--size", type=int, default=320, help="side of the input (320)")
    add("--seeds", nargs="+", type=int, default=[0, 1, 2])
    add("--folds", type=int, help="cross-validate in as many folds (no: the split of the data)")
    add("--rows", nargs="+", type=row_name, default=ROWS, metavar="ROW", help=", ".join(ROWS))
    add("--base-epochs", type=int, default=40)
    add("--epochs", type=int, default=20, help="after it (20)")
    add("--at", type=float, default=0.2, help="share of the MACs of the variations (0.2)")
    add("--sparsity", type=float, default=0.01, help="strength, of the rows with it (0.01)")
    add("--threads", type=int, default=2)
    add("--workers", type=int, default=1, help="of the training images (1)")
    add("--table", action="store_true", help="print what the file holds, train nothing")
    add("--against", type=row_name, metavar="ROW", help="what its rows are held against (control)")
    args = parser.parse_args()
    if args.table:
        print(table(read(args.output), args.against))
        return
    if args.data is None:
        parser.error("--data: which folder holds BCCD?")
    args.folder = args.folder.resolve()
    settings = {key: getattr(args, key) for key in SETTINGS}
    settings["ckpt"] = args.ckpt and file_digest(args.ckpt)[:12]
    claim(args.folder, settings)
    folds: Sequence[int | None] = (None,)
    if args.folds is not None:
        for warning in write_folds(args.data, folds_of(args), args.folds):
            print(warning, flush=True)
        folds = range(args.folds)
    for seed, fold in itertools.product(args.seeds, folds):
        road = Road(args, seed, fold)
        for row in args.rows:
            key = {"model": args.model, "size": args.size, "seed": seed, "row": row}
            key |= settings
            if fold is not None:
                key |= {"folds": args.folds, "fold": fold}
            if any(line.items() >= key.items() for line in read(args.output)):
                continue
            start = time.monotonic()
            line = key | road.row(row)
            line |= {"seconds": round(time.monotonic() - start), "machine": processor()}
            with args.output.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"{Path(__file__).name}: {error}")
