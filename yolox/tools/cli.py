"""What the commands share: the Exp of their flags, tables, errors as one line."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from typing import Any

from loguru import logger
from rich.console import Console
from rich.text import Text

from yolox.core import (
    PEER_LOST_STATUS,
    Interrupted,
    PeerLostError,
    explain,
    is_supervised,
    stoppable,
)
from yolox.data import DataError
from yolox.exp import Exp, VOCExp, get_exp
from yolox.exp.follow import OtherClassesError
from yolox.exp.load import DEFAULT_MODEL
from yolox.exp.of_data import exp_of_data
from yolox.jobs.train.finetune import checkable
from yolox.tools.flags.parts import DEFAULT_EXP
from yolox.tools.words import speaker
from yolox.utils.errors import UserError
from yolox.utils.logger import setup_logger
from yolox.utils.printable import printable

LOG_WIDTH = 160  # columns of a table that does not go to a terminal


def load_exp(args: argparse.Namespace) -> Exp:
    """The Exp of ``-f`` or ``-n``, with the overrides set; a line tells which it is if neither."""
    data = getattr(args, "data", None)
    if data and args.exp_file:
        raise UserError(
            f"--data finds a recipe for {data}, and -f names one: leave out one of them, or set "
            f"data_dir {data} at the end of the line"
        )
    if _by_default(args):
        logger.info(f"recipe: {DEFAULT_EXP}, since neither -f nor -n names one")
    tell_idle(("-n", args.exp_file and args.name, "-f names the recipe"))
    if data:
        exp = exp_of_data(data, args.name or DEFAULT_MODEL)
    else:
        file = args.exp_file or (DEFAULT_EXP if args.name is None else None)
        exp = get_exp(file, None if file else args.name)
    if odd := [word for word in opts_fields(args) if not word.isidentifier()]:
        raise UserError(
            f"{' '.join(odd)}: no flag before it takes so many values, and no Exp field is called "
            "so (--help lists the flags)"
        )
    exp.merge(args.opts)
    checkable(exp).check()
    return exp


def recipe_words(args: argparse.Namespace) -> tuple[str, ...]:
    """The recipe that `load_exp` takes, as it is written on a command line."""
    if getattr(args, "data", None):
        return ("--data", str(args.data), *(("-n", args.name) if args.name else ()))
    if args.name and not args.exp_file:
        return "-n", args.name
    return "-f", str(args.exp_file or DEFAULT_EXP)


def _by_default(args: argparse.Namespace) -> bool:
    return not (args.exp_file or args.name or getattr(args, "data", None))


@contextmanager
def telling_whose_data(args: argparse.Namespace, exp: Exp | None) -> Iterator[None]:
    """Where the Exp is one that the person did not name, errors of its data say so."""
    try:
        yield
    except UserError as error:
        of_data = isinstance(error.__cause__ or error, (DataError, OtherClassesError))
        if exp is None or not (of_data and _by_default(args)):
            raise
        place = exp.devkit() if isinstance(exp, VOCExp) else exp.data_folder()
        raise UserError(
            f"{error}\nThe data is that of {DEFAULT_EXP}, in {place}, since no recipe is named: "
            "name your own data with --data, or a recipe with -f"
        ) from error


def tell_idle(*cases: tuple[str, object, str]) -> None:
    """Warn of flags that do nothing: their names, whether they were set so, and why."""
    for flags, idle, cause in cases:
        if idle:
            logger.warning(f"without effect: {flags}, since {cause}")


def tell_unread(
    args: argparse.Namespace, parser: argparse.ArgumentParser, read: Collection[str], cause: str
) -> None:
    """Warn of the flags that were given and that a command, in this use, does not read.

    Args:
        args: parsed.
        parser: that parsed them.
        read: places of flags that it does read; those of the Exp are always read.
        cause: why it reads no others.
    """
    known = {*read, "exp_file", "name", "data", "device"}
    flags = [
        action.option_strings[-1]
        for action in parser._actions
        if action.option_strings
        and action.dest not in known
        and getattr(args, action.dest, action.default) != action.default
    ]
    tell_idle((", ".join(flags), flags, cause))


def require_openvino(args: argparse.Namespace, is_used: bool) -> None:
    """Raise `UserError` where an arithmetic of OpenVINO is asked for and nothing runs in it."""
    if args.openvino_precision != "f32" and not is_used:
        raise UserError("--openvino-precision is of OpenVINO, which runs nothing here")


def opts_fields(args: argparse.Namespace) -> dict[str, str]:
    """The Exp fields at the end of a command line and their values, as they are written there."""
    return dict(zip_longest(args.opts[::2], args.opts[1::2], fillvalue=""))


def refuse_both(args: argparse.Namespace, *pairs: tuple[str, str]) -> None:
    """Raise `UserError` where a flag and the Exp field that it stands for are both given.

    Args:
        args: parsed.
        pairs: flag, as ``--test-conf``, and field. The flag's default is None.
    """
    for flag, field in pairs:
        value = getattr(args, flag.lstrip("-").replace("-", "_"))
        if value is not None and field in opts_fields(args):
            raise UserError(f"{flag} and the field {field} are one: give one of them")


def one_precision(args: argparse.Namespace, default: str) -> None:
    """Raise `UserError` where ``--fp16`` and another ``--precision`` than the default are given."""
    if args.fp16 and args.precision != default:
        raise UserError(f"--fp16 and --precision {args.precision}: give one of them")


def refuse_fields(args: argparse.Namespace, why: str) -> None:
    """Raise `UserError` where Exp fields are set and a command, in this use, reads none."""
    if args.opts:
        raise UserError(f"{why}: leave out {' '.join(args.opts)}")


def image_size(sides: Sequence[int]) -> tuple[int, int]:
    """Height and width from the one or two numbers of ``--tsize``."""
    if len(sides) > 2:
        raise UserError(f"--tsize takes height and width, got {' '.join(map(str, sides))}")
    return sides[0], sides[-1]


class _Console(Console):
    """A console on which names from files command nothing."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(printable(text, keep="\n\t"), **options)


