"""Messages: of Python calls in the library, of flags in a command, as the person calls it."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

import yolox
from tests.runs import REPO, command, environment
from yolox.core.saving import CheckpointFolder
from yolox.data.sources import open_source
from yolox.jobs.compress.settings import CompressSettings
from yolox.pruning import PruneConfig
from yolox.tools import bench, compress, demo, eval, prunmodel, report, train
from yolox.tools.door import COMMANDS
from yolox.tools.words import FUNCTIONS, called, command_line, speaker
from yolox.utils.checkpoint import load_checkpoint
from yolox.utils.errors import UserError

PACKAGE = REPO / "yolox"
OF_A_COMMAND = re.compile(
    r"(?<![\w-])(?:--[a-z][\w-]*|-expn\b|-[a-z](?![\w-]))|\btools/\w*(?:\.py)?|\bat the end of the "
)
# Where such words are no advice to a caller: the file, what may stand there, and why.
ALLOWED = {
    "bench/memory.py": (r"-m", "Python's own, of a process that is measured"),
    "core/failures.py": (r"--shm-size", "Docker's own"),
    "exp/load.py": (r"-[fn]", "words that name an Exp in the lines of a compression"),
    "export/seal.py": (r"-c", "Python's own, of a line of Python"),
    "jobs/compress/recipe.py": (r"-[fn]|--data", "the lines that a compression records"),
    "jobs/compress/stage.py": (r"tools/X\.py|--device", "the lines that a compression records"),
    "jobs/compress/stages.py": (r".*", "the lines that a compression records"),
    "jobs/report/commands.py": (r"tools/prunmodel\.py|--target", "reads recorded lines"),
    "utils/extras.py": (r"--force-reinstall", "pip's own"),
}
# In backticks, and no argument or function of a call.
NO_CALL = {"class_names", "samples", "task", "kpt_shape"}
FLAGS = sorted({module for module, _ in COMMANDS.values()} | {"export_onnx"})


def texts(file: Path) -> Iterator[str]:
    """The strings of a module but for docstrings, gaps of f-strings as X."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    left_out: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr):
            left_out.add(node.value)
        if isinstance(node, ast.JoinedStr):
            left_out.update(node.values)
    for node in ast.walk(tree):
        if node in left_out:
            continue
        if isinstance(node, ast.JoinedStr):
            yield "".join(
                str(part.value) if isinstance(part, ast.Constant) else "X" for part in node.values
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def library() -> list[Path]:
    return [path for path in sorted(PACKAGE.rglob("*.py")) if "tools" not in path.parts[-3:]]


def parser_of(module: str) -> ArgumentParser:
    made: ArgumentParser = import_module(f"yolox.tools.flags.{module}").make_parser()
    return made


def test_what_is_searched() -> None:
    assert len(library()) > 150
    for text in (
        "give --tsize",
        "X -o pruned.pth",
        "(-b)",
        "see tools/eval.py",
        "python tools/X.py",
    ):
        assert OF_A_COMMAND.search(text), text
    for text in ("wandb-project", "a well-known one", "x - y", "X-num_eval_images", "1e-5", "—"):
        assert not OF_A_COMMAND.search(text), text


def test_the_library_knows_no_flag_and_no_script() -> None:
    found, used = [], set()
    for file in library():
        name = file.relative_to(PACKAGE).as_posix()
        allowed, _ = ALLOWED.get(name, ("", ""))
        for text in texts(file):
            for word in OF_A_COMMAND.findall(text):
                if re.fullmatch(allowed, word):
                    used.add(name)
                else:
                    found.append(f"{name}: {word!r} in {text!r}")
    assert not found, "\n".join(found)
    assert used == set(ALLOWED)  # an exemption that nothing needs goes


def test_what_the_library_names_can_be_said_by_a_command() -> None:
    speakers = [speaker(parser_of(module)) for module in FLAGS]
    unknown = []
    for file in library():
        for text in texts(file):
            for quoted in re.findall(r"`[a-z_.]+(?:=[^`]+)?`", text):
                name = re.split("[`=]", quoted)[1]
                if name not in NO_CALL and all(say(quoted) == quoted for say in speakers):
                    unknown.append(f"{file}: {quoted}")
    assert not unknown, "\n".join(unknown)


def test_functions_that_messages_name_are_there() -> None:
    for name in FUNCTIONS:
        module, _, attribute = name.rpartition(".")
        try:
            import_module(name)
        except ModuleNotFoundError:
            package = import_module(module)
            if module == "yolox.ultralytics":  # what its names need may not be installed
                assert attribute in package.__all__, name
            else:
                assert callable(getattr(package, attribute)), name


@pytest.mark.parametrize(
    ("module", "text", "expected"),
    [
        ("train", "give `batch_size`, or `resume=True`", "give -b, or --resume"),
        ("train", "`checkpoint='a b/c.pth'` goes on", "-c 'a b/c.pth' goes on"),
        ("train", "as `checkpoint` with another `name`", "as -c with another -expn"),
        ("train", "leave `teacher` out", "leave --distill out"),
        ("bench", "give `size=(416, 320)`", "give --tsize 416 320"),
        ("bench", "give `batches=(4,)`", "give --batch 4"),
        ("export", "try `slim=False`", "try --no-slim"),
        ("export", "other `images`, another `output`", "other --path, another -o"),
        ("prunmodel", "more `images`, another `output`", "more --images, another -o"),
        ("prunmodel", "`ignore` it: `collate` stays", "--ignore it: `collate` stays"),
        ("prunmodel", "`path` in data.yaml; `make demo`", "`path` in data.yaml; `make demo`"),
        ("compress", "`step_epochs` must be at least 1", "--step-epochs must be at least 1"),
    ],
)
def test_arguments_become_flags(module: str, text: str, expected: str) -> None:
    assert speaker(parser_of(module))(text) == expected


@pytest.mark.parametrize(
    ("program", "train_line", "export_line"),
    [
        ("/usr/bin/yolox", "yolox train -c 'a b.pth'", "yolox export"),
        (
            "/repo/tools/prunmodel.py",
            "python tools/train.py -c 'a b.pth'",
            "python tools/export.py",
        ),
    ],
)
def test_commands_are_called_as_the_person_does(
    monkeypatch: pytest.MonkeyPatch, program: str, train_line: str, export_line: str
) -> None:
    monkeypatch.setattr(sys, "argv", [program, "prune"])
    assert command_line("train", "-c", "a b.pth") == train_line
    assert called("export_onnx") == "python tools/export_onnx.py"  # `yolox` has no such command
    say = speaker(parser_of("prunmodel"))
    assert say("make one with `yolox.export_model`") == f"make one with {export_line}"


def test_a_started_command_speaks_as_it_was_started(tmp_path: Path) -> None:
    for words, expected in (
        (["-m", "yolox.tools.door", "eval"], "yolox train"),
        ([str(REPO / "tools" / "eval.py")], "python tools/train.py"),
    ):
        done = subprocess.run(
            [sys.executable, *words, "-c", "none.pth"],
            cwd=tmp_path,
            env=environment(),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 1
        assert f"no checkpoint at none.pth: train one with {expected}, give its path as -c" in (
            done.stderr
        )


# ------------------------------------------------------------- the same error, through both doors


def test_a_layer_that_is_not_there(
    trained: Path, tiny_exp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = trained / "best_ckpt.pth"
    with pytest.raises(UserError, match=r"^`ignore` 'nope' matches no .*trace_groups` finds"):
        yolox.prune(source, importance="l1", ignore=("nope",))
    words = ("-c", source, "-f", tiny_exp, "--importance", "l1", "--ignore", "nope")
    assert command(prunmodel.main, *words) == 1
    error = capsys.readouterr().err
    assert "ERROR   --ignore 'nope' matches no prunable convolution; nearest: " in error
    assert "prunmodel.py --mode list finds them)" in error


def test_a_mode_without_layers(
    trained: Path, tiny_exp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match=r"needs `layers`: names that `yolox\.pruning\.trace"):
        PruneConfig(mode="conv")
    words = ("-c", trained / "best_ckpt.pth", "-f", tiny_exp, "--mode", "conv")
    assert command(prunmodel.main, *words) == 1
    assert "mode conv needs --layers: names that python tools/prunmodel.py --mode list finds" in (
        capsys.readouterr().err
    )


def test_a_checkpoint_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match=r"train one with `yolox\.train`, .* as `checkpoint`"):
        load_checkpoint("none.pth")
    assert command(train.main, "-n", "yolox-nano", "-c", "none.pth") == 1
    assert "train one with python tools/train.py, give its path as -c" in capsys.readouterr().err
    assert command(bench.main, "none.pth") == 1
    assert "train one with python tools/train.py, give its path as FILE" in capsys.readouterr().err


def test_a_setting_of_a_compression(
    trained: Path, tiny_exp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match=r"^`steps` goes towards a target in macs or params"):
        CompressSettings(target="latency=0.5", steps=2)
    words = ("-c", trained / "best_ckpt.pth", "-f", tiny_exp, "--target", "latency=0.5")
    assert command(compress.main, *words, "--steps", 2) == 1
    assert "ERROR   --steps goes towards a target in macs or params" in capsys.readouterr().err


def test_models_with_one_label(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, output = trained / "best_ckpt.pth", tmp_path / "r.html"
    words = ("-c", source, source, "--no-eval", "--labels", "a", "a", "-o", output)
    assert command(report.main, *words) == 1
    assert "two models share a label: a; --labels names them" in capsys.readouterr().err
    assert not output.exists()


def test_a_note_of_a_measurement(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--runtimes", "torch", "--threads", 1, "--runs", 1, "--warmup", 0, "--no-memory")
    json = tmp_path / "bench.json"
    source = trained / "best_ckpt.pth"
    assert command(bench.main, source, *words, "--conf", 1, "--json", json) == 0
    assert "a picture of your objects as --image, or a lower --conf" in capsys.readouterr().out
    assert "a picture of your objects as `image`, or a lower `conf`" in json.read_text()


def test_how_a_run_goes_on(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path / "my runs")
    folder.saved = 2
    latest = tmp_path / "my runs" / "latest_ckpt.pth"
    hint = folder.resume_hint()
    assert hint == f"`checkpoint='{latest}'` `resume=True` continues from epoch 3"
    assert speaker(parser_of("train"))(hint) == f"-c '{latest}' --resume continues from epoch 3"


# ------------------------------------------------------------------------- whose data, which place


def test_data_that_the_person_did_not_name(
    trained: Path,
    devkit: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(devkit, tmp_path / "datasets" / "VOCdevkit")
    monkeypatch.setenv("YOLOX_DATADIR", str(tmp_path / "datasets"))
    monkeypatch.chdir(tmp_path)
    source = trained / "best_ckpt.pth"
    strange = ("class_names", "a,b,c")
    assert command(eval.main, "-c", source, *strange) == 1
    told = capsys.readouterr().err.splitlines()
    assert "recipe: exps/yolox_voc_s.py, since neither -f nor -n names one" in told[0]
    assert told[-1] == (
        f"The data is that of exps/yolox_voc_s.py, in {tmp_path}/datasets/VOCdevkit, since no "
        "recipe is named: name your own data with --data, or a recipe with -f"
    )
    assert command(eval.main, "-c", source, "--data", devkit, *strange) == 1
    assert "no recipe is named" not in capsys.readouterr().err
    assert command(eval.main, "-c", "none.pth") == 1
    assert "no recipe is named" not in capsys.readouterr().err  # it is no matter of the data


@pytest.mark.parametrize("words", [("{}",), ("image", "{}"), ("image", "--path", "{}")])
def test_a_place_to_look_at_needs_no_flag(
    trained: Path, devkit: Path, tmp_path: Path, words: tuple[str, ...]
) -> None:
    image = next((devkit / "VOC2007" / "JPEGImages").iterdir())
    place = [word.format(image) for word in words]
    output = ("--save_dir", tmp_path / "drawn")
    assert command(demo.main, *place, "-c", trained / "best_ckpt.pth", *output) == 0
    assert [path.name for path in (tmp_path / "drawn").iterdir()] == [image.name]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["a.jpg", "b.jpg"], "2 places to look at (a.jpg, b.jpg): give one, a folder or a pattern"),
        (["image", "a.jpg", "--path", "b"], "2 places to look at (a.jpg, b)"),
        (["webcam", "a.jpg"], "webcam takes its pictures from --camid: leave out a.jpg"),
        (["video"], "name what to look at: an image, a folder, a video or webcam"),
        ([], "name what to look at"),
    ],
)
def test_a_place_that_is_none_or_several(
    words: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(demo.main, *words, "-c", "none.pth") == 1
    assert f"ERROR   {expected}" in capsys.readouterr().err


def test_a_file_that_is_no_picture_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("no picture")
    with pytest.raises(UserError) as caught:
        list(open_source(file))
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{file} cannot be decoded (10 bytes): expected an image, ")


@pytest.mark.parametrize("module", FLAGS)
def test_help_tells_no_default_that_is_none(module: str) -> None:
    text = parser_of(module).format_help()
    assert "default: None" not in " ".join(text.split())
    assert "default: []" not in text
