"""The command `yolox` and the scripts of tools/: help and mistakes are answered at once."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

import yolox
from yolox.tools.door import COMMANDS

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted(path.stem for path in (ROOT / "tools").glob("*.py"))
HEAVY = ("torch", "matplotlib", "lightning_fabric", "cv2", "numpy", "onnx")

PROBE = """
import contextlib, io, json, sys
from yolox.tools import door
said = {}
for words in json.loads(sys.argv[1]):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = door.main(words)
        except SystemExit as stop:
            status = stop.code
    said[" ".join(words)] = [status or 0, out.getvalue(), err.getvalue()]
heavy = [name for name in HEAVY if name in sys.modules]
print(json.dumps([said, heavy]))
""".replace("HEAVY", repr(HEAVY))


def ask(*lines: list[str]) -> tuple[dict[str, list[object]], list[str]]:
    """What each line of words answers, and which heavy modules were imported for all of them."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE, json.dumps(lines)], capture_output=True, text=True, check=True
    )
    said, heavy = json.loads(done.stdout)
    return said, heavy


def test_help_of_every_command_imports_nothing_heavy() -> None:
    said, heavy = ask(
        *([*name.split(), "--help"] for name in COMMANDS), ["--help"], ["--version"], []
    )
    assert heavy == []
    for name, (module, _) in COMMANDS.items():
        status, out, _ = said[f"{name} --help"]
        assert status == 0
        assert f"usage: yolox {name} " in str(out)
        assert f"tools/{module}.py" not in str(out)  # a script's name, where there may be none
        assert not re.search(r"(?<!exps)/\w+\.py\b|prunmodel|make demo", str(out))
        assert f" {name} " in str(said["--help"][1])
    assert said["--version"][1] == f"{yolox.__version__}\n"
    assert said[""] == said["--help"]


def test_mistakes_are_one_line_and_import_nothing_heavy() -> None:
    said, heavy = ask(["trian"], ["train", "--no-such-flag", "1"], ["bench"], ["eval", "-b", "0"])
    assert heavy == []
    for line, words in (
        ("trian", "train"),
        ("train --no-such-flag 1", "--no-such-flag"),
        ("bench", "FILE"),
        ("eval -b 0", "at least 1"),
    ):
        status, out, err = said[line]
        assert (status, out) == (1, "")
        assert words in str(err)
        assert len(str(err).splitlines()) == 1


def test_unknown_command_names_those_that_are_near() -> None:
    said, _ = ask(["trian"], ["qqq"], ["ultralytics", "tarin"], ["ultralytics", "val"])
    for line, near, far in (
        ("trian", ("did you mean train",), ("prune",)),
        ("qqq", ("yolox --help",), ("did you mean", "train")),
        ("ultralytics tarin", ("'ultralytics tarin'", "ultralytics train"), ("quickstart",)),
        ("ultralytics val", ("'ultralytics val'", "`yolo val`"), ("did you mean",)),
    ):
        status, _, err = said[line]
        assert status == 1
        assert all(words in str(err) for words in near)
        assert not any(words in str(err) for words in far)


def test_first_word_of_commands_of_two_lists_them() -> None:
    said, heavy = ask(["ultralytics"], ["ultralytics", "--help"])
    assert heavy == []
    assert said["ultralytics"] == said["ultralytics --help"]
    status, out, err = said["ultralytics"]
    assert (status, err) == (0, "")
    assert all(f"  ultralytics {word} " in str(out) for word in ("prune", "train", "bench"))
    assert "quickstart" not in str(out)


def test_help_groups_what_gained_nothing_as_experimental() -> None:
    said, _ = ask(["compress", "--help"], ["train", "--help"], ["prune", "--help"])
    for line, flags in (
        ("compress", ("--steps", "--step-epochs", "--sparsity", "--sparsity-epochs", "--distill")),
        ("train", ("--sparsity", "--distill")),
        ("prune", ("--steps", "--step-epochs", "--bn-recalibrate")),
    ):
        groups = str(said[f"{line} --help"][1]).split("\n\n")
        start = next(i for i, group in enumerate(groups) if group.startswith("experimental:"))
        own = groups[start + 1]  # behind the line of why
        assert set(re.findall(r"^  (--[\w-]+)", own, re.MULTILINE)) == set(flags)


def imported_by(code: str, names: Sequence[str]) -> str:
    """What a new process prints after some code: which of the modules are there then."""
    code = f"import sys; {code}; print([n for n in {names} if n in sys.modules])"
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout


def test_import_yolox_is_instant() -> None:
    code = "import yolox; assert yolox.__version__"
    assert imported_by(code, HEAVY) == "[]\n"


def test_commands_that_do_not_train_import_nothing_that_does() -> None:
    commands = ("demo", "export", "prunmodel", "bench", "check_data", "sensitivity", "compare")
    code = "import " + ", ".join(f"yolox.tools.{name}" for name in commands)
    assert imported_by(code, ("lightning_fabric", "torch._dynamo", "tensorboard")) == "[]\n"


def test_every_script_is_a_command() -> None:
    assert set(SCRIPTS) == {module for module, _ in COMMANDS.values()} | {"export_onnx"}


@pytest.mark.parametrize("script", SCRIPTS)
def test_script_opens_its_own_door(script: str) -> None:
    text = (ROOT / "tools" / f"{script}.py").read_text()
    assert f'run("{script}")' in text
