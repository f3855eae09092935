"""The loss of a model on the same batches again and again, as a few of its layers change.

What ran before the first change is not run again: its outputs are kept and handed out.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from yolox.pruning.importance import Loss
from yolox.utils.model_utils import copy_model

KEPT_BYTES = 2**31  # of outputs, over all batches; what is over it is run again


class Replay:
    """The losses of a model in evaluation mode, one a batch.

    Attributes:
        model: a float32 copy of the model, whose tensors the caller changes.
        losses: before any change.
    """

    def __init__(
        self,
        model: nn.Module,
        batches: Sequence[Any],
        loss: Loss,
        layers: Iterable[str],
        device: torch.device | None = None,
    ) -> None:
        """Run the batches once, and keep what layers read.

        Args:
            model: not changed.
            batches: what the loss takes, one at a time; their outputs are held all at once.
            loss: a scalar of the model and a batch.
            layers: names of the modules that may change.
            device: to compute on; None means where the model is.

        Raises:
            ValueError: there are no batches.
        """
        if not batches:
            raise ValueError("a loss needs at least one batch")
        self.model = copy_model(model).to(device).float().eval().requires_grad_(False)
        for module in self.model.modules():
            if getattr(module, "inplace", False):  # it would change what was kept
                module.inplace = False  # type: ignore[assignment]
        self._batches, self._loss = batches, loss
        self._spans = self._time()
        self._start = 0  # what ended before has its output kept
        self._kept: list[dict[str, Any]] = [{} for _ in batches]
        self._made: list[dict[str, Any]] = [{} for _ in batches]
        self._batch = 0
        self._calls: dict[str, tuple[Any, list[Tensor], list[int]]] = {}
        points = sorted(self._spans[name][0] for name in layers if name in self._spans)
        for name in self._worth_keeping(points):
            module = self.model.get_submodule(name)
            module.forward = partial(self._run, name, module.forward)
        self.losses = self.after(())
        self.keep()

    def order(self, layers: Iterable[str]) -> list[str]:
        """Those of the layers that run just once, in the order in which they do."""
        return sorted((n for n in layers if n in self._spans), key=lambda n: self._spans[n][0])

    def start(self, name: str) -> int:
        """When a module starts, in calls; 0 where it runs at several places, or nowhere."""
        return self._spans.get(name, (0, 0))[0]  # and may change anything

    def runs_again(self, name: str) -> bool:
        """Whether a module runs in the present pass: what was kept of it is not handed out."""
        return name not in self._spans or self._spans[name][0] >= self._start

    @torch.no_grad()
    def after(self, changed: Iterable[str]) -> list[float]:
        """The losses, if the model differs in these modules alone from the one that was kept.

        One that is no number is infinite.
        """
        self._start = min(map(self.start, changed), default=0)
        losses = []
        stay = [o for kept in self._kept for n, o in kept.items() if self._is_before(n)]
        self._room = KEPT_BYTES - sum(map(_size, stay))
        for number, batch in enumerate(self._batches):
            self._batch, self._calls = number, {}
            loss = float(self._loss(self.model, batch))
            losses.append(math.inf if math.isnan(loss) else loss)
            self._made[number] = self._unchanged()
        return losses

    def keep(self) -> None:
        """Count changes from the model of the last `after` on."""
        for kept, made in zip(self._kept, self._made, strict=True):
            for name in [n for n in kept if not self._is_before(n)]:
                del kept[name]
            kept |= made

    def _is_before(self, name: str) -> bool:
        """Whether a module has ended before the first change, so that its outputs stand."""
        return self._spans[name][1] < self._start

    def _run(self, name: str, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        kept = self._kept[self._batch]
        if name in kept and self._is_before(name):
            return kept[name]
        output = forward(*args, **kwargs)
        tensors = list(_tensors(output))
        self._calls[name] = (output, tensors, [tensor._version for tensor in tensors])
        return output

    def _unchanged(self) -> dict[str, Any]:
        """Outputs that nothing wrote into after they were made, as far as there is room."""
        unchanged = {}
        for name, (output, tensors, versions) in self._calls.items():
            same = versions == [tensor._version for tensor in tensors]
            if tensors and same and _size(output) <= self._room:
                self._room -= _size(output)
                unchanged[name] = output
        return unchanged

    def _time(self) -> dict[str, tuple[int, int]]:
        """When each module that runs just once starts and ends, in calls."""
        starts: dict[str, int] = {}
        spans: dict[str, tuple[int, int]] = {}
        runs: Counter[str] = Counter()
        clock = 0

        def enter(name: str, _module: nn.Module, _args: Any) -> None:
            nonlocal clock
            clock += 1
            runs[name] += 1
            starts[name] = clock

        def leave(name: str, _module: nn.Module, _args: Any, _output: Any) -> None:
            nonlocal clock
            clock += 1
            spans[name] = (starts[name], clock)

        handles = []
        for name, module in self.model.named_modules():
            handles.append(module.register_forward_pre_hook(partial(enter, name)))
            handles.append(module.register_forward_hook(partial(leave, name)))
        with torch.no_grad():
            self._loss(self.model, self._batches[0])
        for handle in handles:
            handle.remove()
        return {name: span for name, span in spans.items() if runs[name] == 1}

    def _worth_keeping(self, points: Sequence[int]) -> Iterator[str]:
        """Modules that have ended before a layer starts, while the one that calls them has not."""
        for name, (_, end) in self._spans.items():
            outer = name.rpartition(".")[0]
            while outer and outer not in self._spans:
                outer = outer.rpartition(".")[0]
            until = self._spans[outer][1] if outer in self._spans else None
            if name and any(end < p and (until is None or p < until) for p in points):
                yield name


def _tensors(output: Any) -> Iterator[Tensor]:
    """The tensors of an output that is one, or a sequence of outputs."""
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, (list, tuple)):
        for part in output:
            yield from _tensors(part)


def _size(output: Any) -> int:
    """Bytes of an output."""
    return sum(tensor.nbytes for tensor in _tensors(output))
