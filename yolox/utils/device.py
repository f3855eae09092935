"""Which precision a device trains in, and what it is called."""

from __future__ import annotations

import platform
from pathlib import Path

import torch

PRECISIONS = ("auto", "fp32", "bf16", "fp16")


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


def machine() -> str:
    """What a time was measured on: processor, threads, versions."""
    processor = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = info.read_text(encoding="utf-8", errors="replace").splitlines()
        named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        processor = named[0] if named else processor
    return f"{processor}, {torch.get_num_threads()} threads, PyTorch {torch.__version__}"
