"""From a model's description to the module and back: spec, channel table, weights."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from yolox.models.network_blocks import (
    ACTIVATIONS,
    BN_EPS,
    BN_MOMENTUM,
    BaseConv,
    Bottleneck,
    ChannelShift,
    ResLayer,
    get_activation,
)
from yolox.models.yolo_fpn import YOLOFPN
from yolox.models.yolo_head import YOLOXHead
from yolox.models.yolo_pafpn import YOLOPAFPN
from yolox.models.yolox import YOLOX
from yolox.utils.checkpoint import CheckpointError
from yolox.utils.errors import UserError
from yolox.utils.model_utils import fitting_tensors
from yolox.utils.schema import boolean, integer, listing, number, one_of, record, shown, text

ARCHITECTURES = ("yolox", "yolov3")
PRIOR_PROB = 1e-2
_YOLOV3_STEM = "backbone.backbone.stem.0.conv.weight"

ChannelTable = dict[str, list[int]]


def _side(value: Any, where: str) -> Iterator[str]:
    problems = list(integer(32, 16_384)(value, where))
    if not problems and value % 32:
        problems = [f"{where}: expected a multiple of 32, got {value}"]
    yield from problems


_SPEC = record(
    {
        "architecture": one_of(ARCHITECTURES),
        "depth": number(above=0, high=20),
        "width": number(above=0, high=20),
        "num_classes": integer(1, 100_000),
        "act": one_of(tuple(ACTIVATIONS)),
        "depthwise": boolean,
        "class_names": listing(text()),
        "input_size": listing(_side, length=2),
    }
)


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """All that is needed to build a dense model.

    Attributes:
        architecture: ``yolox`` (CSPDarknet + PAFPN) or ``yolov3`` (Darknet-53 + FPN).
        depth, width: the multipliers of a yolox; a yolov3 has 1.0 and 1.0.
        num_classes: classes of the head.
        act: silu, mish, relu or lrelu.
        depthwise: depthwise-separable 3 × 3 convolutions (nano).
        class_names: one a class, or empty when unknown.
        input_size: height and width that the model was made for, in pixels.
    """

    architecture: str = "yolox"
    depth: float = 1.0
    width: float = 1.0
    num_classes: int = 80
    act: str = "silu"
    depthwise: bool = False
    class_names: tuple[str, ...] = ()
    input_size: tuple[int, int] = (640, 640)

    def __post_init__(self) -> None:
        problems = list(_SPEC(vars(self), ""))
        names = self.class_names
        if isinstance(names, tuple) and names and len(names) != self.num_classes:
            problems.append(f"{len(names)} class names for {shown(self.num_classes)} classes")
        if problems:
            raise UserError("model spec: " + "; ".join(problems))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in dataclasses.asdict(self).items()
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelSpec:
        """The inverse of `to_dict`; keys of a newer program are ignored."""
        known = {field.name for field in dataclasses.fields(cls)}
        plain: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in values.items()
            if key in known
        }
        return cls(**plain)


def build_model(spec: ModelSpec) -> YOLOX:
    """A freshly initialised model of the spec."""
    backbone: YOLOPAFPN | YOLOFPN
    if spec.architecture == "yolov3":
        backbone = YOLOFPN(act=spec.act)
        head = YOLOXHead(spec.num_classes, in_channels=(128, 256, 512), act=spec.act)
    else:
        backbone = YOLOPAFPN(spec.depth, spec.width, depthwise=spec.depthwise, act=spec.act)
        head = YOLOXHead(spec.num_classes, spec.width, act=spec.act, depthwise=spec.depthwise)
    model = YOLOX(backbone, head)
    head.initialize_biases(PRIOR_PROB)
    return model


def swap_activation(model: nn.Module, act: str) -> int:
    """Replace the activation of every `BaseConv` in place; returns how many were replaced."""
    units = [module for module in model.modules() if isinstance(module, BaseConv)]
    for unit in units:
        unit.act = get_activation(act)
    return len(units)


def activation_of(model: nn.Module) -> str:
    """Name of the activation in the model's first `BaseConv`; empty where there is none."""
    kinds = [type(module.act) for module in model.modules() if isinstance(module, BaseConv)]
    return next((name for name, make in ACTIVATIONS.items() if type(make()) in kinds[:1]), "")


