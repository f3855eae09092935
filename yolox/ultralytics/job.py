"""From a ``.pt`` of Ultralytics to a pruned one, with plan and report beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from yolox.jobs.prune_latency import LatencySettings, plan_for_clock, time_both
from yolox.jobs.prune_run import OnHint, PruneRun, cut_where_it_fits
from yolox.pruning import (
    Group,
    LatencyRecord,
    PruneRecord,
    PruneResult,
    PruningError,
    PruningPlan,
)
from yolox.pruning.importance import Scorer
from yolox.ultralytics.clock import DetectorClock, layers_of
from yolox.ultralytics.data import CalibrationImages
from yolox.ultralytics.detector import Detector, detector_scorer
from yolox.ultralytics.files import SOURCE, content_of
from yolox.utils.checkpoint import file_digest


@dataclass(frozen=True, kw_only=True)
class DetectorJob(PruneRun):
    """A detector of Ultralytics to prune.

    Attributes:
        model: what is in `source`.
        calibration: training images, or none.
        size: (height, width) that MACs and latency are of.
    """

    model: Any
    calibration: CalibrationImages = field(default_factory=CalibrationImages)
    size: tuple[int, int] = (640, 640)

    @cached_property
    def detector(self) -> Detector:
        """The model as it is traced."""
        return Detector(self.model)

    @property
    def groups(self) -> Sequence[Group]:
        """See `PruneRun`."""
        return self.detector.groups

    @property
    def whole(self) -> nn.Module:
        """See `PruneRun`."""
        module: nn.Module = self.model
        return module

    @property
    def example(self) -> Tensor:
        """See `PruneRun`."""
        return torch.rand(1, 3, *self.size)

    def counted_plan(self, on_hint: OnHint | None) -> PruningPlan:
        """See `PruneRun`."""
        if self.config.search:
            raise PruningError("models of Ultralytics are pruned without `search`")
        return self.detector.plan(self.config, self._scorer(), self.size, on_hint)

    def latency_plan(
        self, settings: LatencySettings, on_hint: OnHint | None
    ) -> tuple[PruningPlan, LatencyRecord]:
        """See `PruneRun`."""
        return plan_for_clock(
            self.detector.model,
            self.detector.groups,
            self.config,
            settings,
            self._scorer(),
            layers=partial(layers_of, self.detector.model, self.size),
            make_clock=partial(DetectorClock, self.size, settings),
            on_hint=on_hint,
        )

    def cut(self, plan: PruningPlan) -> PruneResult:
        """See `PruneRun`."""
        labelled = self.calibration.labelled(self.config)
        cut = partial(self.detector.cut, plan, self.config, self.size, labelled=labelled)
        return cut_where_it_fits(cut, self.calibration.split(self.config)[0].images(), self.device)

    def cut_bare(self, plan: PruningPlan) -> nn.Module:
        """See `PruneRun`."""
        bare: nn.Module = self.detector.cut_bare(plan)
        return bare

    def time(self, pruned: nn.Module, settings: LatencySettings) -> LatencyRecord:
        """See `PruneRun`."""
        return time_both(self.model, pruned, settings, partial(DetectorClock, self.size, settings))

    def file_of(
        self, result: PruneResult, record: PruneRecord
    ) -> tuple[int, Callable[[Path], object]]:
        """See `PruneRun`."""
        content = content_of(result.model) | {SOURCE: file_digest(self.source)}
        return 2 * record.report.params[1], partial(torch.save, content)  # half precision

    def _scorer(self) -> Scorer:
        return detector_scorer(self.config, self.scored if len(self.scored) else None, self.device)
