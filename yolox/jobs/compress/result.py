"""A compression from beginning to end, and what there is of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from yolox.jobs.compress.pipeline import CompressPipeline
from yolox.jobs.compress.run import run_stages
from yolox.jobs.compress.stage import Stage
from yolox.jobs.compress.verdict import Verdict, tell_verdicts
from yolox.jobs.evaluate import ap_of_checkpoint
from yolox.models import load_model
from yolox.report import Report
from yolox.utils.locks import claimed


@dataclass(frozen=True, kw_only=True)
class CompressResult:
    """What a compression made.

    Attributes:
        checkpoint: the pruned and fine-tuned model.
        files: exported ones, by format.
        report: the HTML page.
        folder: where all of it is.
        ap_before, ap_after: AP50-95 of the checkpoint that was given and of the one made from it,
            in [0, 1], on the Exp's evaluation images.
        verdict: what was asked for, and what came out.
    """

    checkpoint: Path
    files: Mapping[str, Path]
    report: Path
    folder: Path
    ap_before: float
    ap_after: float
    verdict: Verdict

    @property
    def met(self) -> bool:
        """Whether the target was met."""
        return self.verdict.met


def run_compression(pipeline: CompressPipeline) -> CompressResult:
    """Do what is left to do of it.

    Raises:
        UserError: anything that cannot work; what is done stays, and the same call goes on.
    """
    reports: list[Report] = []

    def keep(stage: Stage, found: object) -> None:
        if isinstance(found, Report):
            reports.append(found)

    with claimed(pipeline.folder):
        stages = pipeline.stages()
        run_stages(stages, pipeline.record(stages), on_result=keep)
    before, after = _aps(pipeline, reports)
    verdict = pipeline.verdict()
    tell_verdicts(verdict, reports[0] if reports else None)
    return CompressResult(
        checkpoint=pipeline.tuned,
        files={form: pipeline.exported(form) for form in pipeline.settings.formats},
        report=pipeline.report,
        folder=pipeline.folder,
        ap_before=before,
        ap_after=after,
        verdict=verdict,
    )


def _aps(pipeline: CompressPipeline, reports: list[Report]) -> tuple[float, float]:
    """AP50-95 before and after: the report's; measured where that was done in an earlier run."""
    device = pipeline.settings.device
    rows = {row.role: row.ap50_95 for report in reports for row in report.models}
    before, after = (
        ap_of_checkpoint(load_model(path), path, pipeline.recipe.exp, device)[0]
        if found is None
        else found
        for path, found in (
            (pipeline.source, rows.get("before")),
            (pipeline.tuned, rows.get("after")),
        )
    )
    return before, after
