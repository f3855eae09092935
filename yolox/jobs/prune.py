"""From a checkpoint and an Exp to a pruned checkpoint, with a record of what was done."""

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
from torch import nn

from yolox.exp.follow import with_names
from yolox.exp.yolox_base import Exp
from yolox.jobs.calibration import Calibration, calibrate, probe
from yolox.jobs.evaluate import ap_evaluation
from yolox.jobs.prune_latency import LatencySettings, plan_for_latency, time_models
from yolox.models import LoadedModel, checkpoint_payload, load_model
from yolox.pruning import (
    CRITERIA,
    LatencyRecord,
    PruneConfig,
    PruneRecord,
    PruneResult,
    PruningError,
    PruningPlan,
    Stage,
    ThresholdHint,
    apply_plan,
    measure_latency,
    plan_pruning,
    prune_model,
    trace_groups,
)
from yolox.pruning.ratios import sensitive_layers
from yolox.utils.checkpoint import (
    CheckpointError,
    file_digest,
    tensor_bytes,
    write_checkpoint,
)
from yolox.utils.device import default_device, machine
from yolox.utils.errors import UserError
from yolox.utils.files import replacing_together

SCORED_IMAGES = 64
LATENCY_SECONDS = 20.0  # that timing before and after may take


def prune(
    loaded: LoadedModel,
    config: PruneConfig,
    calibration: Calibration | None = None,
    *,
    images: int | None = None,
    plan: PruningPlan | None = None,
    on_hint: Callable[[ThresholdHint], None] | None = None,
) -> PruneResult:
    """Prune a loaded model, on a GPU if there is one; the argument is not touched.

    Args:
        loaded: the model; not touched.
        config: what to prune, by how much, on what grounds.
        calibration: training images for what needs data.
        images: how many of them to score on; all by default.
        plan: carried out in place of one made here.
        on_hint: see `yolox.pruning.plan_pruning`.

    Raises:
        PruningError: see `yolox.pruning.prune_model`.
    """
    calibration = calibration or Calibration()
    if not len(calibration) and (config.reconstruct or config.bn_recalibrate):
        logger.warning(
            "without calibration images layers are not refitted: they stay as the cut leaves them"
        )
        config = dataclasses.replace(config, reconstruct=0, bn_recalibrate=0)
    model, count_input = loaded.model, torch.zeros(1, 3, *loaded.spec.input_size)
    if plan is None:
        plan = _plan(loaded, config, calibration.first(images), on_hint)
    whole, device = calibration.images(), default_device()
    cut = partial(prune_model, model, probe(), config, plan=plan, count_input=count_input)
    try:
        return cut(images=None if whole is None else whole.to(device))
    except torch.OutOfMemoryError:
        logger.warning("what the layers are refitted on is too large for the GPU: on the CPU now")
        return cut(images=whole)


def _plan(
    loaded: LoadedModel,
    config: PruneConfig,
    scored: Calibration,
    on_hint: Callable[[ThresholdHint], None] | None,
) -> PruningPlan:
    """The plan of a config that no runtime has a say in."""
    return plan_pruning(
        loaded.model,
        trace_groups(loaded.model, probe()),
        config,
        scorer=scored.scorer(config),
        count_input=torch.zeros(1, 3, *loaded.spec.input_size),
        on_hint=on_hint,
    )


