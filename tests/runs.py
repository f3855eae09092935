"""Whole runs in seconds: a recipe for a very small model, the commands, comparing checkpoints."""

from __future__ import annotations

import os
import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from yolox.core import Trainer, make_fabric
from yolox.exp import Exp, get_exp
from yolox.jobs.train import TrainOptions, build_trainer
from yolox.models import checkpoint_payload, load_model
from yolox.pruning import pruner
from yolox.pruning.proof.verify import PROBES, verify_plan
from yolox.tools import cli
from yolox.utils.checkpoint import save_checkpoint

REPO = Path(__file__).parents[1]
TRAIN_IMAGES, STEPS = 9, 3  # the tiny data set's, and its steps an epoch at a batch of 4

_EXP = """\
from yolox.exp import VOCExp


class Exp(VOCExp):
    def __init__(self):
        super().__init__()
        self.exp_name = "tiny"
        self.depth, self.width = 0.33, 0.125
        self.data_dir = {data_dir!r}
        self.output_dir = {output_dir!r}
        self.input_size = self.test_size = (64, 64)
        self.multiscale_range = 0
        self.batch_size = 4
        self.data_num_workers = 0
        self.max_epoch, self.no_aug_epochs, self.warmup_epochs = 2, 1, 1
        self.eval_interval = 1
        self.print_interval = 1
{more}
"""


def write_exp(file: Path, devkit: Path, output_dir: Path, more: str = "") -> Path:
    """A recipe on the tiny data; `more` is Python added to the class."""
    text = _EXP.format(data_dir=str(devkit), output_dir=str(output_dir), more=more)
    file.write_text(text, encoding="utf-8")
    return file


def command(main: Callable[[Sequence[str] | None], None], *args: object) -> int:
    """Run a command in this process; returns its exit status."""
    make_parser = ArgumentParser
    if main.__module__.startswith("yolox.tools."):
        flags = main.__module__.replace("yolox.tools.", "yolox.tools.flags.")
        make_parser = import_module(flags).make_parser
    return cli.run(main, make_parser, [str(arg) for arg in args])


def launch(tool: str, *args: object, cwd: Path, timeout: float = 300) -> Any:
    """Run one of tools/*.py as a person does."""
    return subprocess.run(
        [sys.executable, str(REPO / "tools" / f"{tool}.py"), *map(str, args)],
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def environment() -> dict[str, str]:
    """This process's environment, the package importable from anywhere, one thread."""
    path = os.pathsep.join(p for p in (str(REPO), os.environ.get("PYTHONPATH")) if p)
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "COLUMNS": "100"}


def new_trainer(
    exp: Exp | Path,
    output: Path,
    *,
    precision: str = "fp32",
    options: Any = None,
    given: Sequence[object] = (),
    **fields: Any,
) -> Trainer:
    """A trainer of an Exp or Exp file with some fields set, others given as on a command line."""
    exp = get_exp(exp) if isinstance(exp, Path) else exp
    exp.merge([str(word) for word in given])
    for name, value in {"output_dir": str(output), **fields}.items():
        assert hasattr(exp, name), name
        setattr(exp, name, value)
    fabric = make_fabric(devices=1, precision=precision)
    fabric.launch()
    return build_trainer(exp, fabric, options or TrainOptions())


@contextmanager
def one_probe() -> Iterator[None]:
    """Prove cuts with one draw of the weights, which takes a third of the time.

    That all draws are tried, and what each of them sees, is for the tests of pruning.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pruner, "verify_plan", partial(verify_plan, probes=PROBES[:1]))
        yield


def error_lines(stderr: str) -> list[str]:
    """The lines of a log that report an error."""
    return [line for line in stderr.splitlines() if " ERROR " in line]


def read(path: Path) -> dict[str, Any]:
    """A checkpoint's content."""
    content: dict[str, Any] = torch.load(path, weights_only=True)
    return content


def differences(a: Any, b: Any, where: str = "") -> list[str]:
    """Places where two nested values differ, tensors by the bit."""
    return list(_differences(a, b, where))


def _differences(a: Any, b: Any, where: str) -> Iterator[str]:
    if type(a) is not type(b):
        yield f"{where}: {type(a)} and {type(b)}"
    elif isinstance(a, torch.Tensor):
        if a.shape != b.shape or a.dtype != b.dtype or not torch.equal(a, b):
            yield where
    elif isinstance(a, Mapping):
        if a.keys() != b.keys():
            yield f"{where}: keys {sorted(map(str, a.keys() ^ b.keys()))}"
        for key in a.keys() & b.keys():
            yield from _differences(a[key], b[key], f"{where}/{key}")
    elif isinstance(a, (list, tuple)):
        if len(a) != len(b):
            yield f"{where}: {len(a)} and {len(b)} items"
        for index, (left, right) in enumerate(zip(a, b, strict=False)):
            yield from _differences(left, right, f"{where}/{index}")
    elif a != b:
        yield f"{where}: {a} and {b}"


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file below a folder with its size and time of change."""
    return {
        str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def opinionated(source: Path, file: Path, sureness: tuple[float, ...]) -> Path:
    """A checkpoint with biases of its last layers that make it sure of something at once."""
    loaded = load_model(source)
    head = loaded.model.head
    with torch.no_grad():
        for level, logit in enumerate(sureness):
            head.obj_preds[level].bias.fill_(logit)
            head.cls_preds[level].bias.copy_(torch.tensor([3.0, 0.0, -3.0]))
            head.reg_preds[level].bias[2:] = 0.0 if level else float(np.log(4))
    payload = checkpoint_payload(loaded.model, loaded.spec, loaded.pruning)
    save_checkpoint(file, payload)
    return file
