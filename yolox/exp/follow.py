"""What an Exp takes from a checkpoint, and what has to agree between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from yolox.models import ModelSpec
from yolox.utils.checkpoint import CheckpointError

if TYPE_CHECKING:
    from yolox.exp.yolox_base import Exp


def follow_checkpoint(exp: Exp, spec: ModelSpec, *, keep: Sequence[str] = ()) -> None:
    """Take classes and test size from a checkpoint, unless the person set them.

    Args:
        keep: fields set on the command line.

    Raises:
        CheckpointError: see `require_same_classes`.
    """
    if spec.class_names and not exp.class_names:
        exp.class_names = spec.class_names
    if "test_size" not in keep:
        exp.test_size = spec.input_size
    exp.resolve_classes()
    require_same_classes("the checkpoint", spec, exp)


def require_same_classes(name: object, spec: ModelSpec, exp: Exp) -> None:
    """Refuse a model whose head has other classes than the data, or the same in another order.

    Args:
        name: what the message calls the checkpoint.

    Raises:
        CheckpointError: the classes that the Exp or data name are not the checkpoint's.
    """
    theirs, ours = (", ".join(names) or "unnamed" for names in (spec.class_names, exp.class_names))
    if spec.num_classes != exp.num_classes:
        raise CheckpointError(
            f"{name} has {spec.num_classes} classes ({theirs}), the data {exp.num_classes} "
            f"({ours}): use the data it was trained on, or set class_names"
        )
    if spec.class_names and tuple(spec.class_names) != tuple(exp.class_names):
        raise CheckpointError(
            f"{name} was trained for {theirs}, the data's classes are {ours}: set class_names to "
            "the checkpoint's, in that order"
        )
