"""Milliseconds of single layers in a runtime: what a table of latencies is made of.

Layers of one kind are branches of one small network, each timed where the runtime can tell them
apart: onnxruntime and OpenVINO time each of their nodes, so that what a call itself takes, and the
change of layout at the ends that no layer inside a network needs, are left out.
"""

from __future__ import annotations

import itertools
import json
import re
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from yolox.bench.layer_graphs import (
    conv_graph,
    layer_image,
    layer_weights,
    ncnn_text,
    nothing_graph,
    torch_image,
    torch_layer,
)
from yolox.export.place import open_session
from yolox.export.runtimes import LAYER_RUNTIMES, RUNTIMES
from yolox.export.sessions import onnxruntime_options, openvino_arithmetic
from yolox.export.settings import ExportError, optional_packages
from yolox.utils.conv_kind import ConvKind, LayerTimer, Pair
from yolox.utils.device import CPU
from yolox.utils.errors import UserError
from yolox.utils.threads import own_threads, set_threads
from yolox.utils.timing import interleave

TIMED_RUNS, WARMUP = 25, 3
IN_A_ROW = 10  # runs on an accelerator, which then need not wait for one another to be started
NETWORK_SECONDS = 5.0  # that one network of layers may take
NETWORK_WEIGHTS = 16_000_000  # values in one network
MIN_MILLISECONDS = 0.0005  # profilers count whole microseconds
# To be raised with any change of what is timed: older figures are then measured anew.
TIMING_VERSION = "2"

_NODE_NAME = re.compile(r"layer(\d+)_")
_LAYOUT_NODES = ("ReorderInput", "ReorderOutput", "Reorder", "Transpose")


def layer_timer(
    runtime: str, *, threads: int, openvino_precision: str = "f32", place: torch.device = CPU
) -> LayerTimer:
    """What times layers in a runtime: the median of up to 25 runs, one image.

    Args:
        runtime: one of `LAYER_RUNTIMES`.
        threads: of a run.
        openvino_precision: arithmetic of OpenVINO, see `yolox.export.open_exported`; all others
            compute in float32.
        place: where the runtime computes, see `yolox.export.place.place_of`.

    Raises:
        UserError: an unknown runtime.
        ExportError: its package is not installed.
    """
    if runtime not in LAYER_RUNTIMES:
        raise UserError(f"runtime must be one of {', '.join(LAYER_RUNTIMES)}, got {runtime!r}")
    optional_packages(*RUNTIMES[runtime].layer_packages)
    timers: dict[str, Callable[[ConvKind, Sequence[Pair], int], list[float]]] = {
        "onnxruntime": _onnxruntime
        if place.type == "cpu"
        else partial(time_onnxruntime_on, place=place),
        "openvino": partial(_openvino, precision=openvino_precision),
        "ncnn": _ncnn,
        "torch": partial(_torch, place=place),
    }

    def measure(kind: ConvKind, pairs: Sequence[Pair]) -> list[float]:
        times: list[float] = []
        for part in _portions(kind, pairs):
            times += timers[runtime](kind, part, threads)
        return times

    return measure


def runtime_version(runtime: str, openvino_precision: str = "f32") -> str:
    """Name and version of a runtime, and of OpenVINO its arithmetic.

    Raises:
        ExportError: it is not installed.
    """
    (module,) = optional_packages(RUNTIMES[runtime].layer_packages[-1])
    arithmetic = ""
    if runtime == "openvino":
        arithmetic = f" in {openvino_arithmetic(openvino_precision)}"
    # OpenVINO's goes on with its build.
    return f"{runtime} {module.__version__.partition('-')[0]}{arithmetic}"


