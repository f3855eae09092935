"""Training on in Ultralytics' trainer: structure kept, runs resumed, scales brought to 0."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.ultralytics.helpers import NAMES, SIDE, make_data, make_detector, shapes
from yolox import ultralytics as adapter
from yolox.pruning import SparsityConfig
from yolox.utils.errors import UserError


class Stop(Exception):
    """In place of a kill."""


def words(data: Path, folder: Path, **more: object) -> list[str]:
    settings = {
        "data": data,
        "project": folder,
        "name": "run",
        "imgsz": SIDE,
        "epochs": 1,
        "batch": 4,
        "plots": False,
        "warmup_epochs": 0,
        **more,
    }
    return [f"{key}={value}" for key, value in settings.items()]


def scales(model: nn.Module) -> torch.Tensor:
    found = [m.weight.detach() for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    return torch.cat(found)


def test_the_stock_trainer_refuses_a_pruned_file(pruned: Path, data: Path, tmp_path: Path) -> None:
    from ultralytics import YOLO

    with pytest.raises(KeyError, match="yolox ultralytics train"):
        YOLO(pruned).train(data=data, epochs=1, imgsz=SIDE, project=tmp_path, plots=False)


def test_fine_tuning_keeps_structure_and_plan(pruned: Path, data: Path, tmp_path: Path) -> None:
    from yolox.ultralytics.files import plans_of
    from yolox.ultralytics.trainer import train

    before = adapter.read_detector(pruned)
    best = train(str(pruned), words(data, tmp_path), None)
    after = adapter.read_detector(best)
    assert shapes(after) == shapes(before)
    assert plans_of(after) == plans_of(before)
    assert after.names == dict(enumerate(NAMES))
    weight = "model.0.conv.weight"
    assert not torch.equal(after.get_parameter(weight), before.get_parameter(weight))


def test_a_stopped_run_goes_on_with_structure_and_sparsity(
    pruned: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from yolox.ultralytics.sparsity import sparsity_of
    from yolox.ultralytics.trainer import PrunedTrainer, train

    config = SparsityConfig(strength=0.01, warmup=0.1)

    def stop_in_second(self: Any, epoch: int) -> bool:
        if epoch:  # asked once an epoch, before its file is written
            raise Stop
        return False

    with monkeypatch.context() as patch:
        patch.setattr(PrunedTrainer, "_handle_nan_recovery", stop_in_second)
        with pytest.raises(Stop):
            train(str(pruned), words(data, tmp_path, epochs=2), config)
    last = tmp_path / "run" / "weights" / "last.pt"
    with pytest.raises(UserError, match=r"started with sparsity 0\.01"):
        train(str(last), ["resume=True"], SparsityConfig(strength=0.02))
    best = train(str(last), ["resume=True"], None)
    after = adapter.read_detector(best)
    assert best.parent == last.parent
    assert shapes(after) == shapes(adapter.read_detector(pruned))
    assert sparsity_of(after) == config
    lines = (tmp_path / "run" / "results.csv").read_text().splitlines()
    assert len(lines) == 3  # a title and two epochs


def test_sparsity_brings_scales_to_0_in_the_average_once_a_step(
    whole: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from yolox.pruning import Sparsity
    from yolox.ultralytics.trainer import train

    steps: list[float] = []
    real = Sparsity.shrink

    def counted(self: Sparsity, lr: Any, progress: float) -> None:
        steps.append(progress)
        real(self, lr, progress)

    monkeypatch.setattr(Sparsity, "shrink", counted)
    # Eight images in batches of two, eight images a step.
    more = {"epochs": 2, "batch": 2, "nbs": 8, "lr0": 0.1}
    best = train(str(whole), words(data, tmp_path, **more), SparsityConfig(strength=0.5))
    assert len(steps) == 2
    assert steps == sorted(steps)
    model = adapter.read_detector(best.with_name("last.pt"))
    zeros = (scales(model) == 0).float().mean()
    assert 0.2 < zeros < 1
    plain = train(str(whole), words(data, tmp_path, **more, name="plain"), None)
    assert not (scales(adapter.read_detector(plain)) == 0).any()


@pytest.mark.parametrize(("fused", "proximal"), [(False, True), (True, True), (True, False)])
def test_a_skipped_step_leaves_the_scales_alone(fused: bool, proximal: bool) -> None:
    from yolox.ultralytics.sparsity import Penalty

    model = make_detector().train()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1, fused=fused)
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    trainer = _Run(model, optimizer)
    penalty = Penalty(SparsityConfig(strength=0.1, proximal=proximal))
    penalty.on_train_start(trainer)
    for broken in (True, False):
        before = scales(model).clone()
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        scaler.scale(torch.ones(()))  # begins the scale
        if broken:
            model.model[0].conv.weight.grad.fill_(torch.inf)
        scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()
        assert torch.equal(scales(model), before) == broken


def test_the_average_gets_zeros_and_the_statistics_that_it_has(tmp_path: Path) -> None:
    from yolox.ultralytics.sparsity import Penalty

    model = make_detector().train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer.param_groups[0]["initial_lr"] = 0.1
    run = _Run(model, optimizer)
    penalty = Penalty(SparsityConfig(strength=0.1))
    penalty.on_train_start(run)
    # As after a recovery from values that are not finite.
    run.ema = type("Average", (), {"ema": copy.deepcopy(model).eval()})()
    penalty.on_train_epoch_start(run)
    images = torch.rand(4, 3, SIDE, SIDE)
    model(images)
    with torch.no_grad():
        model.model[0].bn.weight[3] = 0
        seen = model.model[0].conv(images)
    penalty.on_train_epoch_end(run)
    norm = run.ema.ema.model[0].bn
    torch.testing.assert_close(norm.running_mean, seen.mean(dim=(0, 2, 3)))
    assert (norm.weight == 0).nonzero().tolist() == [[3]]
    assert not norm.training
    adapter.save_detector(run.ema.ema, tmp_path / "average.pt")
    adapter.read_detector(tmp_path / "average.pt")


class _Run:
    """What the penalty asks of a trainer."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.model, self.optimizer = model, optimizer
        self.ema: Any = None
        self.epoch, self.epochs, self.accumulate = 0, 1, 1
        self.train_loader = [None]
        self.args = type("Args", (), {"momentum": 0.9, "imgsz": SIDE})()

    def lf(self, epoch: int) -> float:
        return 1.0


