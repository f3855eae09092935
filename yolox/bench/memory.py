"""Memory that a case takes: measured in a process of its own, which nothing else has grown.

python -m yolox.bench.memory CASE runs a case, given as JSON, and prints the two figures.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from yolox.bench.cases import BenchError, Case, OpenedCase, open_case
from yolox.export.settings import optional_packages
from yolox.utils.errors import UserError

MEASURED_RUNS = 3
_STATUS_FILE = Path("/proc/self/status")
_PACKAGES = {"torch.compile": "torch._inductor"}


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes of resident memory.

    Attributes:
        added: what opening and running the case took at most, above a process in which Python,
            this package and the runtime's are loaded.
        peak: the most of the whole process.
    """

    added: int
    peak: int


def can_measure() -> bool:
    """Whether the system tells a process's peak (Linux)."""
    return _STATUS_FILE.is_file()


def measure_memory(case: Case, program: str = __name__) -> Memory:
    """Run a case in a fresh process.

    Args:
        case: what is run.
        program: module that runs it and prints its memory; see `main`.

    Raises:
        BenchError: the process failed or was killed.
    """
    package = str(Path(__file__).parents[2])
    paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(  # noqa: S603 - this very interpreter
        [sys.executable, "-m", program, case.to_json()],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
        raise BenchError(f"memory of {case.path.name} on {case.runtime}: {last}")
    return Memory(**json.loads(done.stdout.splitlines()[-1]))


def main(open_it: Callable[[Case], OpenedCase]) -> None:
    """Run the case of the command line and print its memory as JSON.

    What is loaded before is not counted. An error that a person can mend is the last line.

    Args:
        open_it: as `open_case`.
    """
    try:
        _print_memory(open_it)
    except UserError as error:
        sys.exit(str(error))


def _print_memory(open_it: Callable[[Case], OpenedCase]) -> None:
    case = Case.from_json(sys.argv[1])
    optional_packages(_PACKAGES.get(case.runtime, case.runtime))
    before = _resident("VmRSS")
    entry = open_it(case)
    x = np.zeros((case.batch, 3, *case.size), np.float32)
    for _ in range(MEASURED_RUNS):
        entry.run(x)
    peak = _resident("VmHWM")
    print(json.dumps(asdict(Memory(added=peak - before, peak=peak))))


def _resident(name: str) -> int:
    """Bytes by their name in /proc: VmRSS is now, VmHWM the most since the program began.

    Unlike getrusage's ru_maxrss, these do not begin at the size of the parent process.
    """
    for line in _STATUS_FILE.read_text(encoding="ascii").splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return 1024 * int(value.split()[0])
    raise BenchError(f"{_STATUS_FILE} does not tell {name}")


if __name__ == "__main__":
    main(open_case)
