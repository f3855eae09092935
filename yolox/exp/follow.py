"""What an Exp takes from a checkpoint, and what has to agree between them."""

from __future__ import annotations

import copy
import dataclasses
import shlex

from loguru import logger

from yolox.data import known_order, rows_by_name
from yolox.exp.fields import write_names
from yolox.exp.yolox_base import Exp
from yolox.models import LoadedModel, ModelSpec
from yolox.utils.checkpoint import CheckpointError

# What to do about a model of other classes than the data's.
PRUNED_CLASSES_ADVICE = (
    "a pruned model keeps its classes: train the whole model on these data, then prune that"
)
OTHER_CLASSES_ADVICE = (
    "use data of its classes, or start a training on these with it as `checkpoint`"
)


class OtherClassesError(CheckpointError):
    """A model has other classes than the data."""


def follow_checkpoint(exp: Exp, spec: ModelSpec, name: object, *, pruned: bool = False) -> Exp:
    """A copy of an Exp with a model's classes and test size, unless the person gave others.

    Args:
        exp: not changed.
        spec: of a checkpoint or an exported file.
        name: what messages call it.
        pruned: whether the model is.

    Raises:
        OtherClassesError: see `require_same_classes`.
    """
    followed = copy.copy(exp)
    take_classes(followed, spec, name, pruned=pruned)
    take_test_size(followed, spec, name)
    return followed


def take_test_size(exp: Exp, spec: ModelSpec, name: object) -> None:
    """Give an Exp the test size of a model, unless the command line gave one.

    Args:
        exp: changed in place.
        spec: of a checkpoint or an exported file.
        name: what messages call it.
    """
    if "test_size" in exp.given:
        return
    if "test_size" in exp.assigned and exp.test_size != spec.input_size:
        own, theirs = ("×".join(map(str, size)) for size in (exp.test_size, spec.input_size))
        logger.info(
            f"at the {theirs} of {name}, not the {own} of the Exp: to have that, set "
            f"test_size {own.replace('×', ',')}"
        )
    exp.put(test_size=spec.input_size)


def take_classes(exp: Exp, spec: ModelSpec, name: object, *, pruned: bool = False) -> None:
    """Give an Exp the classes of a model whose head stays as it is, unless the person set others.

    Args:
        exp: changed in place.
        spec: of a checkpoint or an exported file.
        name: what messages call it.
        pruned: whether the model is.

    Raises:
        OtherClassesError: see `require_same_classes`.
    """
    theirs = classes_of(exp, spec, name)
    is_set = "class_names" in exp.assigned
    matched = not spec.class_names and len(theirs) == len(exp.class_names)
    if theirs and (not is_set or matched):
        exp.put(class_names=theirs)
    if not is_set:
        exp.put(
            _classes_from=(str(name), PRUNED_CLASSES_ADVICE if pruned else OTHER_CLASSES_ADVICE)
        )
    exp.resolve_classes()
    require_same_classes(name, spec, exp, pruned=pruned)


def classes_of(exp: Exp, spec: ModelSpec, name: object) -> tuple[str, ...]:
    """The classes of a model in its order; empty where nothing tells them.

    A model that does not name them has the order that the command line gives. Else, where the Exp
    or the data name classes of COCO or Pascal VOC alone and the model has as many as that list, it
    has the list's order. Else it has that of the Exp or the data, and a warning says so.
    """
    if spec.class_names:
        return tuple(spec.class_names)
    names = tuple(exp.class_names) or exp.find_classes()
    as_many = len(names) == spec.num_classes
    if as_many and "class_names" in exp.given:
        return names
    unnamed = f"{name} does not name its {spec.num_classes} classes"
    if known := known_order(spec.num_classes, names):
        if known.names != names:
            logger.info(
                f"{unnamed}: they are taken as {known.title}'s in the usual order, and matched by "
                f"name with the {len(names)} of the data; if it was trained with another order, "
                "set that: class_names NAME,NAME,…"
            )
        return known.names
    if as_many and len(names) > 1 and "class_names" not in exp.assigned:
        logger.warning(
            f"{unnamed}: they are taken in the data's order; if it was trained with another, "
            "change it in this line and set it: class_names "
            f"{shlex.quote(write_names(names))}"
        )
    return names if as_many else ()


def with_names(loaded: LoadedModel, exp: Exp) -> LoadedModel:
    """A loaded model whose description names the classes of an Exp that follows it."""
    spec = dataclasses.replace(loaded.spec, class_names=tuple(exp.class_names))
    return dataclasses.replace(loaded, spec=spec)


def require_same_classes(name: object, spec: ModelSpec, exp: Exp, *, pruned: bool = False) -> None:
    """Refuse a model whose head has other classes than the data, or the same in another order.

    Args:
        name: what the message calls the checkpoint.
        spec: of the checkpoint.
        exp: names the classes, or the data that do.
        pruned: whether the model is.

    Raises:
        OtherClassesError: the classes that the Exp or data name are not the checkpoint's.
    """
    theirs, ours = (", ".join(names) or "unnamed" for names in (spec.class_names, exp.class_names))
    if spec.num_classes != exp.num_classes:
        advice = (
            PRUNED_CLASSES_ADVICE
            if pruned
            else "use the data it was trained on, or set class_names"
        )
        raise OtherClassesError(
            f"{name} has {spec.num_classes} classes ({theirs}), the data {exp.num_classes} "
            f"({ours}): {advice}"
        )
    same = list(range(spec.num_classes))
    if spec.class_names and rows_by_name(spec.class_names, exp.class_names) != same:
        raise OtherClassesError(
            f"{name} was trained for {theirs}, the data's classes are {ours}: set class_names to "
            "the checkpoint's, in that order"
        )
