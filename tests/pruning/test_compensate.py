"""What the remaining weights take over: exact where it can be, better than nothing elsewhere."""

from __future__ import annotations

import copy
import dataclasses
import random
from collections.abc import Callable, Mapping, Sequence

import pytest
import torch
from torch import Tensor, nn

from tests.helpers import SPECS
from tests.pruning.helpers import (
    SLIM_SPECS,
    DenseNet,
    FlatMap,
    ResNet,
    assert_untouched,
    bare,
    enliven,
    group_of,
    plan_of,
    random_plan,
    relative,
    snapshot,
)
from yolox.models import YOLOX, build_model
from yolox.models.network_blocks import BaseConv, get_activation
from yolox.pruning import (
    Group,
    PruningError,
    PruningPlan,
    absorb_constants,
    apply_plan,
    compensate_cut,
    mask_plan,
    prune_model,
    refit,
    trace_groups,
    verify_plan,
)
from yolox.pruning.surgery import removed_channels

ACTS = ("silu", "mish", "relu")
CURVES: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": lambda x: x * torch.sigmoid(x),
    "mish": lambda x: x * torch.tanh(torch.log1p(torch.exp(x))),
    "relu": lambda x: x.clamp(min=0),
}
GONE = (1, 2, 5)


def images(count: int, size: int = 64, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def unit(cin: int, cout: int, ksize: int, act: str, groups: int = 1, pad: int = 0) -> nn.Module:
    """Convolution without bias, batch norm, activation; no padding unless asked for."""
    return nn.Sequential(
        nn.Conv2d(cin, cout, ksize, 1, pad, groups=groups, bias=False),
        nn.BatchNorm2d(cout),
        get_activation(act),
    )


def crop(x: Tensor) -> Tensor:
    """What an unpadded 3 × 3 convolution leaves of a map."""
    return x[..., 1:-1, 1:-1]


class Net(nn.Module):
    """Units by name, and how they are joined."""

    def __init__(
        self, forward: Callable[[nn.ModuleDict, Tensor], Tensor], **units: nn.Module
    ) -> None:
        super().__init__()
        self.units = nn.ModuleDict(units)
        self.join = forward

    def forward(self, x: Tensor) -> Tensor:
        return self.join(self.units, x)


def chain(act: str, pad: int = 0) -> Net:
    """Two units; the second reads the first."""
    return Net(
        lambda u, x: u["b"](u["a"](x)), a=unit(3, 8, 3, act, pad=pad), b=unit(8, 4, 3, act, pad=pad)
    )


def residual(act: str) -> Net:
    """The sum of two units is read by a third."""

    def join(u: nn.ModuleDict, x: Tensor) -> Tensor:
        a = u["a"](x)
        return u["c"](crop(a) + u["b"](a))

    return Net(join, a=unit(3, 8, 3, act), b=unit(8, 8, 3, act), c=unit(8, 4, 3, act))


def concat(act: str) -> Net:
    """Two units side by side."""

    def join(u: nn.ModuleDict, x: Tensor) -> Tensor:
        return u["c"](torch.cat((u["b"](x), u["a"](x)), dim=1))

    return Net(join, a=unit(3, 8, 3, act), b=unit(3, 6, 3, act), c=unit(14, 4, 3, act))


def resized(act: str) -> Net:
    """Upsampled, pooled with a border, and averaged on the way."""

    def join(u: nn.ModuleDict, x: Tensor) -> Tensor:
        return u["b"](u["mean"](u["most"](u["up"](u["a"](x)))))

    return Net(
        join,
        a=unit(3, 8, 3, act),
        up=nn.Upsample(scale_factor=2, mode="nearest"),
        most=nn.MaxPool2d(5, 1, 2),
        mean=nn.AvgPool2d(2),
        b=unit(8, 4, 3, act),
    )


def depthwise(act: str) -> Net:
    """A depthwise unit, whose padding the batch norm behind it hides, then a pointwise one."""
    return Net(
        lambda u, x: u["b"](u["dw"](u["a"](x))),
        a=unit(3, 8, 3, act),
        dw=unit(8, 8, 3, act, groups=8, pad=1),
        b=unit(8, 4, 1, act),
    )


def bare_depthwise(act: str) -> Net:
    """A depthwise convolution with neither batch norm nor padding passes the constant on."""
    return Net(
        lambda u, x: u["b"](u["dw"](u["a"](x))),
        a=unit(3, 8, 3, act),
        dw=nn.Conv2d(8, 8, 3, groups=8),
        b=unit(8, 4, 1, act),
    )


def with_bias(act: str) -> Net:
    """Read by a prediction convolution: a bias and no batch norm."""
    return Net(lambda u, x: u["b"](u["a"](x)), a=unit(3, 8, 3, act), b=nn.Conv2d(8, 4, 1))


def linear(act: str) -> Net:
    """Read by a linear layer behind global pooling."""
    return Net(
        lambda u, x: u["fc"](u["a"](x).mean((2, 3))),
        a=unit(3, 8, 3, act),
        fc=nn.Linear(8, 4),
    )


def flattened(act: str) -> Net:
    """Read by a linear layer with a weight for every position."""
    return Net(
        lambda u, x: u["fc"](nn.functional.adaptive_avg_pool2d(u["a"](x), 2).flatten(1)),
        a=unit(3, 8, 3, act),
        fc=nn.Linear(32, 4),
    )


NETS = (
    chain,
    residual,
    concat,
    resized,
    depthwise,
    bare_depthwise,
    with_bias,
    linear,
    flattened,
)


def cut_of(model: nn.Module, slots: Mapping[str, Sequence[int]]) -> tuple[list[Group], PruningPlan]:
    """The groups of a model, and a plan by the name of a layer that makes the channels."""
    groups = trace_groups(model, images(1, 12))
    return groups, plan_of(
        groups, {group_of(groups, layer).name: tuple(gone) for layer, gone in slots.items()}
    )


def flatten_norms(model: nn.Module, groups: list[Group], plan: PruningPlan) -> nn.Module:
    """A copy whose removed channels hold nothing but the shift of their batch norms: γ = 0."""
    model = copy.deepcopy(model)
    with torch.no_grad():
        for name, axis, channels in removed_channels(groups, plan):
            layer = model.get_submodule(name)
            if isinstance(layer, nn.BatchNorm2d) and axis == "out":
                layer.weight[channels] = 0
    return model


# --- constants


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("make", NETS)
def test_channels_that_are_constant_leave_without_a_trace(
    make: Callable[[str], Net], act: str
) -> None:
    model = enliven(make(act)).eval()
    groups, plan = cut_of(model, {"units.a.0": GONE})
    model = flatten_norms(model, groups, plan)
    x = images(2, 12, seed=1)
    small = apply_plan(absorb_constants(model, groups, plan, images(1, 12)), groups, plan)
    with torch.no_grad():
        whole = model(x)
        torch.testing.assert_close(small(x), whole, rtol=1e-5, atol=1e-5)
        # Without it, it would show.
        assert relative(apply_plan(model, groups, plan)(x), whole) > 1e-3


@pytest.mark.parametrize("act", ACTS)
def test_in_float64_it_is_exact(act: str) -> None:
    model = enliven(residual(act)).eval().double()
    groups, plan = cut_of(model, {"units.a.0": GONE})
    model = flatten_norms(model, groups, plan)
    x = images(2, 12, seed=1).double()
    small = apply_plan(absorb_constants(model, groups, plan, images(1, 12)), groups, plan)
    with torch.no_grad():
        assert relative(small(x), model(x)) < 1e-6  # the constants are taken in float32


def test_padding_with_zeros_touches_the_border_alone() -> None:
    model = enliven(chain("silu", pad=1)).eval()
    groups, plan = cut_of(model, {"units.a.0": GONE})
    model = flatten_norms(model, groups, plan)
    small = apply_plan(absorb_constants(model, groups, plan, images(1, 12)), groups, plan)
    x = images(1, 12, seed=1)
    with torch.no_grad():
        difference = (small(x) - model(x)).abs()
    assert crop(difference).max() < 1e-5
    difference[..., 1:-1, 1:-1] = 0
    assert difference.max() > 1e-3


def test_several_groups_at_once() -> None:
    """The constant of a layer is taken after what goes before it, and readers add up."""
    model = enliven(residual("mish")).eval()
    model = nn.Sequential(model, nn.Conv2d(4, 2, 1)).eval()
    groups = trace_groups(model, images(1, 12))
    removed = {group_of(groups, "0.units.a.0").name: GONE, "0.units.c.0": (0, 3)}
    plan = plan_of(groups, removed)
    model = flatten_norms(model, groups, plan)
    small = apply_plan(absorb_constants(model, groups, plan, images(1, 12)), groups, plan)
    x = images(2, 12, seed=1)
    with torch.no_grad():
        torch.testing.assert_close(small(x), model(x), rtol=1e-5, atol=1e-5)


def test_a_linear_chain_of_constants() -> None:
    """Filters of nothing, and no batch norm: the bias is the constant."""
    model = enliven(FlatMap()).eval()
    with torch.no_grad():
        model.conv.weight[[0, 3]] = 0
        model.fc1.weight[[2, 7]] = 0
        for layer in (model.conv, model.fc1):
            layer.bias.abs_()
    groups = trace_groups(model, images(1, 16))
    plan = plan_of(groups, {"conv": (0, 3), "fc1": (2, 7)})
    small = apply_plan(absorb_constants(model, groups, plan, images(1, 16)), groups, plan)
    x = images(2, 16, seed=1)
    with torch.no_grad():
        torch.testing.assert_close(small(x), model(x), rtol=1e-5, atol=1e-5)
        assert relative(apply_plan(model, groups, plan)(x), model(x)) > 1e-3


@pytest.mark.parametrize("act", ACTS)
def test_only_channels_that_hardly_vary_are_absorbed(act: str) -> None:
    """What is left of a γ of 0.05 is in the noise; a channel of γ 0.06 stays out."""
    model = enliven(with_bias(act)).eval()
    groups, plan = cut_of(model, {"units.a.0": GONE})
    first, reader = model.units["a"][1], model.units["b"]
    with torch.no_grad():
        first.weight[list(GONE)] = torch.tensor([0.05, -0.05, 0.06][: len(GONE)])
    absorbed = absorb_constants(model, groups, plan, images(1, 12))
    expected = reader.bias.detach().clone()
    for channel in GONE[:2]:
        value = CURVES[act](first.bias.detach()[channel])
        expected += reader.weight.detach()[:, channel, 0, 0] * value
    torch.testing.assert_close(absorbed.units["b"].bias.detach(), expected)


def test_a_slot_with_one_lively_batch_norm_is_left_out() -> None:
    model = enliven(residual("silu")).eval()
    groups, plan = cut_of(model, {"units.a.0": GONE})
    flat = flatten_norms(model, groups, plan)
    norms = [m for m in flat.modules() if isinstance(m, nn.BatchNorm2d)]
    touched = [m for m in norms if (m.weight == 0).any()]
    assert len(touched) > 1
    with torch.no_grad():
        touched[-1].weight[touched[-1].weight == 0] = 0.5
    assert_untouched(absorb_constants(flat, groups, plan, images(1, 12)), snapshot(flat))


def test_a_batch_norm_behind_the_reader_takes_the_constant() -> None:
    model = enliven(chain("relu")).eval()
    groups, plan = cut_of(model, {"units.a.0": GONE})
    model = flatten_norms(model, groups, plan)
    absorbed = absorb_constants(model, groups, plan, images(1, 12))
    shift = sum(
        model.units["b"][0].weight.detach()[:, c].sum(dim=(1, 2))
        * model.units["a"][1].bias.detach()[c].clamp(min=0)
        for c in GONE
    )
    old = model.units["b"][1].running_mean
    torch.testing.assert_close(absorbed.units["b"][1].running_mean, old - shift)
    changed = [
        name
        for name, value in absorbed.state_dict().items()
        if not torch.equal(value, model.state_dict()[name])
    ]
    assert changed == ["units.b.1.running_mean"]


def test_a_reader_with_nowhere_to_put_it_stays_as_it_is() -> None:
    model = enliven(
        nn.Sequential(unit(3, 8, 3, "silu"), nn.Conv2d(8, 4, 1, bias=False), nn.ReLU())
    ).eval()
    groups, plan = cut_of(model, {"0.0": GONE})
    assert_untouched(absorb_constants(model, groups, plan, images(1, 12)), snapshot(model))


@pytest.mark.parametrize(
    "inplace",
    [
        False,
        pytest.param(
            True,
        ),
    ],
)
def test_a_batch_norm_behind_an_activation_is_not_behind_the_reader(inplace: bool) -> None:
    """Convolution, activation, batch norm: what is added before the activation cannot be moved."""
    model = enliven(
        nn.Sequential(
            unit(3, 8, 3, "silu"),
            nn.Conv2d(8, 4, 1, bias=False),
            nn.ReLU(inplace=inplace),
            nn.BatchNorm2d(4),
        )
    ).eval()
    groups, plan = cut_of(model, {"0.0": GONE})
    assert_untouched(absorb_constants(model, groups, plan, images(1, 12)), snapshot(model))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_absorbing_gives_a_copy_like_the_argument(dtype: torch.dtype, training: bool) -> None:
    model = enliven(residual("silu")).to(dtype).train(training)
    model.units["c"].requires_grad_(False).eval()
    before = snapshot(model)
    groups, plan = cut_of(model, {"units.a.0": GONE})
    check_copy(model, absorb_constants(model, groups, plan, images(1, 12)), before)


def check_copy(model: nn.Module, copied: nn.Module, before: dict[str, Tensor]) -> None:
    """The argument is as it was; the copy has its own tensors, alike but for their values."""
    assert_untouched(model, before)
    pairs = zip(
        [*model.named_parameters(), *model.named_buffers()],
        [*copied.named_parameters(), *copied.named_buffers()],
        strict=True,
    )
    for (name, old), (other, new) in pairs:
        assert name == other
        assert (old.dtype, old.shape) == (new.dtype, new.shape), name
        assert old.requires_grad == new.requires_grad, name
        assert new.grad is None, name
        assert new.is_leaf, name
        assert old.data_ptr() != new.data_ptr(), name
    modes = [module.training for module in model.modules()]
    assert [module.training for module in copied.modules()] == modes
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in copied.modules())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


