"""Where an Exp written for the official package meets the trainer: adapters, no behaviour.

Such an Exp may build its own model, loader or optimizer with the signatures that it knows.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import torch
from torch import nn

from yolox.data import DataLoader, Sample
from yolox.data.datasets.tables import SampleTable
from yolox.data.samplers import EpochSampler
from yolox.exp.fields import ExpError
from yolox.exp.yolox_base import RESIZE_INTERVAL, Exp
from yolox.models import (
    YOLOX,
    ModelSpec,
    activation_of,
    build_model,
    channel_table,
    infer_spec,
    resize_to_channels,
)


def spec_of(exp: Exp, model: nn.Module) -> ModelSpec:
    """The description of the model that `Exp.get_model` built, whichever way it was built.

    Raises:
        ExpError: no checkpoint could describe the model.
    """
    spec = exp.model_spec()
    if _fits(spec, model):
        return spec
    if isinstance(model, YOLOX):
        found = infer_spec(model.state_dict())
        spec = dataclasses.replace(
            found,
            act=activation_of(model),
            class_names=spec.class_names if found.num_classes == spec.num_classes else (),
            input_size=spec.input_size,
        )
        if _fits(spec, model):
            return spec
    raise ExpError(
        f"{type(exp).__name__}.get_model builds a {type(model).__name__} that is no YOLOX of this "
        "package's parts with other depth, width or channels, so its checkpoints could not be "
        "rebuilt: build it from YOLOPAFPN or YOLOFPN and YOLOXHead"
    )


def _fits(spec: ModelSpec, model: nn.Module) -> bool:
    """Whether a checkpoint with this spec and the model's channels gives the model back."""
    with torch.device("meta"):
        rebuilt = build_model(spec)
        if set(channel_table(rebuilt)) != set(channel_table(model)):
            return False
        resize_to_channels(rebuilt, channel_table(model))
    shapes = {name: value.shape for name, value in rebuilt.state_dict().items()}
    return activation_of(model) == spec.act and shapes == {
        name: value.shape for name, value in model.state_dict().items()
    }


def build_optimizer(exp: Exp, batch_size: int, model: nn.Module) -> torch.optim.Optimizer:
    """`Exp.get_optimizer`, which in an official Exp finds the model as ``self.model``."""
    if "model" in inspect.signature(exp.get_optimizer).parameters:
        return exp.get_optimizer(batch_size, model)
    exp.put(model=model)
    return exp.get_optimizer(batch_size)


class EpochLoader:
    """A loader of any kind as epochs of its own length, also where it never ends."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader
        self._first = 0

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Any]:
        return islice(self._loader, self._first, len(self._loader))

    def set_epoch(self, epoch: int, mosaic: bool, first: int = 0) -> None:
        """Tell the batch sampler, or at least that mosaics end.

        Of a sampler that cannot leave the first batches out, they are loaded and dropped.
        """
        sampler = getattr(self._loader, "batch_sampler", None)
        self._first = 0 if isinstance(sampler, EpochSampler) else first
        if isinstance(sampler, EpochSampler):
            sampler.set_epoch(epoch, mosaic, first)
        elif not mosaic and hasattr(self._loader, "close_mosaic"):
            self._loader.close_mosaic()


def epoch_loader(loader: Any) -> DataLoader | EpochLoader:
    """The loader of `Exp.get_data_loader` as the trainer takes it."""
    return loader if isinstance(loader, DataLoader) else EpochLoader(loader)


def training_samples(loader: Any) -> Sequence[Sample]:
    """The images of a loader with their objects; none where the data set does not say."""
    dataset = getattr(loader, "dataset", None)
    samples: Sequence[Sample] = getattr(getattr(dataset, "dataset", dataset), "samples", ())
    return samples


def image_names(loader: Any) -> Mapping[int, str]:
    """Names by image id, for messages; see `training_samples`."""
    samples = training_samples(loader)
    if isinstance(samples, SampleTable):
        return samples.names_by_id()
    return {sample.image_id: sample.name for sample in samples}


def input_sizes(
    exp: Exp, loader: Any, rank: int, is_distributed: bool
) -> Callable[[int, int], tuple[int, int]]:
    """`Exp.random_resize` as a function of epoch and iteration.

    An official one does not know the iteration: it is asked every tenth iteration.
    """
    if "iteration" in inspect.signature(exp.random_resize).parameters:
        return lambda epoch, iteration: exp.random_resize(
            loader, epoch, rank, is_distributed, iteration=iteration
        )
    height, width = exp.input_size

    def drawn(epoch: int, iteration: int) -> tuple[int, int]:
        nonlocal height, width
        if iteration % RESIZE_INTERVAL == 0:
            height, width = exp.random_resize(loader, epoch, rank, is_distributed)
        return height, width

    return drawn
