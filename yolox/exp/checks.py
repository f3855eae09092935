"""Values of an Exp's fields that cannot work."""

from __future__ import annotations

import math
import typing

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
    "warmup_epochs": 0,
    "weight_decay": 0,
    "seed": 0,
    "finetune_epochs": 0,
    "distill_cls": 0,
    "distill_obj": 0,
    "distill_box": 0,
    "distill_feature": 0,
}


def problems_of(exp: Recipe) -> list[str]:
    """What is wrong with an Exp, a few words each; empty if nothing is."""
    problems = [
        f"{name} must be multiples of 32: {getattr(exp, name)}"
        for name in ("input_size", "test_size")
        if any(side < 32 or side % 32 for side in getattr(exp, name))
    ]
    for name, least in _MINIMUMS.items():
        if getattr(exp, name) < least:
            problems.append(f"{name} must be at least {least}: {getattr(exp, name)}")
    if exp.seed is not None and exp.seed > MAX_SEED:
        problems.append(f"seed must be at most {MAX_SEED}: {exp.seed}")
    for name in ("depth", "width", "basic_lr_per_img", "finetune_lr", "distill_temperature"):
        if getattr(exp, name) <= 0:
            problems.append(f"{name} must be positive: {getattr(exp, name)}")
    for name in typing.get_type_hints(type(exp)):
        value = getattr(exp, name, None)
        numbers = [v for v in (value if isinstance(value, tuple) else (value,)) if type(v) is float]
        if not all(map(math.isfinite, numbers)):
            problems.append(f"{name} must be finite: {value}")
    for name in ("ema_decay", "momentum"):
        if not 0 <= getattr(exp, name) < 1:
            problems.append(f"{name} must be in [0, 1): {getattr(exp, name)}")
    for name in ("test_conf", "nmsthre", "mosaic_prob", "mixup_prob", "hsv_prob", "flip_prob"):
        if not 0 <= getattr(exp, name) <= 1:
            problems.append(f"{name} must be in [0, 1]: {getattr(exp, name)}")
    if exp.architecture not in ARCHITECTURES:
        problems.append(f"architecture must be {' or '.join(ARCHITECTURES)}")
    for name in ("act", "finetune_act"):
        allowed = [*ACTIVATIONS, ""] if name == "finetune_act" else list(ACTIVATIONS)
        if getattr(exp, name) not in allowed:
            problems.append(
                f"{name} must be one of {', '.join(ACTIVATIONS)}: {getattr(exp, name)!r}"
            )
    if exp.scheduler not in SCHEDULES:
        problems.append(f"scheduler must be one of {', '.join(SCHEDULES)}, got {exp.scheduler!r}")
    if exp.random_size and not (
        len(exp.random_size) == 2 and 1 <= exp.random_size[0] <= exp.random_size[1]
    ):
        problems.append(f"random_size must be two rising numbers or (): {exp.random_size}")
    if not 0 <= exp.no_aug_epochs <= exp.max_epoch:
        problems.append(
            f"no_aug_epochs must be from 0 to max_epoch {exp.max_epoch}: {exp.no_aug_epochs}"
        )
    if exp.class_names and len(exp.class_names) != len(set(exp.class_names)):
        problems.append(f"class_names holds a name twice: {exp.class_names}")
    try:
        sparsity_config(exp)
    except UserError as error:
        problems.append(str(error))
    return problems


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
