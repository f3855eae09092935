"""Residual blocks that lose their branch, and add the constant that it gave."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.helpers import SPECS
from tests.pruning.helpers import assert_untouched, bare, enliven, plan_of, snapshot
from yolox.models import build_model
from yolox.models.build import checkpoint_payload
from yolox.models.loading import load_model
from yolox.models.network_blocks import ChannelShift
from yolox.pruning import PruneConfig, PruningError, mask_plan, prune_model, trace_groups
from yolox.pruning.blocks import empty_blocks, find_blocks
from yolox.pruning.latency.plan import LatencyPlanner
from yolox.pruning.latency.table import ConvKind, ConvLayer, LayerTable
from yolox.pruning.plan import PruningPlan
from yolox.utils.checkpoint import CheckpointError, save_checkpoint

X = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))


class Residual(nn.Module):
    """1 × 1 to fewer channels, 3 × 3 back, plus the input."""

    def __init__(self, after: nn.Module | None = None) -> None:
        super().__init__()
        self.squeeze, self.widen = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 3, 1, 1)
        self.after = after or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.after(x + self.widen(self.squeeze(x).relu()).relu())


def net(*blocks: nn.Module) -> nn.Sequential:
    layers = [nn.Conv2d(3, 8, 3, 1, 1), *blocks, nn.Conv2d(8, 6, 1), nn.Conv2d(6, 2, 1)]
    return nn.Sequential(*layers).eval()


def allowing(**removed: tuple[int, ...]) -> PruningPlan:
    model = enliven(net(Residual(), Residual()))
    plan = plan_of(trace_groups(model, X), {k.replace("_", "."): v for k, v in removed.items()})
    return dataclasses.replace(plan, config={"allow_empty_blocks": True})


def test_only_branches_beside_an_identity_can_be_emptied() -> None:
    model = enliven(net(Residual(), Residual(after=nn.ReLU())))
    # After the addition of the second one something else follows: it does not add a constant.
    assert find_blocks(model, trace_groups(model, X), X) == {"1.squeeze": "1"}


@pytest.mark.parametrize("name", ["yolox-nano", "yolox-tiny", "yolov3"])
def test_the_residual_blocks_of_the_family_can_be_emptied(name: str) -> None:
    model = enliven(build_model(SPECS[name])).eval()
    found = find_blocks(model, trace_groups(model, X), X)
    kinds = {type(model.get_submodule(block)).__name__ for block in found.values()}
    assert kinds == ({"ResLayer"} if name == "yolov3" else {"Bottleneck"})
    # dark2 1, dark3 3, dark4 3 of a third of CSPDarknet's depth; 1 + 2 + 8 + 8 + 4 of Darknet-53.
    assert len(found) == (23 if name == "yolov3" else 7)


def test_an_emptied_block_is_what_the_masked_one_is() -> None:
    model = enliven(net(Residual(), Residual())).double()
    groups, plan = trace_groups(model, X), allowing(**{"1_squeeze": (0, 1, 2, 3)})
    before = snapshot(model)
    emptied = empty_blocks(model, groups, plan, X)
    assert_untouched(model, before)
    assert isinstance(emptied[1], ChannelShift)
    assert isinstance(emptied[2], Residual)
    x = torch.randn(2, 3, 24, 40, dtype=torch.float64)
    with torch.no_grad():
        expected, got = mask_plan(model, groups, plan)(x), emptied(x)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


def test_a_plan_is_cut_to_the_end_with_its_empty_block() -> None:
    model = enliven(net(Residual(), Residual()))
    plan = allowing(**{"0": (1, 6), "1_squeeze": (0, 1, 2, 3), "2_squeeze": (2,), "3": (0,)})
    config = bare(allow_empty_blocks=True, absorb=False)
    result = prune_model(model, X, config, plan=plan)
    small = result.model
    assert small[1].bias.shape == (6,)
    assert small[2].squeeze.out_channels == 3
    masked = mask_plan(model, trace_groups(model, X), plan)
    with torch.no_grad():
        torch.testing.assert_close(small(X), masked(X), rtol=1e-4, atol=1e-5)
    rows = {layer.name: layer for layer in result.report.layers}
    assert rows["1.squeeze"].channels == (4, 0)
    assert rows["1.widen"].params == (8 * 4 * 9 + 8, 0)
    assert result.report.params[1] == sum(p.numel() for p in small.parameters())


class Deeper(nn.Module):
    """A branch of three layers, each of which may be emptied, around another block."""

    def __init__(self, inner: nn.Module | None = None) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1), nn.Conv2d(8, 8, 1)
        self.inner = inner or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.c(self.inner(self.b(self.a(x).relu()).relu()))


class Paired(nn.Module):
    """A branch that ties the channels that it reads, two by two."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (
            nn.Conv2d(8, 8, 1, groups=4),
            nn.Conv2d(8, 4, 1),
            nn.Conv2d(4, 8, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.c(self.b(self.a(x).relu()).relu())


class Scaled(Residual):
    """A branch with a bare parameter, which keeps the channels that the block adds to."""

    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.rand(8, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.gamma * self.widen(self.squeeze(x).relu())


TWICE = Residual()
WHOLE = {
    "another layer of the branch loses some": ((Deeper(),), {"1.a": 4, "1.b": 3}),
    "two layers of one branch": ((Deeper(),), {"0": 2, "1.a": 4, "1.b": 8}),
    "one block within another": ((Deeper(Residual()),), {"0": 2, "1.b": 8, "1.inner.squeeze": 4}),
    "one block under two names": ((TWICE, TWICE), {"0": 2, "1.squeeze": 4}),
    "the block ties its input": ((Paired(),), {"0": 1, "1.b": 4}),
    "the block keeps its input": ((Scaled(),), {"1.squeeze": 4, "2": 2}),
}


@pytest.mark.parametrize("name", WHOLE)
def test_what_is_left_of_a_block_is_right_whatever_else_goes(name: str) -> None:
    blocks, counts = WHOLE[name]
    model = enliven(net(*blocks)).double()
    with torch.no_grad():
        for key, bias in model.named_parameters():
            if key.endswith("bias"):
                bias.abs_()  # what is constant is not dead
    groups = trace_groups(model, X)
    removed = {name: tuple(range(count)) for name, count in counts.items()}
    plan = dataclasses.replace(plan_of(groups, removed), config={"allow_empty_blocks": True})
    result = prune_model(model, X, bare(allow_empty_blocks=True, absorb=False), plan=plan)
    assert isinstance(result.model[1], ChannelShift)
    x = torch.randn(2, 3, 24, 40, dtype=torch.float64)
    with torch.no_grad():
        expected, got = mask_plan(model, groups, plan)(x), result.model(x)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


def test_a_branch_that_is_dead_by_chance_is_no_constant() -> None:
    class Beside(Residual):
        def __init__(self, bias: float) -> None:
            super().__init__()
            self.side = nn.Conv2d(8, 8, 1)
            nn.init.constant_(self.side.bias, bias)

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + self.side(x).relu()

    model = net(Beside(0.0), Beside(-1e3))
    assert find_blocks(model, trace_groups(model, X), X) == {}


def test_a_block_that_something_else_looks_into_is_not_emptied() -> None:
    class Looking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = Residual()

        def forward(self, x: Tensor) -> Tensor:
            return self.block(x) * (self.block.squeeze.out_channels > 1)

    model = enliven(net(Looking()))
    plan = plan_of(trace_groups(model, X), {"1.block.squeeze": (0, 1, 2, 3)})
    plan = dataclasses.replace(plan, config={"allow_empty_blocks": True})
    with pytest.raises(PruningError, match=r"does not run with emptied blocks: .*squeeze"):
        prune_model(model, X, bare(allow_empty_blocks=True), plan=plan)


def test_what_is_no_branch_is_not_emptied() -> None:
    model = enliven(net(Residual(), Residual()))
    plan = allowing(**{"3": (0, 1, 2, 3, 4, 5)})
    with pytest.raises(PruningError, match="3, which is not the branch of a block"):
        prune_model(model, X, bare(allow_empty_blocks=True), plan=plan)


def test_a_plan_that_may_not_empty_is_refused() -> None:
    model = enliven(net(Residual(), Residual()))
    plan = dataclasses.replace(allowing(**{"1_squeeze": (0, 1, 2, 3)}), config={})
    with pytest.raises(PruningError, match=r"the plan empties 1\.squeeze"):
        prune_model(model, X, bare(), plan=plan)


@pytest.mark.parametrize("allow", [False, True])
def test_a_block_of_no_importance_goes_only_if_that_is_allowed(allow: bool) -> None:
    model = enliven(net(Residual(), Residual()))
    with torch.no_grad():
        model[1].squeeze.weight.mul_(1e-6)
    config = bare(
        importance="l1", normalize="none", target="macs=0.7", allow_empty_blocks=allow, absorb=False
    )
    result = prune_model(model, X, config)
    assert isinstance(result.model[1], ChannelShift) == allow
    assert result.report.macs[1] / result.report.macs[0] == pytest.approx(0.7, abs=0.07)


def test_a_cut_with_empty_blocks_is_pruned_again() -> None:
    model = enliven(net(Residual(), Residual()))
    plan = allowing(**{"1_squeeze": (0, 1, 2, 3)})
    once = prune_model(model, X, bare(allow_empty_blocks=True), plan=plan).model
    twice = prune_model(once, X, bare(importance="l1", ch_sparsity=0.3)).model
    assert len(twice[1].bias) < 8


def test_a_checkpoint_with_an_empty_block_is_rebuilt_to_the_bit(tmp_path: Path) -> None:
    spec = SPECS["yolox-nano"]
    model = enliven(build_model(spec)).eval()
    groups = trace_groups(model, X)
    name, block = next(iter(find_blocks(model, groups, X).items()))
    size = next(group.size for group in groups if group.name == name)
    plan = dataclasses.replace(
        plan_of(groups, {name: tuple(range(size)), groups[0].name: (0, 1)}),
        config={"allow_empty_blocks": True},
    )
    result = prune_model(model, X, bare(allow_empty_blocks=True), plan=plan)
    path = tmp_path / "emptied.pth"
    payload = checkpoint_payload(result.model, spec, [plan.to_dict()])
    save_checkpoint(path, payload)
    again = load_model(path).model.eval()
    assert isinstance(again.get_submodule(block), ChannelShift)
    with torch.no_grad():
        assert torch.equal(again(X), result.model.eval()(X))
    payload["channels"][block][2] = 1
    save_checkpoint(path, payload)
    with pytest.raises(CheckpointError, match=f"gives {block} .* one number"):
        load_model(path)


def test_empty_blocks_need_one_ranking() -> None:
    with pytest.raises(PruningError, match="allow_empty_blocks needs one ranking"):
        PruneConfig(allow_empty_blocks=True, scope="uniform")


def test_a_latency_plan_may_empty_a_block() -> None:
    model = enliven(net(Residual(), Residual()))
    groups = trace_groups(model, X)
    sizes = [group.size for group in groups]

    class Slots:
        """A millisecond for each slot."""

        def at(self, kept: list[int]) -> float:
            return float(sum(kept))

        def choices(self, group: int, counts: np.ndarray, kept: list[int]) -> np.ndarray:
            return counts.astype(float)

    scores = [
        torch.full((s,), 1e-9 if g.name == "1.squeeze" else 1.0)
        for g, s in zip(groups, sizes, strict=True)
    ]
    config = bare(target="latency=0.5", importance="l1", allow_empty_blocks=True)
    planner = LatencyPlanner(
        model, groups, groups, config, Slots(), lambda *_: scores, emptiable={"1.squeeze"}
    )
    plan, predicted = planner.plan(sum(sizes) - 4)
    assert plan.removed == {"1.squeeze": (0, 1, 2, 3)}
    assert predicted == sum(sizes) - 4
    plan.check(groups)


def test_a_layer_without_channels_takes_no_time() -> None:
    same = {"kernel": (3, 3), "stride": (1, 1), "padding": (1, 1), "size": (8, 8)}
    layer = ConvLayer(kind=ConvKind(depthwise=False, act="", **same), inputs=8, outputs=4)
    table = LayerTable(layer, [4, 8], [2, 4], np.array([[1.0, 2.0], [2.0, 4.0]]))
    times = table.at(np.array([8, 0, 8, 2]), np.array([4, 4, 0, 2]))
    assert times.tolist() == [4.0, 0.0, 0.0, 1.0]
