"""Where to compute: which device, what it can do, and what it tells of its time and memory.

Everything that differs between a CPU and the kinds of accelerators is asked of this module.
"""

from __future__ import annotations

import ctypes
import functools
import platform
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from loguru import logger

from yolox.utils.choices import PRECISIONS
from yolox.utils.cores import processor
from yolox.utils.errors import UserError
from yolox.utils.printable import threads_of

_MALLOC_TRIM_THRESHOLD, _MALLOC_MMAP_THRESHOLD = -1, -3  # of malloc.h
_NVIDIA_FILE = Path("/proc/driver/nvidia/version")
_NVIDIA_VERSION = re.compile(r"Kernel Module\D*([\d.]+)")
_NO_GPU_HERE = ("Found no NVIDIA driver", "No CUDA GPUs are available", "No HIP GPUs")

CPU = torch.device("cpu")


# ------------------------------------------------------------------------------------------ choice


def resolve_device(name: str | torch.device = "auto") -> torch.device:
    """The device that a person names.

    Args:
        name: ``auto`` is the accelerator if there is one, otherwise the CPU; ``gpu`` is the
            accelerator; ``cpu``; or the accelerator's own name, such as ``cuda``, ``mps`` or
            ``xpu``, with a number where there are several, as ``cuda:1``.

    Raises:
        UserError: no such device here, and why.
    """
    if name == "auto":
        warn_of_unusable()
        return accelerator() or CPU
    if name == "gpu":
        found = accelerator()
        if found is None:
            raise UserError(f"`device='gpu'`: {_why_none(_built_for())}: use auto or cpu")
        return found
    try:
        device = torch.device(name)
    except (RuntimeError, ValueError):
        device = torch.device("meta")
    if device.type == "meta":
        known = ["auto", "cpu", "gpu", *([found.type] if (found := accelerator()) else ())]
        advice = " (`devices` is the number of processes)" if str(name).isdigit() else ""
        raise UserError(f"`device={str(name)!r}`: expected one of {', '.join(known)}{advice}")
    if device.type == "cpu":
        return CPU
    found = accelerator()
    if found is None or found.type != device.type:
        raise UserError(f"`device={str(name)!r}`: {_why_none(device.type)}: use auto or cpu")
    count = device_count(device)
    if is_numbered(device) and device.index >= count:
        there = ", ".join(f"{device.type}:{index}" for index in range(count))
        raise UserError(f"`device={str(name)!r}`: this machine has {there}")
    return device


def accelerator() -> torch.device | None:
    """The kind of accelerator that PyTorch can use here, without a number; None: there is none."""
    return torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None


def is_numbered(device: torch.device) -> bool:
    """Whether it is one device by its number, not any of its kind."""
    return ":" in str(device)


def device_count(device: torch.device) -> int:
    """How many devices of its kind there are; one CPU."""
    return 1 if device.type == "cpu" else torch.accelerator.device_count()


def _built_for() -> str:
    """The kind of accelerator that this PyTorch was built for; cuda where for none."""
    built = torch.accelerator.current_accelerator()
    return "cuda" if built is None else built.type


def _why_none(kind: str) -> str:
    """Why there is no accelerator of a kind, in a clause."""
    built = torch.accelerator.current_accelerator()
    if built is None or built.type != kind:
        return (
            f"PyTorch {torch.__version__} is built without {kind}, docs/install.md tells how to "
            "get one that has it"
        )
    return _broken(kind) or f"PyTorch finds no {kind} device here"


def _broken(kind: str) -> str:
    """What a driver says that does not do; empty where it says nothing, or there is no device."""
    if kind != "cuda":
        return ""
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except (RuntimeError, AssertionError) as error:
        text = " ".join(str(error).split())
        if not any(words in text for words in _NO_GPU_HERE):
            return f"its driver cannot be used ({text.partition('. ')[0].rstrip('.')})"
    return ""


@functools.cache
def warn_of_unusable() -> None:
    """Say once that a GPU is left idle, as with a driver that is too old."""
    built = torch.accelerator.current_accelerator()
    if built is not None and accelerator() is None and (cause := _broken(built.type)):
        logger.warning(f"a GPU of this machine is not used: {cause}; computing on the CPU")


# --------------------------------------------------------------------------------------- abilities


def resolve_precision(precision: str, device: torch.device) -> str:
    """``auto`` as one of fp32, bf16 and fp16 for a device; anything else unchanged.

    ``auto`` takes bf16 where the processor multiplies it natively (Ampere and later, AVX-512 BF16,
    AMX): it is up to twice as fast and needs no loss scaling. Elsewhere it takes fp32.

    Raises:
        UserError: an unknown precision, or one that the device has no arithmetic for.
    """
    if precision not in PRECISIONS:
        raise UserError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    if precision == "auto":
        return "bf16" if _multiplies_bf16(device) else "fp32"
    if precision == "fp16" and device.type == "cpu":
        raise UserError("`precision='fp16'` needs a GPU: use bf16 or auto on a CPU")
    if precision != "fp32" and not _has_autocast(device, HALVES[precision]):
        raise UserError(f"`precision={precision!r}` is none that {device} has: use fp32 or auto")
    return precision


HALVES = {"fp16": torch.float16, "bf16": torch.bfloat16}


def half_precision(device: torch.device) -> str:
    """What ``--fp16`` means on a device: fp16 on an accelerator, bf16 on a CPU."""
    return "bf16" if device.type == "cpu" else "fp16"


def _multiplies_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        supported = getattr(torch.get_device_module(device), "is_bf16_supported", lambda: False)
        return bool(supported())
    # Older releases of torch do not tell; they train in fp32.
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))