def console() -> Console:
    """For tables: as wide as a terminal is, and wide enough for all of them in a log."""
    width = None if Console().is_terminal else LOG_WIDTH
    return _Console(width=width, highlight=False, emoji=False)


def run(
    main: Callable[[Sequence[str] | None], None],
    make_parser: Callable[[], argparse.ArgumentParser],
    argv: Sequence[str] | None = None,
) -> int:
    """Run a command; an error that a person can mend is one line and exit status 1.

    What the library logs and raises is told in this command's flags. Ctrl-C and SIGTERM end it
    with 130 and 143, as a shell counts.
    """
    quiet = os.environ.get("LOCAL_RANK", "0") != "0"
    setup_logger(distributed_rank=int(quiet))
    warnings.filterwarnings("ignore", module=r"(torch|lightning_fabric|lightning_utilities)(\.|$)")
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    with logger.contextualize(speaker=speaker(make_parser())):
        try:
            with stoppable():
                main(argv)
        except KeyboardInterrupt as stop:
            if str(stop):
                logger.error(str(stop))
            return 128 + (stop.number if isinstance(stop, Interrupted) else signal.SIGINT)
        except Exception as error:
            told = error if isinstance(error, UserError) else explain(error)
            if told is None:
                raise
            return _tell(told, quiet)
    return 0


def _tell(error: UserError, quiet: bool) -> int:
    """Log an error, unless it is another process's to tell; returns the exit status."""
    if not isinstance(error, PeerLostError):
        logger.error(str(error))
        return 1
    if is_supervised():
        return PEER_LOST_STATUS
    if not quiet:
        logger.log("WARNING" if "LOCAL_RANK" in os.environ else "ERROR", str(error))
    return 1


def entry(
    main: Callable[[Sequence[str] | None], None],
    make_parser: Callable[[], argparse.ArgumentParser],
    argv: Sequence[str] | None = None,
) -> None:
    """Run a command and leave the process with its status."""
    sys.exit(run(main, make_parser, argv))
