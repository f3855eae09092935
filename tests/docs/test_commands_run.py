"""The commands of the pages run, page by page and one after the other, on the built-in data."""

from __future__ import annotations

import re
import shlex
import shutil
from importlib import import_module
from pathlib import Path

import cv2
import pytest

from tests.docs import pages
from tests.docs.pages import PAGES, name
from tests.runs import REPO, command, write_exp

# Where what a command needs is not here, or what it does takes long: what tests it instead.
ELSEWHERE = {
    "quickstart": "make demo runs it",
    "convert_dota": "tests/data/test_dota.py",
    "web": "tests/tools/test_web.py",
    "ultralytics_bench": "tests/ultralytics",
    "ultralytics_prune": "tests/ultralytics",
    "ultralytics_train": "tests/ultralytics",
}
PAGES_ELSEWHERE = {
    "docs/bench.md": "tests/tools/test_bench.py",
    "docs/compress.md": "tests/tools/test_compress.py",
    "docs/dota.md": "tests/e2e and tests/data/test_dota.py",
    "docs/quantization.md": "tests/export/test_quantize.py, in a process of its own",
    "docs/sensitivity.md": "tests/tools/test_sensitivity.py, on a network that detects something",
    "docs/run_loggers.md": "tests/jobs/test_run_loggers.py",
    "docs/several_machines.md": "tests/e2e/test_distributed.py",
    "docs/ultralytics.md": "tests/ultralytics",
}
# An accelerator or a camera, files of other programs, or more images and layers than there are.
NEEDS = r"cuda|webcam|result\.json|_annotations\.coco|latency=|--paired"
EXTRA = {
    "bench": ("--runs", "2", "--warmup", "1"),
    "prunmodel": ("--overwrite",),  # lines of a page are ways to do it, not steps
    "finetune": ("--overwrite",),
}
SHORT = {
    "max_epoch": "2",
    "no_aug_epochs": "1",
    "input_size": "64,64",
    "test_size": "64,64",
    "multiscale_range": "0",
    "data_num_workers": "0",
}


def runnable(page: Path) -> list[tuple[str, list[str]]]:
    """Module and words of a page's lines of command that run here."""
    found = filter(None, map(pages.command, pages.shell_lines(page)))
    return [
        (module, words)
        for module, words in found
        if module not in ELSEWHERE and not re.search(NEEDS, shlex.join(words))
    ]


ENGLISH = [
    page
    for page in PAGES
    if page.parent == REPO / "docs" and name(page) not in PAGES_ELSEWHERE and runnable(page)
]


def shortened(module: str, words: list[str]) -> list[str]:
    """A line's words and what makes it short; a training's fields are its own and then `SHORT`."""
    words = [*EXTRA.get(module, ()), *words]
    if "-n" not in words or module not in ("train", "finetune"):
        return words
    opts = import_module(f"yolox.tools.flags.{module}").make_parser().parse_args(words).opts
    first = words.index(opts[0]) if opts else len(words)
    fields = {**dict(zip(opts[::2], opts[1::2], strict=True)), **SHORT}
    behind = words[first + len(opts) :]
    return [*words[:first], *(word for pair in fields.items() for word in pair), *behind]


def lay_out(module: str, words: list[str], checkpoints: dict[str, Path], exported: Path) -> None:
    """Put files where a line looks for them: what no line before it has made."""
    recipe = words[words.index("-f") + 1] if "-f" in words else "yolox_voc_s"
    run = "yolox_s" if "-n" in words else Path(recipe).stem
    by_default = [] if module == "train" else [f"YOLOX_outputs/{run}/best_ckpt.pth"]
    for before, word in zip(["", *words, ""], [*words, *by_default], strict=False):
        file = Path(word)
        if before in ("-o", "--json", "--sheet") or file.exists():
            continue
        kind = "pruned" if re.search("pruned|tuned", word) else "trained"
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix == ".pth":
            shutil.copy(checkpoints[kind], file)
        elif file.suffix == ".onnx":
            shutil.copy(exported, file)


def test_pages_whose_commands_are_tested_elsewhere_are_there() -> None:
    assert PAGES_ELSEWHERE.keys() <= {name(page) for page in PAGES}
    for place in (*PAGES_ELSEWHERE.values(), *ELSEWHERE.values()):
        assert all((REPO / file).exists() for file in re.findall(r"tests/[\w/.]+", place)), place


@pytest.fixture
def recipes(desk: Path) -> None:
    """The recipes of the pages, of a very small model; photos and a film."""
    for file in (desk / "exps").glob("*.py"):
        own = f"        self.exp_name = {file.stem!r}"
        write_exp(file, Path("datasets/VOCdevkit"), Path("YOLOX_outputs"), own)
    photos = sorted((desk / "photos").iterdir())
    shutil.copy(photos[0], "photo.jpg")
    film = cv2.VideoWriter("clip.mp4", cv2.VideoWriter.fourcc(*"mp4v"), 5, (96, 96))
    for photo in photos[:3]:
        film.write(cv2.imread(str(photo)))
    film.release()


@pytest.mark.slow
@pytest.mark.parametrize("page", ENGLISH, ids=name)
def test_commands_of_a_page_run(
    page: Path, recipes: None, trained: Path, pruned: Path, exported: Path
) -> None:
    pytest.importorskip("openvino")
    checkpoints = {"trained": trained / "best_ckpt.pth", "pruned": pruned}
    for module, words in runnable(page):
        words = shortened(module, words)
        lay_out(module, words, checkpoints, exported)
        main = import_module(f"yolox.tools.{module}").main
        assert command(main, *words) == 0, shlex.join([module, *words])