@dataclass(frozen=True, kw_only=True)
class PruneJob:
    """A checkpoint to prune, and where the result goes.

    Attributes:
        loaded, source: the model and its file.
        output: file to write; plan and report go beside it.
        config: what to prune, by how much, on what grounds.
        calibration: training images, or none.
        images: how many of them to score on.
        plan: carried out in place of one made here.
        evaluate: AP and AP50 of a model, to be measured at each stage; None leaves it out.
        time_it: measure latency before and after, in PyTorch unless `latency` names a runtime.
        latency: what a latency is measured in; a target in latency needs it.
        command: the line that does it again, for the record.
    """

    loaded: LoadedModel
    source: Path
    output: Path
    config: PruneConfig
    calibration: Calibration = field(default_factory=Calibration)
    images: int = SCORED_IMAGES
    plan: PruningPlan | None = None
    evaluate: Callable[[nn.Module], tuple[float, float]] | None = None
    time_it: bool = True
    latency: LatencySettings | None = None
    command: str = ""

    @property
    def scored(self) -> Calibration:
        """The images to score on."""
        return self.calibration.first(self.images)

    def make_plan(
        self, on_hint: Callable[[ThresholdHint], None] | None = None
    ) -> tuple[PruningPlan, LatencyRecord | None]:
        """The plan, given or made, and what was measured for a target in latency.

        Raises:
            PruningError: see `yolox.pruning.plan_pruning` and `plan_for_latency`.
        """
        if self.plan is not None:
            return self.plan, None
        config = self.config
        if config.target_kind() != "latency":
            return _plan(self.loaded, config, self.scored, on_hint), None
        if self.latency is None:
            raise PruningError(f"target {config.target} needs a runtime that it is measured in")
        groups = trace_groups(self.loaded.model, probe())
        scorer = self.scored.scorer(config)
        return plan_for_latency(self.loaded, groups, config, self.latency, scorer, on_hint=on_hint)

    def run(self, on_hint: Callable[[ThresholdHint], None] | None = None) -> PruneRecord:
        """Prune, verify, measure, and write checkpoint, plan and report.

        Raises:
            PruningError: see `prune`; nothing is written then.
        """
        hints: list[str] = []

        def hinted(hint: ThresholdHint) -> None:
            hints.extend(hint.lines())
            if on_hint:
                on_hint(hint)

        stages = [self._stage("before", self.loaded.model)]
        plan, timing = self.make_plan(hinted)
        result = prune(self.loaded, self.config, self.calibration, plan=plan)
        if self._measures and self._compensates:
            # That the plan cuts rightly is verified already, on the compensated model.
            model = self.loaded.model
            cut = apply_plan(model, trace_groups(model, probe()), result.plan)
            stages.append(self._stage("cut", cut))
        stages.append(
            self._stage("cut and compensated" if self._compensates else "cut", result.model)
        )
        if timing is None and self.latency is not None:
            timing = time_models(self.loaded, result.model, self.latency)
        date = datetime.now(timezone.utc).isoformat(timespec="seconds")
        record = PruneRecord(
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
            date=date,
        )
        return self._write(self._payload(result, date, timing), result.plan, record)

    def _write(
        self, payload: dict[str, Any], plan: PruningPlan, record: PruneRecord
    ) -> PruneRecord:
        """Checkpoint, plan and reports change together; the record with the checkpoint's size."""
        endings = (".plan.json", ".report.json", ".report.md")
        files = [self.output, *map(self.output.with_suffix, endings)]
        with replacing_together(files, CheckpointError, tensor_bytes(payload)) as temporaries:
            checkpoint, *texts = temporaries
            write_checkpoint(checkpoint, payload)
            sizes = (record.file_bytes[0], checkpoint.stat().st_size)
            record = dataclasses.replace(record, file_bytes=sizes)
            contents = (plan.to_json(), record.to_json(), record.to_markdown())
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
        image = 255 * torch.rand(1, 3, *self.loaded.spec.input_size)
        models = [self.loaded.model, result.model]
        old, new = measure_latency(models, image, at_most=LATENCY_SECONDS)
        return old, new

    @property
    def _measures(self) -> bool:
        return bool(len(self.calibration)) or self.evaluate is not None

    @property
    def _compensates(self) -> bool:
        config = self.config
        return config.absorb or config.reconstruct > 0 or config.bn_recalibrate > 0

    def _compensation(self) -> dict[str, Any]:
        """What was done after the cut; a replayed plan tells of its own."""
        names = ("absorb", "reconstruct", "bn_recalibrate")
        return {name: getattr(self.config, name) for name in names}

    def _stage(self, label: str, model: nn.Module) -> Stage:
        scored = self.scored
        loss = scored.mean_loss(model) if len(scored) else None
        ap, ap50 = (None, None) if self.evaluate is None else self.evaluate(model)
        return Stage(label=label, loss=loss, ap50_95=ap, ap50=ap50)

    def _payload(
        self, result: PruneResult, date: str, timing: LatencyRecord | None
    ) -> dict[str, Any]:
        """What the checkpoint holds."""
        entry = {
            "plan": result.plan.to_dict(),
            "compensation": self._compensation(),
            "report": result.report.to_dict(),
            "source": str(self.source),
            "source_sha256": file_digest(self.source),
            "recipe": self.loaded.recipe,
            "date": date,
        }
        if timing is not None:
            entry["latency"] = {
                "setting": timing.setting,
                "parent_ms": timing.parent_ms,
                "result_ms": timing.result_ms,
            }
        loaded = self.loaded
        return checkpoint_payload(result.model, loaded.spec, [*loaded.pruning, entry])


