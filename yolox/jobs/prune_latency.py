"""Pruning to a latency that is measured in a runtime: tables of layers, plans, measured models."""

from __future__ import annotations

import dataclasses
import itertools
import os
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from loguru import logger
from torch import nn

from yolox.bench.layers import TIMING_VERSION, layer_timer, runtime_version
from yolox.export.convert import write_model
from yolox.export.graph import fold_focus
from yolox.export.place import place_of
from yolox.export.runtime import open_exported
from yolox.export.runtimes import RUNTIMES
from yolox.export.sessions import openvino_arithmetic
from yolox.export.settings import SUFFIXES, ExportSettings
from yolox.jobs.calibration import probe
from yolox.models import YOLOX, LoadedModel
from yolox.pruning import (
    Group,
    LatencyRecord,
    PruneConfig,
    PruningError,
    PruningPlan,
    ThresholdHint,
)
from yolox.pruning.balance import merge_bundles
from yolox.pruning.cost import LayerSum
from yolox.pruning.importance import Scorer
from yolox.pruning.latency.plan import LatencyPlanner, search
from yolox.pruning.latency.staircase import ACCELERATOR_SWEEP, CPU_SWEEP, measure_steps
from yolox.pruning.latency.table import ConvLayer, LatencyTable, conv_layers, layer_tables
from yolox.pruning.pruner import cut, find_emptiable
from yolox.pruning.select import select_groups
from yolox.utils.cache_folder import cache_folder, locked
from yolox.utils.conv_kind import LayerTimer
from yolox.utils.cores import processor
from yolox.utils.device import CPU, device_name, driver_version
from yolox.utils.errors import UserError
from yolox.utils.files import require_writable
from yolox.utils.model_utils import fuse_model
from yolox.utils.printable import threads_of
from yolox.utils.scratch import scratch_folder
from yolox.utils.threads import own_threads, set_threads
from yolox.utils.timing import interleave

TIMING_SECONDS = 20.0  # that timing two models in turns may take
TIMED_RUNS = 30
BUSY_RATIO = 1.3  # times the fastest run, that half of the runs take longer than

Work = Callable[[], object]


@dataclass(frozen=True, kw_only=True)
class LatencySettings:
    """What a latency is measured in.

    Attributes:
        runtime: torch (not exported, batch norms folded), onnxruntime, openvino or ncnn.
        threads: of one run.
        round_to: channels left are a multiple of it; None takes the runtime's own step.
        openvino_precision: arithmetic of OpenVINO: f32, bf16, or default, its own choice.
        device: where the runtime computes; ``auto`` is the accelerator where it can.
    """

    runtime: str
    threads: int
    round_to: int | None = None
    openvino_precision: str = "f32"
    device: str = "auto"

    @property
    def version(self) -> str:
        """Name and version of the runtime; ExportError where it is not installed."""
        return runtime_version(self.runtime, self.openvino_precision)

    @property
    def place(self) -> torch.device:
        """Where it computes; ExportError where it cannot."""
        return place_of(self.runtime, self.device, file=False)

    @property
    def machine(self) -> str:
        """What it computes on, with the driver of an accelerator."""
        place = self.place
        if place.type == "cpu":
            return f"{processor()}, {os.cpu_count()} cores"
        return f"{device_name(place)}, {driver_version(place)}"


class Clock:
    """Models timed in a runtime, one image a run; what opens them says of which kind they are."""

    def __init__(self, settings: LatencySettings) -> None:
        self._settings, self._place = settings, settings.place
        # Other runtimes than PyTorch wait for their result.
        self._queue = self._place if settings.runtime == "torch" else CPU

    def open(self, model: nn.Module) -> Work:
        """One run of a model on an image, ready to be timed.

        Raises:
            ExportError: the runtime is not installed, or does not take the model.
        """
        raise NotImplementedError

    def time(self, works: Sequence[Work]) -> list[float]:
        """Milliseconds of each: of the first the median of up to 30 runs, taken in turns.

        Of the others, that times the median of what they take relative to the first within a turn:
        where the machine itself is now fast and now slow, the fastest runs or the medians of two
        models are of different moments, and their ratio misses by several times as much.
        """
        with torch.inference_mode(), own_threads():
            set_threads(self._settings.threads)
            times = interleave(works, runs=TIMED_RUNS, at_most=TIMING_SECONDS, device=self._queue)
        spread = max(statistics.median(record) / min(record) for record in times)
        if spread > BUSY_RATIO:
            logger.warning(
                f"something else keeps this machine busy: half of the runs took more than "
                f"{spread:.1f} × the fastest, so these figures are rough"
            )
        first, *others = (np.array(record) for record in times)
        typical = float(np.median(first))
        return [typical, *(typical * float(np.median(other / first)) for other in others)]