def _portions(kind: ConvKind, pairs: Sequence[Pair]) -> Iterable[list[Pair]]:
    """Pairs in their order, in parts whose weights fit into one network."""
    total, numbers = 0, []
    for inputs, outputs in pairs:
        total += outputs * (1 if kind.depthwise else inputs) * kind.kernel[0] * kind.kernel[1]
        numbers.append(total // NETWORK_WEIGHTS)
    for _, part in itertools.groupby(zip(numbers, pairs, strict=True), key=lambda item: item[0]):
        yield [pair for _, pair in part]


def _feed(kind: ConvKind, pairs: Sequence[Pair]) -> dict[str, NDArray[np.float32]]:
    return {f"x{width}": layer_image(kind, width) for width in {inputs for inputs, _ in pairs}}


def _typical(records: Iterable[tuple[int, int, float]], layers: int) -> list[float]:
    """The median, over the runs after the warm-up, of the sum over a layer's nodes.

    Args:
        records: (run, layer, milliseconds), one a node.
        layers: how many there are, numbered from 0.

    Raises:
        ExportError: the runtime tells of no node of a layer.
    """
    sums: dict[int, dict[int, float]] = defaultdict(lambda: defaultdict(float))
    for run, layer, milliseconds in records:
        if run >= WARMUP:
            sums[layer][run] += milliseconds
    unseen = [str(layer) for layer in range(layers) if not sums[layer]]
    if unseen:
        raise ExportError(
            f"this runtime does not report the time of layers {', '.join(unseen)} of {layers}: "
            "prune to a target in macs instead, or take another `runtime`"
        )
    return [
        max(statistics.median(sums[layer].values()), MIN_MILLISECONDS) for layer in range(layers)
    ]


def _repeat(call: Callable[[], object]) -> None:
    interleave([call], runs=TIMED_RUNS, warmup=WARMUP, at_most=NETWORK_SECONDS)


def _onnxruntime(kind: ConvKind, pairs: Sequence[Pair], threads: int) -> list[float]:
    (runtime,) = optional_packages("onnxruntime")
    options = onnxruntime_options(threads)
    options.enable_profiling = True
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = runtime.InferenceSession(
            conv_graph(kind, pairs).SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        feed = _feed(kind, pairs)
        _repeat(partial(session.run, None, feed))
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    seen: dict[str, int] = defaultdict(int)
    records = []
    for event in events:
        name = event["name"]
        if event.get("cat") != "Node" or not name.endswith("_kernel_time"):
            continue
        layer = _NODE_NAME.search(name)
        if layer and event["args"]["op_name"] not in _LAYOUT_NODES:
            records.append((seen[name], int(layer[1]), event["dur"] / 1e3))
            seen[name] += 1
    return _typical(records, len(pairs))


def _openvino(
    kind: ConvKind, pairs: Sequence[Pair], threads: int, *, precision: str
) -> list[float]:
    (runtime,) = optional_packages("openvino")
    core = runtime.Core()
    compiled = core.compile_model(
        core.read_model(conv_graph(kind, pairs, plain_mish=False).SerializeToString()),
        "CPU",
        {
            "PERF_COUNT": True,
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "INFERENCE_PRECISION_HINT": openvino_arithmetic(precision),
        },
    )
    request = compiled.create_infer_request()
    feed = _feed(kind, pairs)
    records: list[tuple[int, int, float]] = []
    runs = itertools.count()

    def infer() -> None:
        request.infer(feed)
        run = next(runs)
        for node in request.profiling_info:
            layer = _NODE_NAME.search(node.node_name)
            if layer and node.node_type not in _LAYOUT_NODES:
                records.append((run, int(layer[1]), 1e3 * node.real_time.total_seconds()))

    _repeat(infer)
    return _typical(records, len(pairs))


def _torch(
    kind: ConvKind, pairs: Sequence[Pair], threads: int, *, place: torch.device
) -> list[float]:
    """A batch norm folded into the convolution, channels last: as the models are timed."""
    with torch.inference_mode(), own_threads():
        set_threads(threads)
        works = [
            partial(torch_layer(kind, pair).to(place), torch_image(kind, pair[0]).to(place))
            for pair in pairs
        ]
        times = interleave(
            works,
            runs=TIMED_RUNS,
            warmup=WARMUP,
            at_most=NETWORK_SECONDS,
            device=place,
            repeats=IN_A_ROW,
        )
    return [statistics.median(record) for record in times]


def time_onnxruntime_on(
    kind: ConvKind, pairs: Sequence[Pair], threads: int, *, place: torch.device
) -> list[float]:
    """Layers on a GPU, each a session of its own, less a session that does nothing there.

    onnxruntime's own times of nodes are of their start alone there.
    """
    works: list[Callable[[], object]] = []
    for pair in pairs:
        layer = conv_graph(kind, [pair]).SerializeToString()
        nothing = nothing_graph(kind, pair[0]).SerializeToString()
        x = layer_image(kind, pair[0])
        works += [_bound(graph, x, threads, place) for graph in (layer, nothing)]
    times = interleave(works, runs=TIMED_RUNS, warmup=WARMUP, at_most=NETWORK_SECONDS)
    return _less_empty([statistics.median(record) / IN_A_ROW for record in times])


def _bound(
    graph: bytes, x: NDArray[np.float32], threads: int, place: torch.device
) -> Callable[[], object]:
    """Some runs in a row, input and output staying where the runtime computes."""
    (runtime,) = optional_packages("onnxruntime")
    session = open_session(graph, onnxruntime_options(threads), "onnxruntime", place)
    binding, number = session.io_binding(), place.index or 0
    value = runtime.OrtValue.ortvalue_from_numpy(x, place.type, number)
    binding.bind_ortvalue_input(session.get_inputs()[0].name, value)
    binding.bind_output(session.get_outputs()[0].name, place.type, number)

    def run() -> None:
        for _ in range(IN_A_ROW):
            session.run_with_iobinding(binding)
        binding.synchronize_outputs()

    return run


def _less_empty(medians: Sequence[float]) -> list[float]:
    """Every second time less the one behind it, which is of a run without the layer."""
    return [
        max(layer - empty, 0.01 * layer)
        for layer, empty in zip(medians[::2], medians[1::2], strict=True)
    ]


def _ncnn(kind: ConvKind, pairs: Sequence[Pair], threads: int) -> list[float]:
    """A layer behind a copy of its input, less the copy alone: ncnn does not time its layers."""
    (ncnn,) = optional_packages("ncnn")
    # Copies: a Mat of an array points into it without keeping it alive.
    arrays = {width: layer_image(kind, width)[0] for width in {i for i, _ in pairs}}
    images = {width: ncnn.Mat(array).clone() for width, array in arrays.items()}
    empty = NcnnNet(ncnn, ncnn_text(kind, None), b"", threads)
    works: list[Callable[[], object]] = []
    nets = []
    for pair in pairs:
        weight, bias = layer_weights(kind, pair)
        # A tag of four zero bytes: the weights are float32, as they are.
        content = bytes(4) + weight.tobytes() + bias.tobytes()
        nets.append(NcnnNet(ncnn, ncnn_text(kind, pair), content, threads))
        works += [partial(nets[-1].run, images[pair[0]]), partial(empty.run, images[pair[0]])]
    times = interleave(works, runs=TIMED_RUNS, warmup=WARMUP, at_most=NETWORK_SECONDS)
    return _less_empty([statistics.median(record) for record in times])


class NcnnNet:
    """A network from text and weights in memory; ends in a mean a channel, which is little."""

    def __init__(self, ncnn: Any, text: str, weights: bytes, threads: int) -> None:
        self._net = ncnn.Net()
        self._net.opt.num_threads = threads
        for name in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic"):
            setattr(self._net.opt, name, False)
        with tempfile.TemporaryDirectory() as folder:
            param, model = Path(folder) / "layer.param", Path(folder) / "layer.bin"
            param.write_text(text, encoding="utf-8")
            model.write_bytes(weights)
            if self._net.load_param(str(param)) or self._net.load_model(str(model)):
                raise UserError(f"ncnn does not take this layer:\n{text}")

    def run(self, image: Any) -> Any:
        """The means of the last layer, of an image as `layer_image` makes it."""
        extractor = self._net.create_extractor()
        extractor.input("x", image)
        return extractor.extract("mean")
