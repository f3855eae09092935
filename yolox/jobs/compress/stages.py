"""The stages of a compression: each calls the job that a command of the same name calls."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from yolox.core import TrainResult, make_fabric
from yolox.data.sources import find_images
from yolox.export import ExportSettings, Parity, optional_packages
from yolox.export.settings import PACKAGES
from yolox.jobs.compress.recipe import Recipe
from yolox.jobs.compress.stage import Stage
from yolox.jobs.evaluate_files import EvalSettings, Evaluation, evaluate_and_write
from yolox.jobs.export import export_checkpoint, has_onnxslim, with_given_names
from yolox.jobs.measure import Measured, MeasureSettings, measure_models
from yolox.jobs.prune import prepare_pruning, show_hint, spare_sensitive
from yolox.jobs.prune_latency import LatencySettings
from yolox.jobs.prune_steps import prune_in_steps
from yolox.jobs.report.write import PageSettings, write_report
from yolox.jobs.sensitivity import SensitivityOutcome, SensitivitySettings, analyse
from yolox.jobs.train import TrainOptions, official_args, run_trainer
from yolox.models import load_model
from yolox.pruning import PruneConfig, PruneRecord, PruningError
from yolox.report import Report
from yolox.utils.locks import claimed


@dataclass(frozen=True, kw_only=True)
class Processes:
    """How trainings are run.

    Attributes:
        devices: processes on this machine; None for all GPUs.
        launch: runs the words of a training command as processes of their own where there are to
            be several, and says whether it did.
        log_to: is told the folder of a training in this process.
    """

    devices: int | None = 1
    launch: Callable[[list[str]], bool] | None = None
    log_to: Callable[[Path], None] | None = None


@dataclass(frozen=True, kw_only=True)
class _RecipeStage(Stage):
    """A stage that reads the recipe."""

    recipe: Recipe

    def named_recipe(self) -> tuple[str, ...]:
        return self.recipe.words()


@dataclass(frozen=True, kw_only=True)
class Training(_RecipeStage):
    """A run of the trainer in a folder of its own; its last epoch's checkpoint is the result.

    Attributes:
        source: the checkpoint to start from.
        folder: the run's folder is made in it, by the stage's name.
        epochs, plain_epochs: all, and those without mosaic at the end.
        sparsity: strength of the penalty; None for none.
        teacher: checkpoint to distil from.
        processes: see there.
    """

    tool = "train"
    source: Path
    folder: Path
    epochs: int
    plain_epochs: int
    sparsity: float | None = None
    teacher: Path | None = None
    processes: Processes

    def run(self, *, resumes: bool = False) -> TrainResult | None:
        launch = self.processes.launch
        if launch is not None and launch(self.words(resumes=resumes)):
            return None
        penalty = () if self.sparsity is None else ("sparsity", self.sparsity)
        exp = self.recipe.make(*penalty, *self.fields())
        options = TrainOptions(
            checkpoint=self._start(resumes=resumes),
            resume=resumes,
            name=self.name,
            teacher=self.teacher,
        )
        trainer = exp.get_trainer(self._args(options))
        return run_trainer(trainer, exp, log_to=self.processes.log_to)

    def _args(self, options: TrainOptions) -> argparse.Namespace:
        return official_args(options, devices=self.processes.devices, device=self.device)

    def flags(self, *, resumes: bool = False) -> tuple[object, ...]:
        flags: list[object] = ["-c", self._start(resumes=resumes)]
        if resumes:
            flags.append("--resume")
        flags += ["-expn", self.name]
        if self.sparsity is not None:
            flags += ["--sparsity", self.sparsity]
        if self.teacher is not None:
            flags += ["--distill", self.teacher]
        return tuple(flags)

    def fields(self) -> tuple[object, ...]:
        return (
            "output_dir",
            self.folder,
            "max_epoch",
            self.epochs,
            "no_aug_epochs",
            self.plain_epochs,
        )

    def _start(self, *, resumes: bool) -> Path | None:
        return self.checkpoint if resumes else self.source


@dataclass(frozen=True, kw_only=True)
class Sensitivity(_RecipeStage):
    """What each layer costs in training loss.

    Attributes:
        source: a checkpoint.
        folder: to write into.
        images: training images to measure on.
    """

    tool = "sensitivity"
    goes_on = True
    source: Path
    folder: Path
    images: int

    def run(self, *, resumes: bool = False) -> SensitivityOutcome:
        settings = SensitivitySettings(metric="loss", images=self.images, device=self.device)
        return analyse(self.source, self.recipe.make(), self.folder, settings)

    def flags(self, *, resumes: bool = False) -> tuple[object, ...]:
        flags = ["-c", self.source, "-o", self.folder, "--metric", "loss"]
        return (*flags, "--images", self.images)


@dataclass(frozen=True, kw_only=True)
class Pruning(_RecipeStage):
    """The cut, or several with training between them.

    Attributes:
        source: a checkpoint.
        output: the pruned one.
        folder: of the runs between two steps.
        target, importance, images: see `yolox.jobs.compress.settings.CompressSettings`.
        round_to: likewise.
        latency: what a target in latency is measured in.
        steps, step_epochs: rounds, and epochs between two.
        bare: layers are not refitted after the cut.
        spare: file of ratios; layers that it has none for stay whole.
    """

    tool = "prunmodel"
    goes_on = True
    source: Path
    output: Path
    folder: Path
    target: str
    importance: str
    images: int
    round_to: int | None = None
    latency: LatencySettings | None = None
    steps: int = 1
    step_epochs: int = 0
    bare: bool = False
    spare: Path | None = None

    def run(self, *, resumes: bool = False) -> PruneRecord:
        exp = self.recipe.make(*self.fields())
        loaded = load_model(self.source)
        config = PruneConfig(
            target=self.target,
            importance=self.importance,
            round_to=self.round_to or PruneConfig.round_to,
            absorb=not self.bare,
            reconstruct=0 if self.bare else PruneConfig.reconstruct,
            seed=exp.seed or 0,
        )
        with claimed(self.output.parent, PruningError, name=self.output.name):
            if self.spare:
                config = spare_sensitive(config, loaded, self.spare)
            job = prepare_pruning(
                loaded,
                self.source,
                exp,
                config,
                self.output,
                images=self.images,
                latency=self.latency,
                command=self.line(),
                device=self.device,
            )
            if self.steps == 1:
                return job.run(show_hint)
            fabric = make_fabric(devices=1, device=self.device)
            fabric.launch()
            return prune_in_steps(
                job, exp, fabric, steps=self.steps, epochs=self.step_epochs, on_hint=show_hint
            )

    def flags(self, *, resumes: bool = False) -> tuple[object, ...]:
        flags: list[object] = ["-c", self.source, "-o", self.output, "--target", self.target]
        flags += ["--importance", self.importance, "--images", self.images]
        if self.round_to:
            flags += ["--round-to", self.round_to]
        if self.latency:
            flags += ["--runtime", self.latency.runtime, "--threads", self.latency.threads]
            if self.latency.runtime == "openvino":
                flags += ["--openvino-precision", self.latency.openvino_precision]
        if self.bare:
            flags += ["--no-absorb", "--reconstruct", 0]
        if self.steps > 1:
            flags += ["--steps", self.steps, "--step-epochs", self.step_epochs]
        if self.spare:
            flags += ["--spare", self.spare]
        return tuple(flags)

    def fields(self) -> tuple[object, ...]:
        return ("output_dir", self.folder, "exp_name", self.output.stem)


@dataclass(frozen=True, kw_only=True)
class Export(Stage):
    """A file for another runtime.

    Attributes:
        source: a checkpoint.
        form: onnx, openvino, ncnn or torchscript.
        output: the file that one opens.
        pictures: folder of images to compare on.
    """

    tool = "export"
    source: Path
    form: str
    output: Path
    pictures: Path

    def run(self, *, resumes: bool = False) -> Parity:
        optional_packages(*PACKAGES[self.form])
        loaded = with_given_names(load_model(self.source), self.source, None)
        settings = ExportSettings(
            format=self.form,
            size=loaded.spec.input_size,
            decode=True,
            slim=self.form == "onnx" and has_onnxslim(),
        )
        images = find_images(self.pictures)
        return export_checkpoint(loaded, self.source, self.output, settings, images)

    def flags(self, *, resumes: bool = False) -> tuple[object, ...]:
        flags = ["-c", self.source, "--format", self.form, "--output-name", self.output]
        return (*flags, "--decode", "--path", self.pictures)


@dataclass(frozen=True, kw_only=True)
class FileEvaluation(_RecipeStage):
    """AP of an exported file in its own runtime.

    Attributes:
        source: the file.
        folder: for curves, pictures and metrics.json.
        openvino_precision: of one of OpenVINO's.
    """

    tool = "eval"
    source: Path
    folder: Path
    openvino_precision: str | None = None

    def run(self, *, resumes: bool = False) -> Evaluation | None:
        fabric = make_fabric(devices=1, precision="fp32", device="cpu")
        fabric.launch()
        settings = EvalSettings(
            plots=self.folder,
            openvino_precision=self.openvino_precision or "f32",
            device=self.device,
        )
        exp = self.recipe.make()
        return evaluate_and_write(self.source, exp, settings, fabric, command=self.line())

    def flags(self, *, resumes: bool = False) -> tuple[object, ...]:
        arithmetic = _arithmetic(self.openvino_precision)
        return ("-c", self.source, "--plots", self.folder, *arithmetic)


@dataclass(frozen=True, kw_only=True)
class Measurement(Stage):
    """Latency, memory and size of some models.

    Attributes:
        models: files by their labels.
        runtimes, threads, openvino_precision: see `yolox.jobs.measure.MeasureSettings`.
        size: (height, width) of the input, pixels.
        output: JSON file.
    """

    tool = "bench"
    models: Mapping[str, Path]
    runtimes: tuple[str, ...]
    threads: int
    openvino_precision: str
    size: tuple[int, int]
    output: Path

    def run(self, *, resumes: bool = False) -> Measured:
        settings = MeasureSettings(
            runtimes=self.runtimes,
            threads=(self.threads,),
            openvino_precision=self.openvino_precision,
            device=self.device,
            size=self.size,
        )
        return measure_models(
            list(self.models.values()),
            settings,
            labels=list(self.models),
            output=self.output,
            command=self.line(),
        )

    def flags(self, *, resumes: bool = False) -> tuple[object, ...]:
        flags: list[object] = [*self.models.values(), "--labels", *self.models]
        flags += ["--runtimes", *self.runtimes, "--threads", self.threads]
        flags += ["--openvino-precision", self.openvino_precision]
        flags += ["--tsize", *self.size, "--json", self.output]
        return tuple(flags)


@dataclass(frozen=True, kw_only=True)
class ReportPage(_RecipeStage):
    """All of it side by side, in one HTML file.

    Attributes:
        models: files by their labels, the one before first and the one after last.
        bench: what a `Measurement` wrote.
        record: the compress.json.
        output: the page.
        openvino_precision: of OpenVINO's files, where there are any.
    """

    tool = "report"
    models: Mapping[str, Path]
    bench: Path
    record: Path
    output: Path
    openvino_precision: str | None = None

    def run(self, *, resumes: bool = False) -> Report:
        page = PageSettings(
            labels=tuple(self.models),
            bench=self.bench,
            compress=self.record,
            openvino_precision=self.openvino_precision or "f32",
            device=self.device,
        )
        files: Sequence[Path] = list(self.models.values())
        return write_report(files, self.recipe.make(), self.output, page, command=self.line())

    def flags(self, *, resumes: bool = False) -> tuple[object, ...]:
        flags = ["-c", *self.models.values(), "--labels", *self.models, "--bench", self.bench]
        flags += ["--compress", self.record, "-o", self.output]
        return (*flags, *_arithmetic(self.openvino_precision))


def _arithmetic(openvino_precision: str | None) -> tuple[str, ...]:
    return () if openvino_precision is None else ("--openvino-precision", openvino_precision)
