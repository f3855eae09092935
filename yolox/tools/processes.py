"""Processes of a command: where several machines meet, and one process a device here."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from urllib.parse import urlsplit

from yolox.core import outer_launch, processes_here, supervise
from yolox.tools import cli
from yolox.tools.words import called
from yolox.utils.errors import UserError


def join_machines(args: argparse.Namespace) -> None:
    """Tell Fabric where the machines meet, in the official flags' way.

    Raises:
        UserError: several machines without a meeting point, or a number that none of them has.
    """
    if args.num_machines == 1 or outer_launch():
        # Alone, or started by torchrun or SLURM, which know.
        given = {"--machine_rank": args.machine_rank, "--dist-url": args.dist_url}
        flags = " and ".join(flag for flag, value in given.items() if value)
        cli.tell_idle((flags, flags, "there is one machine, or a launcher knows them all"))
        return
    if args.machine_rank >= args.num_machines:
        raise UserError(
            f"--machine_rank {args.machine_rank}: the {args.num_machines} machines of "
            f"--num_machines are numbered from 0 to {args.num_machines - 1}"
        )
    try:
        meeting = urlsplit(args.dist_url or "")
        place = meeting.hostname, meeting.port
    except ValueError:
        place = None, None
    if not all(place):
        raise UserError(
            f"--num_machines {args.num_machines} needs --dist-url tcp://HOST:PORT of the first "
            f"machine on each of them, got {args.dist_url!r}; or start with torchrun"
        )
    os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = map(str, place)
    os.environ["NODE_RANK"] = str(args.machine_rank)


def start_processes(args: argparse.Namespace, argv: Sequence[str], *, module: str) -> bool:
    """Run a command once a device, where that is still to be done; whether it was.

    Args:
        args: with the flags of `cli.add_device_arguments`.
        argv: the command's words.
        module: of the command, as ``train``.

    Raises:
        SystemExit: with the status of the process that failed.
        UserError: see `supervise`; and for more devices than there are.
    """
    processes = processes_here(args.devices, args.device)
    if processes == 1 or outer_launch() or "LOCAL_RANK" in os.environ:
        return False
    start = called(module).split()  # each process speaks of commands as this one does
    way = ["yolox.tools.door", start[1]] if start[0] == "yolox" else [f"yolox.tools.{module}"]
    command = [sys.executable, "-m", *way, *argv]
    if status := supervise(command, processes, machines=args.num_machines):
        raise SystemExit(status)
    return True