# --- refitting


@pytest.fixture(scope="module", params=["yolox-nano", "yolox-s"])
def detector(request: pytest.FixtureRequest) -> tuple[nn.Module, list[Group], PruningPlan]:
    """A slim detector, and a plan that takes about a tenth of its channels."""
    model = enliven(build_model(SLIM_SPECS[request.param])).eval()
    groups = trace_groups(model, images(1))
    rng = random.Random(0)
    removed = {
        g.name: tuple(sorted(rng.sample(range(g.size), max(1, g.size // 8))))
        for g in groups
        if rng.random() < 0.7
    }
    return model, groups, plan_of(groups, removed)


def raw_outputs(model: nn.Module, x: Tensor) -> Tensor:
    """What the prediction convolutions put out, flat."""
    model = copy.deepcopy(model).eval()
    seen: list[Tensor] = []
    for name, layer in model.named_modules():
        if "_preds" in name and isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(lambda _m, _a, out: seen.append(out.flatten()))
    with torch.no_grad():
        model(x)
    return torch.cat(seen)


def error(model: nn.Module, pruned: nn.Module, x: Tensor) -> float:
    """Mean squared difference of the raw outputs, over the variance of the whole model's."""
    whole = raw_outputs(model, x)
    return float((raw_outputs(pruned, x) - whole).square().mean() / whole.var())


def test_refitting_lowers_the_error(
    detector: tuple[nn.Module, list[Group], PruningPlan],
) -> None:
    model, groups, plan = detector
    x = images(4)
    start = absorb_constants(model, groups, plan, x[:1])
    without = error(model, apply_plan(start, groups, plan), x)
    fitted = refit(model, groups, plan, x, start=start)
    with_it = error(model, apply_plan(fitted, groups, plan), x)
    assert with_it < 0.5 * without
    # And not on these images alone.
    others = images(4, seed=9)
    assert error(model, apply_plan(fitted, groups, plan), others) < 0.8 * error(
        model, apply_plan(start, groups, plan), others
    )


def test_recalibrating_alone_makes_up_for_a_constant() -> None:
    model = enliven(chain("silu")).eval()
    groups, plan = cut_of(model, {"units.a.0": GONE})
    model = flatten_norms(model, groups, plan)
    fitted = refit(model, groups, plan, images(2, 12), reconstruct=False, recalibrate=True)
    x = images(2, 12, seed=1)
    with torch.no_grad():
        torch.testing.assert_close(
            apply_plan(fitted, groups, plan)(x), model(x), rtol=1e-4, atol=1e-4
        )


def twins(*, bias: bool) -> nn.Sequential:
    """Channel 5 does what channel 1 does."""
    model = nn.Sequential(
        BaseConv(3, 8, 3, 1),
        BaseConv(8, 6, 3, 1),
        nn.Conv2d(6, 4, 1, bias=bias),
    )
    enliven(model)
    first = model[0]
    with torch.no_grad():
        for tensor in (first.conv.weight, first.bn.weight, first.bn.bias):
            tensor[5] = tensor[1]
        first.bn.running_mean[5] = first.bn.running_mean[1]
        first.bn.running_var[5] = first.bn.running_var[1]
    return model.eval()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("ridge", "share_left"), [(1e-2, 0.25), (1e-5, 2e-3)])
def test_a_duplicate_is_taken_over_by_its_twin(
    bias: bool, ridge: float, share_left: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for the ridge, which pulls the weights a little towards what they were."""
    monkeypatch.setattr("yolox.pruning.reconstruct.RIDGE", ridge)
    model, x = twins(bias=bias), images(4, 16)
    groups = trace_groups(model, x[:1])
    plan = plan_of(groups, {"0.conv": (5,)})
    absorbed = absorb_constants(model, groups, plan, x[:1])
    fitted = refit(model, groups, plan, x, start=absorbed)
    others = images(4, 16, seed=5)
    with torch.no_grad():
        whole = model(others)
        lost = relative(apply_plan(absorbed, groups, plan)(others), whole)
        left = relative(apply_plan(fitted, groups, plan)(others), whole)
    assert lost > 0.05
    assert left < share_left * lost
    # Where the twin is read, it has taken on the other's weights.
    reader, old = fitted[1].conv.weight.detach(), model[1].conv.weight.detach()
    assert relative(reader[:, 1], old[:, 1] + old[:, 5]) < share_left


def norm_moments(model: nn.Module, x: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """Mean and variance of each batch norm's input."""
    model = copy.deepcopy(model).eval()
    moments: dict[str, tuple[Tensor, Tensor]] = {}

    def look(name: str, value: Tensor) -> None:
        rows = value.transpose(0, 1).flatten(1).double()
        moments[name] = (rows.mean(dim=1), rows.var(dim=1, correction=0))

    for name, layer in model.named_modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.register_forward_pre_hook(lambda _m, args, name=name: look(name, args[0]))
    with torch.no_grad():
        model(x)
    return moments


def test_statistics_follow_the_change_on_the_images(
    detector: tuple[nn.Module, list[Group], PruningPlan],
) -> None:
    """Normalised by the running statistics, each channel has the mean and variance it had."""
    model, groups, plan = detector
    x = images(2)
    fitted = refit(model, groups, plan, x, reconstruct=False, recalibrate=True)
    before, after = norm_moments(model, x), norm_moments(mask_plan(fitted, groups, plan), x)
    changed = 0
    for name, (mean, variance) in before.items():
        old, new = model.get_submodule(name), fitted.get_submodule(name)
        new_mean, new_variance = after[name]
        centre = (mean - old.running_mean) / (variance + old.eps).sqrt()
        new_centre = (new_mean - new.running_mean) / (new_variance + old.eps).sqrt()
        torch.testing.assert_close(new_centre, centre, rtol=1e-3, atol=1e-3, msg=name)
        grown = (new.running_var / old.running_var).double()
        expected = (new_variance + old.eps) / (variance + old.eps)
        torch.testing.assert_close(grown, expected, rtol=1e-3, atol=1e-4, msg=name)
        changed += int((new.running_mean - old.running_mean).abs().max() > 1e-3)
    assert changed > len(before) / 2


def test_nothing_changes_where_what_goes_was_silent() -> None:
    """Images other than those of training do not draw the statistics to themselves."""
    model = enliven(ResNet()).eval()
    groups = trace_groups(model, images(1, 16))
    plan = plan_of(groups, {"stem.0": GONE, "stages.1.conv1": (0, 7)})
    quiet = mask_plan(model, groups, plan)
    before = snapshot(quiet)
    x = 3 * images(4, 16) + 1
    for reconstruct in (False, True):
        fitted = refit(quiet, groups, plan, x, reconstruct=reconstruct, recalibrate=True)
        for name, value in fitted.state_dict().items():
            if "running" in name or not reconstruct:
                torch.testing.assert_close(value, before[name], rtol=1e-4, atol=1e-4, msg=name)
        with torch.no_grad():
            torch.testing.assert_close(fitted(x), quiet(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("reconstruct", "recalibrate"), [(True, False), (False, True), (True, True)]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_refitting_gives_a_copy_like_the_argument(
    dtype: torch.dtype, reconstruct: bool, recalibrate: bool
) -> None:
    model = enliven(ResNet()).to(dtype).train()
    model.fc.requires_grad_(False)
    groups = trace_groups(model, images(1, 16))
    plan = plan_of(groups, {"stem.0": GONE, "stages.1.conv1": (0, 7)})
    start = absorb_constants(model, groups, plan, images(1, 16))
    x = images(2, 16)
    before, before_start, before_x = snapshot(model), snapshot(start), x.clone()
    fitted = refit(
        model, groups, plan, x, start=start, reconstruct=reconstruct, recalibrate=recalibrate
    )
    check_copy(model, fitted, before)
    assert_untouched(start, before_start)
    assert torch.equal(x, before_x)
    assert all(value.isfinite().all() for value in fitted.state_dict().values())


def test_the_seed_decides_the_positions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("yolox.pruning.reconstruct.MAX_SAMPLES", 64)
    model = enliven(ResNet()).eval()
    groups = trace_groups(model, images(1, 16))
    plan = plan_of(groups, {"stem.0": GONE})
    x = images(2, 16)

    def weights(seed: int) -> Tensor:
        torch.rand(seed + 1)  # the global generator plays no part
        fitted = refit(model, groups, plan, x, seed=seed)
        return torch.cat([p.detach().flatten() for p in fitted.parameters()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_a_convolution_that_runs_twice_is_left_alone() -> None:
    """One set of weights cannot be fitted to two outputs one after the other."""

    class Levels(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 8, 3, 1, 1)
            self.shared = nn.Conv2d(8, 4, 3, 1, 1)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            x = torch.relu(self.first(x))
            return self.shared(x), self.shared(nn.functional.max_pool2d(x, 2))

    model = enliven(Levels()).eval()
    x = images(2, 16)
    groups = trace_groups(model, x[:1])
    plan = plan_of(groups, {"first": (1, 2)})
    fitted = refit(model, groups, plan, x, recalibrate=True)
    kept = [0, 3, 4, 5, 6, 7]
    assert torch.equal(fitted.shared.weight[:, kept], model.shared.weight[:, kept])


@pytest.mark.parametrize(
    "padding",
    [
        "same",
        "valid",
        1,
    ],
)
@pytest.mark.parametrize("groups", [1, 8])
def test_padding_may_be_a_word(padding: str | int, groups: int) -> None:
    model = enliven(
        nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding=padding, groups=groups),
            nn.ReLU(),
            nn.Conv2d(8, 2, 1),
        )
    ).eval()
    x = images(2, 16)
    traced = trace_groups(model, x[:1])
    plan = plan_of(traced, {"0": (1, 2)})
    fitted = refit(model, traced, plan, x)
    with torch.no_grad():
        whole = model(x)
        lost = (apply_plan(model, traced, plan)(x) - whole).square().mean()
        assert (apply_plan(fitted, traced, plan)(x) - whole).square().mean() < lost


# --- all of it


EVERYTHING = {"absorb": True, "reconstruct": 2, "bn_recalibrate": 2}


def check_compensated(model: nn.Module, size: int, seed: int, options: dict) -> None:
    """A compensated model cut is the compensated model masked, for a random plan."""
    before = snapshot(model)
    x = images(2, size)
    groups = trace_groups(model, x[:1])
    plan = random_plan(groups, random.Random(seed))
    config = bare(importance="l1", **options)
    ready, _ = compensate_cut(model, groups, plan, config, x[:1], x)
    small = apply_plan(ready, groups, plan)
    assert verify_plan(ready, groups, plan, images(1, size, seed=7), pruned=small) < 1e-9
    assert all(value.isfinite().all() for value in small.state_dict().values())
    assert_untouched(model, before)


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("name", ["yolox-nano", "yolox-s"])
def test_compensated_then_cut_is_compensated_then_masked(name: str, act: str) -> None:
    spec = dataclasses.replace(SLIM_SPECS[name], act=act)
    check_compensated(enliven(build_model(spec)).eval(), 64, ACTS.index(act), EVERYTHING)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"reconstruct": 2},
        {"reconstruct": 2, "absorb": False},
        {"bn_recalibrate": 2},
        EVERYTHING,
    ],
)
@pytest.mark.parametrize("make", [ResNet, DenseNet, FlatMap])
def test_each_kind_of_compensation_on_other_nets(
    make: Callable[[], nn.Module], options: dict
) -> None:
    for seed in range(4):
        check_compensated(enliven(make()).eval(), 16, seed, options)


@pytest.mark.parametrize("options", [{"reconstruct": 8}, {"bn_recalibrate": 8}])
@pytest.mark.parametrize("given", [None, torch.empty(0, 3, 16, 16)])
def test_refitting_without_images_is_an_error(options: dict, given: Tensor | None) -> None:
    config = bare(importance="l1", **options)
    with pytest.raises(PruningError, match="need real images"):
        prune_model(ResNet(), images(1, 16), config, images=given)


def test_no_compensation_is_the_model_itself() -> None:
    model = enliven(ResNet())
    groups = trace_groups(model, images(1, 16))
    plan = plan_of(groups, {"stem.0": GONE})
    config = bare(importance="l1", absorb=False)
    assert compensate_cut(model, groups, plan, config, images(1, 16), images(2, 16))[0] is model


@pytest.mark.parametrize("option", ["reconstruct", "bn_recalibrate"])
def test_only_as_many_images_as_asked_are_used(option: str) -> None:
    model = enliven(ResNet()).eval()
    groups = trace_groups(model, images(1, 16))
    plan = plan_of(groups, {"stem.0": GONE})
    config = bare(importance="l1", **{option: 2})
    spoilt = torch.cat((images(2, 16), torch.full((3, 3, 16, 16), torch.nan)))
    results = [
        compensate_cut(model, groups, plan, config, images(1, 16), given)[0]
        for given in (spoilt, images(2, 16))
    ]
    assert_untouched(results[0], snapshot(results[1]))


def test_weights_and_batch_norms_each_take_their_number_of_images() -> None:
    model = enliven(ResNet()).eval()
    groups = trace_groups(model, images(1, 16))
    plan = plan_of(groups, {"stem.0": GONE})
    config = bare(importance="l1", absorb=False, reconstruct=2, bn_recalibrate=4)
    both, spoilt = images(2, 16), torch.full((3, 3, 16, 16), torch.nan)
    one, other = (
        compensate_cut(model, groups, plan, config, images(1, 16), torch.cat((both, more, spoilt)))
        for more in (images(2, 16, seed=5), images(2, 16, seed=6))
    )
    first, second = one[0].state_dict(), other[0].state_dict()
    fitted = [n for n, m in model.named_modules() if isinstance(m, nn.Conv2d) and n != "stem.0"]
    changed = [
        name
        for name in fitted
        if not torch.equal(first[f"{name}.weight"], model.get_parameter(f"{name}.weight"))
    ]
    # The first that is fitted reads what no batch norm was corrected for.
    weight = f"{changed[0]}.weight"
    torch.testing.assert_close(first[weight], second[weight], rtol=1e-4, atol=1e-5)
    assert any(not torch.equal(first[n], second[n]) for n in first if "running_mean" in n)
    assert all(value.isfinite().all() for value in first.values())


def test_a_whole_prune_with_compensation_is_verified() -> None:
    model = enliven(build_model(SPECS["yolox-nano"]))
    before = snapshot(model)
    config = bare(importance="lamp", ch_sparsity=0.2, reconstruct=2, bn_recalibrate=2)
    result = prune_model(model, images(1), config, images=images(2))
    assert result.report.difference < 1e-9
    assert isinstance(result.model, YOLOX)
    assert_untouched(model, before)
