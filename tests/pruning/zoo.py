"""Small networks with every op that a trace of channels may get wrong, and some that it may not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

C = 8  # channels of each layer
Op = Callable[[Tensor], Tensor]


def unit(cin: int, cout: int, kernel: int = 3, act: nn.Module | None = None) -> nn.Sequential:
    conv = nn.Conv2d(cin, cout, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(cout), act or nn.SiLU())


class Wrap(nn.Module):
    """An op, or a module, between two convolutions; a second path stays free of it."""

    def __init__(self, op: Op, *, out: int = C) -> None:
        super().__init__()
        self.a, self.b, self.o = unit(3, C), unit(out, C), nn.Conv2d(C, 5, 1)
        self.op = op

    def forward(self, x: Tensor) -> Any:
        return self.o(self.b(self.op(self.a(x))))


class Moded(Wrap):
    """The op in one mode only."""

    def __init__(self, op: Op, *, training: bool) -> None:
        super().__init__(op)
        self.when = training

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        return self.o(self.b(self.op(y) if self.training == self.when else y))


class ExpBeside(Wrap):
    """Sizes as exponentials beside scores."""

    def __init__(self, op: Op) -> None:
        super().__init__(op)
        self.c, self.size = unit(C, C), nn.Conv2d(C, 2, 1)
        nn.init.constant_(self.size.bias, 25.0)

    def forward(self, x: Tensor) -> Tensor:
        y = self.b(self.a(x))
        return torch.cat([self.size(y).exp(), self.o(self.c(self.op(y))).sigmoid()], 1)


class Deep(Wrap):
    """Untrained and deep, so that the signal dies out."""

    def __init__(self, op: Op, *, norm: bool, pooled: bool = False) -> None:
        super().__init__(op)
        plain = [nn.Sequential(nn.Conv2d(C, C, 3, padding=1), nn.ReLU()) for _ in range(6)]
        self.body = nn.Sequential(*([unit(C, C) for _ in range(6)] if norm else plain))
        self.pool = unit(C, C, 1) if pooled else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(self.b(self.op(self.a(x))))
        return self.o(y if self.pool is None else y + self.pool(y.mean((2, 3), keepdim=True)))


class Residual(Wrap):
    """A branch with the op, added with a weight that may be zero."""

    def __init__(self, op: Op, *, weight: str) -> None:
        super().__init__(op)
        self.alpha = nn.Parameter(torch.tensor(0.0 if weight == "rezero" else 1.0))
        self.c = unit(C, C)
        if weight == "gamma":
            nn.init.zeros_(self.c[1].weight)
        if weight == "dead":
            self.c[2] = nn.ReLU()
            nn.init.constant_(self.c[1].bias, -1e3)
        if weight == "conv":
            nn.init.zeros_(self.c[0].weight)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        return self.o(y + self.alpha * self.c(self.op(self.b(y))))


class ZeroHead(Wrap):
    """A last layer of zeros."""

    def __init__(self, op: Op) -> None:
        super().__init__(op)
        nn.init.zeros_(self.o.weight)


class Attention(nn.Module):
    """Channels attend to channels, or positions to positions."""

    def __init__(self, *, over_channels: bool, sharp: float = 1.0) -> None:
        super().__init__()
        self.over_channels, self.sharp = over_channels, sharp

    def forward(self, x: Tensor) -> Tensor:
        q = x.flatten(2) if self.over_channels else x.flatten(2).transpose(1, 2)
        y = (self.sharp * q @ q.transpose(1, 2)).softmax(-1) @ q
        return (y if self.over_channels else y.transpose(1, 2)).reshape(x.shape)


class Squeeze(nn.Module):
    """Squeeze and excite."""

    def __init__(self, *, mixed: bool = False) -> None:
        super().__init__()
        self.down, self.up, self.mixed = nn.Conv2d(C, 4, 1), nn.Conv2d(4, C, 1), mixed

    def forward(self, x: Tensor) -> Tensor:
        gate = self.up(self.down(x.mean((2, 3), keepdim=True)).relu()).sigmoid()
        return x * (gate.flip(1) if self.mixed else gate)


class Neighbours(nn.Module):
    """Efficient channel attention: a convolution along the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.conv(x.mean((2, 3))[:, None]).sigmoid()[:, 0, :, None, None]


class Spatial(nn.Module):
    """Spatial attention from the mean and the maximum over channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
        return x * self.conv(y).sigmoid()


class Scaled(nn.Module):
    """A parameter of the module's own on each channel, or one for all."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(shape))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class Mixing(nn.Module):
    """A matrix of the module's own over the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.eye(C))

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("nchw,cd->ndhw", x, self.matrix)


class Reordered(torch.autograd.Function):
    """A flip that the graph cannot look into."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.flip(1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad.flip(1)


