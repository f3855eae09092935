"""What a plan costs once its layers are refitted: the loss after that, plan after plan."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn

from yolox.pruning.channels import Axis
from yolox.pruning.groups import Group
from yolox.pruning.judge import LabelledImages
from yolox.pruning.plan import PruningPlan
from yolox.pruning.reconstruct import EXACT, Fitter, position_weights
from yolox.pruning.replay import Replay
from yolox.pruning.surgery import kept_channels, removed_channels, silence

_Axis = tuple[str, Axis]  # a layer's inputs or outputs
SAMPLES = 2048  # a plan is only compared with others: an eighth of what the cut is refitted at
_NONE = torch.empty(0, dtype=torch.long)


class Lookahead:
    """The loss on held-back images after refitting, of plans that differ in a few groups.

    A plan is compared with the last one that was kept: layers before the first that reads other
    channels have the same weights and outputs, and are neither fitted nor run again.
    """

    @EXACT
    @torch.no_grad()
    def __init__(
        self,
        model: nn.Module,
        groups: Sequence[Group],
        images: Tensor,
        labelled: LabelledImages,
        *,
        seed: int = 0,
        samples: int = SAMPLES,
    ) -> None:
        """Run the whole model once.

        Args:
            model: the whole model; not changed.
            groups: all groups of it.
            images: float (N, 3, H, W) that layers are refitted on, on the device to compute on.
            labelled: the same with their labels, and others that the loss is of.
            seed: decides the positions that layers are refitted at.
            samples: how many of them, of each layer.
        """
        device = images.device
        weights = position_weights(model, labelled.fitted, labelled.loss, device)
        self._groups, self._images, self._labelled = groups, images, labelled
        self._fitter = Fitter(model, images, seed=seed, weights=weights, samples=samples)
        readers = {m.name for group in groups for m in group.members if m.axis == "in"}
        batches = [None, *labelled.held]  # the first fits, the others judge
        self._replay = Replay(model, batches, self._step, readers | self._fitter.layers, device)
        self._model = self._replay.model
        self._whole = {key: value.clone() for key, value in self._model.state_dict().items()}
        self._kept, self._kept_gone = self._whole, dict[_Axis, Tensor]()
        self._gone = dict[_Axis, Tensor]()
        for name, layer in self._model.named_modules():
            if name in self._fitter.layers:
                layer.register_forward_pre_hook(partial(self._fit, name))

    @EXACT
    @torch.no_grad()
    def loss(self, plan: PruningPlan) -> float:
        """The mean loss on the held-back images of the model that a plan cuts and a refit mends."""
        removed = list(removed_channels(self._groups, plan))
        self._gone = {
            (name, axis): channels
            for name, axis, channels in removed
            if axis == "in" or self._is_depthwise(name)
        }
        changed = [
            key[0]
            for key in self._gone.keys() | self._kept_gone.keys()
            if not torch.equal(self._gone.get(key, _NONE), self._kept_gone.get(key, _NONE))
        ]
        first = min(map(self._replay.start, changed), default=0)
        for key, value in self._model.state_dict().items():
            later = self._replay.start(key.rpartition(".")[0]) >= first
            value.copy_((self._whole if later else self._kept)[key])
        silence(self._model, removed)
        return fmean(self._replay.after(changed)[1:])

    def keep(self) -> None:
        """Compare later plans with the last one."""
        self._replay.keep()
        self._kept = {key: value.clone() for key, value in self._model.state_dict().items()}
        self._kept_gone = self._gone

    def _step(self, model: nn.Module, batch: Any) -> Tensor:
        self._fits = batch is None
        if self._fits:
            model(self._images)
            return torch.zeros(())
        return self._labelled.loss(model, batch)

    def _fit(self, name: str, layer: nn.Conv2d, args: tuple[Any, ...]) -> None:
        if not self._fits or not self._replay.runs_again(name):
            return
        device = layer.weight.device
        inputs = kept_channels(layer.in_channels, self._gone.get((name, "in"), _NONE))
        # Of a dense layer all outputs, so that a plan that brings one back finds it fitted.
        outputs = kept_channels(layer.out_channels, self._gone.get((name, "out"), _NONE))
        self._fitter.fit_convolution(
            self._model, name, args[0], inputs.to(device), outputs.to(device)
        )

    def _is_depthwise(self, name: str) -> bool:
        return getattr(self._model.get_submodule(name), "groups", 1) > 1