def test_each_parameter_moves_by_its_own_rate() -> None:
    from yolox.ultralytics.sparsity import step_rates

    model = nn.Sequential(nn.BatchNorm2d(2), nn.BatchNorm2d(2))
    groups = [
        {"params": model[0].parameters(), "lr": 0.1, "momentum": 0.5},
        {"params": model[1].parameters(), "lr": 0.3},
    ]
    rates = step_rates(torch.optim.SGD(groups, lr=1.0))
    assert rates[id(model[0].weight)] == pytest.approx(0.2)
    assert rates[id(model[1].weight)] == pytest.approx(0.3)


def test_data_of_other_classes_is_told_before_a_folder_is_made(
    pruned: Path, tmp_path: Path
) -> None:
    from yolox.ultralytics.trainer import train

    other = make_data(tmp_path / "set", names=("one", "two"), images=2)
    with pytest.raises(UserError, match=r"3 classes \(square, bar, dot\).* has 2 \(one, two\)"):
        train(str(pruned), words(other, tmp_path / "runs"), None)
    assert not (tmp_path / "runs").exists()


def test_mistakes_in_settings_are_told(whole: Path, pruned: Path, data: Path) -> None:
    from yolox.ultralytics.trainer import train

    for word, text in (
        ("epochs", "key=value"),
        ("epochs=", "key=value"),
        ("model=x.pt", "leave it out"),
        ("epoch=3", "epoch"),
        ("epochs=many", "epochs"),
        ("epochs=3", r"no data set .* data=my\.yaml"),
    ):
        with pytest.raises(UserError, match=text):
            train(str(whole), [word], None)
    with pytest.raises(UserError, match=r"give the file alone, as my\.pt"):
        train("model=my.pt", [f"data={data}"], None)
    with pytest.raises(UserError, match=r"my\.onnx: expected a \.pt"):
        train("my.onnx", [f"data={data}"], None)
    with pytest.raises(UserError, match="pretrained"):
        train(str(pruned), [f"data={data}", "pretrained=False", f"project={data.parent}/r"], None)
    with pytest.raises(UserError, match="no file"):
        train("missing_one.pt", [], None)
    with pytest.raises(UserError, match="finished run"):
        train(str(pruned), ["resume=True"], None)
    with pytest.raises(UserError, match=r"nowhere\.yaml"):
        train(str(whole), ["data=nowhere.yaml"], None)