class Flat(nn.Module):
    """A linear layer on a flattened map, in the right or in another order."""

    def __init__(self, *, channels_last: bool) -> None:
        super().__init__()
        self.a, self.channels_last = unit(3, C), channels_last
        self.fc, self.o = nn.Linear(C * 16, 12), nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = F.adaptive_avg_pool2d(self.a(x), 4)
        y = y.permute(0, 2, 3, 1) if self.channels_last else y
        return self.o(self.fc(y.flatten(1)).relu())


class Tied(nn.Module):
    """Two layers with one weight, by parameter or by use."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.a, self.b, self.c = unit(3, C), unit(C, C), unit(C, C)
        self.d, self.o, self.how = unit(C, C), nn.Conv2d(C, 5, 1), how
        if how == "parameter":
            self.c[0].weight = self.b[0].weight
        if how == "storage":
            self.c[0].weight = nn.Parameter(self.b[0].weight.data)
        if how == "norm":
            self.c[1] = self.b[1]
        if how == "module":
            self.c = self.b

    def forward(self, x: Tensor) -> Tensor:
        y = self.d(self.c(self.b(self.a(x))))
        if self.how == "transposed":
            y = F.conv_transpose2d(y, self.b[0].weight, padding=1)
        return self.o(y)


class Auxiliary(nn.Module):
    """A head that runs in training only, takes part then, or never."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.a, self.b, self.o = unit(3, C), unit(C, C), nn.Conv2d(C, 5, 1)
        self.aux, self.how = nn.Conv2d(C, 5, 1), how

    def forward(self, x: Tensor) -> Any:
        y = self.a(x)
        z = self.o(self.b(y))
        if self.how == "outputs" and self.training:
            return {"main": z, "aux": [self.aux(y), None]}
        if self.how == "added" and self.training:
            return z + self.aux(y)
        if self.how == "detached":
            with torch.no_grad():
                side = self.aux(y)
            return z + side
        return z


class Targets(nn.Module):
    """A detector that wants more than images as it trains."""

    def __init__(self, op: Op) -> None:
        super().__init__()
        self.body = Wrap(op)

    def forward(self, x: Tensor, targets: Tensor | None = None) -> Tensor:
        if self.training and targets is None:
            raise ValueError("no targets")
        return self.body(x)


class Outputs(nn.Module):
    """Features that are read inside and returned as well, with values that are no tensors."""

    def __init__(self, *, inner: bool) -> None:
        super().__init__()
        self.a, self.b, self.o, self.inner = unit(3, C), unit(C, C), nn.Conv2d(C, 5, 1), inner

    def forward(self, x: Tensor) -> Any:
        y = self.a(x)
        z = self.o(self.b(y))
        return {"z": (z, z.mean())} | ({"y": y} if self.inner else {})


class Dropped(nn.Module):
    """Dropout as a function; a judge may set `p` to 0."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.p, self.function = 0.5, function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, self.p, self.training)


class StochasticDepth(nn.Module):
    """One image's branch or another's is left out."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = unit(C, C)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return x + y * (torch.rand(len(x), 1, 1, 1) < 0.5) if self.training else x + y


