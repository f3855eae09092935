"""Examine a data set before training: what is in it, what is wrong with it, how it looks."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from loguru import logger
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding

from yolox.data import DataError, MosaicDetection, RecordSet, label_cap
from yolox.data.contact_sheet import augmented_tiles, draw_sheet, record_tiles, save_sheet
from yolox.data.datasets.tables import RecordTable
from yolox.data.doctor import Finding, Report, check, find_splits, inspect_images
from yolox.exp import Exp
from yolox.tools import cli
from yolox.tools.flags.check_data import make_parser
from yolox.tools.words import command_line
from yolox.utils.documents import json_text
from yolox.utils.errors import UserError
from yolox.utils.files import write_text

_COLORS = {"error": "bold red", "warning": "yellow", "note": "cyan"}


@dataclass(frozen=True, kw_only=True)
class _Patient:
    """What is examined: splits, class list, (height, width) of the input; the Exp where given.

    `max_labels` is how many objects of an image training keeps, None for all.
    """

    splits: dict[str, RecordSet]
    classes: tuple[str, ...] | None
    input_size: tuple[int, int]
    exp: Exp | None
    seed: int
    max_labels: int | None


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, read everything once, print, write; an error at the end if the data has any."""
    args = _parse(argv)
    patient = _from_path(args) if _is_path(args) else _from_exp(args)
    tables = [RecordTable.of(records.records) for records in patient.splits.values()]
    paths = (table.image(i) for table in tables for i in range(len(table)))
    facts = inspect_images(paths, args.workers)
    report = check(
        patient.splits,
        patient.classes,
        patient.input_size,
        facts,
        max_labels=patient.max_labels,
    )
    _print(report, cli.console())
    if args.json:
        write_text(args.json, json_text(report.to_dict(), indent=1) + "\n")
        logger.info(f"report in {args.json}")
    if args.sheet:
        _write_sheet(args, patient, report)
    if report.failed(args.strict):
        raise DataError(f"the data has {report.summary()}: see above what to do about each")
    logger.info(report.summary())


# ------------------------------------------------------------------------------------------ reading


def _is_path(args: argparse.Namespace) -> bool:
    """Whether the words are a place instead of the Exp's keys and values."""
    return not (args.exp_file or args.name) and bool(args.data) + len(args.opts) == 1


def _from_path(args: argparse.Namespace) -> _Patient:
    if args.augmented:
        raise UserError(
            "--augmented shows what a recipe trains on: name the recipe with -n or -f, and the "
            "data with --data"
        )
    size = args.size or 640
    return _Patient(
        splits=find_splits(args.data or Path(args.opts[0])),
        classes=None,
        input_size=(size, size),
        exp=None,
        seed=args.seed or 0,
        max_labels=None,
    )


def _from_exp(args: argparse.Namespace) -> _Patient:
    if args.size:
        raise UserError("--size goes with a PATH: an Exp says its own input_size")
    if args.opts and Path(args.opts[0]).exists():
        raise UserError(f"with -n or -f the data set is named as --data {args.opts[0]}")
    exp = cli.load_exp(args)
    return _Patient(
        splits={"train": _records(exp, "train"), "val": _records(exp, "eval")},
        classes=tuple(exp.class_names) or None,
        input_size=exp.input_size,
        exp=exp,
        seed=(exp.seed or 0) if args.seed is None else args.seed,
        max_labels=_max_labels(exp),
    )


def _max_labels(exp: Exp) -> int | None:
    """Of the training loader, built only where the Exp builds its own."""
    if type(exp).get_data_loader is Exp.get_data_loader:
        return label_cap(exp.train_transform())
    try:
        return label_cap(getattr(exp.get_data_loader(1, False).dataset, "preproc", None))
    except DataError:
        return None  # the examination tells why, of the records


def _records(exp: Exp, which: str) -> RecordSet:
    """The Exp's records, or those of the data set that it builds in a way of its own."""
    build = "get_dataset" if which == "train" else "get_eval_dataset"
    if _depth(exp, f"{which}_records") <= _depth(exp, build):
        records: RecordSet = getattr(exp, f"{which}_records")()
        return records
    dataset = exp.get_dataset(cache=False) if which == "train" else exp.get_eval_dataset()
    found = getattr(dataset, "records", None)
    if not isinstance(found, RecordSet):
        raise UserError(
            f"{build} of the Exp returns a {type(dataset).__name__} without records of its "
            f"annotations: give the Exp a method {which}_records that returns a RecordSet, or "
            f"check the data by its path: {command_line('check_data', 'PATH')}"
        )
    return found


def _depth(exp: Exp, method: str) -> int:
    """How far up the classes of an Exp a method is defined."""
    return next(i for i, kind in enumerate(type(exp).__mro__) if method in vars(kind))


# ---------------------------------------------------------------------------------------- reporting


def _print(report: Report, console: Console) -> None:
    for table in report.tables():
        console.print(table)
    for found in report.findings:
        _print_finding(found, console)


def _print_finding(found: Finding, console: Console) -> None:
    color = _COLORS[found.severity]
    console.print(f"\n[{color}]{found.severity}[/]  {escape(found.headline())}", highlight=False)
    lines = [f"- {example}" for example in found.examples]
    if found.count > len(lines):
        lines.append(f"- … and {found.count - len(lines):,} more")
    for line in [*lines, f"→ {found.advice}"]:
        console.print(Padding(escape(line), (0, 0, 0, 3), expand=False), highlight=False)


def _write_sheet(args: argparse.Namespace, patient: _Patient, report: Report) -> None:
    split, records = next(iter(patient.splits.items()))
    title = f"{split}: {records.title}, as annotated"
    if args.augmented:
        tiles = augmented_tiles(_training_set(patient), args.count, patient.seed)
        size = "×".join(map(str, patient.input_size))
        title = f"{split}: {records.title}, as the network sees it at {size}"
    else:
        tiles = record_tiles(records.records, args.count, patient.seed)
    save_sheet(args.sheet, draw_sheet(tiles, report.classes, title))
    logger.info(f"{len(tiles)} images in {args.sheet}")


def _training_set(patient: _Patient) -> MosaicDetection:
    assert patient.exp is not None
    patient.exp.resolve_classes()
    dataset = patient.exp.get_data_loader(1, False).dataset
    if not isinstance(dataset, MosaicDetection):
        raise UserError(
            f"the Exp trains on a {type(dataset).__name__}: --augmented can show MosaicDetection"
        )
    return dataset


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    args = make_parser().parse_args(argv)
    if args.augmented and not args.sheet:
        raise UserError("--augmented says what the sheet shows: name its file with --sheet")
    return args


if __name__ == "__main__":
    cli.entry(main, make_parser)
