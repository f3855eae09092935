"""What a device trains in, what it is called, and how the CPU keeps its memory."""

from __future__ import annotations

import ctypes
import platform

import torch

from yolox.utils.choices import PRECISIONS
from yolox.utils.cores import processor

_MALLOC_TRIM_THRESHOLD, _MALLOC_MMAP_THRESHOLD = -1, -3  # of malloc.h


def default_device() -> torch.device:
    """A GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def resolve_precision(precision: str, device: torch.device) -> str:
    """``auto`` as one of fp32, bf16 and fp16 for a device; anything else unchanged.

    ``auto`` takes bf16 where the processor multiplies it natively (Ampere and later, AVX-512 BF16,
    AMX): it is up to twice as fast and needs no loss scaling. Elsewhere it takes fp32.

    Raises:
        ValueError: an unknown precision, or fp16 on a CPU, which has no arithmetic for it.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    if precision == "fp16" and device.type == "cpu":
        raise ValueError("precision fp16 needs a GPU: use bf16 or auto on a CPU")
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    # Older releases of torch do not tell; they train in fp32.
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    native = capabilities.get("amx_bf16") or capabilities.get("avx512_bf16")
    return "bf16" if native else "fp32"


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


def machine() -> str:
    """What a time was measured on: processor, threads, versions."""
    return f"{processor()}, {torch.get_num_threads()} threads, PyTorch {torch.__version__}"
