"""Exponential moving average of a model's weights."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from yolox.utils.model_utils import copy_model


class ModelEMA:
    """Averaged copy of a model, floats by decay, integers copied.

    The decay ramps up as ``decay · (1 − exp(−updates / ramp))``, so that the average of a short run
    is not held back by its first weights.

    Attributes:
        ema: the averaged model, in evaluation mode, without gradients.
        updates: number of updates so far.
    """

    def __init__(
        self, model: nn.Module, decay: float = 0.9998, updates: int = 0, ramp: float = 2000.0
    ) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"EMA decay must be in [0, 1), got {decay}")
        self.ema = copy_model(model).eval().requires_grad_(False)
        self.updates = updates
        self._decay = decay
        self._ramp = ramp

    @property
    def decay(self) -> float:
        """The decay of the present update."""
        return self._decay * (1 - math.exp(-self.updates / self._ramp))

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards the model's weights and buffers."""
        self.updates += 1
        averages: list[Tensor] = []
        values: list[Tensor] = []
        live = model.state_dict()
        for name, average in self.ema.state_dict().items():
            if average.dtype.is_floating_point:
                averages.append(average)
                values.append(live[name].detach())
            else:
                average.copy_(live[name])
        torch._foreach_lerp_(averages, values, 1 - self.decay)
