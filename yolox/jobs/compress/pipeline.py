"""The stages of a compression in order: what is made of what, and where it goes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from loguru import logger

from yolox.exp import Exp
from yolox.exp.fields import write_names
from yolox.exp.follow import follow_checkpoint
from yolox.exp.idle import reads_training
from yolox.export.settings import SUFFIXES
from yolox.jobs.compress.recipe import Recipe, origin_of
from yolox.jobs.compress.record import Record
from yolox.jobs.compress.settings import CompressSettings
from yolox.jobs.compress.stage import Stage, script_line
from yolox.jobs.compress.stages import (
    Export,
    FileEvaluation,
    Measurement,
    Processes,
    Pruning,
    ReportPage,
    Sensitivity,
    Training,
)
from yolox.jobs.compress.verdict import Verdict, latency_verdict, size_verdict
from yolox.jobs.forecast import Forecast, forecast
from yolox.jobs.prune_latency import LatencySettings
from yolox.jobs.train.finetune import plain_epochs
from yolox.models import ModelSpec, load_model
from yolox.pruning import PruneConfig
from yolox.utils.device import resolve_device
from yolox.utils.errors import UserError

RECORD_FILE = "compress.json"
EXPORT_SECONDS, BENCH_SECONDS = 30.0, 60.0
LATENCY_SECONDS = 400.0  # for a table of layers, where there is none yet, and six models


@dataclass(frozen=True, kw_only=True, eq=False)
class CompressPipeline:
    """Everything from a trained checkpoint to a report.

    Attributes:
        settings: what is asked for.
        exp: the recipe as it follows the checkpoint.
        recipe: the same for the stages, and the words that name it.
        source: the trained checkpoint.
        folder: everything is written below it.
        time: what things take here.
        origin: a digest of what everything follows from.
        processes: how trainings are run.
        write_line: see `Stage`.
    """

    settings: CompressSettings
    exp: Exp
    recipe: Recipe
    source: Path
    folder: Path
    time: Forecast
    origin: str
    processes: Processes = field(default_factory=Processes)
    write_line: Callable[..., str] = script_line

    @property
    def tuned(self) -> Path:
        """The fine-tuned checkpoint."""
        return self.folder / "finetuned" / "latest_ckpt.pth"

    @property
    def measured(self) -> Path:
        """Where latencies are written."""
        return self.folder / "bench.json"

    @property
    def report(self) -> Path:
        """The page that tells it all."""
        return self.folder / "report.html"

    def exported(self, form: str) -> Path:
        """The file of a format."""
        # A folder each: ncnn's and OpenVINO's .bin would have one name.
        return self.folder / "export" / form / f"model{SUFFIXES[form][0]}"

    def record(self, stages: Sequence[Stage]) -> Record:
        """What is done of the stages.

        Raises:
            UserError: the record cannot be read; or there is none, and a stage would clear a
                folder that no compression made.
        """
        path = self.folder / RECORD_FILE
        strange = [folder for stage in stages for folder in stage.folders if folder.exists()]
        if strange and not path.is_file():
            raise UserError(
                f"{', '.join(map(str, strange))} would be replaced, and no compression "
                f"made it (there is no {RECORD_FILE} beside it): choose another `output`"
            )
        return Record(path, self.origin)

    def verdict(self) -> Verdict:
        """Whether the fine-tuned model is what was asked for, once all stages are done.

        Raises:
            UserError: what was measured cannot be read.
        """
        settings = self.settings
        if settings.in_latency and settings.runtime:
            return latency_verdict(settings.target, settings.runtime, self.measured)
        return size_verdict(settings.target, self.source, self.tuned)

    def stages(self) -> list[Stage]:
        """In order; each reads what those before it wrote."""
        return [replace(stage, write_line=self.write_line) for stage in self._stages()]

    def _stages(self) -> Iterator[Stage]:
        settings, current = self.settings, self.source
        if settings.sparsity is not None:
            sparse = self._training(
                "sparse", current, settings.sparsity_epochs, sparsity=settings.sparsity
            )
            current = sparse.outputs[0]
            yield sparse
        if settings.sensitivity:
            yield self._sensitivity(current)
        pruning = self._pruning(current)
        yield pruning
        teacher = self.source if settings.distill else None
        yield self._training("finetuned", pruning.output, settings.epochs, teacher=teacher)
        for form in settings.formats:
            yield self._export(form)
            yield self._evaluation(form)
        yield self._measurement()
        yield self._page(current, pruning.output)

    @property
    def _own_recipe(self) -> Recipe:
        """The recipe, for stages that read it.

        A latency is met with the activation that it was measured with.
        """
        if self.settings.in_latency and "finetune_act" not in self.exp.given:
            return self.recipe.giving("finetune_act", "")
        return self.recipe

    @property
    def _recipe_without_training(self) -> Recipe:
        """`_own_recipe` for a stage that trains nothing."""
        return self._own_recipe.only(
            lambda name: name == "finetune_act" or not reads_training(name)
        )

    def _training(
        self,
        name: str,
        source: Path,
        epochs: int,
        *,
        sparsity: float | None = None,
        teacher: Path | None = None,
    ) -> Training:
        """The last epoch's checkpoint counts: the best one would be chosen by evaluation images."""
        tuning = sparsity is None
        # Fields that are of another training than this one.
        idle = tuple(
            prefix
            for prefix, at_work in (
                ("sparsity_", sparsity is not None),
                ("distill_", teacher is not None),
                ("finetune_", tuning),
            )
            if not at_work
        )
        latest = self.folder / name / "latest_ckpt.pth"
        plain = plain_epochs(self.exp, epochs, self._steps)
        if "no_aug_epochs" in self.exp.given:
            plain = self.exp.no_aug_epochs
        evaluations = plain + epochs // self.exp.eval_interval
        return Training(
            name=name,
            device=self.settings.device,
            recipe=self._own_recipe.only(lambda field: not field.startswith(idle)),
            source=source,
            folder=self.folder,
            epochs=epochs,
            plain_epochs=plain,
            sparsity=sparsity,
            teacher=teacher,
            processes=self.processes,
            outputs=(latest,),
            folders=(latest.parent,),
            seconds=self.time.training(epochs, evaluations, tuning=tuning),
            checkpoint=latest,
        )

    @property
    def _steps(self) -> int:
        """Batches an epoch."""
        return max(self.time.train_images // self.exp.batch_size, 1)

    @property
    def _tuning_updates(self) -> int:
        return self.settings.epochs * math.ceil(self._steps / self.exp.accumulate)

    def _sensitivity(self, source: Path) -> Sensitivity:
        folder, images = self.folder / "sensitivity", self.settings.images
        return Sensitivity(
            name="sensitivity",
            device=self.settings.device,
            recipe=self._recipe_without_training,
            source=source,
            folder=folder,
            images=images,
            outputs=(folder / "sensitivity.jsonl",),
            folders=(folder,),
            seconds=240 * images * self.time.infer_image,
        )

    def _pruning(self, source: Path) -> Pruning:
        settings, latency = self.settings, None
        seconds = self.time.pruning(settings.images, PruneConfig().rounds) + BENCH_SECONDS
        if settings.in_latency and settings.runtime:
            # The step of channels is the runtime's own unless one is given.
            latency = LatencySettings(
                runtime=settings.runtime,
                threads=settings.threads,
                round_to=settings.round_to,
                openvino_precision=settings.openvino_precision
                if settings.runtime == "openvino"
                else "f32",
                device=settings.device,
            )
            seconds += LATENCY_SECONDS
        if settings.steps > 1:
            between = self.time.training(settings.step_epochs, 1, tuning=True)
            seconds = settings.steps * seconds + (settings.steps - 1) * between
        spare = self.folder / "sensitivity" / "ratios.json" if settings.sensitivity else None
        output = self.folder / "pruned" / "pruned.pth"
        return Pruning(
            name="pruning",
            device=settings.device,
            recipe=self._own_recipe if settings.steps > 1 else self._recipe_without_training,
            source=source,
            output=output,
            folder=self.folder,
            target=settings.target,
            importance=settings.importance,
            images=settings.images,
            round_to=settings.round_to,
            latency=latency,
            steps=settings.steps,
            step_epochs=settings.step_epochs,
            bare=settings.cuts_bare(self._tuning_updates),
            spare=spare,
            outputs=(output,),
            folders=(output.parent, self.folder / "pruned_steps"),
            seconds=seconds,
        )

    def _export(self, form: str) -> Export:
        output = self.exported(form)
        return Export(
            name=f"export to {form}",
            source=self.tuned,
            form=form,
            output=output,
            pictures=self.exp.get_eval_dataset().samples[0].path.parent,
            outputs=(output,),
            folders=(output.parent,),
            seconds=EXPORT_SECONDS,
        )

    def _evaluation(self, form: str) -> FileEvaluation:
        folder = self.folder / "eval" / form
        return FileEvaluation(
            name=f"AP of the {form} file",
            device=self.settings.device,
            recipe=self._recipe_without_training,
            source=self.exported(form),
            folder=folder,
            openvino_precision=self.settings.openvino_precision if form == "openvino" else None,
            outputs=(folder / "metrics.json",),
            folders=(folder,),
            seconds=self.time.evaluation(),
        )

    @property
    def _files(self) -> dict[str, Path]:
        """Exported files by what they are called in tables."""
        return {f"after, as {form}": self.exported(form) for form in self.settings.formats}

    def _measurement(self) -> Measurement:
        settings = self.settings
        return Measurement(
            name="measurement",
            device=settings.device,
            models={"before": self.source, "after": self.tuned, **self._files},
            runtimes=settings.runtimes,
            threads=settings.threads,
            openvino_precision=settings.openvino_precision,
            size=self.exp.test_size,
            output=self.measured,
            outputs=(self.measured,),
            seconds=BENCH_SECONDS * len(settings.runtimes),
        )

    def _page(self, start: Path, pruned: Path) -> ReportPage:
        """Files stand before the checkpoint that they were made from, which is the one after."""
        settings = self.settings
        models = {"before": self.source}
        if start != self.source:
            models["after sparsity training"] = start
        for step in range(1, settings.steps):
            models[f"step {step}"] = self.folder / "pruned_steps" / f"step_{step}/latest_ckpt.pth"
        models |= {"pruned": pruned, **self._files, "after": self.tuned}
        return ReportPage(
            name="report",
            device=settings.device,
            recipe=self._recipe_without_training,
            models=models,
            bench=self.measured,
            record=self.folder / RECORD_FILE,
            output=self.report,
            openvino_precision=settings.openvino_precision
            if "openvino" in settings.formats
            else None,
            outputs=(self.report,),
            seconds=len(models) * self.time.evaluation() + 10,
        )


def plan_compression(
    source: Path,
    recipe: Recipe,
    settings: CompressSettings,
    *,
    folder: Path | None = None,
    origin: Path | str | None = None,
    processes: Processes | None = None,
    write_line: Callable[..., str] = script_line,
) -> CompressPipeline:
    """The pipeline of a checkpoint; a few passes of the model tell how long it takes.

    Args:
        source: a trained checkpoint.
        recipe: names the data and says how to train; not changed.
        settings: what is asked for.
        folder: to write into; ``<exp_name>_compress`` beside the Exp's own by default.
        origin: Exp file, or another name of the recipe, that a resumed run has to agree in.
        processes: how trainings are run; in this process, on one device, by default.
        write_line: see `Stage`.

    Raises:
        UserError: what cannot work, before anything is written.
    """
    loaded = load_model(source)
    settings.check(recipe.exp)
    recipe = recipe.giving(*_sizes(recipe.exp, loaded.spec))
    exp = follow_checkpoint(recipe.exp, loaded.spec, source, pruned=loaded.is_pruned)
    if not loaded.spec.class_names and "class_names" not in exp.given:
        recipe = recipe.giving("class_names", write_names(exp.class_names))
    return CompressPipeline(
        settings=settings,
        exp=exp,
        recipe=recipe,
        source=source,
        folder=folder or exp.output_folder(f"{exp.exp_name}_compress"),
        time=forecast(exp, loaded, resolve_device(settings.device)),
        origin=origin_of(exp, source, recipe.origin if origin is None else origin),
        processes=processes or Processes(),
        write_line=write_line,
    )


def _sizes(exp: Exp, spec: ModelSpec) -> list[str]:
    """Fields that keep training at the checkpoint's size, where that is not the Exp's.

    The plan, the budget and the pruned model are of that size.
    """
    if exp.test_size == spec.input_size or "test_size" in exp.given:
        return []
    names = [name for name in ("input_size", "test_size") if name not in exp.given]
    height, width = spec.input_size
    words = [word for name in names for word in (name, f"{height},{width}")]
    logger.info(f"at the checkpoint's size: {' '.join(words)}")
    return words
