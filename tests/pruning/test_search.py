"""Shares of groups by what is lost after refitting: moves, determinism, going on."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.pruning.helpers import ResNet, bare, enliven, plan_of
from yolox.models.network_blocks import BaseConv
from yolox.pruning import (
    Group,
    LabelledImages,
    compensate_cut,
    plan_pruning,
    trace_groups,
)
from yolox.pruning.cost import LayerSum, mac_costs
from yolox.pruning.lookahead import Lookahead
from yolox.pruning.search import Progress, Shares, Space, search
from yolox.pruning.search_plan import PlanSearch
from yolox.pruning.surgeon import SurgeonScorer
from yolox.utils.documents import json_text, parse_json
from yolox.utils.model_utils import copy_model


def images(count: int, size: int = 16, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def squares(model: nn.Module, batch: Any) -> Tensor:
    x, wanted = batch
    return (model(x) - wanted).square().mean()


def labelled(model: nn.Module) -> LabelledImages:
    """Images that the model is almost right about."""
    with torch.no_grad():
        noise = torch.Generator().manual_seed(1)
        batches = [
            (x, (y := model(x)) + 0.1 * torch.randn(y.shape, generator=noise))
            for x in (images(2, seed=n) for n in range(4))
        ]
    return LabelledImages(loss=squares, fitted=batches[:2], held=batches[2:])


def chain(*widths: int) -> nn.Sequential:
    layers = [BaseConv(i, o, 3, 1) for i, o in zip((3, *widths), widths, strict=False)]
    return enliven(nn.Sequential(*layers, nn.Conv2d(widths[-1], 2, 1))).eval()


def space_of(model: nn.Module, groups: Sequence[Group], left: float, **fields: Any) -> Space:
    base = mac_costs(model, images(1))
    scores = [torch.arange(group.size, dtype=torch.float32) for group in groups]
    total = LayerSum(groups, base).at([group.size for group in groups])
    config = bare(importance="l1", **fields)
    return Space(groups, scores, config, lambda merged: LayerSum(merged, base), left * total)


class Table:
    """A loss that is known: of one group all may go, of the others nothing should."""

    def __init__(self, weights: Sequence[float]) -> None:
        self.weights = weights
        self.asked: list[Shares] = []
        self.kept: list[Shares] = []

    def loss(self, shares: Shares) -> float:
        self.asked.append(shares)
        return sum(w * n for w, n in zip(self.weights, shares, strict=True))

    def keep(self) -> None:
        self.kept.append(self.asked[-1])


def toy() -> tuple[Space, dict[str, Shares]]:
    model = chain(8, 8, 8, 8)
    space = space_of(model, trace_groups(model, images(1)), 0.6)
    return space, {"equal": (2, 2, 2, 2), "first": (4, 4, 0, 0)}


# --- moves


def test_a_move_stays_within_the_budget_and_the_limits() -> None:
    model = enliven(ResNet())
    groups = trace_groups(model, images(1))
    space = space_of(model, groups, 0.7, round_to=2, max_sparsity=0.5)
    shares = tuple(group.size // 2 for group in groups)
    moves = {space.move(shares, np.random.default_rng(seed)) for seed in range(40)}
    assert len(moves) > 5
    for moved in moves - {None}:
        assert moved is not None
        assert moved != shares
        assert space.fits(moved)
        for count, group in zip(moved, groups, strict=True):
            assert 0 <= count <= group.size // 2
            assert (group.size - count) % 2 == 0
        removed = space.removed(moved)
        assert space.shares(removed) == moved
        # The lowest scores go first.
        assert all(slots == tuple(range(len(slots))) for slots in removed.values())


def test_where_nothing_went_nothing_moves() -> None:
    space, _ = toy()
    assert space.move((0, 0, 0, 0), np.random.default_rng(0)) is None


def test_shares_that_cost_too_much_lose_more_evenly() -> None:
    space, _ = toy()
    assert space.fitted((4, 4, 0, 0)) == (4, 4, 0, 0)
    fitted = space.fitted((0, 0, 0, 0))
    assert fitted is not None
    assert space.fits(fitted)
    assert max(fitted) - min(fitted) <= 1
    tight = chain(8, 8)
    groups = trace_groups(tight, images(1))
    assert space_of(tight, groups, 0.1, max_sparsity=0.5).fitted((0, 0)) is None


# --- the search


def test_the_best_shares_are_found() -> None:
    space, starts = toy()
    *_, last = search(space, starts, Table([1, 1, 1, 0.001]), 200)
    assert last.start in starts
    assert last.loss < 0.5 * min(last.starts.values())
    assert space.fits(last.shares)
    assert last.tried == 200
    assert "moves lower the loss" in last.sentence()


def test_a_search_is_the_same_again_and_after_a_stop() -> None:
    space, starts = toy()
    whole = list(search(space, starts, Table([1, 2, 3, 0.1]), 40, seed=3))
    assert whole == list(search(space, starts, Table([1, 2, 3, 0.1]), 40, seed=3))
    assert whole[-1] != list(search(space, starts, Table([1, 2, 3, 0.1]), 40, seed=4))[-1]
    stopped = Progress.from_dict(json.loads(json.dumps(whole[17].to_dict())))
    assert stopped == whole[17]
    table = Table([1, 2, 3, 0.1])
    assert list(search(space, starts, table, 40, seed=3, progress=stopped)) == whole[17:]
    assert table.asked[0] == stopped.shares


def test_a_loss_without_end_is_written_and_read() -> None:
    progress = Progress(start="a", starts={"a": 1.0, "equal": math.inf}, shares=(1,), loss=1.0)
    assert Progress.from_dict(parse_json(json_text(progress.to_dict()))) == progress
    lost = Progress(start="a", starts={"a": math.inf}, shares=(1,), loss=math.inf)
    assert Progress.from_dict(parse_json(json_text(lost.to_dict()))) == lost


def test_what_is_kept_is_what_the_search_goes_on_from() -> None:
    space, starts = toy()
    table = Table([1, 2, 3, 0.1])
    *_, last = search(space, starts, table, 40)
    assert table.kept[0] == starts[last.start]
    assert table.kept[-1] == last.shares
    assert len(table.kept) == 1 + len(last.better)


def test_a_search_that_finds_nothing_says_so() -> None:
    space, _ = toy()
    *_, last = search(space, {"equal": (2, 2, 2, 2)}, Table([0, 0, 0, 0]), 9)
    assert (last.shares, last.better) == ((2, 2, 2, 2), ())
    assert last.sentence().startswith("none of 9 moves lowers the loss")


# --- looking ahead


def test_a_loss_ahead_is_that_of_the_plan_compensated() -> None:
    """Whatever plans came before, and which of them were kept."""
    model = chain(8, 8, 8, 8)
    groups = trace_groups(model, images(1))
    data = labelled(model)
    x = torch.cat([batch[0] for batch in data.fitted])
    ahead = Lookahead(model, groups, x, data, samples=16_384)
    config = bare(importance="l1", reconstruct=4, absorb=False)
    fitted_only = LabelledImages(loss=squares, fitted=data.fitted, held=())
    for number, cut in enumerate(
        [(2, 2, 2, 2), (2, 2, 4, 0), (2, 0, 4, 2), (4, 4, 0, 0), (2, 2, 4, 1)]
    ):
        removed = {g.name: tuple(range(n)) for g, n in zip(groups, cut, strict=True) if n}
        plan = plan_of(groups, removed)
        ready, _ = compensate_cut(model, groups, plan, config, x[:1], x, fitted_only)
        with torch.no_grad():
            wanted = sum(float(squares(ready, batch)) for batch in data.held) / 2
        assert ahead.loss(plan) == pytest.approx(wanted, rel=1e-4)
        if number % 2 == 0:
            ahead.keep()


def test_looking_ahead_copies_the_model_once_for_each_use(monkeypatch: pytest.MonkeyPatch) -> None:
    copies = []

    def counted(model: nn.Module) -> nn.Module:
        copies.append(model)
        return copy_model(model)

    for module in ("reconstruct", "replay"):
        monkeypatch.setattr(f"yolox.pruning.{module}.copy_model", counted)
    model = chain(8, 8)
    data = labelled(model)
    x = torch.cat([batch[0] for batch in data.fitted])
    Lookahead(model, trace_groups(model, images(1)), x, data)
    assert copies == [model] * 3  # for gradients, the whole model's outputs, and the loss


def doubled() -> nn.Sequential:
    """The second layer's channels come in pairs that do the same; those of the first do not."""
    model = chain(8, 16, 8)
    second = model[1]
    with torch.no_grad():
        for tensor in (second.conv.weight, second.bn.weight, second.bn.bias):
            tensor[8:] = tensor[:8]
        for tensor in (second.bn.running_mean, second.bn.running_var):
            tensor[8:] = tensor[:8]
        second.bn.weight.fill_(1)
        model[2].conv.weight.mul_(3)  # so that each of the pairs seems to matter
    return model


