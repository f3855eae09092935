"""A refit stays where it lowers the loss on images that it did not see, layer by layer."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.pruning.helpers import ResNet, bare, enliven, plan_of, snapshot
from yolox.models.network_blocks import BaseConv
from yolox.pruning import LabelledImages, compensate_cut, mask_plan, prune_model, trace_groups
from yolox.pruning.judge import is_lower, keep_what_helps
from yolox.pruning.reconstruct import position_weights
from yolox.pruning.replay import Replay

DEVICE = torch.device("cpu")


def images(count: int, size: int = 16, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def squares(model: nn.Module, batch: Any) -> Tensor:
    """The loss of a model on (images, wanted outputs)."""
    x, wanted = batch
    return (model(x) - wanted).square().mean()


def chain() -> nn.Sequential:
    return enliven(nn.Sequential(*(BaseConv(3 if n == 0 else 8, 8, 3, 1) for n in range(4)))).eval()


def labelled(model: nn.Module, *, held: int = 2) -> LabelledImages:
    """Images that the model has the right answers of."""
    with torch.no_grad():
        batches = [(x, model(x)) for x in (images(2, seed=n) for n in range(4))]
    return LabelledImages(loss=squares, fitted=batches[:2], held=batches[2 : 2 + held])


# --- the loss again and again


class Rewriting(nn.Module):
    """What its first layer sends out is written into by what comes next."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 1)
        self.second = nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU(inplace=True))
        self.last = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        x += self.second(x)
        return self.last(x)


@pytest.mark.parametrize("make", [chain, ResNet, Rewriting])
def test_a_loss_after_a_change_is_that_of_the_whole_model(make: Any) -> None:
    model = enliven(make()).eval()
    batches = [(x, model(x).detach() + 1) for x in (images(2), images(1, seed=1))]
    layers = [n for n, m in model.named_modules() if isinstance(m, nn.Conv2d)]
    replay, reference = Replay(model, batches, squares, layers), copy.deepcopy(model)
    changed: list[str] = []
    for number, layer in enumerate([*reversed(layers), *layers]):
        changed.append(layer)
        with torch.no_grad():
            replay.model.get_parameter(f"{layer}.weight").mul_(1.1)
            reference.load_state_dict(replay.model.state_dict())
            wanted = [float(squares(reference, batch)) for batch in batches]
        assert replay.after(changed) == pytest.approx(wanted, rel=1e-6)
        if number % 2:
            replay.keep()
            changed.clear()


def test_what_ran_before_a_change_does_not_run_again() -> None:
    model = chain()
    ran: list[str] = []
    replay = Replay(model, labelled(model).held, squares, ["2.conv"])
    for name, module in replay.model.named_modules():
        if isinstance(module, nn.Conv2d):
            inner = module._conv_forward
            module._conv_forward = lambda *a, name=name, inner=inner: ran.append(name) or inner(*a)
    replay.after(["2.conv"])
    assert ran == ["2.conv", "3.conv"] * 2
    with pytest.raises(ValueError, match="at least one batch"):
        Replay(model, [], squares, ())


