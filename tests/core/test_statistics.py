"""Statistics retaken for an average are those of its own activations, and of nothing else."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.runs import new_trainer, read
from yolox.core.statistics import MAX_IMAGES, RecentImages, retake_statistics


def _net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.SiLU(), nn.Conv2d(4, 2, 1), nn.BatchNorm2d(2)
    )


def test_means_and_variances_are_those_of_the_average() -> None:
    model = _net().train()
    model[4].eval()  # frozen
    average = copy.deepcopy(model).eval()
    with torch.no_grad():
        average[0].weight.mul_(2)
    batches = [torch.rand(4, 3, 5, 5), torch.rand(4, 3, 5, 5) + 1]
    retake_statistics(average, model, batches)
    signals = [average[0](batch) for batch in batches]
    mean = torch.stack([s.mean(dim=(0, 2, 3)) for s in signals]).mean(0)
    variance = torch.stack([s.var(dim=(0, 2, 3)) for s in signals]).mean(0)
    torch.testing.assert_close(average[1].running_mean, mean)
    torch.testing.assert_close(average[1].running_var, variance)
    assert average[1].momentum == 0.1
    assert not any(module.training for module in average.modules())
    # What is frozen in training, and the model itself, are as they were.
    assert torch.equal(average[4].running_mean, torch.zeros(2))
    assert torch.equal(model[1].running_mean, torch.zeros(4))


def test_only_the_last_images_are_kept() -> None:
    recent = RecentImages()
    for number in range(40):
        recent.add(torch.full((MAX_IMAGES // 8, 1, 1, 1), float(number)))
    assert [float(batch[0]) for batch in recent] == list(range(32, 40))
    recent.add(torch.zeros(2 * MAX_IMAGES, 1, 1, 1))
    assert len(recent) == 1
    recent.clear()
    assert not list(recent)


@pytest.mark.parametrize("fields", [{"sparsity": 0.1}, {"retake_statistics": True}], ids=str)
def test_what_a_run_evaluates_and_saves_has_them(
    fields: dict[str, Any], tiny_exp: Path, tmp_path: Path
) -> None:
    """The first batch norm's saved mean is that of the saved weights on the epoch's images."""
    trainer = new_trainer(tiny_exp, tmp_path, **fields, max_epoch=1, no_aug_epochs=0)
    inputs: list[Tensor] = []
    evaluated: list[Tensor] = []
    trainer.model.backbone.backbone.stem.register_forward_pre_hook(
        lambda _, args: inputs.append(args[0].clone())
    )

    def evaluate(model: nn.Module) -> tuple[float, float, str]:
        evaluated.append(model.state_dict()["backbone.backbone.stem.conv.bn.running_mean"].clone())
        return 0.0, 0.0, ""

    trainer.evaluate = evaluate
    trainer.train()
    content = read(tmp_path / "tiny" / "latest_ckpt.pth")["model"]
    assert trainer.ema is not None
    stem = trainer.ema.ema.backbone.backbone.stem
    means: list[Tensor] = []
    stem.conv.conv.register_forward_hook(lambda *call: means.append(call[2].mean(dim=(0, 2, 3))))
    with torch.no_grad():
        for images in inputs:
            stem(images)
    name = "backbone.backbone.stem.conv.bn.running_mean"
    torch.testing.assert_close(content[name], torch.stack(means).mean(0), rtol=1e-4, atol=1e-3)
    assert torch.equal(evaluated[0], content[name])


def test_statistics_are_those_of_images_of_the_size_that_is_evaluated(
    tiny_exp: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run at several sizes ends at any: those of 32 pixels are wrong at 64."""
    sizes: set[tuple[int, ...]] = set()

    def seen(average: nn.Module, model: nn.Module, batches: Iterable[Tensor]) -> None:
        sizes.update(tuple(images.shape[2:]) for images in batches)

    monkeypatch.setattr("yolox.core.trainer.retake_statistics", seen)
    trainer = new_trainer(tiny_exp, tmp_path, retake_statistics=True, max_epoch=1)
    trainer.input_size = lambda epoch, iteration: (32, 32)
    trainer.train()
    assert sizes == {(64, 64)}
