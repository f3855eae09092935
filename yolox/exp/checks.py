"""Values of an Exp's fields that cannot work."""

from __future__ import annotations

import math
import operator
import typing
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from yolox.exp.fields import fits, type_name
from yolox.exp.recipe import Recipe
from yolox.models import ACTIVATIONS, ARCHITECTURES
from yolox.pruning.sparsity import MAX_STRENGTH, SparsityConfig
from yolox.utils.choices import MAX_SEED
from yolox.utils.errors import UserError
from yolox.utils.lr_scheduler import SCHEDULES

_MINIMUMS = {
    "num_classes": 1,
    "max_epoch": 1,
    "batch_size": 1,
    "accumulate": 1,
    "print_interval": 1,
    "eval_interval": 1,
    "multiscale_range": 0,
    "data_num_workers": 0,
    "max_labels": 0,
    "degrees": 0,
    "translate": 0,
    "shear": 0,
    "warmup_epochs": 0,
    "warmup_lr": 0,
    "min_lr_ratio": 0,
    "weight_decay": 0,
    "seed": 0,
    "finetune_epochs": 0,
    "distill_cls": 0,
    "distill_obj": 0,
    "distill_box": 0,
    "distill_feature": 0,
}
_POSITIVE = ("depth", "width", "basic_lr_per_img", "finetune_lr", "distill_temperature")
_PROBABILITIES = ("test_conf", "nmsthre", "mosaic_prob", "mixup_prob", "hsv_prob", "flip_prob")
_SPARSITY = tuple(name for name in vars(Recipe) if name.startswith("sparsity"))


def problems_of(exp: Recipe, *, own_schedule: bool = False) -> list[str]:
    """What is wrong with an Exp, a few words each; empty if nothing is.

    Args:
        exp: its fields may hold anything.
        own_schedule: it makes its learning rates itself, of whatever fields.
    """
    kinds = own_types(exp)
    wrong = {
        name: f"{name} must be {type_name(kind)}: {getattr(exp, name)!r}"
        for name, kind in kinds.items()
        if not fits(getattr(exp, name), kind)
    }
    problems = list(wrong.values())

    def require(names: Iterable[str], works: Callable[[Any], bool], what: str) -> None:
        for name in names:
            if name not in wrong and not works(value := getattr(exp, name)):
                problems.append(f"{name} must be {what}: {value!r}")

    require(("input_size", "test_size"), _are_multiples, "multiples of 32")
    for name, least in _MINIMUMS.items():
        require([name], partial(operator.le, least), f"at least {least}")
    require(["seed"], partial(operator.ge, MAX_SEED), f"at most {MAX_SEED}")
    require(_POSITIVE, partial(operator.lt, 0), "positive")
    require(kinds, _is_finite, "finite")
    require(("ema_decay", "momentum"), lambda number: 0 <= number < 1, "in [0, 1)")
    require(_PROBABILITIES, lambda number: 0 <= number <= 1, "in [0, 1]")
    require(["architecture"], ARCHITECTURES.__contains__, " or ".join(ARCHITECTURES))
    require(["act"], ACTIVATIONS.__contains__, f"one of {', '.join(ACTIVATIONS)}")
    require(["finetune_act"], ["", *ACTIVATIONS].__contains__, f"one of {', '.join(ACTIVATIONS)}")
    require(["scheduler"], SCHEDULES.__contains__, f"one of {', '.join(SCHEDULES)}")
    require(("mosaic_scale", "mixup_scale"), _rises, "two rising numbers above 0")
    require(["random_size"], lambda size: not size or _rises(size), "two rising numbers or ()")
    require(["milestones"], lambda epochs: all(epoch > 0 for epoch in epochs), "above 0")
    if "class_names" not in wrong and len(exp.class_names) != len(set(exp.class_names)):
        problems.append(f"class_names holds a name twice: {exp.class_names}")
    lengths = wrong.keys().isdisjoint(("no_aug_epochs", "max_epoch"))
    if lengths and not 0 <= exp.no_aug_epochs <= exp.max_epoch:
        problems.append(
            f"no_aug_epochs must be from 0 to max_epoch {exp.max_epoch}: {exp.no_aug_epochs}"
        )
    if wrong.keys().isdisjoint(("milestones", "max_epoch")):
        steps = any(epoch < exp.max_epoch for epoch in exp.milestones)
        if exp.scheduler == "multistep" and not own_schedule and not steps:
            problems.append(
                "scheduler multistep lowers the learning rate after milestones alone, and none is "
                f"before max_epoch {exp.max_epoch}: set some, as milestones 200,250"
            )
    if wrong.keys().isdisjoint(_SPARSITY):
        try:
            sparsity_config(exp)
        except UserError as error:
            problems.append(str(error))
    return problems


def own_types(exp: Recipe) -> dict[str, Any]:
    """The types of this package's fields by name: of those of an Exp file, that file knows."""
    own = next(kind for kind in type(exp).__mro__ if kind.__module__.startswith("yolox."))
    hints = typing.get_type_hints(own)
    return {
        name: kind
        for name, kind in hints.items()
        if not name.startswith("_") and hasattr(own, name)
    }


def _are_multiples(size: Sequence[int]) -> bool:
    return all(side >= 32 and side % 32 == 0 for side in size)


def _rises(bounds: Sequence[float]) -> bool:
    return len(bounds) == 2 and 0 < bounds[0] <= bounds[1]


def _is_finite(value: object) -> bool:
    values = value if isinstance(value, (tuple, list)) else (value,)
    return all(math.isfinite(number) for number in values if isinstance(number, float))


def sparsity_config(exp: Recipe) -> SparsityConfig | None:
    """What the fields ask for; None where `sparsity` is 0.

    Raises:
        UserError: listing every value that cannot work, also where it is 0.
    """
    config = SparsityConfig(
        strength=exp.sparsity or MAX_STRENGTH,
        form=exp.sparsity_form,
        schedule=exp.sparsity_schedule,
        warmup=exp.sparsity_warmup,
        shift=exp.sparsity_shift,
        proximal=exp.sparsity_proximal,
    )
    return config if exp.sparsity else None
