"""A pretend accelerator: ``pretend:0``, whose tensors hold tensors of the CPU and mix with none.

It computes real values, and raises where a real one would: a tensor there beside one here, `numpy`,
float64 if it is to have none (as Apple's), memory beyond a limit, any operation once it is lost. It
counts what makes the CPU wait for a device: copies to it, and shapes that depend on values.

`torch.nn.Module.to` and `torch.random` know it by PyTorch's hooks for other people's devices, so it
can be registered once in a process, and never be taken away: a process of its own is its place.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils.backend_registration import (
    _DummyBackendModule,
    _setup_privateuseone_for_python_backend,
)

NAME = "pretend"
# Of two devices: what copies, and indices, which may be on the CPU for all devices.
_INDEXED = ("index", "index_put_", "index_put", "_index_put_impl_")
_MAY_MIX = (*_INDEXED, "copy_", "_to_copy", "_copy_from", "_has_compatible_shallow_copy_type")
# What has to know values before it knows its result's shape.
_SHAPED = ("nonzero", "masked_select", "unique_consecutive", "_unique2", "unique_dim", "bincount")


@dataclass
class State:
    """What the device is to be like, and what happened on it.

    Attributes:
        float64: whether it has it.
        limit: bytes of memory; None for no limit.
        lost: whether it is gone.
        used, most: bytes now, and at most since `reset_peak_memory_stats`.
        waits: for what the CPU had to wait, by operation.
    """

    float64: bool = True
    limit: int | None = None
    lost: bool = False
    used: int = 0
    most: int = 0
    waits: Counter[str] = field(default_factory=Counter)


STATE = State()


class _Module(_DummyBackendModule):  # type: ignore[misc]
    """What `torch.get_device_module` gives: as `torch.cuda` is for CUDA."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]

    def get_device_name(self, device: object = None) -> str:
        return "Pretend 100"

    def get_rng_state(self, device: object = None) -> torch.Tensor:
        return torch.arange(16, dtype=torch.uint8)

    def set_rng_state(self, state: torch.Tensor, device: object = None) -> None:
        assert state.tolist() == list(range(16))

    def memory_allocated(self, device: object = None) -> int:
        return STATE.used

    def max_memory_allocated(self, device: object = None) -> int:
        return STATE.most

    def reset_peak_memory_stats(self, device: object = None) -> None:
        STATE.most = STATE.used

    def mem_get_info(self, device: object = None) -> tuple[int, int]:
        limit = STATE.limit or 1 << 40
        return limit - STATE.used, limit

    def empty_cache(self) -> None:
        pass