class ModelClock(Clock):
    """Models of one checkpoint's classes and input size."""

    def __init__(self, loaded: LoadedModel, settings: LatencySettings, folder: Path) -> None:
        """Args: `folder`: where exported models may lie while the clock is used."""
        super().__init__(settings)
        self.loaded, self._folder = loaded, folder
        self._numbers = itertools.count()

    def open(self, model: nn.Module) -> Work:
        """See `Clock`."""
        size = self.loaded.spec.input_size
        rng = np.random.default_rng(0)
        image = rng.uniform(0, 255, (1, 3, *size)).astype(np.float32)
        settings = self._settings
        if settings.runtime == "torch":
            x = torch.from_numpy(image).to(self._place, memory_format=torch.channels_last)
            fused = fuse_model(model).to(self._place, memory_format=torch.channels_last)  # type: ignore[call-overload]
            return partial(fused, x)
        form = ExportSettings(format=RUNTIMES[settings.runtime].exported_as, size=size, decode=True)
        path = self._folder / f"model_{next(self._numbers)}{SUFFIXES[form.format][0]}"
        assert isinstance(model, YOLOX)
        write_model(dataclasses.replace(self.loaded, model=model), path, form)
        opened = open_exported(
            path,
            threads=settings.threads,
            precision=settings.openvino_precision,
            device=settings.device,
        )
        return partial(opened.run, image)


def time_models(loaded: LoadedModel, pruned: nn.Module, settings: LatencySettings) -> LatencyRecord:
    """Measure a model beside its parent.

    Raises:
        ExportError: the runtime is not installed, or does not take one of them.
    """
    return time_both(
        loaded.model, pruned, settings, lambda folder: ModelClock(loaded, settings, folder)
    )


def time_both(
    whole: nn.Module,
    pruned: nn.Module,
    settings: LatencySettings,
    make_clock: Callable[[Path], Clock],
) -> LatencyRecord:
    """As `time_models`, of models that a clock of another kind opens.

    Args:
        whole: the parent.
        pruned: what became of it.
        settings: what they are measured in.
        make_clock: of the folder where exported models may lie.
    """
    version = settings.version
    with scratch_folder() as folder:
        clock = make_clock(folder)
        parent, result = clock.time([clock.open(whole), clock.open(pruned)])
    return LatencyRecord(
        runtime=version,
        threads=settings.threads,
        place=_shown(settings),
        parent_ms=parent,
        result_ms=result,
    )


def plan_for_latency(
    loaded: LoadedModel,
    groups: Sequence[Group],
    config: PruneConfig,
    settings: LatencySettings,
    scorer: Scorer,
    *,
    on_hint: Callable[[ThresholdHint], None] | None = None,
) -> tuple[PruningPlan, LatencyRecord]:
    """The plan whose model takes what the config's target says, and what was measured.

    Args:
        loaded: not touched.
        groups: of its model.
        config: with a target of kind ``latency``.
        settings: what it is measured in.
        scorer: of the config's criterion.
        on_hint: see `yolox.pruning.plan_pruning`.

    Raises:
        PruningError: a target above what the model takes today, or below what can be reached.
        ExportError: the runtime is not installed, or does not take the model.
    """
    return plan_for_clock(
        loaded.model,
        groups,
        config,
        settings,
        scorer,
        layers=lambda: layers_in_runtime(loaded, settings),
        make_clock=lambda folder: ModelClock(loaded, settings, folder),
        on_hint=on_hint,
    )