def test_kept_outputs_stay_within_their_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever layers changed and were kept in between; and the losses are right without."""
    room = 3 * 2 * 8 * 16 * 16 * 4  # three outputs of a layer
    monkeypatch.setattr("yolox.pruning.replay.KEPT_BYTES", room)
    model = chain()
    layers = [f"{number}.conv" for number in range(4)]
    batches = labelled(model).held
    replay, reference = Replay(model, batches, squares, layers), copy.deepcopy(model)
    ran, spared = list[str](), 0
    for name in layers:
        module = replay.model.get_submodule(name)
        inner = module._conv_forward
        module._conv_forward = lambda *a, name=name, inner=inner: ran.append(name) or inner(*a)
    for layer in [*layers, *reversed(layers), *layers]:
        with torch.no_grad():
            replay.model.get_parameter(f"{layer}.weight").mul_(1.1)
            reference.load_state_dict(replay.model.state_dict())
            wanted = [float(squares(reference, batch)) for batch in batches]
        ran.clear()
        assert replay.after([layer]) == pytest.approx(wanted, rel=1e-6)
        # What is not run again was kept.
        assert len(layers) * len(batches) - len(ran) <= 3
        spared += len(layers) * len(batches) - len(ran)
        replay.keep()
    assert spared


def test_a_loss_that_is_no_number_is_the_worst() -> None:
    model = chain()
    assert Replay(model, [0], lambda m, b: torch.tensor(torch.nan), ()).losses == [float("inf")]


# --- what stays


def refitted() -> tuple[nn.Module, nn.Module, nn.Module, LabelledImages]:
    """A model, its cut before and after a refit, and images."""
    model = chain()
    groups = trace_groups(model, images(1))
    plan = plan_of(groups, {"0.conv": (1, 2), "1.conv": (0, 5), "2.conv": (3,)})
    config = bare(importance="l1", reconstruct=4, absorb=False)
    data = labelled(model)
    cut = mask_plan(model, groups, plan)
    x = torch.cat([batch[0] for batch in data.fitted])
    fitted, _ = compensate_cut(model, groups, plan, config, images(1), x)
    return model, cut, fitted, data


def test_a_layer_whose_refit_hurts_keeps_its_old_weights() -> None:
    _, cut, fitted, data = refitted()
    with torch.no_grad():
        fitted[2].conv.weight.mul_(5)
    kept, judgement = keep_what_helps(cut, fitted, data, images(1), DEVICE)
    assert judgement.dropped == ("2.conv",)
    assert set(judgement.stays) == {"1.conv", "3.conv"}
    assert judgement.kept < judgement.bare
    assert judgement.kept < judgement.fitted
    for name, value in kept.state_dict().items():
        source = cut if name.startswith("2.") else fitted
        assert torch.equal(value, source.state_dict()[name]), name
    with torch.no_grad():
        held = sum(float(squares(kept, batch)) for batch in data.held) / 2
    assert judgement.kept == pytest.approx(held)
    assert "2 of 3 layers keep their refit" in judgement.sentence()


def test_a_refit_that_hurts_as_a_whole_goes_as_a_whole() -> None:
    """Where the old weights are the right ones, no subset of wrong ones is any better."""
    model, _, _, data = refitted()
    spoilt = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in spoilt.parameters():
            parameter.mul_(1.5)
    kept, judgement = keep_what_helps(model, spoilt, data, images(1), DEVICE)
    assert judgement.stays == ()
    assert judgement.kept == judgement.bare == pytest.approx(0, abs=1e-9)
    assert all(torch.equal(v, kept.state_dict()[k]) for k, v in model.state_dict().items())
    assert judgement.sentence().startswith("no layer keeps its refit")


def test_a_loss_that_the_refit_made_infinite_is_taken_back() -> None:
    _, cut, fitted, data = refitted()
    with torch.no_grad():
        fitted[3].conv.weight.fill_(torch.inf)
    _, judgement = keep_what_helps(cut, fitted, data, images(1), DEVICE)
    assert "3.conv" in judgement.dropped
    assert judgement.kept < judgement.bare < judgement.fitted


def test_a_difference_within_chance_takes_nothing_back() -> None:
    assert is_lower([1.0, 2.0, 3.0], [1.2, 2.3, 3.2])
    assert not is_lower([1.0, 2.0, 3.0], [2.0, 1.6, 3.0])  # by 0.2 on average, ± 0.4
    assert not is_lower([1.0, 2.0], [1.0, 2.0])
    assert is_lower([1.0], [1.1])
    assert is_lower([1.0, 2.0], [1.0, math.inf])


def test_a_prune_judges_and_says_so() -> None:
    model = chain()
    data = labelled(model)
    x = torch.cat([batch[0] for batch in data.fitted])
    config = bare(importance="l1", ch_sparsity=0.3, reconstruct=4)
    before = snapshot(model)
    result = prune_model(model, images(1), config, images=x, labelled=data)
    assert result.judgement is not None
    assert result.judgement.kept < result.judgement.bare
    assert result.report.difference < 1e-9
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    without = LabelledImages(loss=squares, fitted=data.fitted, held=())
    assert prune_model(model, images(1), config, images=x, labelled=without).judgement is None


# --- positions by what they mean


def test_weights_of_positions_are_squared_gradients() -> None:
    """Of a loss that looks at one corner alone, only that corner has any."""
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1))
    enliven(model)
    batches = [images(2, 4), images(1, 4, seed=1)]
    weights = position_weights(model, batches, lambda m, x: 3 * m(x)[:, :, 0, 0].sum())
    last = torch.zeros(3, 4, 4)
    last[:, 0, 0] = 2 * 9
    assert torch.equal(weights["2"], last)
    assert weights["0"][:, 0, 0].min() >= 0
    assert weights["0"][:, 1:].abs().max() == 0
    assert all(p.grad is None for p in model.parameters())


def test_what_the_loss_looks_at_is_fitted_best(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("yolox.pruning.reconstruct.MAX_SAMPLES", 300)
    monkeypatch.setattr("yolox.pruning.reconstruct.EVEN", 0.1)
    model = chain()
    groups = trace_groups(model, images(1))
    plan = plan_of(groups, {"2.conv": (0, 1, 2, 3)})
    x = images(8)
    x[:, :, :5, :5] += 2 * images(8, 5, seed=9)  # of another kind than the rest
    config = bare(importance="l1", reconstruct=8)

    def corner(net: nn.Module, batch: Any) -> Tensor:
        return (net(batch[0]) - batch[1])[:, :, :4, :4].square().mean()

    noise = torch.randn(8, 8, 16, 16, generator=torch.Generator().manual_seed(3))
    batch = (x, model(x).detach() + 0.1 * noise)
    data = LabelledImages(loss=corner, fitted=[batch], held=())
    errors = []
    for given in (None, data):
        fitted, _ = compensate_cut(model, groups, plan, config, x[:1], x, given)
        with torch.no_grad():
            missed = fitted(x) - model(x)
        errors.append(float(missed[:, :, :4, :4].square().mean()))
    assert errors[1] < 0.9 * errors[0]
