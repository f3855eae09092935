"""One HTML file that puts models side by side: size, speed, accuracy, pictures."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loguru import logger

from yolox.exp.report import ReportSettings, gather_report
from yolox.export.bench_plan import files_digest
from yolox.report import Fact, Latency, ModelRow, save_report
from yolox.tools import cli
from yolox.utils.download import resolve_weights
from yolox.utils.errors import UserError
from yolox.utils.files import require_writable, short_names


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, read, evaluate, write."""
    args = make_parser().parse_args(argv)
    if args.no_eval:
        cli.refuse_fields(args, "without AP nothing is read of the Exp")
    exp = None if args.no_eval else cli.load_exp(args)
    paths = [resolve_weights(path) for path in args.ckpt]
    labels = tuple(args.labels or short_names(paths))
    bench = read_bench(args.bench, paths, labels) if args.bench else Bench()
    words = sys.argv[1:] if argv is None else argv
    own = f"python tools/report.py {shlex.join(words)}"
    commands = _commands(paths, args.compress, own)
    settings = ReportSettings(
        title=args.title,
        labels=labels,
        images=args.images,
        score=args.conf,
        measured=bench.rows,
        measured_on=bench.machine,
        measured_size=bench.size,
        openvino_precision=args.openvino_precision,
        asked=_asked(commands),
        commands=commands,
    )
    # Before minutes of evaluation are lost.
    require_writable(args.output.parent)
    report = gather_report(paths, exp, settings, keep=args.opts[::2])
    save_report(report, args.output)
    size = args.output.stat().st_size / 1e6
    logger.info(f"report in {args.output} ({size:.1f} MB): open it in a browser, or send it")


def make_parser() -> argparse.ArgumentParser:
    """The flags."""
    parser = cli.make_parser(
        "Write one HTML file that puts models side by side: the first is the one before, the last "
        "the one after.",
        "python tools/report.py -c best_ckpt.pth tuned.pth --bench bench.json -o report.html "
        "-f exps/yolox_voc_s.py",
    )
    parser.add_argument(
        "-c",
        "--ckpt",
        type=Path,
        nargs="+",
        required=True,
        help="checkpoints or exported files, one or more",
    )
    parser.add_argument("--labels", nargs="+", help="a name a model (the ends of the paths)")
    parser.add_argument("-o", "--output", type=Path, default=Path("report.html"), help="to write")
    parser.add_argument("--title", default="", help="of the page (the Exp's name)")
    parser.add_argument("--bench", type=Path, help="latencies: what tools/bench.py --json wrote")
    cli.add_openvino_precision(parser)
    parser.add_argument(
        "--compress", type=Path, help="commands: the compress.json of tools/compress.py"
    )
    parser.add_argument(
        "--images", type=cli.natural, default=6, help="most images to show side by side"
    )
    parser.add_argument(
        "--conf", type=cli.fraction, default=0.3, help="least score of a detection drawn on them"
    )
    parser.add_argument(
        "--no-eval", action="store_true", help="leave out all that needs data: AP, curves, images"
    )
    cli.add_exp_arguments(parser)
    return parser


def _commands(paths: Sequence[Path], compress: Path | None, own: str) -> tuple[str, ...]:
    """The lines that made all this, in order: the pipeline's, or those told beside the files."""
    commands = []
    if compress is not None:
        stages = _read_json(compress, "tools/compress.py").get("stages", [])
        try:
            commands = [str(stage["command"]) for stage in stages.values()]
        except (AttributeError, KeyError, TypeError) as error:
            raise UserError(
                f"{compress} is not a compress.json of tools/compress.py: its stages have no "
                "commands"
            ) from error
    else:
        records = [path.with_suffix(".report.json") for path in paths]
        found = [_read_json(path, "tools/prunmodel.py") for path in records if path.is_file()]
        commands = [str(record["command"]) for record in found if record.get("command")]
    return tuple(dict.fromkeys([*commands, own]))


def _asked(commands: Sequence[str]) -> tuple[Fact, ...]:
    """The target of each pruning: of one in steps, a checkpoint knows those of its steps alone."""
    targets = []
    for command in commands:
        try:
            words = shlex.split(command)
        except ValueError:  # it was edited: shown as it is
            continue
        if "tools/prunmodel.py" in words and "--target" in words[:-1]:
            targets.append(words[words.index("--target") + 1])
    return tuple(Fact(name="target", value=target) for target in dict.fromkeys(targets))


def _read_json(path: Path, origin: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path} ({error}): give the file of {origin}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is not a file of {origin}: expected a JSON object")
    return content


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What `tools/bench.py` measured: a row a file; the machine; the input's height and width."""

    rows: tuple[ModelRow, ...] = ()
    machine: str = ""
    size: tuple[int, int] | None = None


def read_bench(path: Path, models: Sequence[Path], labels: Sequence[str]) -> Bench:
    """Read a file of ``tools/bench.py --json``.

    Args:
        path: the file of its ``--json``.
        models, labels: of the report. One of these files goes by its label here. Others keep the
            one that they were measured under, and a remark where a file of the report has it.
            Left out, with a warning, is a file that is not the one that was measured.

    Raises:
        UserError: the file cannot be read or is another one.
    """
    names = {model.resolve(): label for model, label in zip(models, labels, strict=False)}
    content = _read_json(path, "tools/bench.py --json")
    try:
        same = {files_digest(place): place for place in names}
        machine = content["machine"]
        height, width = map(int, content["settings"]["size"])
        rows = []
        for file in content["models"]:
            place, label = Path(file["path"]).resolve(), str(file["label"])
            if place not in names:  # measured from another folder, perhaps
                place = same.get(file["file_sha256"], place)
            if place in names and files_digest(place) != file["file_sha256"]:
                logger.warning(f"{place} has changed since {path} was measured: measure it again")
                continue
            taken = label in labels and place not in names
            times = [row for row in content["measurements"] if row["label"] == file["label"]]
            latencies = [
                Latency(setting=_setting(row), ms=float(row["forward"]["median"])) for row in times
            ]
            rows.append(
                ModelRow(
                    label=names.get(place, f"{label} ({path.name})" if taken else label),
                    params=file["params"],
                    macs=file["macs"],
                    file_bytes=file["file_bytes"],
                    latencies=tuple(latencies),
                )
            )
        return Bench(
            rows=tuple(rows),
            machine=f"{machine['processor']} ({machine['cores']} cores), at {height}×{width}",
            size=(height, width),
        )
    except OSError as error:
        raise UserError(f"cannot read {error.filename}: {error.strerror}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} is not what tools/bench.py --json writes ({error!r}): measure again"
        ) from error


def _setting(row: dict[str, Any]) -> str:
    """Runtime, threads, and batch, as a column's title."""
    threads, batch = int(row["threads"]), int(row["batch"])
    arithmetic = str(row["precision"]).partition(", run in ")[2]
    runtime = f"{row['runtime']} in {arithmetic}" if arithmetic else str(row["runtime"])
    words = [runtime, f"{threads} thread{'' if threads == 1 else 's'}"]
    return ", ".join(words + ([f"batch {batch}"] if batch > 1 else []))


if __name__ == "__main__":
    cli.entry(main)
