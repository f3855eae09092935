"""Prunes by a criterion of one's own: python examples/custom_criterion.py [best_ckpt.pth].

A criterion gives every slot of every group a number, small for what may go. A slot is a channel
with all that is coupled to it, as the two sides of a residual addition. To the one here, a channel
matters little if it is weakly made or weakly read: it takes the norm of the filters that make it,
times that of the weights that read it. Without a checkpoint, an untrained model is pruned.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

import yolox
from yolox.models import ModelSpec, build_model, checkpoint_payload, load_model
from yolox.pruning import Group, PruneConfig, plan_pruning, trace_groups
from yolox.utils.checkpoint import save_checkpoint


def made_and_read(model: nn.Module, groups: Sequence[Group]) -> list[Tensor]:
    """Scores (slots,) of each group."""
    scores = []
    for group in groups:
        squares = {"out": torch.zeros(group.size), "in": torch.zeros(group.size)}
        for member in group.members:
            weight = model.get_parameter(f"{member.name}.weight").detach()
            if weight.dim() == 1:
                continue  # a batch norm
            # A convolution's weight is (out, in, height, width).
            channels = weight if member.axis == "out" else weight.transpose(0, 1)
            norms = channels.flatten(1).square().sum(dim=1)
            # A slot stands for one channel of a layer or, behind a flattening, for several.
            squares[member.axis] += norms[torch.from_numpy(member.index)].sum(dim=1)
        product = (squares["out"] * squares["in"]).sqrt()
        scores.append(product / product.mean())  # so that layers compare, whatever their scale
    return scores


def random_checkpoint(path: Path) -> Path:
    """An untrained model in a file."""
    torch.manual_seed(0)
    spec = ModelSpec(depth=0.33, width=0.125, num_classes=3, input_size=(128, 128))
    save_checkpoint(path, checkpoint_payload(build_model(spec), spec))
    return path


def main(folder: Path, checkpoint: Path | None = None) -> None:
    """Plan with the criterion, then prune, verify and save as with any other."""
    source = checkpoint or random_checkpoint(folder / "random.pth")
    loaded = load_model(source)
    model = loaded.model.eval()
    example = torch.rand(1, 3, *loaded.spec.input_size)
    groups = trace_groups(model, example)
    config = PruneConfig(target="macs=0.5", rounds=1)
    plan = plan_pruning(model, groups, config, count_input=example, scorer=made_and_read)
    # An Exp as second argument gives training images to refit the remaining layers on.
    output = folder / "pruned.pth"
    record = yolox.prune(source, plan=plan, output=output, importance="l1", overwrite=True)
    print("MACs {} → {}:".format(*record.report.macs), record.path)


if __name__ == "__main__":
    output = Path("YOLOX_outputs/custom_criterion")
    output.mkdir(parents=True, exist_ok=True)
    main(output, Path(sys.argv[1]) if len(sys.argv) > 1 else None)