def channel_table(model: nn.Module) -> ChannelTable:
    """``{conv module name: [in channels, out channels, groups]}``, in module order.

    A residual block of which only a constant is left stands there like a depthwise convolution.
    """
    table = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            table[name] = [module.in_channels, module.out_channels, module.groups]
        elif isinstance(module, ChannelShift):
            table[name] = [len(module.bias)] * 3
    return table


def resize_to_channels(model: nn.Module, channels: Mapping[str, list[int]]) -> None:
    """Give every convolution the channels of the table, and its batch norm too; in place.

    Weights of changed layers are new: a state dict is expected to be loaded afterwards.

    Raises:
        CheckpointError: the table names other convolutions than the model has.
    """
    for name, block in list(model.named_modules()):
        if name in channels and isinstance(block, (Bottleneck, ResLayer)):
            parent, _, last = name.rpartition(".")
            setattr(model.get_submodule(parent), last, ChannelShift(channels[name][1]))
    present = channel_table(model)
    if set(present) != set(channels):
        odd = sorted(set(present) ^ set(channels))
        raise CheckpointError(
            f"channel table and model differ in {len(odd)} convolutions: {', '.join(odd[:5])}"
        )
    for name, (cin, cout, groups) in channels.items():
        if present[name] == [cin, cout, groups]:
            continue
        parent = model.get_submodule(name.rpartition(".")[0])
        old = model.get_submodule(name)
        if not isinstance(old, nn.Conv2d):
            raise CheckpointError(
                f"the channel table gives {name} {cin}, {cout} and {groups} channels; a block that "
                "was emptied has one number"
            )
        setattr(
            parent,
            name.rpartition(".")[2],
            nn.Conv2d(
                cin,
                cout,
                old.kernel_size,  # type: ignore[arg-type]
                old.stride,  # type: ignore[arg-type]
                old.padding,  # type: ignore[arg-type]
                groups=groups,
                bias=old.bias is not None,
            ),
        )
        if isinstance(parent, BaseConv):
            parent.bn = nn.BatchNorm2d(cout, eps=BN_EPS, momentum=BN_MOMENTUM)


def infer_spec(state: Mapping[str, Tensor]) -> ModelSpec:
    """The spec of an official state dict, from its names and shapes.

    The activation leaves no trace in a state dict: silu is presumed, lrelu for yolov3.

    Raises:
        CheckpointError: the names are not those of a YOLOX or yolov3 state dict.
    """
    heads = [value for name, value in state.items() if name == "head.cls_preds.0.weight"]
    stem = state.get("backbone.backbone.stem.conv.conv.weight")
    blocks = [
        int(match[1])
        for name in state
        if (match := re.search(r"backbone\.dark2\.1\.m\.(\d{1,4})\.", name))
    ]
    known = blocks and stem.dim() if stem is not None else _YOLOV3_STEM in state
    if not heads or not heads[0].dim() or not known:
        raise CheckpointError(
            "the state dict is not that of a YOLOX or yolov3: expected names such as "
            f"head.cls_preds.0.weight, got {', '.join(list(state)[:3])}"
        )
    num_classes = heads[0].shape[0]
    if stem is None:
        return ModelSpec(architecture="yolov3", num_classes=num_classes, act="lrelu")
    depth, width = (max(blocks) + 1) / 3, stem.shape[0] / 64
    return ModelSpec(
        depth=round(depth, 2),
        width=width,
        num_classes=num_classes,
        depthwise="backbone.backbone.dark2.0.dconv.conv.weight" in state,
        input_size=(416, 416) if width < 0.5 else (640, 640),
    )


