"""Find the groups of a model.

torch-pruning's dependency graph says which modules are the layers of the network; a run with
channel labels (`labels`) says which of their channels meet, whatever moves them on the way.
Channels that have to live or die together are united, and the classes are the slots: a slot is one
channel of a convolution with its batch norm, its readers' input, and whatever a residual add, a
concat or a shuffle ties to it. Each channel falls into exactly one slot, so nothing is pruned
twice.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch_pruning
from loguru import logger
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from yolox.pruning.channels import Axis, Channels, Indices
from yolox.pruning.config import PruningError
from yolox.pruning.groups import PRODUCERS, Group, Member
from yolox.pruning.plan import PruningPlan
from yolox.pruning.proof.apart import CutRefusedError, Probe
from yolox.pruning.proof.verify import verify_plan
from yolox.pruning.surgery import is_channelwise
from yolox.pruning.tracing.label_trace import MODEL_INPUT, MODEL_OUTPUT, LabelTrace
from yolox.pruning.tracing.labels import tensors_of
from yolox.pruning.watch import describe, fixed_layers, one_line, watch_calls
from yolox.utils.model_utils import copy_model, replace_module
from yolox.utils.threads import single_threaded

TRIAL = (Probe(draw=1, training=False, noise=False, batch=1),)
MAX_TOLD = 3
KEPT_LAYER = "a layer that keeps its channels"

# Numbers of layers, and (number, place) of the parts.
_Signature = tuple[tuple[int, ...], tuple[tuple[int, int], ...]]


def trace_groups(model: nn.Module, example_input: Tensor) -> list[Group]:
    """Find the groups of coupled channels; the model is not touched.

    Channels that reach the model's output keep their number, as do those that pass through an
    operation that mixes channels or counts them, and those of `fixed_layers`, which are named in a
    warning. Where channels are laid apart by position or count (chunk, split, a view that makes two
    dimensions of one), one slot is removed on trial, and what does not follow stays whole.

    Args:
        model: any module that torch-pruning can trace.
        example_input: float (1, 3, H, W).

    Returns:
        Groups of prunable channels, in module order.

    Raises:
        PruningError: the model cannot be traced, or nothing in it can be pruned.
    """
    if not isinstance(example_input, Tensor):
        raise PruningError(
            f"the example input is a {type(example_input).__name__}, expected one tensor, such as "
            "(1, 3, H, W): wrap a model that takes anything else in a module that takes that"
        )
    twin, fixed = _copy(model)
    running = watch_calls(twin)
    try:
        channels = _follow(twin, example_input.detach().float().cpu(), fixed)
        groups = _collect(channels, twin)
    except PruningError:
        raise
    except Exception as error:
        where = f", in {describe(twin, running[-1])}" if running else ""
        raise PruningError(
            f"the model cannot be traced for pruning with an input of shape "
            f"{tuple(example_input.shape)}{where}: {type(error).__name__}: {one_line(error)}"
        ) from error
    if fixed:
        why = "; ".join(f"{name} {reason}" for name, reason in fixed.items())
        logger.warning(f"these layers keep their channels: {why}")
    if groups:
        groups = cut_on_trial(model, groups, example_input)
    if not groups:
        ops = ", ".join(_mixing_ops(channels))
        raise PruningError(
            "the model has no prunable channels: every one reaches its output"
            + (f" or an operation that mixes or counts channels ({ops})" if ops else "")
            + (f", or belongs to a layer that keeps its channels: {why}" if fixed else "")
        )
    return groups


def _copy(model: nn.Module) -> tuple[nn.Module, dict[str, str]]:
    """A copy that can be traced, and the layers that keep their channels."""
    try:
        fixed = fixed_layers(model)
        twin = copy_model(model).float().cpu().eval()
        for parameter in twin.parameters():
            parameter.requires_grad_(True)
    except PruningError:
        raise
    except Exception as error:
        raise PruningError(
            f"the model cannot be copied, which pruning starts with: {type(error).__name__}: "
            f"{one_line(error)}"
        ) from error
    # One slope for all channels has no channels of its own, and one such layer may run anywhere.
    twin = replace_module(twin, nn.PReLU, nn.LeakyReLU, lambda m, new: m if _slopes(m) else new())
    return twin, fixed


def _slopes(module: nn.Module) -> bool:
    return isinstance(module, nn.PReLU) and module.num_parameters > 1


def _follow(twin: nn.Module, example: Tensor, fixed: Iterable[str]) -> Channels:
    """Run a model with labels on the channels of its layers."""
    graph = torch_pruning.DependencyGraph()
    with torch.enable_grad(), single_threaded():
        graph.build_dependency(twin, example, output_transform=_output_tensors, verbose=False)
    known = set(graph.module_to_node)
    channels = Channels()
    for name, module in twin.named_modules():
        if module in known or is_channelwise(module):
            _add_ports(channels, name, module)
    if not channels.ports:
        raise PruningError(
            "the model has no prunable channels: none of its layers is a convolution or a linear "
            "layer of PyTorch's own"
        )
    for name in fixed:
        for axis in ("in", "out"):
            if (name, axis) in channels.ports:
                channels.pin(channels.ports[name, axis], KEPT_LAYER)
    with torch.no_grad(), single_threaded(), LabelTrace(twin, channels) as trace:
        outputs = twin(example)
    trace.pin_outputs(outputs)
    return channels


def _output_tensors(outputs: Any) -> list[Tensor]:
    if tensors := list(tensors_of(outputs)):
        return tensors
    raise PruningError(
        f"the model returns a {type(outputs).__name__} in which no tensor is found: wrap it in a "
        "module that returns its tensors, in lists or dictionaries if they are several"
    )


def _add_ports(channels: Channels, name: str, module: Any) -> None:
    if isinstance(module, nn.Linear):
        channels.add(name, "out", module.out_features)
        channels.add(name, "in", module.in_features)
    elif isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        out = channels.add(name, "out", module.out_channels)
        into = channels.add(name, "in", module.in_channels)
        if module.groups > 1:  # a group goes as a whole, and the convolution stays even
            first = into.reshape(module.groups, -1)[:, :1]
            for port in (into, out):
                rows = port.reshape(module.groups, -1)
                channels.tie(np.broadcast_to(first, rows.shape).ravel(), rows.ravel())
    elif isinstance(module, _BatchNorm):
        channels.add(name, "out", module.num_features)
    elif _slopes(module):
        channels.add(name, "out", module.num_parameters)
    elif is_channelwise(module):
        channels.add(name, "out", len(module.bias))


def _collect(channels: Channels, model: nn.Module) -> list[Group]:
    """Turn classes of channels into groups of slots with the same members."""
    while True:
        slots = _Slots.of(channels, model)
        links, uneven = _link(channels, slots)
        for parts in uneven:
            for part in parts[1:]:
                channels.tie(parts[0], part)
        if not uneven:
            return _make_groups(channels, slots, links, model)


@dataclass
class _Slots:
    """Classes by signature: the layers, in order, and the parts of tensors that a slot lies in.

    Attributes:
        layers: (module name, axis) by number.
        makes: whether each of them makes its channels.
        by_signature: rows of channels in their layers, and the classes' labels, of each signature
            with a maker.
        label: each channel's class.
        stays: classes that may not be pruned.
    """

    layers: list[tuple[str, Axis]]
    makes: list[bool]
    by_signature: dict[_Signature, tuple[list[list[int]], list[int]]]
    label: Indices
    stays: Indices

    @classmethod
    def of(cls, channels: Channels, model: nn.Module) -> _Slots:
        modules = dict(model.named_modules())
        order = {name: position for position, name in enumerate(modules)}
        label, stays = channels.classes()
        layers = [
            (name, axis)
            for name, axis in channels.ports
            if axis == "out" or getattr(modules[name], "groups", 1) == 1
        ]
        layers.sort(key=lambda layer: (order[layer[0]], layer[1] == "in"))
        ports = [channels.ports[layer] for layer in layers]
        # What no layer reads is not followed to its end.
        read = [label[p] for (_, axis), p in zip(layers, ports, strict=True) if axis == "in"]
        unread = np.setdiff1d(label, np.concatenate(read)) if read else label
        stays = np.union1d(stays, unread)
        rows = np.concatenate(
            [
                np.stack((label[port], np.full(len(port), number), np.arange(len(port))), axis=1)
                for number, port in enumerate(ports)
            ]
        )
        rows = rows[~np.isin(rows[:, 0], stays)]
        rows = rows[np.lexsort((rows[:, 2], rows[:, 1], rows[:, 0]))]
        parts_of: dict[int, list[tuple[int, int]]] = {}
        for number, parts in enumerate(channels.parts):
            for place, part in enumerate(parts):
                for own_label in np.unique(label[part]).tolist():
                    parts_of.setdefault(own_label, []).append((number, place))
        found: dict[_Signature, tuple[list[list[int]], list[int]]] = {}
        for own_label, slot in itertools.groupby(rows.tolist(), key=lambda row: row[0]):
            entries = list(slot)
            key = tuple(row[1] for row in entries), tuple(parts_of.get(own_label, ()))
            numbers, labels = found.setdefault(key, ([], []))
            numbers.append([row[2] for row in entries])
            labels.append(own_label)
        makes = [axis == "out" and isinstance(modules[n], PRODUCERS) for n, axis in layers]
        made = {key: rows for key, rows in sorted(found.items()) if any(makes[n] for n in key[0])}
        return cls(layers=layers, makes=makes, by_signature=made, label=label, stays=stays)


def _link(channels: Channels, slots: _Slots) -> tuple[list[list[_Signature]], list[list[Indices]]]:
    """Which signatures lose equally many slots, and which parts cannot be left to themselves.

    Parts that are a group each may lose different slots, if as many; others are tied one by one.
    """
    owner = {
        own: signature for signature, (_, labels) in slots.by_signature.items() for own in labels
    }
    links, uneven = [], []
    for parts in channels.parts:
        rows = [slots.label[part] for part in parts]
        signatures = [{owner.get(own) for own in row.tolist()} for row in rows]
        together = [next(iter(found)) for found in signatures]
        alone = all(
            len(found) == 1
            and signature is not None
            and len(set(row.tolist())) == len(row) == len(slots.by_signature[signature][1])
            for row, found, signature in zip(rows, signatures, together, strict=True)
        )
        if alone and len(set(together)) == len(parts):
            links.append([signature for signature in together if signature is not None])
            continue
        same = all(np.array_equal(rows[0], row) for row in rows[1:])
        if not (same or all(np.isin(row, slots.stays).all() for row in rows)):
            uneven.append(parts)
    return links, uneven


def _make_groups(
    channels: Channels,
    slots: _Slots,
    links: Sequence[Sequence[_Signature]],
    model: nn.Module,
) -> list[Group]:
    modules = dict(model.named_modules())
    positional = [ids for parts in channels.positional for ids in parts.tolist() if ids >= 0]
    tried = set(slots.label[positional].tolist()) if positional else set()
    ops_of: dict[int, set[str]] = {}
    for op, passes in channels.ops.items():
        for ids in passes:
            for own in np.unique(slots.label[ids]).tolist():
                ops_of.setdefault(own, set()).add(op)

    groups: dict[_Signature, Group] = {}
    taken: dict[str, int] = {}
    for signature, (rows, labels) in slots.by_signature.items():
        numbers, _ = signature
        index, columns = np.array(rows, dtype=np.int64), np.array(numbers)
        members = tuple(
            Member(
                name=slots.layers[number][0],
                axis=slots.layers[number][1],
                index=index[:, columns == number],
                produces=slots.makes[number],
            )
            for number in dict.fromkeys(numbers)
        )
        root = next(member.name for member in members if member.produces)
        taken[root] = taken.get(root, 0) + 1
        groups[signature] = Group(
            name=root if taken[root] == 1 else f"{root}#{taken[root]}",
            size=len(rows),
            members=members,
            kind=_kind(len(rows), [modules[m.name] for m in members if m.produces]),
            ops=tuple(sorted(set().union(*(ops_of.get(own, ()) for own in labels)))),
            positional=not tried.isdisjoint(labels),
        )
    _name_links(groups, links)
    order = {name: position for position, name in enumerate(modules)}
    return sorted(groups.values(), key=lambda group: order[group.producers[0].name])


def _name_links(groups: dict[_Signature, Group], links: Sequence[Sequence[_Signature]]) -> None:
    """Note in groups that are to lose equally many slots whom they go with, in place."""
    for parts in links:
        names = {groups[signature].name for signature in parts}
        names |= {groups[signature].balance for signature in parts} - {""}
        name = min(names)
        for signature, group in groups.items():
            if group.name in names or group.balance in names:
                groups[signature] = replace(group, balance=name)


def _kind(size: int, producers: list[Any]) -> str:
    shapes = [
        f"{type(layer).__name__}{getattr(layer, 'kernel_size', ())}{getattr(layer, 'stride', ())}"
        for layer in producers
    ]
    return f"{size} × {' + '.join(sorted(shapes))}"


def cut_on_trial(model: nn.Module, groups: list[Group], example_input: Tensor) -> list[Group]:
    """The groups without those whose channels an operation counts that does not follow a cut."""
    bundles: dict[str, list[Group]] = {}
    for group in groups:
        if group.positional or group.balance:
            bundles.setdefault(group.balance or group.name, []).append(group)
    refused: dict[str, str] = {}
    pending = [list(bundles.values())] if bundles else []
    while pending:
        tried = pending.pop()
        try:
            removed: dict[str, tuple[int, ...]] = {
                group.name: (0,) for bundle in tried for group in bundle if group.size > 1
            }
            if removed:
                sizes = {group.name: group.size for group in groups}
                plan = PruningPlan(removed=removed, sizes=sizes)
                verify_plan(model, groups, plan, example_input, probes=TRIAL)
        except CutRefusedError as error:
            if len(tried) > 1:
                half = len(tried) // 2
                pending += [tried[half:], tried[:half]]
            else:
                refused.update({group.name: str(error) for group in tried[0]})
    if refused:
        more = f" and {len(refused) - MAX_TOLD} more" if len(refused) > MAX_TOLD else ""
        logger.info(
            f"{', '.join(list(refused)[:MAX_TOLD])}{more} keep their channels: the model's own "
            "code counts them"
        )
        logger.debug("; ".join(f"{name}: {why}" for name, why in refused.items()))
    return [group for group in groups if group.name not in refused]


def _mixing_ops(channels: Channels) -> list[str]:
    told = {op: None for _, op in channels.pinned}
    return [op for op in told if op not in (MODEL_INPUT, MODEL_OUTPUT, KEPT_LAYER)]
