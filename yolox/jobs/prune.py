"""From a checkpoint and an Exp to a pruned checkpoint, with a record of what was done."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import torch
from loguru import logger
from torch import Tensor, nn

from yolox.exp.follow import with_names
from yolox.exp.yolox_base import Exp
from yolox.jobs.calibration import Calibration, calibrate, probe
from yolox.jobs.evaluate import ap_evaluation
from yolox.jobs.prune_latency import LatencySettings, plan_for_latency, time_models
from yolox.jobs.prune_run import SCORED_IMAGES, OnHint, PruneRun, cut_where_it_fits
from yolox.jobs.prune_search import search_plan
from yolox.models import LoadedModel, checkpoint_payload, load_model
from yolox.pruning import (
    CRITERIA,
    LatencyRecord,
    PruneConfig,
    PruneRecord,
    PruneResult,
    PruningError,
    PruningPlan,
    ThresholdHint,
    plan_pruning,
    prune_model,
    trace_groups,
)
from yolox.pruning.groups import Group
from yolox.pruning.pruner import cut
from yolox.pruning.ratios import sensitive_layers
from yolox.utils.checkpoint import (
    file_digest,
    tensor_bytes,
    write_checkpoint,
)
from yolox.utils.device import resolve_device
from yolox.utils.errors import UserError


def prune(
    loaded: LoadedModel,
    config: PruneConfig,
    calibration: Calibration | None = None,
    *,
    images: int | None = None,
    plan: PruningPlan | None = None,
    groups: Sequence[Group] | None = None,
    on_hint: Callable[[ThresholdHint], None] | None = None,
    device: str | torch.device = "auto",
) -> PruneResult:
    """Prune a loaded model; the argument is not touched.

    Args:
        loaded: the model; not touched.
        config: what to prune, by how much, on what grounds.
        calibration: training images for what needs data.
        images: how many of them to score on; all by default.
        plan: carried out in place of one made here.
        groups: what `trace_groups` found in the model, where that is known.
        on_hint: see `yolox.pruning.plan_pruning`.
        device: where scores and refitting are computed, see `yolox.utils.device.resolve_device`.

    Raises:
        PruningError: see `yolox.pruning.prune_model`.
    """
    where = resolve_device(device)
    calibration = dataclasses.replace(calibration or Calibration(), device=where)
    if not len(calibration) and config.fitted_images:
        logger.warning(
            "without calibration images layers are not refitted: they stay as the cut leaves them"
        )
        config = dataclasses.replace(config, reconstruct=0, bn_recalibrate=0)
    model, count_input = loaded.model, torch.zeros(1, 3, *loaded.spec.input_size)
    groups = trace_groups(model, probe()) if groups is None else groups
    if plan is None:
        plan = _plan(loaded, groups, config, calibration.first(images), on_hint)

    def carry_out(whole: Tensor | None) -> PruneResult:
        return prune_model(
            model,
            probe(),
            config,
            plan=plan,
            groups=groups,
            count_input=count_input,
            images=whole,
            labelled=calibration.labelled(config),
        )

    return cut_where_it_fits(carry_out, calibration.split(config)[0].images(), where)


def _plan(
    loaded: LoadedModel,
    groups: Sequence[Group],
    config: PruneConfig,
    scored: Calibration,
    on_hint: Callable[[ThresholdHint], None] | None,
) -> PruningPlan:
    """The plan of a config that no runtime has a say in."""
    return plan_pruning(
        loaded.model,
        groups,
        config,
        scorer=scored.scorer(config),
        count_input=torch.zeros(1, 3, *loaded.spec.input_size),
        on_hint=on_hint,
    )


@dataclass(frozen=True, kw_only=True)
class PruneJob(PruneRun):
    """A checkpoint to prune.

    Attributes:
        loaded: what is in `source`.
    """

    loaded: LoadedModel

    @property
    def whole(self) -> nn.Module:
        """See `PruneRun`."""
        return self.loaded.model

    @cached_property
    def groups(self) -> Sequence[Group]:
        """What may be cut of the model."""
        return trace_groups(self.whole, probe())

    @property
    def example(self) -> Tensor:
        """See `PruneRun`."""
        return 255 * torch.rand(1, 3, *self.loaded.spec.input_size)

    def counted_plan(self, on_hint: OnHint | None) -> PruningPlan:
        """See `PruneRun`."""
        ranked = _plan(self.loaded, self.groups, self.config, self.scored, on_hint)
        if not self.config.search:
            return ranked
        return search_plan(
            self.whole,
            self.groups,
            self.config,
            ranked,
            dataclasses.replace(self.calibration, device=self.device),
            torch.zeros(1, 3, *self.loaded.spec.input_size),
            self.output.with_suffix(".search.json"),
            scored=self.images,
            source=file_digest(self.source),
        )

    def latency_plan(
        self, settings: LatencySettings, on_hint: OnHint | None
    ) -> tuple[PruningPlan, LatencyRecord]:
        """See `PruneRun`."""
        scorer = self.scored.scorer(self.config)
        return plan_for_latency(
            self.loaded, self.groups, self.config, settings, scorer, on_hint=on_hint
        )

    def cut(self, plan: PruningPlan) -> PruneResult:
        """See `PruneRun`."""
        return prune(
            self.loaded,
            self.config,
            self.calibration,
            plan=plan,
            groups=self.groups,
            device=self.device,
        )

    def cut_bare(self, plan: PruningPlan) -> nn.Module:
        """See `PruneRun`."""
        return cut(self.whole, self.groups, plan, probe())

    def time(self, pruned: nn.Module, settings: LatencySettings) -> LatencyRecord:
        """See `PruneRun`."""
        return time_models(self.loaded, pruned, settings)

    def require_own_request(self) -> None:
        """Refuse to replace a file that this source was pruned to with other settings.

        Raises:
            PruningError: see `PruneRun.require_repeat`.
        """
        if self.output.exists():
            entry = load_model(self.output).pruning[-1]
            self.require_repeat(PruningPlan.from_dict(entry["plan"]))

    def file_of(
        self, result: PruneResult, record: PruneRecord
    ) -> tuple[int, Callable[[Path], object]]:
        """See `PruneRun`."""
        entry = {
            "plan": result.plan.to_dict(),
            "compensation": self.compensation(),
            "report": result.report.to_dict(),
            "source": str(self.source),
            "source_sha256": file_digest(self.source),
            "recipe": self.loaded.recipe,
            "date": record.date,
        }
        if record.latency is not None:
            entry["latency"] = {
                "setting": record.latency.setting,
                "parent_ms": record.latency.parent_ms,
                "result_ms": record.latency.result_ms,
            }
        loaded = self.loaded
        payload = checkpoint_payload(result.model, loaded.spec, [*loaded.pruning, entry])
        return tensor_bytes(payload), partial(write_checkpoint, payload=payload)


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
    device: str | torch.device = "auto",
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
        device: where losses, scores, refitting and AP are computed, see
            `yolox.utils.device.resolve_device`.

    Raises:
        PruningError: see `calibrate`.
    """
    where = resolve_device(device)
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
    exp, config, calibration = calibrate(
        exp, loaded, source, config, images, optional=optional, scores=plan is None
    )
    return PruneJob(
        loaded=with_names(loaded, exp) if calibration else loaded,
        source=source,
        output=output,
        config=config,
        calibration=calibration,
        images=images,
        plan=plan,
        evaluate=ap_evaluation(exp, device=where) if evaluate else None,
        time_it=time_it,
        latency=latency,
        command=command,
        device=where,
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
            f"{output} already exists, {what}, not from {source} as it is now: name another file "
            "as `output`, or replace it with `overwrite=True`"
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
