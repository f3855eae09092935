"""Training steps on the CPU, forward, loss, backward, update: images a second, ours and plain.

    python benchmarks/train_step.py                   # nano, tiny, s; a minute and a half
    python benchmarks/train_step.py yolox-nano --profile
    MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=4294967296 \
        python benchmarks/train_step.py               # freed memory kept for the next step (glibc)

All run the same model with the same weights on the same batch, and take turns; medians. The
baseline is float32 in PyTorch's default layout (NCHW), SimOTA in a loop over images
(`benchmarks/assigner.py`), and an SGD update parameter by parameter; ours are channels-last, the
batched SimOTA and the fused update, in float32 and in bf16 autocast. All count the update in.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable, Sequence
from unittest import mock

import torch
from assigner import loop
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from yolox.core.optim import build_sgd
from yolox.exp import get_exp
from yolox.models import build_model

SGD = {"lr": 1e-4, "momentum": 0.9, "weight_decay": 5e-4}
Step = Callable[[], Tensor]


def batch(images: int, objects: int, size: int) -> tuple[Tensor, Tensor]:
    """Noise (B, 3, H, W) with random objects (B, G, 5)."""
    torch.manual_seed(0)
    labels = torch.zeros(images, objects, 5)
    labels[..., 0] = torch.randint(0, 80, (images, objects))
    labels[..., 1:3] = torch.rand(images, objects, 2) * size
    labels[..., 3:] = 10 + torch.rand(images, objects, 2) * size / 3
    return torch.rand(images, 3, size, size) * 255, labels


def update(loss: Tensor, optimizer: torch.optim.Optimizer) -> Tensor:
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss.detach()


def plain_step(model: nn.Module, images: Tensor, labels: Tensor) -> Step:
    model = copy.deepcopy(model)
    optimizer = torch.optim.SGD(model.parameters(), nesterov=True, foreach=False, **SGD)

    def step() -> Tensor:
        with mock.patch("yolox.models.losses.simota", loop):
            loss = model(images, labels)["total_loss"]
        return update(loss, optimizer)

    return step


def our_step(model: nn.Module, images: Tensor, labels: Tensor, *, half: bool) -> Step:
    model = copy.deepcopy(model).to(memory_format=torch.channels_last)
    images = images.to(memory_format=torch.channels_last)
    optimizer = build_sgd(model, **SGD)

    def step() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss = model(images, labels)["total_loss"]
        return update(loss, optimizer)

    return step


def in_turn(steps: Sequence[Step], seconds: float) -> list[float]:
    """Median seconds of each step, taking turns (A B C A B C …) for about ``seconds`` in all."""
    times: list[list[float]] = [[] for _ in steps]
    stop = time.perf_counter() + seconds
    while time.perf_counter() < stop or len(times[0]) < 3:
        for step, taken in zip(steps, times, strict=True):
            start = time.perf_counter()
            step()
            taken.append(time.perf_counter() - start)
    return [statistics.median(taken) for taken in times]


def measure(name: str, args: argparse.Namespace) -> None:
    images, labels = batch(args.batch, args.objects, args.size)
    model = build_model(get_exp(None, name).model_spec()).train()
    steps = (
        plain_step(model, images, labels),
        our_step(model, images, labels, half=False),
        our_step(model, images, labels, half=True),
    )
    first = [step() for step in steps]  # also warms up
    torch.testing.assert_close(first[1], first[0], rtol=1e-4, atol=0)
    torch.testing.assert_close(first[2], first[0], rtol=0.05, atol=0)
    plain, full, half = (args.batch / seconds for seconds in in_turn(steps, args.seconds))
    print(
        f"| {name} | {plain:.1f} | {full:.1f} | {full / plain:.2f} × "
        f"| {half:.1f} | {half / plain:.2f} × |",
        flush=True,
    )
    if args.profile:
        with profile(activities=[ProfilerActivity.CPU]) as recorded:
            for _ in range(3):
                steps[2]()
        print(recorded.key_averages().table(sort_by="self_cpu_time_total", row_limit=25))


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=["yolox-nano", "yolox-tiny", "yolox-s"])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--objects", type=int, default=10, help="an image")
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=25.0, help="for each model")
    parser.add_argument("--profile", action="store_true")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    print(f"images a second, batch {args.batch}, {args.size} × {args.size}, {args.threads} threads")
    print("| model | baseline | ours, fp32 | ratio | ours, bf16 | ratio |")
    print("|---|---|---|---|---|---|")
    for name in args.models:
        measure(name, args)


if __name__ == "__main__":
    main()
