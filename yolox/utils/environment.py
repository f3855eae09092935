"""What a bug report needs to know of the machine and of what is installed on it, as text.

Little is imported, and what does not import is told rather than raised: a broken package is often
what the report is about.
"""

from __future__ import annotations

import importlib
import os
import platform
import re
from collections.abc import Iterator
from importlib import metadata
from types import ModuleType

from yolox import __version__
from yolox.utils.cores import cores, processor
from yolox.utils.memory import available_memory

PACKAGE = "yolox-with-pruning"
ABSENT = "not installed"
# The packages whose version decides what a model computes, by pip's names; then the runtimes.
_PACKAGES = (
    "torch",
    "torchvision",
    "torch-pruning",
    "lightning-fabric",
    "numpy",
    "opencv-python-headless",
    "opencv-python",
    "pillow",
    "pycocotools",
    "ultralytics",
)
_RUNTIMES = ("onnxruntime", "onnxruntime-gpu", "openvino", "ncnn", "tensorrt")
_OPTIONAL = {
    "torchvision",
    "opencv-python",
    "ultralytics",
    "onnxruntime-gpu",
}  # no line where it is not there
_REQUIREMENT = re.compile(r"([\w.-]+).*;.*extra == ['\"]([\w-]+)['\"]")
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


def environment_text() -> str:
    """Versions, machine, devices, runtimes and extras, a line each."""
    torch = _imported("torch")
    return "\n".join(
        (
            *_block("versions", _versions(torch)),
            *_block("machine", _machine(torch)),
            *_block("runtimes", _runtimes()),
            *_block("extras", _extras()),
        )
    ).rstrip()


def _block(title: str, rows: Iterator[tuple[str, str]]) -> list[str]:
    lines = list(rows)
    width = max(len(name) for name, _ in lines)
    return [f"{title}:", *(f"  {name:<{width}}  {value}" for name, value in lines), ""]


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _imported(module: str) -> ModuleType | str:
    """A module, or why there is none."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        return ABSENT if error.name == module else _cause(error)
    except Exception as error:  # a broken package raises what it likes
        return _cause(error)


def _cause(error: Exception) -> str:
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return f"does not import: {first}"


def _versions(torch: ModuleType | str) -> Iterator[tuple[str, str]]:
    yield PACKAGE, __version__ + ("" if _version(PACKAGE) else " (not installed, run in place)")
    yield "Python", f"{platform.python_version()} ({platform.python_implementation()})"
    for package in _PACKAGES:
        version = _version(package)
        if package == "torch" and version:
            if isinstance(torch, str):
                version = f"{version}, {torch}"
            else:
                built = torch.version.cuda or torch.version.hip
                version = f"{torch.__version__}, built for {f'GPU {built}' if built else 'CPU'}"
        if version or package not in _OPTIONAL:
            yield package, version or ABSENT


def _machine(torch: ModuleType | str) -> Iterator[tuple[str, str]]:
    yield "platform", platform.platform()
    yield "processor", f"{processor()}, {platform.machine()}"
    yield "cores", f"{cores()} of {os.cpu_count()}"
    yield "memory", _memory()
    if isinstance(torch, str):
        yield "devices", f"unknown, since torch {torch}"
    else:
        yield "devices", "; ".join(_devices(torch))
    yield "threads", ", ".join(_threads(torch))


def _memory() -> str:
    free = available_memory()
    try:
        whole: int | None = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        whole = None
    told = [f"{n / 2**30:.1f} GiB {word}" for n, word in ((whole, "in all"), (free, "free")) if n]
    return ", ".join(told) or "unknown"


def _devices(torch: ModuleType) -> Iterator[str]:
    """The devices that PyTorch computes on, each with its memory where it tells."""
    yield "CPU"
    for kind in ("cuda", "xpu"):
        backend = getattr(torch, kind, None)
        if backend is None or not backend.is_available():
            continue
        for index in range(backend.device_count()):
            it = backend.get_device_properties(index)
            yield f"{kind.upper()} {index}: {it.name}, {it.total_memory / 2**30:.1f} GiB"
    if torch.backends.mps.is_available():
        yield "MPS"


def _threads(torch: ModuleType | str) -> Iterator[str]:
    if not isinstance(torch, str):
        yield f"PyTorch {torch.get_num_threads()}"
    cv2 = _imported("cv2")
    yield f"OpenCV {cv2 if isinstance(cv2, str) else cv2.getNumThreads()}"
    for variable in _THREAD_VARIABLES:
        if variable in os.environ:
            yield f"{variable}={os.environ[variable]}"


def _runtimes() -> Iterator[tuple[str, str]]:
    for package in _RUNTIMES:
        version = _version(package)
        if version and package.startswith("onnxruntime"):
            runtime = _imported("onnxruntime")
            version += ", " + (
                runtime if isinstance(runtime, str) else " ".join(runtime.get_available_providers())
            )
        if version or package not in _OPTIONAL:
            yield package, version or ABSENT


def _extras() -> Iterator[tuple[str, str]]:
    """Every extra of this package, and what is missing of it."""
    try:
        requirements = metadata.requires(PACKAGE) or []
    except metadata.PackageNotFoundError:
        yield "unknown", f"{PACKAGE} is not installed"
        return
    extras: dict[str, list[str]] = {}
    for line in requirements:
        found = _REQUIREMENT.match(line)
        if found and found[1] != PACKAGE:
            extras.setdefault(found[2], []).append(found[1])
    for extra, packages in extras.items():
        missing = [package for package in packages if _version(package) is None]
        yield extra, f"without {', '.join(missing)}" if missing else "installed"
