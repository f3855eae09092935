"""How long a run is going to take on this machine, from a few timed passes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from yolox.exp.yolox_base import Exp
from yolox.models import LoadedModel, swap_activation
from yolox.utils.device import milliseconds
from yolox.utils.model_utils import copy_model

_TIMED, _BATCH = 2, 4
_OVERHEAD_RATIO = 1.2  # decoding, augmentation, optimizer and average, beside forward and backward


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """Seconds that things take with a model; guesses of the right size, not more.

    Attributes:
        train_image: forward, loss and backward, an image.
        tune_image: the same with the activation that a pruned model is fine-tuned with.
        infer_image: a forward pass, an image.
        train_images, eval_images: how many the data has.
    """

    train_image: float
    tune_image: float
    infer_image: float
    train_images: int
    eval_images: int

    def training(self, epochs: int, evaluations: int, *, tuning: bool) -> float:
        """A training run, evaluations included."""
        image = self.tune_image if tuning else self.train_image
        return (
            epochs * self.train_images * image * _OVERHEAD_RATIO + evaluations * self.evaluation()
        )

    def evaluation(self) -> float:
        """One pass over the evaluation images."""
        return self.eval_images * self.infer_image * _OVERHEAD_RATIO

    def pruning(self, images: int, rounds: int) -> float:
        """Scoring in rounds, and refitting every layer on as many images."""
        return images * (rounds * 1.5 * self.train_image + 15 * self.infer_image)


def forecast(exp: Exp, loaded: LoadedModel, device: torch.device) -> Forecast:
    """Time a few passes of the whole model, which a pruned one will not exceed.

    Args:
        exp: follows the checkpoint (`yolox.exp.follow.follow_checkpoint`).
        loaded: the model; not touched.
        device: that the run is going to compute on.
    """
    model = copy_model(loaded.model)
    images = 255 * torch.rand(_BATCH, 3, *exp.input_size, device=device)
    targets = torch.zeros(_BATCH, 5, 5, device=device)
    targets[:, :, 1:] = torch.tensor(exp.input_size[::-1] * 2, device=device) / 4
    model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def step() -> None:
        model.zero_grad()
        model.loss(images, targets)["total_loss"].backward()

    model.train()
    train_image = _seconds(step, device) / _BATCH
    tune_image = train_image
    if exp.finetune_act and exp.finetune_act != loaded.spec.act:
        swap_activation(model, exp.finetune_act)
        tune_image = _seconds(step, device) / _BATCH
    model.eval()
    with torch.no_grad():
        infer_image = _seconds(lambda: model(images), device) / _BATCH
    return Forecast(
        train_image=train_image,
        tune_image=tune_image,
        infer_image=infer_image,
        train_images=len(exp.get_dataset(cache=False)),
        eval_images=len(exp.get_eval_dataset()),
    )


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    """The fastest of a few calls, after one to warm up."""
    work()
    return min(milliseconds(work, device) for _ in range(_TIMED)) / 1e3