def _has_autocast(device: torch.device, dtype: torch.dtype) -> bool:
    if device.type == "cuda" and dtype == torch.bfloat16:
        return bool(torch.cuda.is_bf16_supported())
    if not torch.amp.is_autocast_available(device.type):
        return False
    module = torch.get_device_module(device) if device.type != "cpu" else None
    listed = getattr(module, "get_amp_supported_dtype", None)
    return listed is None or dtype in listed()


@functools.cache
def has_float64(device: torch.device) -> bool:
    """Whether a device computes in float64, which those of Apple and some of Intel do not."""
    try:
        return bool(torch.ones(1, dtype=torch.float64, device=device).add(1).item() == 2)
    except torch.OutOfMemoryError:
        return True  # it would have taken the type
    except (TypeError, RuntimeError):
        return False


def float64_device(device: torch.device, what: str) -> torch.device:
    """The device if it computes in float64, otherwise the CPU.

    Args:
        device: that was asked for.
        what: is computed in float64, for the line that says where instead.
    """
    if has_float64(device):
        return device
    logger.info(f"{device} has no float64, which {what} in: on the CPU")
    return CPU


def pins_memory(device: torch.device) -> bool:
    """Whether copies to a device are faster from pinned memory."""
    return device.type in ("cuda", "xpu")


def device_name(device: torch.device) -> str:
    """What a device is sold as, where it tells; the processor's name for the CPU."""
    if device.type == "cpu":
        return processor()
    name = getattr(torch.get_device_module(device), "get_device_name", None)
    return str(name(device)) if name is not None else f"{device.type.upper()}, {processor()}"


def driver_version(device: torch.device) -> str:
    """What runs code on an accelerator, toolkit and driver as far as they are told."""
    if device.type == "cuda":
        toolkit = f"CUDA {torch.version.cuda}" if torch.version.cuda else f"HIP {torch.version.hip}"
        found = _NVIDIA_VERSION.search(_text_of(_NVIDIA_FILE))
        return f"{toolkit}, driver {found[1]}" if found else toolkit
    properties = getattr(torch.get_device_module(device), "get_device_properties", None)
    driver = getattr(properties(device), "driver_version", None) if properties else None
    return f"driver {driver}" if driver else platform.platform()


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


def machine(device: torch.device = CPU) -> str:
    """What a time was measured on: processor, threads, versions; the accelerator before them."""
    own = f"{processor()}, {threads_of(torch.get_num_threads())}, PyTorch {torch.__version__}"
    return own if device.type == "cpu" else f"{device_name(device)}, {own}"


# -------------------------------------------------------------------------------------------- time


def synchronize(device: torch.device) -> None:
    """Wait until a device has done what was queued on it; a CPU queues nothing."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def milliseconds(work: Callable[[], object], device: torch.device, *, repeats: int = 1) -> float:
    """Time of a call, all of what it queues on the device included.

    By events on the device itself with CUDA, by the clock on the wall elsewhere.

    Args:
        work: called without waiting for its result.
        device: that it queues on.
        repeats: calls in a row, of which this is the mean: the device then need not wait for the
            next one.
    """
    synchronize(device)
    if device.type == "cuda":
        with torch.cuda.device(device):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in "12")  # type: ignore[no-untyped-call]
            begin.record()
            for _ in range(repeats):
                work()
            end.record()
            end.synchronize()
        return float(begin.elapsed_time(end)) / repeats
    start = time.perf_counter()
    for _ in range(repeats):
        work()
    synchronize(device)
    return 1e3 * (time.perf_counter() - start) / repeats


# ------------------------------------------------------------------------------------------ memory


def reset_peak(device: torch.device) -> None:
    """Let `peak_memory` begin anew."""
    if reset := _of_memory(device, "reset_peak_memory_stats"):
        reset()


def peak_memory(device: torch.device) -> int | None:
    """The most bytes that this process had on an accelerator; None where it does not tell."""
    told = _of_memory(device, "max_memory_allocated")
    return None if told is None else int(told())


def usable_memory(device: torch.device) -> int | None:
    """Bytes on an accelerator that this process has or could get; None where it does not tell."""
    told, own = _of_memory(device, "mem_get_info"), _of_memory(device, "memory_allocated")
    if told is None or own is None:
        return None
    empty_cache(device)
    return int(told()[0]) + int(own())


def empty_cache(device: torch.device) -> None:
    """Give back memory that the accelerator's allocator keeps for later."""
    if empty := _of_memory(device, "empty_cache"):
        empty()


def _of_memory(device: torch.device, name: str) -> Callable[..., Any] | None:
    if device.type == "cpu":
        return None
    module = torch.get_device_module(device)
    found: Callable[..., Any] | None = getattr(module, name, None)
    if found is None:
        found = getattr(getattr(module, "memory", None), name, None)
    return found


# -------------------------------------------------------------------------------------- randomness


def random_state(device: torch.device) -> dict[str, torch.Tensor]:
    """State of an accelerator's random numbers by its kind; empty where there is none to keep."""
    state = getattr(torch.get_device_module(device), "get_rng_state", None)
    return {} if device.type == "cpu" or state is None else {device.type: state().cpu()}


def set_random_state(device: torch.device, states: dict[str, torch.Tensor]) -> None:
    """Put back what `random_state` returned; that of another kind of device is left out."""
    if (state := states.get(device.type)) is not None:
        torch.get_device_module(device).set_rng_state(state)


def keep_freed_memory() -> None:
    """Let glibc keep what is freed for the next step, instead of handing it back to the system.

    A training step on a CPU frees and asks again for the same large blocks; fetched anew each time,
    their pages cost a tenth of the step. The process stays at its largest size. Elsewhere than on
    glibc this does nothing.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_MALLOC_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(_MALLOC_TRIM_THRESHOLD, (1 << 31) - 1)
