"""The check_data command: exit status, files, where the data may come from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import pytest

from tests.runs import command, error_lines, launch, tree, write_exp
from yolox.tools import check_data

OWN_DATASET = """
    def get_dataset(self, cache=False, cache_type="ram"):
        from yolox.data import VOCDetection
        data = VOCDetection(self.data_dir, (("2007", "train"),))
        {change}
        return data
"""


@pytest.fixture
def broken(devkit: Path, tmp_path: Path) -> Path:
    """The tiny data with an image cut off."""
    copy = Path(shutil.copytree(devkit, tmp_path / "VOCdevkit"))
    path = copy / "VOC2007/JPEGImages/demo_00001.jpg"
    path.write_bytes(path.read_bytes()[:2000])
    return copy


def _error(capsys: pytest.CaptureFixture[str]) -> str:
    (line,) = error_lines(capsys.readouterr().err)
    return line


def test_clean_data_of_an_exp(
    tiny_exp: Path, devkit: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tree(devkit)
    output = tmp_path / "out" / "report.json"
    assert command(check_data.main, "--strict", "--json", output, "-f", tiny_exp) == 0
    out, err = capsys.readouterr()
    assert "train (VOC2007/trainval): 9 images" in out
    assert "val (VOC2007/test): 3 images" in out
    assert "circle" in out
    assert "0 errors, 0 warnings" in err
    report = json.loads(output.read_text())
    assert report["input_size"] == [64, 64]
    assert report["classes"] == ["circle", "square", "triangle"]
    assert report["splits"]["train"]["images"] == 9
    assert tree(devkit) == before


def test_errors_set_the_status(broken: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(check_data.main, broken) == 1
    out, err = capsys.readouterr()
    assert "error  images of which the lower part is missing from the file: 1 (train 1)" in out
    assert "demo_00001.jpg" in out
    (line,) = error_lines(err)
    assert "1 error, 0 warnings" in line


def test_warnings_set_the_status_when_strict(
    tiny_exp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    opts = ("class_names", "circle,square,triangle,Circle")
    assert command(check_data.main, "-f", tiny_exp, *opts) == 0
    assert "warning  classes of the list without any object: 1" in capsys.readouterr().out
    assert command(check_data.main, "--strict", "-f", tiny_exp, *opts) == 1
    assert "0 errors, 2 warnings" in _error(capsys)


def test_markup_in_names_is_printed_as_it_is(
    devkit: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = "        self.class_names = ('[red]circle', 'square', 'triangle')"
    exp = write_exp(tmp_path / "exp.py", devkit, tmp_path, more)
    assert command(check_data.main, "-f", exp) == 1
    out = capsys.readouterr().out
    assert out.count("[red]circle") >= 3
    assert "circle (not in the class list)" in out


def test_check_data_draws_contact_sheets(tiny_exp: Path, devkit: Path, tmp_path: Path) -> None:
    plain, augmented = tmp_path / "plain.png", tmp_path / "new" / "augmented.png"
    assert command(check_data.main, devkit, "--sheet", plain, "--count", 4) == 0
    width = 2 * (480 + 8) + 8
    assert cv2.imread(str(plain)).shape[1] == width
    args = ("--sheet", augmented, "--augmented", "--count", 3, "-f", tiny_exp)
    assert command(check_data.main, *args) == 0
    assert cv2.imread(str(augmented)).shape[1] == width


def test_sheet_of_data_with_errors_is_drawn_all_the_same(broken: Path, tmp_path: Path) -> None:
    assert command(check_data.main, broken, "--sheet", tmp_path / "s.png") == 1
    assert cv2.imread(str(tmp_path / "s.png")) is not None


def test_exp_with_a_data_set_of_its_own(
    devkit: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What it builds is examined, not what its fields would say; without records, it is told."""
    exp = write_exp(tmp_path / "a.py", devkit, tmp_path, OWN_DATASET.format(change=""))
    assert command(check_data.main, "-f", exp) == 0
    assert "train (VOC2007/train): 7 images" in capsys.readouterr().out
    change = "del data.records"
    exp = write_exp(tmp_path / "b.py", devkit, tmp_path, OWN_DATASET.format(change=change))
    assert command(check_data.main, "-f", exp) == 1
    line = _error(capsys)
    for words in ("get_dataset", "VOCDetection without records", "train_records", "PATH"):
        assert words in line


def test_data_flag_is_the_path_or_goes_with_a_model(
    devkit: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(check_data.main, devkit) == 0
    by_path = capsys.readouterr().out
    assert command(check_data.main, "--data", devkit) == 0
    assert capsys.readouterr().out == by_path
    drawn = ("--augmented", "--sheet", tmp_path / "sheet.png", "--count", 1)
    assert command(check_data.main, "--data", devkit, "-n", "yolox-nano", *drawn) == 0
    assert (tmp_path / "sheet.png").is_file()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["/no/such/place"], ["/no/such/place", "data.yaml", "-f"]),
        (["-f", "EXP", "data_dir", "/no/such/place"], ["/no/such/place", "quickstart"]),
        (["-f", "EXP", "max_epochs", "3"], ["max_epochs", "max_epoch"]),
        (["-f", "EXP", "--augmented"], ["--augmented", "--sheet"]),
        (["DATA", "--augmented", "--sheet", "s.png"], ["--augmented", "-f"]),
        (["-f", "EXP", "--size", "64"], ["--size", "PATH"]),
        (["DATA", "--size", "100"], ["--size", "multiple of 32"]),
        (["DATA", "--count", "0"], ["--count", "at least 1"]),
    ],
)
def test_check_data_refuses_wrong_input(
    args: list[str], words: list[str], tiny_exp: Path, devkit: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    places = {"EXP": str(tiny_exp), "DATA": str(devkit)}
    assert command(check_data.main, *(places.get(arg, arg) for arg in args)) == 1
    line = _error(capsys)
    for word in words:
        assert word in line


def test_check_data_door_exits_with_its_findings(broken: Path, tmp_path: Path) -> None:
    done = launch("check_data", broken, cwd=tmp_path)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


def test_a_path_beside_a_recipe_is_named_with_a_flag(
    devkit: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(check_data.main, devkit, "-n", "yolox-nano") == 1
    assert f"with -n or -f the data set is named as --data {devkit}" in _error(capsys)
