"""From a checkpoint to the model that it describes, once all that it says has been looked at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from yolox.models.build import ModelSpec, build_model, infer_spec, resize_to_channels
from yolox.models.yolox import YOLOX
from yolox.utils.checkpoint import CheckpointError, load_checkpoint
from yolox.utils.schema import (
    boolean,
    integer,
    listing,
    mapping,
    maybe,
    number,
    plain,
    record,
    require,
    text,
)
from yolox.utils.tensors import FLOATS, require_finite, state_dict

_MAX_SHOWN = 5  # problems in a message


_RECIPE = record(
    {},
    {
        "fine_tuning": boolean,
        "teacher": text(),
        "teacher_sha256": maybe(text()),
        "distill_feature": number(),
    },
)
_CONFIG = record(
    {}, {"target": maybe(text()), "ch_sparsity": number(), "layer_sparsity": mapping(number())}
)
_PRUNING = record(
    {},
    {
        "plan": record({}, {"config": _CONFIG}),
        "compensation": mapping(plain),
        "recipe": _RECIPE,
        "latency": record({"setting": text(), "parent_ms": number(), "result_ms": number()}),
    },
)
_CONTENT = record(
    {"model": state_dict},
    {
        "spec": mapping(plain),
        "channels": mapping(listing(integer(1, 65_536), length=3)),
        "pruning": listing(_PRUNING),
        "recipe": _RECIPE,
        "train": record({}, {"recipe": _RECIPE}),
    },
)
_PLAIN = record(
    {},
    {**dict.fromkeys(("spec", "pruning", "recipe"), plain), "train": record({}, {"recipe": plain})},
)


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A model rebuilt from a checkpoint, with the rest of what the file says.

    Attributes:
        model: in evaluation mode, float32, on the CPU.
        spec: its description; the activation is the one in use.
        pruning: provenance of each pruning applied, oldest first; empty for a dense model.
        content: the file as read.
    """

    model: YOLOX
    spec: ModelSpec
    pruning: list[dict[str, Any]]
    content: dict[str, Any]

    @property
    def is_pruned(self) -> bool:
        """Whether the file holds a pruned model."""
        return "channels" in self.content

    @property
    def recipe(self) -> dict[str, Any]:
        """Settings of the run that wrote the file; empty if it does not say."""
        train = self.content.get("train", {})  # where files of earlier versions have them
        return dict(self.content.get("recipe") or train.get("recipe") or {})


def load_model(path: str | Path) -> LoadedModel:
    """Rebuild a model, dense or pruned, from its file alone.

    Raises:
        CheckpointError: see `load_checkpoint`; or spec, channels and weights are not what they
            should be or disagree; or weights are not finite.
    """
    content = load_checkpoint(path)
    for check in (_PLAIN, _CONTENT):  # first whether it can be walked through at all
        require(content, check, f"{path}: its description of the model is wrong", CheckpointError)
    state = content["model"]
    try:
        spec = ModelSpec.from_dict(content["spec"]) if "spec" in content else infer_spec(state)
        with torch.device("meta"):
            model = build_model(spec)
            if "channels" in content:
                resize_to_channels(model, content["channels"])
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: its description of the model is wrong: {error}") from error
    problems = _differences(model, state)
    if problems:
        raise CheckpointError(
            f"{path}: weights do not fit the model it describes ({len(problems)} differences): "
            + "; ".join(problems[:_MAX_SHOWN])
        )
    # Copies: the content stays as it was read, whatever training does to the model.
    own = {name: value.detach().clone() for name, value in state.items()}
    counts = {name: own[name].long() for name in own if _is_count(name)}
    model.load_state_dict(own | counts, assign=True)
    for tensor in model.parameters():
        tensor.requires_grad_(True)
    model.float().eval()
    require_finite(model.state_dict(), path)
    pruning = list(content.get("pruning", []))
    return LoadedModel(model=model, spec=spec, pruning=pruning, content=content)


def _differences(model: nn.Module, state: Mapping[str, Tensor]) -> list[str]:
    expected = model.state_dict()
    problems = [f"{name} is missing" for name in expected if name not in state]
    problems += [f"{name} is not expected" for name in state if name not in expected]
    for name, value in expected.items():
        if name not in state:
            continue
        got = state[name]
        if got.shape != value.shape:
            problems.append(f"{name}: expected {tuple(value.shape)}, got {tuple(got.shape)}")
        elif got.dtype not in FLOATS and (not _is_count(name) or got.dtype == torch.bool):
            kind = "an integer" if _is_count(name) else "floating-point numbers"
            problems.append(f"{name}: expected {kind}, got {got.dtype}")
    return problems


def _is_count(name: str) -> bool:
    return name.endswith("num_batches_tracked")
