"""Time and memory of SimOTA for a batch: ours, batched and sparse, beside a loop over images.

    python benchmarks/assigner.py                     # 16 images, 50 objects each; half a minute
    python benchmarks/assigner.py --profile           # and where our time goes
    python benchmarks/assigner.py --batch 4 --size 1024 --objects 500 2000 --alone  # dense

The loop is the paper's procedure written down plainly: for each image the full cost matrix of
objects × candidate anchors, with cross entropy over (objects, anchors, classes), then a top-k for
each object. Both must find the same matches. They take turns; figures are medians.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import time
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from yolox.models.assigner import Assignment, simota

STRIDES = (8, 16, 32)
CLASSES = 80
Inputs = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


def anchors(size: int) -> tuple[Tensor, Tensor]:
    """Cell columns and rows (A, 2) and strides (A,) of a square input."""
    grids, strides = [], []
    for stride in STRIDES:
        side = torch.arange(size // stride, dtype=torch.float32)
        grids.append(torch.cartesian_prod(side, side).flip(1))
        strides.append(torch.full((len(grids[-1]),), float(stride)))
    return torch.cat(grids), torch.cat(strides)


def inputs(images: int, objects: int, size: int) -> Inputs:
    """Random objects, and predictions that are half right: boxes near the closest object."""
    torch.manual_seed(0)
    grid, stride = anchors(size)
    labels = torch.rand(images, objects, 5)
    labels[..., 0] = (labels[..., 0] * CLASSES).floor()
    labels[..., 1:3] *= size
    labels[..., 3:] = 16 + labels[..., 3:] ** 2 * size / 3
    shape = (images, len(grid))
    center = (grid + torch.rand(*shape, 2)) * stride[:, None]
    guess = torch.cat((center, 8 + torch.rand(*shape, 2) * size / 4), dim=2)
    nearest = torch.cdist(center, labels[..., 1:3]).argmin(dim=2)
    right = labels[..., 1:].gather(1, nearest[..., None].expand(-1, -1, 4))
    right = (right + 4 * torch.randn(*shape, 4)).clamp(min=1)
    box = torch.where(torch.rand(*shape, 1) < 0.5, right, guess)
    return box, torch.randn(shape) - 2, torch.randn(*shape, CLASSES) - 3, grid, stride, labels


def corners(box: Tensor) -> tuple[Tensor, Tensor]:
    return box[..., :2] - box[..., 2:] / 2, box[..., :2] + box[..., 2:] / 2


def loop_one(
    box: Tensor, obj: Tensor, cls: Tensor, grid: Tensor, stride: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """One image: matched anchors (F,), their objects (F,) and IoUs (F,)."""
    distance = (labels[:, None, 1:3] - ((grid + 0.5) * stride[:, None])[None]).abs()
    near = (distance < 1.5 * stride[:, None]).all(dim=2)
    candidates = near.any(dim=0).nonzero().squeeze(1)
    box, obj, cls, near = box[candidates], obj[candidates], cls[candidates], near[:, candidates]

    (low_a, high_a), (low_b, high_b) = corners(labels[:, 1:]), corners(box)
    low = torch.maximum(low_a[:, None], low_b[None])
    high = torch.minimum(high_a[:, None], high_b[None])
    overlap = (high - low).clamp(min=0).prod(dim=2)
    union = labels[:, 3:].prod(dim=1)[:, None] + box[:, 2:].prod(dim=1)[None] - overlap
    iou = overlap / union

    probability = (cls.sigmoid() * obj.sigmoid()[:, None]).sqrt()
    target = F.one_hot(labels[:, 0].long(), cls.shape[1]).float()
    entropy = F.binary_cross_entropy(
        probability[None].expand(len(labels), -1, -1),
        target[:, None].expand(-1, len(candidates), -1),
        reduction="none",
    ).sum(dim=2)
    cost = entropy - 3 * (iou + 1e-8).log() + 1e6 * ~near

    matching = torch.zeros_like(near)
    k = iou.topk(min(10, len(candidates)), dim=1).values.sum(dim=1).int().clamp(min=1)
    for row in range(len(labels)):
        cheapest = cost[row].topk(int(k[row]), largest=False).indices
        matching[row, cheapest] = True
    contested = matching.sum(dim=0) > 1
    if contested.any():
        winner = cost[:, contested].argmin(dim=0)
        matching[:, contested] = False
        matching[winner, contested] = True
    slot = matching.any(dim=0).nonzero().squeeze(1)
    gt = matching[:, slot].int().argmax(dim=0)
    return candidates[slot], gt, iou[gt, slot]


@torch.no_grad()
def loop(
    box: Tensor, obj: Tensor, cls: Tensor, grid: Tensor, stride: Tensor, labels: Tensor
) -> Assignment:
    """SimOTA image by image."""
    foreground = torch.zeros_like(obj, dtype=torch.bool)
    matched_gt = torch.zeros_like(obj, dtype=torch.int64)
    matched_iou = torch.zeros_like(obj)
    for b in range(len(box)):
        real = labels[b][(labels[b, :, 3:] > 0).all(dim=1)]
        if not len(real):
            continue
        anchor, gt, iou = loop_one(box[b], obj[b], cls[b], grid, stride, real)
        foreground[b, anchor] = True
        matched_gt[b, anchor] = gt
        matched_iou[b, anchor] = iou
    return Assignment(foreground, matched_gt, matched_iou)


def assert_same(a: Assignment, b: Assignment) -> int:
    """The number of foreground anchors; AssertionError if the two differ in any match."""
    assert torch.equal(a.foreground_BA, b.foreground_BA)
    assert torch.equal(a.gt_BA, b.gt_BA)
    torch.testing.assert_close(a.iou_BA, b.iou_BA)
    return int(a.foreground_BA.sum())


def in_turn(calls: Sequence[Callable[[], object]], seconds: float) -> list[list[float]]:
    """Seconds of each call, taking turns (A B A B …) for about ``seconds`` in all."""
    for call in calls:
        call()
    times: list[list[float]] = [[] for _ in calls]
    stop = time.perf_counter() + seconds
    while time.perf_counter() < stop or not times[0]:
        for call, taken in zip(calls, times, strict=True):
            start = time.perf_counter()
            call()
            taken.append(time.perf_counter() - start)
    return times


def peak_megabytes(call: Callable[[], object]) -> float:
    """The most memory (MB) that tensors made inside the call held at once."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        call()
    held = most = 0
    for event in sorted(recorded.profiler.kineto_results.events(), key=lambda e: e.start_ns()):
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most / 1e6


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--objects", type=int, nargs="+", default=[5, 50])
    parser.add_argument("--size", type=int, default=640)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=12.0, help="for each number of objects")
    parser.add_argument("--alone", action="store_true", help="without the loop, which needs GBs")
    parser.add_argument("--profile", action="store_true")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    print(f"{args.batch} images of {args.size} × {args.size}, {CLASSES} classes")
    print("| objects an image | matches | loop | ours | ratio | loop memory | ours |")
    print("|---|---|---|---|---|---|---|")
    for objects in args.objects:
        data = inputs(args.batch, objects, args.size)
        own = functools.partial(simota, *data)
        calls = [own] if args.alone else [functools.partial(loop, *data), own]
        matches = assert_same(calls[0](), own())
        *slow, fast = (statistics.median(taken) for taken in in_turn(calls, args.seconds))
        *large, small = (f"{peak_megabytes(call):.0f} MB" for call in calls)
        ratio = f"{slow[0] / fast:.1f} ×" if slow else "–"
        loop_time = f"{slow[0] * 1e3:.0f} ms" if slow else "–"
        print(
            f"| {objects} | {matches} | {loop_time} | {fast * 1e3:.1f} ms | {ratio} "
            f"| {large[0] if large else '–'} | {small} |",
            flush=True,
        )
    if args.profile:
        with profile(activities=[ProfilerActivity.CPU]) as recorded:
            for _ in range(5):
                simota(*data)
        print(recorded.key_averages().table(sort_by="self_cpu_time_total", row_limit=20))


if __name__ == "__main__":
    main()