def prepare_pruning(
    loaded: LoadedModel,
    source: Path,
    exp: Exp,
    config: PruneConfig,
    output: Path,
    *,
    images: int = SCORED_IMAGES,
    plan: PruningPlan | None = None,
    evaluate: bool = False,
    time_it: bool = True,
    latency: LatencySettings | None = None,
    optional: bool = True,
    command: str = "",
) -> PruneJob:
    """The job of pruning a checkpoint on an Exp's images, with what there is to warn of.

    Args:
        loaded: the model.
        source: its file.
        exp: whose training images are scored on; not changed.
        config: how it is to be pruned.
        output: checkpoint to write.
        images: how many to score on.
        plan: carried out in place of one made here.
        evaluate: measure AP at each stage, on the Exp's evaluation images.
        time_it: measure latency before and after.
        latency: how; see `PruneJob`.
        optional: see `calibrate`.
        command: the line that does it again, for the record.

    Raises:
        PruningError: see `calibrate`.
    """
    if is_spoilt_by_tuning(config, exp, loaded):
        logger.warning(
            f"the latency is met with {loaded.spec.act}, and fine-tuning by this Exp changes it to "
            f'{exp.finetune_act}, which takes longer: fine-tune with finetune_act ""'
        )
    if plan is None and not CRITERIA[config.importance].needs_data:
        logger.warning(
            f"importance {config.importance} looks at weights alone, and a detector can lose all "
            "its AP to it (docs/results.md): taylor measures on your images"
        )
    exp, config, calibration = calibrate(exp, loaded, source, config, images, optional=optional)
    return PruneJob(
        loaded=with_names(loaded, exp) if calibration else loaded,
        source=source,
        output=output,
        config=config,
        calibration=calibration,
        images=images,
        plan=plan,
        evaluate=ap_evaluation(exp) if evaluate else None,
        time_it=time_it,
        latency=latency,
        command=command,
    )


def require_own(output: Path, source: Path, loaded: LoadedModel, *, steps: int = 1) -> None:
    """Refuse to replace a file that was not pruned from this source.

    Args:
        output: file to write.
        source: checkpoint to prune.
        loaded: what is in it.
        steps: rounds of pruning.

    Raises:
        PruningError: it was pruned from another checkpoint, or is another file altogether.
    """
    if not output.exists():
        return
    try:
        entries = load_model(output).pruning[len(loaded.pruning) :]
    except UserError:
        entries = []
    origin = entries[0].get("source_sha256") if len(entries) == steps else None
    if origin != file_digest(source):
        what = f"pruned from {entries[-1].get('source')}" if entries else "another file"
        raise PruningError(
            f"{output} is there, {what}, not from {source} as it is now: name another file as "
            "`output`, or replace it with `overwrite=True`"
        )


def is_spoilt_by_tuning(config: PruneConfig, exp: Exp, loaded: LoadedModel) -> bool:
    """Whether fine-tuning changes the activation that a latency was met with."""
    return config.target_kind() == "latency" and exp.finetune_act not in ("", loaded.spec.act)


def spare_sensitive(config: PruneConfig, loaded: LoadedModel, ratios: Path) -> PruneConfig:
    """The config that keeps whole what an analysis found no ratio for, and says which that is.

    Args:
        config: how to prune otherwise.
        loaded: the model to prune.
        ratios: file that the analysis wrote.

    Raises:
        PruningError: the file cannot be read, or no layer is left to prune.
    """
    layers = [group.producers[0].name for group in trace_groups(loaded.model, probe())]
    spared = sensitive_layers(ratios, layers)
    logger.info(f"{len(spared)} sensitive layers stay whole: {', '.join(spared) or 'none'}")
    return dataclasses.replace(config, ignore=(*config.ignore, *spared))


def show_hint(hint: ThresholdHint) -> None:
    """Say what a threshold between important and unimportant channels would be."""
    for line in hint.lines():
        logger.info(line)
