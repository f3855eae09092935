"""Prunes a network that is not this project's: python examples/prune_your_own_module.py.

Any module that can be run on an example input will do. The network here is a small classifier with
a residual connection, whose layers have to lose the same channels; which ones depend on which is
found by tracing. It is trained on noise with a bright quarter, pruned, and restored from its file.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from yolox.pruning import PruneConfig, PruningPlan, apply_plan, prune_model, trace_groups

Batch = tuple[Tensor, Tensor]


class Classifier(nn.Module):
    """Which quarter of an image is bright, with a residual block."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32))
        self.block = nn.Sequential(
            nn.Conv2d(32, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU(),
            nn.Conv2d(64, 32, 3, 1, 1, bias=False), nn.BatchNorm2d(32),
        )  # fmt: skip
        self.classify = nn.Linear(32 * 16, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, 3, 32, 32) → logits (B, 4)."""
        x = self.stem(x).relu()
        x = (x + self.block(x)).relu()
        return self.classify(F.adaptive_avg_pool2d(x, 4).flatten(1))


def make_batch(generator: torch.Generator) -> Batch:
    """Images (32, 3, 32, 32) and the quarter that is bright in each."""
    x, y = torch.rand(32, 3, 32, 32, generator=generator), torch.arange(32) % 4
    for image, quarter in zip(x, y.tolist(), strict=True):
        top, left = 16 * (quarter // 2), 16 * (quarter % 2)
        image[:, top : top + 16, left : left + 16] += 0.3
    return x, y


def loss(model: nn.Module, batch: Batch) -> Tensor:
    """What the network is trained with, and what its channels are scored by."""
    return F.cross_entropy(model(batch[0]), batch[1])


def train(model: nn.Module, batches: list[Batch]) -> None:
    """One pass over the batches."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for batch in batches:
        optimizer.zero_grad()
        loss(model.train(), batch).backward()
        optimizer.step()
    model.eval()


def main(folder: Path) -> None:
    """Train, prune, fine-tune, save, restore."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    batches, unseen = [make_batch(generator) for _ in range(40)], make_batch(generator)
    model, example = Classifier(), torch.rand(1, 3, 32, 32)
    train(model, batches)

    config = PruneConfig(importance="taylor", target="macs=0.4", round_to=4, reconstruct=32)
    images = batches[0][0]
    result = prune_model(model, example, config, batches=batches[:8], loss=loss, images=images)
    print("MACs {} → {}".format(*result.report.macs))
    print(f"loss {loss(model, unseen):.4f} → {loss(result.model, unseen):.4f}")
    train(result.model, batches)
    print(f"after fine-tuning {loss(result.model, unseen):.4f}")

    # The plan says which channels went, so the weights fit a new network that it is applied to.
    torch.save(result.model.state_dict(), folder / "pruned.pth")
    result.plan.save(folder / "plan.json")
    whole = Classifier().eval()
    plan = PruningPlan.load(folder / "plan.json")
    restored = apply_plan(whole, trace_groups(whole, example), plan)
    restored.load_state_dict(torch.load(folder / "pruned.pth", weights_only=True))
    print("restored:", torch.equal(restored(unseen[0]), result.model(unseen[0])))


if __name__ == "__main__":
    output = Path("YOLOX_outputs/own_module")
    output.mkdir(parents=True, exist_ok=True)
    main(output)