def test_looking_ahead_finds_what_others_can_replace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Taylor scores spare what is doubled; the refitted model loses nothing with one of each."""
    monkeypatch.setattr("yolox.pruning.surgeon.RIDGE", 1e-4)
    model = doubled()
    groups = trace_groups(model, images(1))
    data = labelled(model)
    single = [tuple(part[n : n + 1] for part in b) for b in data.fitted for n in range(2)]
    scores = SurgeonScorer(batches=single, loss=squares)(model, groups)
    pairs = scores[1].argsort()[:8] % 8
    assert sorted(pairs.tolist()) == list(range(8))  # one of each pair goes before any other
    order = scores[1].sort().values
    assert order[7] < 0.1 * order[8]


@pytest.mark.parametrize("budget", [{"ch_sparsity": 0.45}, {"target": "macs=0.5"}])
def test_a_search_starts_from_the_rankings_and_equal_shares(budget: dict[str, Any]) -> None:
    model = chain(8, 8, 8)
    groups = trace_groups(model, images(1))
    data = labelled(model)
    config = bare(importance="lamp", rounds=1, reconstruct=4, search=2, **budget)
    ranked = plan_pruning(model, groups, config, count_input=images(1))
    x = torch.cat([batch[0] for batch in data.fitted])
    search = PlanSearch(model, groups, config, ranked, data.fitted, x, data, images(1))
    *_, last = search.run(2)
    assert list(last.starts) == ["the ranking", "a ranking by what others replace", "equal"]
    plan = search.plan(last.shares)
    if "ch_sparsity" in budget:
        assert sum(map(len, plan.removed.values())) >= 0.45 * 24


def test_a_search_beats_both_starts_where_one_group_is_doubled() -> None:
    model = doubled()
    groups = trace_groups(model, images(1))
    data = labelled(model)
    x = torch.cat([batch[0] for batch in data.fitted])
    single = [tuple(part[n : n + 1] for part in b) for b in data.fitted for n in range(2)]
    config = bare(importance="taylor", target="macs=0.55", rounds=1)
    plan = plan_pruning(model, groups, config, batches=single, loss=squares, count_input=images(1))
    base = mac_costs(model, images(1))
    total = LayerSum(groups, base).at([group.size for group in groups])
    scores = SurgeonScorer(batches=single, loss=squares)(model, groups)
    space = Space(groups, scores, config, lambda g: LayerSum(g, base), 0.55 * total)
    ahead = Lookahead(model, groups, x, data, samples=16_384)

    class Ahead:
        keep = staticmethod(ahead.keep)

        def loss(self, shares: Shares) -> float:
            return ahead.loss(plan_of(groups, space.removed(shares)))

    starts = {"global": space.shares(plan.removed), "uniform": (3, 6, 3)}
    *_, last = search(space, starts, Ahead(), 40)
    assert last.loss < 0.9 * min(last.starts.values())
    assert last.shares == (0, 8, 0)