@dataclass(frozen=True, kw_only=True)
class TransferReport:
    """What `transfer_weights` took: names taken, and per name left the two shapes or the cause."""

    taken: tuple[str, ...]
    other_classes: tuple[str, ...]
    shape_differs: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]
    missing: tuple[str, ...]

    def __str__(self) -> str:
        text = f"{len(self.taken)} of {self.total} tensors taken"
        if self.shape_differs:
            text += (
                f"; {len(self.shape_differs)} start at random, as their shapes differ: "
                + ", ".join(
                    f"{name} {theirs} → {ours}"
                    for name, (theirs, ours) in self.shape_differs.items()
                )
            )
        if self.other_classes:
            text += f"; {len(self.other_classes)} start at random, as they belong to other classes"
        if self.missing:
            text += f"; {len(self.missing)} not in the file: {', '.join(self.missing[:5])}"
        return text

    @property
    def total(self) -> int:
        """Tensors of the model."""
        left = len(self.other_classes) + len(self.shape_differs) + len(self.missing)
        return len(self.taken) + left


def transfer_weights(
    model: nn.Module, state: Mapping[str, Tensor], rows: Sequence[int | None] | None = None
) -> TransferReport:
    """Copy every tensor whose name and shape fit, as when the number of classes differs.

    Args:
        model: changed in place.
        state: of another model, by parameter name.
        rows: for each class of the model its index in the file's head, None for a new one. Without
            them, classes are those of the same index, where their number is the same.

    Raises:
        CheckpointError: fewer than half of the tensors fit: the file is of another model.
    """
    own, file = model.state_dict(), state
    if rows is not None:
        state = _with_rows(file, own, rows)
    fit = fitting_tensors(model, state)
    report = TransferReport(
        taken=tuple(fit),
        other_classes=tuple(name for name in own if name in file and name not in state),
        shape_differs={
            name: (tuple(state[name].shape), tuple(own[name].shape))
            for name in own
            if name in state and name not in fit
        },
        missing=tuple(name for name in own if name not in file),
    )
    if len(fit) * 2 < len(own):
        raise CheckpointError(
            f"only {len(fit)} of {len(own)} tensors fit: the checkpoint is of another model; "
            "use the Exp it was trained with"
        )
    model.load_state_dict(fit, strict=False)
    return report


def _with_rows(
    state: Mapping[str, Tensor], own: Mapping[str, Tensor], rows: Sequence[int | None]
) -> dict[str, Tensor]:
    """A state whose class predictions are the model's own, but for the rows that are taken."""
    result = dict(state)
    taken = [(ours, theirs) for ours, theirs in enumerate(rows) if theirs is not None]
    for name in own:
        if not name.startswith("head.cls_preds.") or name not in state:
            continue
        if state[name].shape[1:] != own[name].shape[1:]:
            continue
        if not taken:
            if state[name].shape == own[name].shape:
                del result[name]
            continue
        ours, theirs = (list(index) for index in zip(*taken, strict=True))
        result[name] = own[name].clone()
        result[name][ours] = state[name][theirs].to(own[name].dtype)
    return result


def checkpoint_payload(
    model: nn.Module, spec: ModelSpec, pruning: list[dict[str, Any]] | None = None
) -> dict[str, Any]:
    """The ``model``, ``spec`` and, for a pruned model, ``channels`` and ``pruning`` entries."""
    payload: dict[str, Any] = {
        "model": {name: value.detach().cpu() for name, value in model.state_dict().items()},
        "spec": spec.to_dict(),
    }
    with torch.device("meta"):
        dense = channel_table(build_model(spec))
    if pruning or channel_table(model) != dense:
        payload |= {"channels": channel_table(model), "pruning": pruning or []}
    return payload
