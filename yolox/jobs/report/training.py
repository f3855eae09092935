"""What a checkpoint says of its training, and what of its file is of use to a training alone."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch

from yolox.models import LoadedModel

__all__ = ["training_bytes", "training_facts"]


def training_facts(loaded: LoadedModel) -> str:
    """For how long it was trained and from what, as far as the file tells."""
    recipe, source = loaded.content.get("recipe") or {}, ""
    if loaded.pruning:
        source = Path(str(loaded.pruning[-1].get("source") or "")).name
    run = _run(loaded, recipe)
    if not loaded.pruning:
        return run
    cut = f"pruned from {source}" if source else "pruned"
    if not run:
        return f"{cut}, not trained since"
    taught = f", taught by {Path(str(recipe['teacher'])).name}" if recipe.get("teacher") else ""
    return f"{cut}, then {run}{taught}"


def training_bytes(loaded: LoadedModel, path: Path) -> int:
    """How much smaller the file is without the state that a training resumes from."""
    if "train" not in loaded.content:
        return 0
    buffer = io.BytesIO()
    torch.save({name: v for name, v in loaded.content.items() if name != "train"}, buffer)
    return max(path.stat().st_size - buffer.tell(), 0)


def _run(loaded: LoadedModel, recipe: dict[str, Any]) -> str:
    """Epochs of the run that wrote the file: those done, or those that it was for."""
    planned = recipe.get("max_epoch")
    if not isinstance(planned, int):
        return ""
    if "train" in loaded.content:
        done = loaded.content["train"].get("epoch", planned)
        epochs = _epochs(planned) if done == planned else f"{done} of {_epochs(planned)}"
    else:  # the best of them, perhaps: such a file does not say which
        epochs = f"a run of {_epochs(planned)}"
    batch = recipe.get("batch_size")
    return f"{epochs} in batches of {batch}" if batch else epochs


def _epochs(count: int) -> str:
    return f"{count} epoch{'' if count == 1 else 's'}"
