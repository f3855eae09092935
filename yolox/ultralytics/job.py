"""From a ``.pt`` of Ultralytics to a pruned one, with plan and report beside it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import torch
from loguru import logger

from yolox.jobs.prune_latency import LatencySettings, plan_for_clock, time_both
from yolox.pruning import (
    LatencyRecord,
    PruneConfig,
    PruneRecord,
    PruneResult,
    PruningError,
    PruningPlan,
    Stage,
    ThresholdHint,
    measure_latency,
)
from yolox.ultralytics.clock import DetectorClock, layers_of
from yolox.ultralytics.data import CalibrationImages, average_precision
from yolox.ultralytics.detector import Detector, detector_scorer
from yolox.ultralytics.files import content_of
from yolox.utils.device import default_device, machine
from yolox.utils.files import replacing_together

LATENCY_SECONDS = 20.0  # that timing before and after may take
EVAL_BATCH = 16


@dataclass(frozen=True, kw_only=True)
class DetectorJob:
    """A detector to prune, and where the result goes.

    Attributes:
        model: the detector.
        source: its file.
        output: file to write; plan and report go beside it.
        config: what to prune, by how much, on what grounds.
        calibration: training images, or none.
        images: how many of them to score on.
        size: (height, width) that MACs and latency are of.
        data: data set whose AP is measured at each stage; None leaves it out.
        plan: carried out in place of one made here.
        time_it: measure latency before and after, in PyTorch unless `latency` names a runtime.
        latency: what a latency is measured in; a target in latency needs it.
        command: the line that does it again, for the record.
    """

    model: Any
    source: Path
    output: Path
    config: PruneConfig
    calibration: CalibrationImages = field(default_factory=CalibrationImages)
    images: int = 64
    size: tuple[int, int] = (640, 640)
    data: str | None = None
    plan: PruningPlan | None = None
    time_it: bool = True
    latency: LatencySettings | None = None
    command: str = ""

    def make_plan(
        self, detector: Detector, on_hint: Callable[[ThresholdHint], None] | None = None
    ) -> tuple[PruningPlan, LatencyRecord | None]:
        """The plan, given or made, and what was measured for a target in latency.

        Raises:
            PruningError: see `yolox.pruning.plan_pruning` and `plan_for_latency`.
        """
        if self.plan is not None:
            return self.plan, None
        batches = self.calibration.first(self.images) if len(self.calibration) else None
        scorer = detector_scorer(self.config, batches)
        if self.config.target_kind() != "latency":
            return detector.plan(self.config, scorer, self.size, on_hint), None
        if self.latency is None:
            raise PruningError(f"target {self.config.target} needs a runtime to be measured in")
        return plan_for_clock(
            detector.model,
            detector.groups,
            self.config,
            self.latency,
            scorer,
            layers=partial(layers_of, detector.model, self.size),
            make_clock=self._clock,
            on_hint=on_hint,
        )

    def run(self, on_hint: Callable[[ThresholdHint], None] | None = None) -> PruneRecord:
        """Prune, verify, measure, and write file, plan and report.

        Raises:
            PruningError: see `Detector`; nothing is written then.
        """
        hints: list[str] = []

        def hinted(hint: ThresholdHint) -> None:
            hints.extend(hint.lines())
            if on_hint:
                on_hint(hint)

        detector = Detector(self.model)
        stages = [self._stage("before", self.model)]
        plan, timing = self.make_plan(detector, hinted)
        if self._measures and self._compensates:
            bare = dataclasses.replace(self.config, absorb=False, reconstruct=0, bn_recalibrate=0)
            stages.append(self._stage("cut", detector.cut(plan, bare, self.size).model))
        result = self._cut(detector, plan)
        label = "cut and compensated" if self._compensates else "cut"
        stages.append(self._stage(label, result.model))
        if timing is None and self.latency is not None:
            timing = time_both(self.model, result.model, self.latency, self._clock)
        return self._write(
            result,
            PruneRecord(
                report=result.report,
                config=result.plan.config | self._compensation(),
                command=self.command,
                source=str(self.source),
                output=str(self.output),
                file_bytes=(self.source.stat().st_size, 0),
                latency_ms=self._latency(result, timing),
                latency=timing,
                machine=machine(),
                stages=tuple(stages) if self._measures else (),
                hint=tuple(hints),
                date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            ),
        )

    def _cut(self, detector: Detector, plan: PruningPlan) -> PruneResult:
        """The plan carried out, refitted on a GPU if there is one that it fits in."""
        images, device = self.calibration.images(), default_device()
        cut = partial(detector.cut, plan, self.config, self.size)
        try:
            return cut(None if images is None else images.to(device))
        except torch.OutOfMemoryError:
            logger.warning(
                "what the layers are refitted on is too large for the GPU: on the CPU now"
            )
            return cut(images)

    def _clock(self, folder: Path) -> DetectorClock:
        assert self.latency is not None
        return DetectorClock(self.size, self.latency, folder)

    def _write(self, result: PruneResult, record: PruneRecord) -> PruneRecord:
        """File, plan and reports change together; the record with the file's size."""
        endings = (".plan.json", ".report.json", ".report.md")
        files = [self.output, *map(self.output.with_suffix, endings)]
        size = 2 * record.report.params[1]  # half precision
        with replacing_together(files, PruningError, size) as temporaries:
            model, *texts = temporaries
            torch.save(content_of(result.model), model)
            sizes = (record.file_bytes[0], model.stat().st_size)
            record = dataclasses.replace(record, file_bytes=sizes)
            contents = (result.plan.to_json(), record.to_json(), record.to_markdown())
            for file, content in zip(texts, contents, strict=True):
                file.write_text(content, encoding="utf-8", errors="surrogateescape")
        return record

    def _latency(
        self, result: PruneResult, timing: LatencyRecord | None
    ) -> tuple[float, float] | None:
        """Milliseconds before and after."""
        if timing is not None:
            return timing.parent_ms, timing.result_ms
        if not self.time_it:
            return None
        models = [self.model, result.model]
        image = torch.rand(1, 3, *self.size)
        old, new = measure_latency(models, image, at_most=LATENCY_SECONDS)
        return old, new

    @property
    def _measures(self) -> bool:
        return bool(len(self.calibration)) or self.data is not None

    @property
    def _compensates(self) -> bool:
        config = self.config
        return config.absorb or config.reconstruct > 0 or config.bn_recalibrate > 0

    def _compensation(self) -> dict[str, Any]:
        """What was done after the cut; a replayed plan tells of its own."""
        names = ("absorb", "reconstruct", "bn_recalibrate")
        return {name: getattr(self.config, name) for name in names}

    def _stage(self, label: str, model: Any) -> Stage:
        scored = self.calibration.first(self.images)
        loss = scored.mean_loss(model) if len(scored) else None
        ap, ap50 = None, None
        if self.data is not None:
            ap, ap50 = average_precision(model, self.data, self.size[0], EVAL_BATCH)
        return Stage(label=label, loss=loss, ap50_95=ap, ap50=ap50)