def plan_for_clock(
    model: nn.Module,
    groups: Sequence[Group],
    config: PruneConfig,
    settings: LatencySettings,
    scorer: Scorer,
    *,
    layers: Callable[[], Mapping[str, ConvLayer]],
    make_clock: Callable[[Path], Clock],
    on_hint: Callable[[ThresholdHint], None] | None = None,
) -> tuple[PruningPlan, LatencyRecord]:
    """As `plan_for_latency`, of a model that a clock of another kind opens.

    Args:
        model: not touched.
        groups: of the model.
        config: with a target of kind ``latency``.
        settings: what it is measured in.
        scorer: of the config's criterion.
        layers: the convolutions that run, by the names that they have in the model.
        make_clock: see `time_both`.
        on_hint: see `yolox.pruning.plan_pruning`.
    """
    version = settings.version
    timer = layer_timer(
        settings.runtime,
        threads=settings.threads,
        openvino_precision=settings.openvino_precision,
        place=settings.place,
    )
    target = config.latency_target()
    chosen = select_groups(groups, config)
    with scratch_folder() as folder:
        clock = make_clock(folder)
        where = _shown(settings) or threads_of(settings.threads)
        logger.info(f"measuring the model in {version}, {where}")
        parent = clock.open(model)
        (today,) = clock.time([parent])
        if target.milliseconds(today) >= today:
            raise PruningError(
                f"{target.text} is no less than the {today:.2f} ms that the model takes today: "
                "ask for less"
            )
        with _table(settings) as table:
            found_layers = dict(layers())
            step = settings.round_to or _step(found_layers, table, timer, settings.place)
            config = dataclasses.replace(config, round_to=step)
            costs = _predicted(found_layers, merge_bundles(chosen), table, timer, step, today)
        planner = LatencyPlanner(
            model,
            groups,
            chosen,
            config,
            costs,
            scorer,
            emptiable=find_emptiable(model, chosen, config, probe()),
            on_hint=on_hint,
        )
        works: list[Work] = []

        def measure(plan: PruningPlan) -> tuple[float, float]:
            works.append(clock.open(cut(model, groups, plan, probe())))
            old, new = clock.time([parent, works[-1]])
            return old, new

        found = search(planner, target, today, measure)
        # Chosen for its figures, it would be flattered by them: they are taken anew.
        old, new = clock.time([parent, works[found.best]])
    record = LatencyRecord(
        runtime=version,
        threads=settings.threads,
        place=_shown(settings),
        parent_ms=old,
        result_ms=new,
        target=target,
        step=step,
        attempts=found.attempts,
        best=found.best,
    )
    return found.plan, record


def _shown(settings: LatencySettings) -> str:
    """The accelerator that a latency is of; empty for the CPU."""
    return "" if settings.place.type == "cpu" else device_name(settings.place)


@contextmanager
def _table(settings: LatencySettings) -> Iterator[LatencyTable]:
    """The machine's own table of a runtime and threads; other processes wait for it meanwhile."""
    name, place = settings.runtime, settings.place
    if name == "openvino":
        name += f"_{openvino_arithmetic(settings.openvino_precision)}"
    used = settings.threads if place.type == "cpu" else str(place).replace(":", "")
    path = cache_folder() / "layer_latencies" / f"{name}_{used}.json"
    try:
        require_writable(path.parent)
    except UserError as error:
        raise UserError(f"{error}, by the environment variable YOLOX_CACHE") from error
    stamp = {
        "machine": settings.machine,
        "runtime": settings.version,
        "method": TIMING_VERSION,
    }
    with locked(path.with_suffix(".lock")):
        yield LatencyTable(path, stamp)


def layers_in_runtime(loaded: LoadedModel, settings: LatencySettings) -> dict[str, ConvLayer]:
    """The convolutions that run, by the names that they have in the model.

    In an exported file the stem is one strided convolution of the image itself.
    """
    example = torch.zeros(1, 3, *loaded.spec.input_size)
    layers = conv_layers(loaded.model, example)
    if settings.runtime == "torch":
        return layers
    folded = conv_layers(fold_focus(loaded.model), example)
    return {name: folded.get(name) or folded[name.removesuffix(".conv")] for name in layers}


def _step(
    layers: Mapping[str, ConvLayer], table: LatencyTable, timer: LayerTimer, place: torch.device
) -> int:
    sweep = CPU_SWEEP if place.type == "cpu" else ACCELERATOR_SWEEP
    kind, inputs, outputs = measure_steps(table, timer, list(layers.values()), sweep)
    step = max(inputs, outputs)
    logger.info(
        f"channels in multiples of {step}: in steps of {inputs} inputs and {outputs} outputs a "
        f"{kind.label} takes longer here"
    )
    return step


def _predicted(
    layers: Mapping[str, ConvLayer],
    chosen: Sequence[Group],
    table: LatencyTable,
    timer: LayerTimer,
    step: int,
    today: float,
) -> LayerSum:
    """Milliseconds by slots kept, which for the whole model are those that were measured.

    What it takes beyond its convolutions is a constant; where they alone take longer one by one
    than the model as a whole, each counts for less.
    """
    tables = layer_tables(table, timer, layers, chosen, step)
    whole = LayerSum(chosen, tables).at([group.size for group in chosen])
    rest = max(0.0, today - whole)
    logger.info(
        f"{today:.2f} ms today; its {len(layers)} convolutions one by one take {whole:.2f} ms"
    )
    return LayerSum(chosen, tables, scale=min(1.0, today / whole), constant=rest)