class Elsewhere(torch.Tensor):
    """A tensor of the device; `inner` holds its values."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor, requires_grad: bool = False) -> Elsewhere:
        outer: Elsewhere = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=f"{NAME}:0",
            requires_grad=requires_grad,
        )
        outer.inner = inner
        _account(inner)
        return outer

    def __repr__(self, **_: object) -> str:
        return f"Elsewhere({self.inner})"

    def tolist(self) -> Any:
        STATE.waits["tolist"] += 1
        return self.inner.tolist()

    def __deepcopy__(self, memo: dict[int, Any]) -> Elsewhere:
        if id(self) not in memo:
            twin = Elsewhere(self.inner.detach().clone(), self.requires_grad)
            if isinstance(self, torch.nn.Parameter):
                twin._is_param = True  # type: ignore[attr-defined]
            memo[id(self)] = twin
        found: Elsewhere = memo[id(self)]
        return found

    def data_ptr(self) -> int:
        return self.inner.data_ptr()

    def numpy(self, *_args: object, **_kwargs: object) -> Any:
        raise TypeError(f"can't convert {NAME}:0 device type tensor to numpy: use Tensor.cpu()")

    __array__ = numpy

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        return _run(func, args, kwargs or {})


_storages: dict[int, int] = {}  # bytes by address, each counted while a tensor of it lives


def _account(inner: torch.Tensor) -> None:
    storage = inner.untyped_storage()
    address, size = storage.data_ptr(), storage.nbytes()
    if address in _storages or not size:
        return
    # An exception in a thread of the backward pass would end this process.
    in_backward = threading.current_thread() is not threading.main_thread()
    if STATE.limit is not None and STATE.used + size > STATE.limit and not in_backward:
        raise torch.OutOfMemoryError(f"{NAME.upper()} out of memory: {size} bytes more")
    _storages[address] = size
    STATE.used += size
    STATE.most = max(STATE.most, STATE.used)
    weakref.finalize(storage, _release, address)


def _release(address: int) -> None:
    STATE.used -= _storages.pop(address, 0)


def _inner(value: Any) -> Any:
    """An argument with the tensors that are held, lists and all."""
    if isinstance(value, Elsewhere):
        return value.inner
    if isinstance(value, (list, tuple)):
        return type(value)([_inner(item) for item in value])
    return value


def _tensors(values: Iterable[Any]) -> Iterator[torch.Tensor]:
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors(value)


def _run(func: Any, args: Any, kwargs: Any) -> Any:
    tensors = list(_tensors((*args, *kwargs.values())))
    own = [t for t in tensors if isinstance(t, Elsewhere)]
    device = kwargs.get("device")
    there = device is not None and torch.device(device).type == NAME
    if not (own or there):
        return func(*args, **kwargs)
    here = device is not None and not there
    name = func._schema.name.removeprefix("aten::")
    _judge(name, args, kwargs, tensors, here=here)
    args = _inner(args)
    kwargs = {key: _inner(value) for key, value in kwargs.items()}
    if device is not None:
        kwargs["device"] = torch.device("cpu")
    kwargs.pop("pin_memory", None)
    result = func(*args, **kwargs)
    if here or name == "_local_scalar_dense":
        return result
    known = {id(t.inner): t for t in own}  # what is written in place stays the same tensor

    def wrap(value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            return type(value)([wrap(item) for item in value])
        if not isinstance(value, torch.Tensor):
            return value
        return known[id(value)] if id(value) in known else Elsewhere(value)

    return known.get(id(args[0]), args[0]) if name == "copy_" else wrap(result)


def _judge(name: str, args: Any, kwargs: Any, tensors: Sequence[Any], *, here: bool) -> None:
    """Raise what a device would, and count what it would be waited for."""
    if STATE.lost:
        raise torch.AcceleratorError(f"{NAME.upper()} error: unspecified launch failure")
    own = [t for t in tensors if isinstance(t, Elsewhere)]
    others = [t for t in tensors if not isinstance(t, Elsewhere) and t.dim()]
    if own and others and name not in _MAY_MIX:
        raise RuntimeError(f"expected all tensors on one device, found {NAME}:0 and cpu ({name})")
    wide = kwargs.get("dtype") == torch.float64 or any(t.dtype == torch.float64 for t in own)
    if wide and not STATE.float64 and not here:
        raise TypeError(f"Cannot convert to float64: {NAME} has no such type")
    target = {"copy_": 0, "_copy_from": 1}.get(name)
    to_cpu = here if target is None else not isinstance(args[target], Elsewhere)
    indices = args[1] if name.lstrip("_").startswith("index") and len(args) > 1 else ()
    by_mask = isinstance(indices, (list, tuple)) and any(
        isinstance(i, torch.Tensor) and i.dtype == torch.bool for i in indices
    )
    if to_cpu or by_mask or name in _SHAPED or name == "_local_scalar_dense":
        STATE.waits["copy to the CPU" if to_cpu else "mask" if by_mask else name] += 1


_LIBRARIES: list[torch.library.Library] = []


def register() -> None:
    """Make the device known to PyTorch, for the rest of this process."""
    _setup_privateuseone_for_python_backend(NAME, backend_module=_Module())
    torch.__future__.set_swap_module_params_on_conversion(True)
    torch.accelerator.synchronize = lambda device=None: None
    torch.accelerator.set_device_index = lambda device: None
    fallback = torch.library.Library("_", "IMPL")
    fallback.fallback(lambda func, *args, **kwargs: _run(func, args, kwargs), "PrivateUse1")
    fallback.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
    aten = torch.library.Library("aten", "IMPL")
    aten.impl("empty_strided", _empty_strided, "PrivateUse1")
    aten.impl("empty.memory_format", _empty, "PrivateUse1")
    aten.impl("_copy_from", _copy_from, "PrivateUse1")
    for name in ("conv2d", "linear"):
        aten.impl(name, _lower(getattr(torch.ops.aten, name).default), "AutocastPrivateUse1")
    _LIBRARIES.extend((fallback, aten))


def _lower(op: Any) -> Any:
    """What autocast has an operation do: compute in half precision."""
    keys = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)

    def run(*args: Any) -> Any:
        dtype = torch.get_autocast_dtype(NAME)
        lower = [
            a.to(dtype) if isinstance(a, torch.Tensor) and a.is_floating_point() else a
            for a in args
        ]
        with torch._C._ExcludeDispatchKeyGuard(keys):
            return op(*lower)

    return run


def _empty_strided(
    size: Any, stride: Any, *, dtype: Any = None, layout: Any = None, device: Any = None,
    pin_memory: Any = None,
) -> Elsewhere:  # fmt: skip
    return Elsewhere(torch.empty_strided(size, stride, dtype=dtype))


def _empty(
    size: Any, *, dtype: Any = None, layout: Any = None, device: Any = None,
    pin_memory: Any = None, memory_format: Any = None,
) -> Elsewhere:  # fmt: skip
    return Elsewhere(
        torch.empty(size, dtype=dtype, memory_format=memory_format or torch.contiguous_format)
    )


def _copy_from(source: Any, target: Any, non_blocking: bool = False) -> Any:
    _inner(target).copy_(_inner(source))
    return target


@contextlib.contextmanager
def being(**values: Any) -> Iterator[State]:
    """Within it the device is as said: see `State`."""
    before = {name: getattr(STATE, name) for name in values}
    for name, value in values.items():
        setattr(STATE, name, value)
    try:
        yield STATE
    finally:
        for name, value in before.items():
            setattr(STATE, name, value)
