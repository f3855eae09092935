"""A masked and a pruned model run side by side in float64, and held against each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from yolox.pruning.channels import Axis
from yolox.pruning.groups import Group
from yolox.pruning.plan import PruningPlan
from yolox.pruning.proof.apart import (
    FAINT_RATIO,
    TOLERANCE,
    CutRefusedError,
    Probe,
    channels_apart,
    differs,
    flatten,
    outputs_apart,
)
from yolox.pruning.proof.held import LargeLayers, channel_dim
from yolox.pruning.proof.ops import SEED, Ops, same_chance
from yolox.pruning.proof.redraw import noise, random_images, redraw
from yolox.pruning.surgery import AXIS_DIMS, copy_kept, kept_channels, removed_channels, silence
from yolox.pruning.watch import describe, one_line, watch_calls
from yolox.utils.model_utils import cast_model

# Over its whole depth a model magnifies rounding itself: so many times what the last bit of its
# weights does, and never more than this. A wrong cut is apart in the first digits.
NOISE_FACTOR = 10
WORST_TOLERANCE = 1e-6
MAX_EVALUATED = 8  # modules that may need more than images to run in training mode


@dataclass
class _Step:
    """What a layer put out or took in, and what both models go on with, on the kept channels."""

    layer: str
    expected: Tensor
    carried: Tensor
    held: bool


@dataclass
class _Tape:
    """The layers of one run in their order: written by the masked model, read by the pruned one."""

    probe: Probe
    generator: torch.Generator
    steps: list[_Step] = field(default_factory=list)
    read: int = 0


class Twins:
    """The whole model, masked, and the pruned one, with all layers watched."""

    def __init__(
        self,
        model: nn.Module,
        pruned: nn.Module,
        groups: Sequence[Group],
        plan: PruningPlan,
        example_input: Tensor,
    ) -> None:
        """Args: as `verify_plan`; the models are copied."""
        self._model, self._pruned = model, pruned
        self._removed = list(removed_channels(groups, plan))
        self._example = example_input.detach().cpu().double()
        self._masked, self._small = (
            cast_model(twin, "cpu", torch.float64) for twin in (model, pruned)
        )
        self._draw = 0
        self._ops = Ops()
        self._tape: _Tape | None = None
        self._evaluated: dict[str, str] = {}
        self._used: set[int] = set()
        none = torch.empty(0, dtype=torch.int64)
        gone = {(name, axis): ids for name, axis, ids in self._removed}
        silent = {name: ids for (name, axis), ids in gone.items() if axis == "in"}
        self._large = LargeLayers(self._masked, self._small, silent, self._ops.storages)
        self._silence()
        self._running = {twin: watch_calls(twin) for twin in (self._masked, self._small)}
        for name, layer in self._masked.named_modules():
            dim = channel_dim(layer)
            if dim is not None:
                own = {axis: gone.get((name, axis), none) for axis in AXIS_DIMS}
                layer.register_forward_hook(partial(self._write, name, dim, own))
                other = self._small.get_submodule(name)
                other.register_forward_hook(partial(self._read, name, dim))

    def compare_outputs(self) -> tuple[float, float]:
        """On the example, with its own weights and in evaluation mode, from end to end.

        Returns:
            The largest relative difference of an output channel, and what rounding may make of it.

        Raises:
            CutRefusedError: a model does not run.
        """
        self._masked.eval()
        self._small.eval()
        expected = self._call_masked(self._example)
        if isinstance(expected, Exception):
            raise self._cannot_run(expected)
        outputs = self._call_small(self._example)
        worst, allowed = outputs_apart(outputs, expected), TOLERANCE
        if worst > TOLERANCE:
            # What rounding alone can do is measured on the masked model.
            _nudge(self._masked)
            nudged = self._call_masked(self._example)
            assert not isinstance(nudged, Exception)
            rounding = outputs_apart(nudged, expected)
            allowed = min(max(TOLERANCE, NOISE_FACTOR * rounding), WORST_TOLERANCE)
            self._load(self._draw)
        return worst, allowed

    def compare_layers(self, probe: Probe) -> None:
        """Hold each layer's output, and at last the model's, against what it has to be.

        Raises:
            CutRefusedError: one differs, or the models cannot be run in that way.
        """
        if probe.draw != self._draw:
            self._load(probe.draw)
        images, expected = self._record(probe)
        assert self._tape is not None
        _set_mode(self._small, probe.training, self._evaluated)
        outputs = self._call_small(images)
        left = self._tape.steps[self._tape.read :]
        if left:
            raise CutRefusedError(
                f"the pruned model does not run {describe(self._masked, left[0].layer)}, which the "
                f"masked one does ({probe}), so the cut is refused"
            )
        self._tape = None
        worst = outputs_apart(outputs, expected)
        if worst > TOLERANCE:
            raise CutRefusedError(differs(worst, f"its outputs ({probe}{self._ops})"))

    def check_all_used(self) -> None:
        """Raise `CutRefusedError` for parameters that took part in no run and were not compared."""
        unused = [
            name
            for name, parameter in self._masked.named_parameters()
            if parameter.numel() and parameter.untyped_storage().data_ptr() not in self._used
        ]
        if unused:
            more = f" and {len(unused) - 3} more" if len(unused) > 3 else ""
            raise CutRefusedError(
                f"{', '.join(unused[:3])}{more} took part neither in evaluation nor in training "
                f"mode{self._what_stayed()}, so what the cut does there cannot be checked and is "
                "refused: take these layers out of the model, or let its forward run them"
            )

    def _load(self, draw: int) -> None:
        """Give both models redrawn weights, or their own."""
        if draw:
            self._large.stop()
            skip = self._large.parameters()
            redraw(self._masked, draw, skip)
            copy_kept(self._small, self._masked, self._removed, skip)
        else:
            self._masked.load_state_dict(self._model.state_dict())
            self._small.load_state_dict(self._pruned.state_dict())
        self._silence()
        self._draw = draw

    def _silence(self) -> None:
        silence(self._masked, self._removed, self._large.parameters())

    def _record(self, probe: Probe) -> tuple[Tensor, list[Any]]:
        """The masked model's outputs on random images; its layers' are on the tape."""
        for shape in self._shapes(probe):
            generator = torch.Generator().manual_seed(SEED)
            images = random_images(shape, generator)
            evaluated = dict(self._evaluated)
            while True:
                _set_mode(self._masked, probe.training, evaluated)
                self._tape = _Tape(probe, generator)
                outputs = self._call_masked(images)
                if not isinstance(outputs, Exception):
                    self._evaluated = evaluated
                    return images, outputs
                error, where = outputs, self._running[self._masked][-1]
                if self._tape.steps:
                    self._load(probe.draw)  # batch norms may have taken up statistics
                if not probe.training or where in evaluated or len(evaluated) >= MAX_EVALUATED:
                    break
                # Such as a detector that wants targets: it stays in evaluation mode, its layers
                # are in training mode.
                evaluated[where] = one_line(error)
        raise self._cannot_run(error, probe)

    def _shapes(self, probe: Probe) -> Iterator[tuple[int, ...]]:
        channels, *size = self._example.shape[1:]
        if probe.resized and size:
            for first in (size[0] // 2, size[0] * 2):
                if first:
                    yield (probe.batch, channels, first, *size[1:])
        yield (probe.batch, channels, *size)  # a model may take one size only

    def _call_masked(self, images: Tensor) -> list[Any] | Exception:
        """Outputs, or why there are none."""
        self._running[self._masked].clear()
        self._ops.names.clear()
        self._ops.storages.clear()
        own = images.clone()  # a model may write into them
        try:
            with same_chance(), self._ops:
                outputs = flatten(self._masked(own))
        except CutRefusedError:
            raise
        except Exception as error:  # whatever a model of another's may raise
            return error
        if self._large.release():
            self._load(self._draw)
            if self._tape is not None:
                self._tape.steps.clear()
            return self._call_masked(images)
        self._used |= self._ops.storages | self._large.used
        return outputs

    def _call_small(self, images: Tensor) -> list[Any]:
        running = self._running[self._small]
        running.clear()
        self._ops.names.clear()
        images = images.clone()
        try:
            with same_chance(), self._ops:
                return flatten(self._small(images))
        except CutRefusedError:
            raise
        except Exception as error:
            where = describe(self._small, running[-1]) if running else "the model"
            raise CutRefusedError(
                f"the pruned model does not run, so the cut is refused: {one_line(error)} (in "
                f"{where}{self._ops})"
            ) from error

    def _cannot_run(self, error: Exception, probe: Probe | None = None) -> CutRefusedError:
        where = describe(self._masked, (self._running[self._masked] or [""])[-1])
        how = probe or "in evaluation mode"
        return CutRefusedError(
            f"the model does not run {how} in float64, so the cut cannot be checked and is "
            f"refused: {type(error).__name__}: {one_line(error)} (in {where}{self._ops})"
        )

    def _what_stayed(self) -> str:
        if not self._evaluated:
            return ""
        parts = (f"{describe(self._masked, n)}: {why}" for n, why in self._evaluated.items())
        return f" (on images alone training mode fails in {'; '.join(parts)})"

    def _write(
        self,
        name: str,
        dim: int,
        removed: dict[Axis, Tensor],
        _layer: nn.Module,
        _args: Any,
        output: Tensor,
    ) -> Tensor | None:
        """A layer of the masked model: note what it puts out, and what goes on from here."""
        tape = self._tape
        if tape is None:
            self._ops.names.clear()
            return None
        with self._ops.paused():
            held = self._large.stands_in(name)
            if held:
                expected = _without(self._large.input, dim, removed["in"])
            else:
                expected = _without(output, dim, removed["out"])
            if not expected.sum().isfinite():
                raise CutRefusedError(
                    f"{describe(self._masked, name)} {'takes' if held else 'gives'} infinite or "
                    f"undefined values ({tape.probe}), so the cut cannot be checked and is refused"
                )
            signal, carried = None, expected
            if held or tape.probe.noise:
                signal = noise(output, dim, removed["out"], tape.probe.draw, tape.generator)
                carried = _without(signal, dim, removed["out"])
            tape.steps.append(_Step(name, expected, carried, held))
            return signal

    def _read(
        self, name: str, dim: int, _layer: nn.Module, _args: Any, output: Tensor
    ) -> Tensor | None:
        """A layer of the pruned model: compare, and go on with what the masked one went on with."""
        tape = self._tape
        if tape is None:
            self._ops.names.clear()
            return None
        step = tape.steps[tape.read] if tape.read < len(tape.steps) else None
        if step is None or step.layer != name:
            raise CutRefusedError(
                f"the pruned model runs {describe(self._small, name)} where the masked one does "
                f"not ({tape.probe}), so the cut is refused"
            )
        where = f"{describe(self._small, name)} ({tape.probe}{self._ops})"
        with self._ops.paused():
            if step.held:
                where = f"the input of {where}"
                worst = channels_apart(self._large.input, step.expected, dim, faint=FAINT_RATIO)
            else:
                worst = channels_apart(output, step.expected, dim)
            if worst > TOLERANCE:
                raise CutRefusedError(differs(worst, where))
            if not tape.probe.draw:
                self._large.compared(name)
            tape.read += 1
            return step.carried


def _set_mode(model: nn.Module, training: bool, evaluated: dict[str, str]) -> None:
    for name, module in model.named_modules():
        # Random slopes: see dropout.
        module.training = training and name not in evaluated and not isinstance(module, nn.RReLU)


def _without(tensor: Tensor, dim: int, removed: Tensor) -> Tensor:
    """A copy without these channels."""
    if not len(removed):
        return tensor.clone()
    return tensor.index_select(dim, kept_channels(tensor.shape[dim], removed))


def _nudge(model: nn.Module) -> None:
    """Move each parameter of a float64 model by one rounding up or down, in place."""
    generator = torch.Generator().manual_seed(SEED)
    for parameter in model.parameters():
        sign = torch.randint(0, 2, parameter.shape, generator=generator) * 2.0 - 1
        parameter.mul_(1 + sign.double() * torch.finfo(torch.float64).eps)
