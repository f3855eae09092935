"""The picture of batch-norm scales: its figures, the file, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import nn

from tests.runs import command, error_lines
from yolox.tools import plot_bn
from yolox.tools.plot_bn import Scales, draw, read_scales, save_picture
from yolox.utils.errors import UserError


def _model() -> nn.Module:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm2d(2))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([0.0, -0.005, 0.05, -2.0]))
    return model


def test_scales_are_absolute_and_by_layer() -> None:
    scales = read_scales(_model(), "a")
    assert list(scales.layers) == ["1", "2"]
    assert scales.layers["1"] == pytest.approx([0, 0.005, 0.05, 2])
    assert scales.all == pytest.approx([0, 0.005, 0.05, 2, 1, 1])
    assert scales.share_below(0.01) == pytest.approx(2 / 6)
    assert scales.share_below(0.1) == pytest.approx(3 / 6)


def test_norms_without_scales_do_not_count() -> None:
    model = nn.Sequential(nn.BatchNorm2d(4, affine=False))
    with pytest.raises(UserError, match=r"old has no batch norm with a scale: .* fused"):
        read_scales(model, "old")


def test_bands_reach_the_largest_scale_and_no_name_lies_on_them() -> None:
    """The title says smallest to largest, so a single large scale is not cut off."""
    layers = {f"backbone.backbone.dark2.{i}.bn": np.full(100, 0.5) for i in range(4)}
    layers["backbone.backbone.dark2.0.bn"][0] = 9.0
    figure = Figure()
    axes = figure.subplots(3, 1)
    draw(axes, [Scales(label="a", layers=layers)])
    strip = axes[-1]
    assert strip.get_ylim()[1] >= 9
    assert not strip.texts
    assert [label.get_text() for label in strip.get_xticklabels()] == ["dark2"]


def test_all_zeros_can_be_drawn(tmp_path: Path) -> None:
    model = _model()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.zero_()
    save_picture(tmp_path / "zeros.png", [read_scales(model, "all $ at 0")])
    assert cv2.imread(str(tmp_path / "zeros.png")) is not None


def test_command_prints_a_row_a_model_and_draws(
    trained: Path, pruned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "new" / "bn.png"
    checkpoint = trained / "best_ckpt.pth"
    status = command(
        plot_bn.main, "-c", checkpoint, pruned, "--labels", "before", "after", "-o", output
    )
    assert status == 0
    printed = capsys.readouterr()
    rows = [line.split("│") for line in printed.out.splitlines() if line.startswith("│")]
    before, after = ([cell.strip() for cell in row[1:-1]] for row in rows)
    assert (before[0], after[0]) == ("before", "after")
    channels, fewer = (int(row[1].replace(",", "")) for row in (before, after))
    assert fewer == pytest.approx(0.6 * channels, rel=0.1)
    assert before[2:5] == ["0.0%"] * 3
    assert float(before[7]) == pytest.approx(1.0, abs=0.05)
    assert f"picture in {output}" in printed.err
    picture = cv2.imread(str(output))
    assert picture is not None
    assert min(picture.shape[:2]) > 1000
    colours = {tuple(c) for c in np.unique(picture.reshape(-1, 3), axis=0).tolist()}
    assert {(178, 114, 0), (0, 94, 213)} <= colours  # one a model, blue-green-red


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--labels", "a"], "1 labels for 2 checkpoints"),
        (["-c", *"abcde"], "at most 4 checkpoints in a picture, got 5"),
    ],
)
def test_plot_bn_refuses_wrong_arguments(
    trained: Path, args: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = trained / "best_ckpt.pth"
    assert command(plot_bn.main, "-c", checkpoint, checkpoint, *args) == 1
    (error,) = error_lines(capsys.readouterr().err)
    assert words in error
