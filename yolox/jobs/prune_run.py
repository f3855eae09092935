"""What a prune does around the cut, whatever kind of file it is of: measure, write, record."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from loguru import logger
from torch import Tensor, nn

from yolox.jobs.calibration import Calibration
from yolox.jobs.prune_latency import LatencySettings
from yolox.pruning import (
    Group,
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
from yolox.utils.checkpoint import CheckpointError
from yolox.utils.device import empty_cache, float64_device, machine, resolve_device
from yolox.utils.files import replacing_together

SCORED_IMAGES = 64
LATENCY_SECONDS = 20.0  # that timing before and after may take
OnHint = Callable[[ThresholdHint], None]


@dataclass(frozen=True, kw_only=True)
class PruneRun(ABC):
    """A file to prune, and where the result goes; what is particular to its kind is abstract.

    Attributes:
        source: the model's file.
        output: file to write; plan and report go beside it.
        config: what to prune, by how much, on what grounds.
        calibration: training images, or none.
        images: how many of them to score on.
        plan: carried out in place of one made here, except in layers that the config ignores.
        evaluate: AP and AP50 of a model, to be measured at each stage; None leaves it out.
        time_it: measure latency before and after, in PyTorch unless `latency` names a runtime.
        latency: what a latency is measured in; a target in latency needs it.
        command: the line that does it again, for the record.
        device: where losses, scores and refitting are computed.
    """

    source: Path
    output: Path
    config: PruneConfig
    calibration: Calibration = field(default_factory=Calibration)
    images: int = SCORED_IMAGES
    plan: PruningPlan | None = None
    evaluate: Callable[[Any], tuple[float, float]] | None = None
    time_it: bool = True
    latency: LatencySettings | None = None
    command: str = ""
    device: torch.device = field(default_factory=resolve_device)

    @property
    @abstractmethod
    def whole(self) -> nn.Module:
        """The model as it is."""

    @property
    @abstractmethod
    def groups(self) -> Sequence[Group]:
        """What may be cut of it."""

    @property
    @abstractmethod
    def example(self) -> Tensor:
        """An image (1, 3, H, W) of the size and range that the model is used with."""

    @abstractmethod
    def counted_plan(self, on_hint: OnHint | None) -> PruningPlan:
        """The plan of a config that no runtime has a say in."""

    @abstractmethod
    def latency_plan(
        self, settings: LatencySettings, on_hint: OnHint | None
    ) -> tuple[PruningPlan, LatencyRecord]:
        """The plan of a target in latency, and what was measured for it."""

    @abstractmethod
    def cut(self, plan: PruningPlan) -> PruneResult:
        """The plan carried out, compensated and verified."""

    @abstractmethod
    def cut_bare(self, plan: PruningPlan) -> nn.Module:
        """The plan carried out, neither compensated nor verified: it is measured alone."""

    @abstractmethod
    def time(self, pruned: nn.Module, settings: LatencySettings) -> LatencyRecord:
        """The whole model and the pruned one in a runtime."""

    @abstractmethod
    def file_of(
        self, result: PruneResult, record: PruneRecord
    ) -> tuple[int, Callable[[Path], object]]:
        """How many bytes the result's file takes, and what writes it to a path."""

    @property
    def scored(self) -> Calibration:
        """The images to score on, and where."""
        return dataclasses.replace(self.calibration, device=self.device).first(self.images)

    @cached_property
    def given_plan(self) -> PruningPlan | None:
        """`plan`, without the layers that stay whole.

        Raises:
            PruningError: a layer to ignore that is not there.
        """
        return self.plan and self.plan.without_layers(self.groups, self.config.ignore)

    def make_plan(self, on_hint: OnHint | None = None) -> tuple[PruningPlan, LatencyRecord | None]:
        """The plan, given or made, and what was measured for a target in latency.

        Raises:
            PruningError: see `yolox.pruning.plan_pruning` and `plan_for_latency`.
        """
        if self.given_plan is not None:
            return self.given_plan, None
        if self.config.target_kind() != "latency":
            return self.counted_plan(on_hint), None
        if self.latency is None:
            raise PruningError(
                f"target {self.config.target} needs a runtime that it is measured in"
            )
        return self.latency_plan(self.latency, on_hint)

    def run(self, on_hint: OnHint | None = None) -> PruneRecord:
        """Prune, verify, measure, and write the file, the plan and the report.

        Raises:
            PruningError: see `yolox.pruning.prune_model`; nothing is written then.
        """
        hints: list[str] = []

        def hinted(hint: ThresholdHint) -> None:
            hints.extend(hint.lines())
            if on_hint:
                on_hint(hint)

        stages = [self._stage("before", self.whole)]
        plan, timing = self.make_plan(hinted)
        result = self.cut(plan)
        if result.judgement:
            logger.info(result.judgement.sentence())
        if self._measures and self._compensates:
            # That the plan cuts rightly is verified already, on the compensated model.
            stages.append(self._stage("cut", self.cut_bare(result.plan)))
        label = "cut and compensated" if self._compensates else "cut"
        stages.append(self._stage(label, result.model))
        if timing is None and self.latency is not None:
            timing = self.time(result.model, self.latency)
        record = PruneRecord(
            report=result.report,
            config=result.plan.config | self.compensation(),
            command=self.command,
            source=str(self.source),
            output=str(self.output),
            file_bytes=(self.source.stat().st_size, 0),
            latency_ms=self._latency(result, timing),
            latency=timing,
            machine=machine(self.device),
            stages=tuple(stages) if self._measures else (),
            judgement=result.judgement,
            hint=tuple(hints),
            date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        )
        return self._write(result, record)

    def require_repeat(self, carried_out: PruningPlan) -> None:
        """Refuse to replace what this source was pruned to by another request.

        Args:
            carried_out: the plan of the file that is to be replaced.

        Raises:
            PruningError: it was made with other settings, or is another one than `plan`.
        """
        if self.given_plan is not None:
            differ = ["plan"] if carried_out.removed != self.given_plan.removed else []
        else:
            free = {"search"}  # more moves are added to those that were tried
            if self.config.target_kind() == "latency":
                free.add("round_to")  # as the runtime has it
            asked, made = self.config.to_dict(), carried_out.config
            # A field that an earlier version did not have is not known to differ.
            known = [key for key in asked if key in made and key not in free]
            differ = [key for key in known if asked[key] != made[key]]
        if differ:
            names = ", ".join(f"`{name}`" for name in differ)
            raise PruningError(
                f"{self.output} already exists, pruned from {self.source} with another {names}: "
                "name another file as `output`, or replace it with `overwrite=True`"
            )

    def write_plan(self, on_hint: OnHint | None = None) -> None:
        """Write the plan alone, beside where the result would go."""
        plan, timing = self.make_plan(on_hint)
        path = self.output.with_suffix(".plan.json")
        plan.save(path)
        if timing:
            logger.info(f"{timing.setting}: {timing.outcome}")
        slots = sum(map(len, plan.removed.values()))
        logger.info(
            f"nothing cut: the plan to remove {slots} channels from {len(plan.removed)} groups is "
            f"in {path}; carry it out with `plan={str(path)!r}`"
        )

    def compensation(self) -> dict[str, Any]:
        """What is done after the cut; a replayed plan tells of its own."""
        names = ("absorb", "reconstruct", "bn_recalibrate", "held_back")
        return {name: getattr(self.config, name) for name in names}

    @property
    def _measures(self) -> bool:
        return bool(len(self.calibration)) or self.evaluate is not None

    @property
    def _compensates(self) -> bool:
        config = self.config
        return config.absorb or bool(config.fitted_images)

    def _stage(self, label: str, model: nn.Module) -> Stage:
        scored = self.scored
        loss = scored.mean_loss(model) if len(scored) else None
        ap, ap50 = (None, None) if self.evaluate is None else self.evaluate(model)
        return Stage(label=label, loss=loss, ap50_95=ap, ap50=ap50)

    def _latency(
        self, result: PruneResult, timing: LatencyRecord | None
    ) -> tuple[float, float] | None:
        """Milliseconds before and after."""
        if timing is not None:
            return timing.parent_ms, timing.result_ms
        if not self.time_it:
            return None
        models = [self.whole, result.model]
        old, new = measure_latency(models, self.example, self.device, at_most=LATENCY_SECONDS)
        return old, new

    def _write(self, result: PruneResult, record: PruneRecord) -> PruneRecord:
        """File, plan and report change together; the record with the file's size."""
        endings = (".plan.json", ".report.json", ".report.md")
        files = [self.output, *map(self.output.with_suffix, endings)]
        size, write = self.file_of(result, record)
        with replacing_together(files, CheckpointError, size) as temporaries:
            model, *texts = temporaries
            write(model)
            sizes = (record.file_bytes[0], model.stat().st_size)
            record = dataclasses.replace(record, file_bytes=sizes)
            contents = (result.plan.to_json(), record.to_json(), record.to_markdown())
            for file, content in zip(texts, contents, strict=True):
                file.write_text(content, encoding="utf-8", errors="surrogateescape")
        return record


def cut_where_it_fits(
    cut: Callable[[Tensor | None], PruneResult], images: Tensor | None, device: torch.device
) -> PruneResult:
    """Cut, and refit on a device if it can solve that and the images fit in, else on the CPU."""
    if images is None:
        return cut(None)
    try:
        return cut(images.to(float64_device(device, "layers are refitted")))
    except torch.OutOfMemoryError:
        logger.warning(f"what the layers are refitted on is too large for {device}: on the CPU now")
        empty_cache(device)
        return cut(images)