class Attentive(nn.Module):
    """PyTorch's multi-head attention over positions."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.MultiheadAttention(C, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        q = x.flatten(2).transpose(1, 2)
        return self.inner(q, q, q, need_weights=False)[0].transpose(1, 2).reshape(x.shape)


class Standardised(nn.Conv2d):
    """Weights without mean and of one size."""

    def forward(self, x: Tensor) -> Tensor:
        w = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(x, w / w.std((1, 2, 3), keepdim=True), padding=1)


def with_layer(layer: nn.Module) -> Wrap:
    net = Wrap(nn.Identity())
    net.b[0] = layer
    return net


def parametrized(how: Callable[[nn.Module], nn.Module]) -> Wrap:
    return with_layer(how(nn.Conv2d(C, C, 3, padding=1)))


def longer(how: Callable[[nn.Module], nn.Module]) -> nn.Module:
    """One parametrized layer among others."""
    return nn.Sequential(
        unit(3, C), parametrized(how).b, unit(C, C), unit(C, C), nn.Conv2d(C, 5, 1)
    )


def masked_weight(layer: nn.Module) -> nn.Module:
    return prune.l1_unstructured(layer, "weight", amount=0.3)


def conv3() -> nn.Conv2d:
    return nn.Conv2d(C, C, 3, padding=1)


def shuffle(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return x.view(n, 2, -1, h, w).transpose(1, 2).reshape(n, c, h, w)


def gate_of(function: Op) -> Op:
    return lambda x: x * function(x)


def signed(x: Tensor) -> Tensor:
    return x.flip(1) if x.mean() > 0 else x


def zero_first(x: Tensor) -> Tensor:
    x = x.clone()
    x[:, 0] = 0
    return x


def per_channel(x: Tensor) -> Tensor:
    kernel = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]], dtype=x.dtype) / 16
    return F.conv2d(x, kernel.expand(x.shape[1], 1, 3, 3), padding=1, groups=x.shape[1])


def padded(x: Tensor) -> Tensor:
    return F.pad(x, (0, 0, 0, 0, 2, 2))[:, 1:-3]


def numbered(x: Tensor) -> Tensor:
    return x + torch.arange(x.shape[1], dtype=x.dtype)[:, None, None]


def by_size(x: Tensor) -> Tensor:
    return x.flip(1) if x.shape[2] < 16 else x


ORDER = torch.randperm(C, generator=torch.Generator().manual_seed(3))
HALF = torch.arange(C) % 2 == 0

# Refused or pruned right, whichever: what is traced better later may be pruned then.
DOUBTFUL: dict[str, Callable[[], nn.Module]] = {
    "flip": lambda: Wrap(lambda x: x.flip(1)),
    "roll": lambda: Wrap(lambda x: x.roll(1, 1)),
    "index": lambda: Wrap(lambda x: x[:, ORDER]),
    "index backwards": lambda: Wrap(lambda x: x[:, torch.arange(x.shape[1] - 1, -1, -1)]),
    "index_select": lambda: Wrap(lambda x: x.index_select(1, ORDER)),
    "gather": lambda: Wrap(lambda x: x.gather(1, x.argsort(1))),
    "boolean mask": lambda: Wrap(lambda x: x[:, HALF], out=C // 2),
    "where by channel": lambda: Wrap(lambda x: torch.where(HALF[:, None, None], x, -x)),
    "every second": lambda: Wrap(lambda x: x[:, ::2], out=C // 2),
    "shuffle": lambda: Wrap(shuffle),
    "nn.ChannelShuffle": lambda: Wrap(nn.ChannelShuffle(2)),
    "fold into rows": lambda: Wrap(
        lambda x: (
            x.reshape(len(x), -1, *x.shape[2:]).unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2)
        )
    ),
    "channels and rows swapped": lambda: Wrap(
        lambda x: x.reshape(len(x), x.shape[2], -1, x.shape[3]).transpose(1, 2)
    ),
    "space to depth": lambda: Wrap(lambda x: F.pixel_unshuffle(x, 2), out=4 * C),
    "depth to space": lambda: Wrap(lambda x: F.pixel_shuffle(x, 2), out=C // 4),
    "swapped halves": lambda: Wrap(lambda x: torch.cat(x.chunk(2, 1)[::-1], 1)),
    "maxout": lambda: Wrap(lambda x: torch.maximum(*x.chunk(2, 1)), out=C // 2),
    "glu": lambda: Wrap(lambda x: F.glu(x, 1), out=C // 2),
    "flip beside": lambda: Wrap(lambda x: torch.cat([x, x.flip(1)], 1), out=2 * C),
    "product with its flip": lambda: Wrap(lambda x: x * x.flip(1)),
    "softmax": lambda: Wrap(lambda x: x.softmax(1)),
    "log softmax": lambda: Wrap(lambda x: x.log_softmax(1)),
    "gate by the mean": lambda: Wrap(gate_of(lambda x: x.mean(1, keepdim=True).sigmoid())),
    "gate by the maximum": lambda: Wrap(gate_of(lambda x: x.amax(1, keepdim=True))),
    "gate by the median": lambda: Wrap(gate_of(lambda x: x.median(1, keepdim=True).values)),
    "hard gate": lambda: Wrap(gate_of(lambda x: (1e6 * x.mean(1, keepdim=True)).sigmoid())),
    "gate by a step": lambda: Wrap(gate_of(lambda x: (x.sum(1, keepdim=True) > 0).to(x.dtype))),
    "scaled by the number of channels": lambda: Wrap(lambda x: x * x.shape[1] ** -0.5),
    "is the maximum": lambda: Wrap(gate_of(lambda x: (x == x.amax(1, keepdim=True)).to(x.dtype))),
    "sort": lambda: Wrap(lambda x: x.sort(1).values),
    "top 4": lambda: Wrap(lambda x: x.topk(4, 1).values, out=4),
    "kept top 4": lambda: Wrap(gate_of(lambda x: (x >= x.topk(4, 1).values[:, -1:]).to(x.dtype))),
    "second largest": lambda: Wrap(gate_of(lambda x: x.kthvalue(2, 1, keepdim=True).values)),
    "cumulative sum": lambda: Wrap(lambda x: x.cumsum(1)),
    "cumulative product": lambda: Wrap(lambda x: x.tanh().cumprod(1)),
    "cumulative maximum": lambda: Wrap(lambda x: x.cummax(1).values),
    "differences": lambda: Wrap(lambda x: torch.diff(x, dim=1, prepend=x[:, -1:])),
    "Gram": lambda: Wrap(
        lambda x: (x.flatten(2) @ x.flatten(2).mT @ x.flatten(2)).reshape(x.shape)
    ),
    "channel attention": lambda: Wrap(Attention(over_channels=True)),
    "sharp channel attention": lambda: Wrap(Attention(over_channels=True, sharp=1e3)),
    "positions attend": lambda: Wrap(Attention(over_channels=False)),
    "multi-head attention": lambda: Wrap(Attentive()),
    "normalised": lambda: Wrap(lambda x: F.normalize(x, dim=1)),
    "standardised": lambda: Wrap(lambda x: x / x.std(1, keepdim=True)),
    "layer norm": lambda: Wrap(lambda x: F.layer_norm(x, x.shape[1:])),
    "nn.LayerNorm": lambda: Wrap(nn.LayerNorm([C, 16, 16])),
    "group norm": lambda: Wrap(nn.GroupNorm(2, C)),
    "group norm of one": lambda: Wrap(nn.GroupNorm(1, C, affine=False)),
    "local response": lambda: Wrap(nn.LocalResponseNorm(3)),
    "numbered": lambda: Wrap(numbered),
    "faint numbers": lambda: Wrap(lambda x: x + 1e-6 * numbered(torch.zeros_like(x))),
    "padded channels": lambda: Wrap(padded),
    "first channel zeroed": lambda: Wrap(zero_first),
    "Fourier over channels": lambda: Wrap(lambda x: torch.fft.fft(x, dim=1).real),
    "pooled over channels": lambda: Wrap(
        lambda x: F.avg_pool3d(x[:, None], (3, 1, 1), 1, (1, 0, 0))[:, 0]
    ),
    "a function of its own": lambda: Wrap(Reordered.apply),
    "a flip behind detach": lambda: Wrap(lambda x: x + x.detach().flip(1)),
    "sign of the mean": lambda: Wrap(signed),
    "by an item": lambda: Wrap(lambda x: x * float(x.mean().item())),
    "neighbours": lambda: Wrap(Neighbours()),
    "spatial attention": lambda: Wrap(Spatial()),
    "mixed gate": lambda: Wrap(Squeeze(mixed=True)),
    "layer scale": lambda: Wrap(Scaled(C, 1, 1)),
    "a matrix": lambda: Wrap(Mixing()),
    "smaller size": lambda: Wrap(by_size),
    "training only": lambda: Moded(lambda x: x.flip(1), training=True),
    "evaluation only": lambda: Moded(lambda x: x.flip(1), training=False),
    "random channels as it trains": lambda: Moded(
        lambda x: x[:, torch.randperm(x.shape[1])], training=True
    ),
    "noise as it trains": lambda: Moded(lambda x: x + torch.randn_like(x), training=True),
    "flip beside exponentials": lambda: ExpBeside(lambda x: x.flip(1)),
    "flip, deep": lambda: Deep(lambda x: x.flip(1), norm=True),
    "flip, deep, pooled": lambda: Deep(lambda x: x.flip(1), norm=True, pooled=True),
    "flip, deep, no norm": lambda: Deep(lambda x: x.flip(1), norm=False),
    "flip, rezero": lambda: Residual(lambda x: x.flip(1), weight="rezero"),
    "flip, gamma 0": lambda: Residual(lambda x: x.flip(1), weight="gamma"),
    "flip, dead": lambda: Residual(lambda x: x.flip(1), weight="dead"),
    "flip, zero weights": lambda: Residual(lambda x: x.flip(1), weight="conv"),
    "flip, zero head": lambda: ZeroHead(lambda x: x.flip(1)),
    "flip, with targets": lambda: Targets(lambda x: x.flip(1)),
    "flattened otherwise": lambda: Flat(channels_last=True),
    "tied and transposed": lambda: Tied("transposed"),
    "head as it trains": lambda: Auxiliary("outputs"),
    "head added as it trains": lambda: Auxiliary("added"),
    "head behind no_grad": lambda: Auxiliary("detached"),
    "head never used": lambda: Auxiliary("never"),
    "inner features returned": lambda: Outputs(inner=True),
    "standardised weights": lambda: with_layer(Standardised(C, C, 3)),
    "weight norm": lambda: parametrized(parametrizations.weight_norm),
    "spectral norm": lambda: parametrized(parametrizations.spectral_norm),
    "orthogonal": lambda: parametrized(parametrizations.orthogonal),
    "weight norm by a hook": lambda: parametrized(nn.utils.weight_norm),
    "spectral norm by a hook": lambda: parametrized(nn.utils.spectral_norm),
    "one masked weight of many": lambda: longer(masked_weight),
    "masked weights": lambda: parametrized(masked_weight),
}

# What a trace follows: these must be pruned.
RIGHT: dict[str, Callable[[], nn.Module]] = {
    "plain": lambda: Wrap(nn.Identity()),
    "PReLU": lambda: Wrap(nn.PReLU()),
    "PReLU by channel": lambda: Wrap(nn.PReLU(C)),
    "one PReLU everywhere": lambda: nn.Sequential(
        unit(3, C, act=(p := nn.PReLU())), unit(C, 6, act=p), nn.Conv2d(6, 5, 1)
    ),
    "dropout": lambda: Wrap(nn.Dropout(0.5)),
    "dropout of channels": lambda: Wrap(nn.Dropout2d(0.5)),
    "alpha dropout": lambda: Wrap(nn.AlphaDropout(0.5)),
    "dropout as a function": lambda: Wrap(Dropped(F.dropout)),
    "channel dropout as a function": lambda: Wrap(Dropped(F.dropout2d)),
    "random slopes": lambda: Wrap(nn.RReLU()),
    "stochastic depth": lambda: Wrap(StochasticDepth()),
    "squeeze and excite": lambda: Wrap(Squeeze()),
    "softmax over space": lambda: Wrap(lambda x: x.flatten(2).softmax(2).view_as(x)),
    "mirrored picture": lambda: Wrap(lambda x: x.flip(3).roll(2, 2)),
    "transposed picture": lambda: Wrap(lambda x: x.transpose(2, 3)),
    "Fourier over space": lambda: Wrap(lambda x: torch.fft.fft2(x).real),
    "pooled and enlarged": lambda: Wrap(
        lambda x: F.interpolate(F.max_pool2d(x, 2), scale_factor=2)
    ),
    "rounded": lambda: Wrap(lambda x: (x * 8).round() / 8),
    "in place": lambda: Wrap(lambda x: x.mul_(2).relu_()),
    "instance norm": lambda: Wrap(nn.InstanceNorm2d(C)),
    "batch norm without statistics": lambda: Wrap(nn.BatchNorm2d(C, track_running_stats=False)),
    "one scale": lambda: Wrap(Scaled(1)),
    "depthwise": lambda: with_layer(
        nn.Sequential(nn.Conv2d(C, C, 3, padding=1, groups=C), conv3())
    ),
    "grouped": lambda: Wrap(
        nn.Sequential(unit(C, C), nn.Conv2d(C, C, 3, padding=1, groups=2), conv3())
    ),
    "transposed": lambda: Wrap(nn.Sequential(nn.ConvTranspose2d(C, C, 2, 2), conv3())),
    "flattened": lambda: Flat(channels_last=False),
    "rezero": lambda: Residual(nn.Identity(), weight="rezero"),
    "gamma 0": lambda: Residual(nn.Identity(), weight="gamma"),
    "dead": lambda: Residual(nn.Identity(), weight="dead"),
    "zero head": lambda: ZeroHead(nn.Identity()),
    "deep": lambda: Deep(nn.Identity(), norm=True, pooled=True),
    "deep, no norm": lambda: Deep(nn.Identity(), norm=False),
    "exponentials": lambda: ExpBeside(nn.Identity()),
    "with targets": lambda: Targets(nn.Identity()),
    "tied": lambda: Tied("parameter"),
    "tied by storage": lambda: Tied("storage"),
    "one norm twice": lambda: Tied("norm"),
    "one unit twice": lambda: Tied("module"),
    "tensors made on the way": lambda: Wrap(lambda x: x * torch.ones(x.shape[2:]) + torch.zeros(1)),
    "made on the way and joined": lambda: Wrap(
        lambda x: torch.cat([x, torch.ones(len(x), 2, *x.shape[2:])], 1), out=C + 2
    ),
    "several outputs": lambda: Outputs(inner=False),
    "one weight norm of many": lambda: longer(parametrizations.weight_norm),
    "one spectral norm of many": lambda: longer(parametrizations.spectral_norm),
}
