"""From a trained checkpoint and a target to a small, fine-tuned, exported, measured model."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from loguru import logger
from rich.markup import escape
from rich.table import Table

from yolox.exp import Exp
from yolox.exp.fields import write_names
from yolox.exp.follow import follow_checkpoint
from yolox.exp.idle import reads_training
from yolox.exp.load import find_exp_file
from yolox.export.runtimes import RUNTIMES, runtimes_of
from yolox.export.settings import FORMATS, PACKAGES, SUFFIXES, optional_packages
from yolox.jobs.compress.stages import Record, Stage, run_stages
from yolox.jobs.forecast import Forecast, forecast
from yolox.jobs.train.finetune import plain_epochs
from yolox.models import ModelSpec, load_model
from yolox.pruning import PruneConfig
from yolox.pruning.latency.plan import LATENCY_TOLERANCE
from yolox.pruning.sparsity import SparsityConfig
from yolox.tools import bench, cli, eval, export, prunmodel, report, sensitivity, train
from yolox.tools.flags.compress import LATENCY_RUNTIME, SPARSITY_EPOCHS, STEP_EPOCHS, make_parser
from yolox.tools.flags.parts import DEFAULT_EXP
from yolox.utils.checkpoint import file_digest
from yolox.utils.documents import DocumentError, read_json, read_yaml
from yolox.utils.download import resolve_weights
from yolox.utils.errors import UserError
from yolox.utils.locks import claimed

EXPORT_SECONDS, BENCH_SECONDS = 30.0, 60.0
# Fields that change no result, or that every stage sets itself.
_WITHOUT_INFLUENCE = frozenset(
    ("data_num_workers", "print_interval", "save_history_ckpt", "output_dir", "exp_name")
)
LATENCY_SECONDS = 400.0  # for a table of layers, where there is none yet, and six models


@dataclasses.dataclass(frozen=True, kw_only=True)
class Road:
    """What the stages have in common.

    Attributes:
        args: the flags.
        exp: the recipe.
        source: the trained checkpoint.
        folder: everything is written below it.
        recipe: flags that name the Exp.
        fields: Exp fields set on the command line, ``key value`` words.
        time: what things take here.
    """

    args: argparse.Namespace
    exp: Exp
    source: Path
    folder: Path
    recipe: tuple[str, ...]
    fields: tuple[str, ...]
    time: Forecast

    def stages(self) -> Iterator[Stage]:
        """In order; each reads what those before it wrote."""
        current = self.source
        if self.args.sparsity is not None:
            stage = self._sparsity(current)
            current = stage.outputs[0]
            yield stage
        if self.args.sensitivity:
            yield self._sensitivity(current)
        pruning = self._pruning(current)
        yield pruning
        tuning = self._fine_tuning(pruning.outputs[0])
        final = tuning.outputs[0]
        yield tuning
        for form in self.args.formats:
            yield from self._deployment(form, final)
        yield self._measurement(final)
        yield self._report(current, pruning.outputs[0], final)

    @property
    def measured(self) -> Path:
        """Where latencies are written."""
        return self.folder / "bench.json"

    def _exported(self, form: str) -> Path:
        # A folder each: ncnn's and OpenVINO's .bin would have one name.
        return self.folder / "export" / form / f"model{SUFFIXES[form][0]}"

    @property
    def _own_recipe(self) -> tuple[str, ...]:
        """The recipe, for stages that read it.

        A latency is met with the activation that it was measured with.
        """
        kept: tuple[str, ...] = ()
        if _in_latency(self.args.target) and "finetune_act" not in self.exp.given:
            kept = ("finetune_act", "")
        return (*self.recipe, *self.fields, *kept)

    @property
    def _recipe_without_training(self) -> tuple[str, ...]:
        """`_own_recipe` for a stage that trains nothing."""
        return self._recipe_with(lambda name: name == "finetune_act" or not reads_training(name))

    def _recipe_of_training(self, flags: Sequence[object], *, tuning: bool) -> tuple[str, ...]:
        """`_own_recipe` without the fields that are of another training than this one."""
        idle = tuple(
            prefix
            for prefix, at_work in (
                ("sparsity_", "--sparsity" in flags),
                ("distill_", "--distill" in flags),
                ("finetune_", tuning),
            )
            if not at_work
        )
        return self._recipe_with(lambda name: not name.startswith(idle))

    def _recipe_with(self, is_read: Callable[[str], bool]) -> tuple[str, ...]:
        """`_own_recipe` with those of its fields alone that a stage reads."""
        start = len(self.recipe)
        words = self._own_recipe[start:]
        pairs = zip(words[::2], words[1::2], strict=True)
        kept = [pair for pair in pairs if is_read(pair[0])]
        return (*self.recipe, *(word for pair in kept for word in pair))

    def _training(
        self, name: str, checkpoint: Path, flags: Sequence[object], epochs: int, *, tuning: bool
    ) -> Stage:
        """A run of the trainer in a folder of its own; its last epoch's checkpoint is the result.

        The best one would be chosen by the evaluation images.
        """
        latest = self.folder / name / "latest_ckpt.pth"
        plain = plain_epochs(self.exp, epochs)
        if "no_aug_epochs" in self.exp.given:
            plain = self.exp.no_aug_epochs
        evaluations = plain + epochs // self.exp.eval_interval
        return Stage(
            name=name,
            tool="train",
            main=train.main,
            flags=("-c", checkpoint, "-expn", name, *flags),
            recipe=self._recipe_of_training(flags, tuning=tuning),
            fields=("output_dir", self.folder, "max_epoch", epochs, "no_aug_epochs", plain),
            outputs=(latest,),
            folders=(self.folder / name,),
            seconds=self.time.training(epochs, evaluations, tuning=tuning),
            checkpoint=latest,
            resumed=("-c", latest, "--resume", "-expn", name, *flags),
        )

    def _sparsity(self, checkpoint: Path) -> Stage:
        args = self.args
        flags = ("--sparsity", args.sparsity)
        return self._training("sparse", checkpoint, flags, args.sparsity_epochs, tuning=False)

    def _sensitivity(self, checkpoint: Path) -> Stage:
        folder = self.folder / "sensitivity"
        return Stage(
            name="sensitivity",
            tool="sensitivity",
            main=sensitivity.main,
            flags=(
                *("-c", checkpoint, "-o", folder, "--metric", "loss"),
                *("--images", self.args.images),
            ),
            recipe=self._recipe_without_training,
            outputs=(folder / "sensitivity.jsonl",),
            folders=(folder,),
            goes_on=True,
            seconds=240 * self.args.images * self.time.infer_image,
        )

    def _pruning(self, checkpoint: Path) -> Stage:
        args = self.args
        output = self.folder / "pruned" / "pruned.pth"
        seconds = self.time.pruning(args.images, PruneConfig().rounds) + BENCH_SECONDS
        flags: list[object] = ["-c", checkpoint, "-o", output, "--target", args.target]
        flags += ["--importance", args.importance, "--images", args.images]
        if args.round_to:
            flags += ["--round-to", args.round_to]
        if _in_latency(args.target):
            flags += ["--runtime", args.runtime, "--threads", args.threads]
            if args.runtime == "openvino":
                flags += ["--openvino-precision", args.openvino_precision]
            seconds += LATENCY_SECONDS
        if args.steps > 1:
            flags += ["--steps", args.steps, "--step-epochs", args.step_epochs]
            between = self.time.training(args.step_epochs, 1, tuning=True)
            seconds = args.steps * seconds + (args.steps - 1) * between
        if args.sensitivity:
            flags += ["--spare", self.folder / "sensitivity" / "ratios.json"]
        return Stage(
            name="pruning",
            tool="prunmodel",
            main=prunmodel.main,
            flags=tuple(flags),
            recipe=self._own_recipe if args.steps > 1 else self._recipe_without_training,
            fields=("output_dir", self.folder, "exp_name", "pruned"),
            outputs=(output,),
            folders=(self.folder / "pruned", self.folder / "pruned_steps"),
            goes_on=True,
            seconds=seconds,
        )

    def _fine_tuning(self, checkpoint: Path) -> Stage:
        teacher = ("--distill", self.source) if self.args.distill else ()
        return self._training("finetuned", checkpoint, teacher, self.args.epochs, tuning=True)

    def _deployment(self, form: str, checkpoint: Path) -> Iterator[Stage]:
        """Export, and AP of the file in its own runtime."""
        output = self._exported(form)
        pictures = self.exp.get_eval_dataset().samples[0].path.parent
        yield Stage(
            name=f"export to {form}",
            tool="export",
            main=export.main,
            flags=(
                *("-c", checkpoint, "--format", form, "--output-name", output, "--decode"),
                *("--path", pictures),
            ),
            outputs=(output,),
            folders=(output.parent,),
            seconds=EXPORT_SECONDS,
        )
        results = self.folder / "eval" / form
        yield Stage(
            name=f"AP of the {form} file",
            tool="eval",
            main=eval.main,
            flags=("-c", output, "--plots", results, *self._arithmetic(form)),
            recipe=self._recipe_without_training,
            outputs=(results / "metrics.json",),
            folders=(results,),
            seconds=self.time.evaluation(),
        )

    @property
    def _files(self) -> dict[str, Path]:
        """Exported files by what they are called in tables."""
        return {f"after, as {form}": self._exported(form) for form in self.args.formats}

    def _arithmetic(self, form: str) -> tuple[str, ...]:
        """Of OpenVINO's files, for commands that run them."""
        return ("--openvino-precision", self.args.openvino_precision) if form == "openvino" else ()

    def _measurement(self, final: Path) -> Stage:
        args = self.args
        runtimes = dict.fromkeys(("torch", *_runtimes(args)))
        models = {"before": self.source, "after": final, **self._files}
        return Stage(
            name="measurement",
            tool="bench",
            main=bench.main,
            flags=(
                *(*models.values(), "--labels", *models, "--runtimes", *runtimes),
                *("--threads", args.threads, "--openvino-precision", args.openvino_precision),
                *("--tsize", *self.exp.test_size, "--json", self.measured),
            ),
            outputs=(self.measured,),
            seconds=BENCH_SECONDS * len(runtimes),
        )

    def _report(self, start: Path, pruned: Path, final: Path) -> Stage:
        """Files stand before the checkpoint that they were made from, which is the one after."""
        output = self.folder / "report.html"
        models = {"before": self.source}
        if start != self.source:
            models["after sparsity training"] = start
        for step in range(1, self.args.steps):
            models[f"step {step}"] = self.folder / "pruned_steps" / f"step_{step}/latest_ckpt.pth"
        models |= {"pruned": pruned, **self._files, "after": final}
        return Stage(
            name="report",
            tool="report",
            main=report.main,
            flags=(
                *("-c", *models.values(), "--labels", *models, "--bench", self.measured),
                *("--compress", self.folder / "compress.json", "-o", output),
                *(self._arithmetic("openvino") if "openvino" in self.args.formats else ()),
            ),
            recipe=self._recipe_without_training,
            outputs=(output,),
            seconds=len(models) * self.time.evaluation() + 10,
        )


def _runtime_of(form: str) -> str:
    """The runtime that files of a format are made for."""
    return runtimes_of(SUFFIXES[form][0])[0]


def _runtimes(args: argparse.Namespace) -> list[str]:
    """Those that models are measured in, beside PyTorch."""
    return [*([args.runtime] if args.runtime else []), *map(_runtime_of, args.formats)]


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, forecast, run what is left to do."""
    args = _parse(argv)
    args.formats = list(dict.fromkeys(args.formats))
    if _in_latency(args.target):
        args.runtime = args.runtime or LATENCY_RUNTIME
    exp = cli.load_exp(args)
    source = resolve_weights(args.ckpt or exp.output_folder() / "best_ckpt.pth")
    loaded = load_model(source)
    _check(args, exp)
    _tell_idle(args)
    args.opts += _sizes(exp, loaded.spec)
    exp = follow_checkpoint(exp, loaded.spec, source, pruned=loaded.is_pruned)
    if not loaded.spec.class_names and "class_names" not in exp.given:
        args.opts += ["class_names", write_names(exp.class_names)]
    folder = args.output or exp.output_folder(f"{exp.exp_name}_compress")
    road = Road(
        args=args,
        exp=exp,
        source=source,
        folder=folder,
        recipe=cli.recipe_words(args),
        fields=tuple(args.opts),
        time=forecast(exp, loaded),
    )
    origin = _origin(exp, source, args.exp_file or args.name)
    with nullcontext() if args.dry_run else claimed(folder):
        stages = list(road.stages())
        _require_own_folder(folder / "compress.json", stages)
        record = Record(folder / "compress.json", origin)
        _show(stages, record, folder)
        if args.dry_run:
            return
        run_stages(stages, record)
    if _in_latency(args.target):
        tell_latency(args, road.measured)
    logger.info(f"done: {folder / 'report.html'} tells it all")


def _sizes(exp: Exp, spec: ModelSpec) -> list[str]:
    """Fields that keep training at the checkpoint's size, where that is not the Exp's; set in it.

    The plan, the budget and the pruned model are of that size.
    """
    if exp.test_size == spec.input_size or "test_size" in exp.given:
        return []
    names = [name for name in ("input_size", "test_size") if name not in exp.given]
    words = [
        word for name in names for word in (name, f"{spec.input_size[0]},{spec.input_size[1]}")
    ]
    exp.merge(words)
    logger.info(f"at the checkpoint's size: {' '.join(words)}")
    return words


def _tell_idle(args: argparse.Namespace) -> None:
    """Warn of flags that no stage reads."""
    sparse = args.sparsity is None and args.sparsity_epochs != SPARSITY_EPOCHS
    steps = args.steps == 1 and args.step_epochs != STEP_EPOCHS
    cli.tell_idle(
        ("--sparsity-epochs", sparse, "there is no sparsity training: give --sparsity"),
        ("--step-epochs", steps, "there is one step: give --steps"),
    )


def _require_own_folder(record: Path, stages: Sequence[Stage]) -> None:
    """Raise `UserError` where a stage would clear a folder that no run of this command made."""
    if record.is_file():
        return
    strange = [folder for stage in stages for folder in stage.folders if folder.exists()]
    if strange:
        raise UserError(
            f"{', '.join(map(str, strange))} would be replaced, and no run of this command made it "
            "(there is no compress.json beside it): choose another --output"
        )


def _origin(exp: Exp, source: Path, recipe: Path | str | None) -> str:
    """A digest of what everything follows from: the checkpoint and the recipe.

    Args:
        exp: its plain values count.
        source: the checkpoint.
        recipe: the Exp file, in which methods may be overridden, or the name of a built-in one.
    """
    content = (
        recipe if isinstance(recipe, str) else file_digest(find_exp_file(recipe or DEFAULT_EXP))
    )
    fields = {
        name: _plain(Path(value) if value and name == "data_dir" else value)
        for name, value in ((name, getattr(exp, name)) for name in exp.field_types())
        if name not in _WITHOUT_INFLUENCE
    }
    text = json.dumps([file_digest(source), content, fields], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: object) -> object:
    """A value that is the same in every process, for JSON; of what is no plain value its type."""
    if value is None or isinstance(value, (str, int, float)):
        return value
    if isinstance(value, Path):
        return str(value.resolve())
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return type(value).__qualname__


def _show(stages: Sequence[Stage], record: Record, folder: Path) -> None:
    """The plan, with the time that each stage is expected to take on this machine."""
    table = Table(title=escape(f"Plan, in {folder}"), show_footer=True)
    done = [record.is_done(*pair) for pair in zip(stages, record.marks(stages), strict=True)]
    left = sum(stage.seconds for stage, is_done in zip(stages, done, strict=True) if not is_done)
    table.add_column("stage", footer="left to do")
    table.add_column("about", footer=_minutes(left), justify="right")
    for stage, is_done in zip(stages, done, strict=True):
        table.add_row(stage.name, "done" if is_done else _minutes(stage.seconds))
    console = cli.console()
    console.print(table)
    for stage in stages:  # whole lines, to be copied
        console.print(stage.line(), soft_wrap=True, highlight=False, markup=False)


def tell_latency(args: argparse.Namespace, measured: Path) -> None:
    """Whether the model as it is after fine-tuning takes what was asked for."""
    try:
        medians = {
            entry["label"]: float(entry["forward"]["median"])
            for entry in read_json(measured)["measurements"]
            if entry["runtime"] == args.runtime
        }
        before, after = medians["before"], medians["after"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"cannot read latencies in {measured} ({error!r}): delete it, and the same line "
            "measures again"
        ) from error
    target = PruneConfig(target=args.target).latency_target()
    miss = after / target.milliseconds(before) - 1
    logger.log(
        "INFO" if miss <= LATENCY_TOLERANCE else "WARNING",
        f"asked for {target.text}: the fine-tuned model takes {after:.2f} of {before:.2f} ms "
        f"({after / before:.3f}, {miss:+.1%} of what was asked) in {args.runtime}",
    )


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def _in_latency(target: str) -> bool:
    return target.startswith("latency=")


def _check(args: argparse.Namespace, exp: Exp) -> None:
    """Refuse before hours of work what would fail at their end.

    Raises:
        UserError: listing all of it.
    """
    problems = []
    if args.sparsity is not None:
        try:
            SparsityConfig(strength=args.sparsity)
        except UserError as error:
            problems.append(str(error))
    lengths = {"--epochs": args.epochs}
    if args.sparsity is not None:
        lengths["--sparsity-epochs"] = args.sparsity_epochs
    for name, flags in (
        *dict.fromkeys(("max_epoch", "finetune_epochs"), " and ".join(lengths)).items(),
        ("sparsity", "--sparsity"),
    ):
        if name in exp.given:
            problems.append(f"{name} has no say here: give {flags}")
    if "no_aug_epochs" in exp.given and exp.no_aug_epochs > min(lengths.values()):
        problems.append(
            f"no_aug_epochs {exp.no_aug_epochs} is more than the epochs of a training, "
            + ", ".join(f"{flag} {epochs}" for flag, epochs in lengths.items())
        )
    try:
        PruneConfig(target=args.target, importance=args.importance)
    except UserError as error:
        problems.append(str(error))
    if _in_latency(args.target) and args.steps > 1:
        problems.append("--steps goes towards a target in macs or params, not in latency")
    forms = [form for form in FORMATS if _runtime_of(form) == args.runtime]
    packages = [PACKAGES[form] for form in (*args.formats, *forms)]
    if _in_latency(args.target):
        packages.append(RUNTIMES[args.runtime].layer_packages)
    for names in dict.fromkeys(packages):
        try:
            optional_packages(*names)
        except UserError as error:
            problems.append(str(error))
    if problems:
        raise UserError("; ".join(problems))


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    words = sys.argv[1:] if argv is None else list(argv)
    parser = make_parser()
    args = parser.parse_args(words)
    if args.config is None:
        return args
    flags, fields = _words_of(args, parser)
    # The command line comes later, so it wins.
    args = parser.parse_args([*flags, *words])
    args.opts = [*fields, *args.opts]
    return args


def _words_of(
    args: argparse.Namespace, parser: argparse.ArgumentParser
) -> tuple[list[str], list[str]]:
    """A YAML file's entries as flags; and those of its ``exp``, which are fields of the Exp.

    Of the recipe, which two flags name, the one on the command line is taken.

    Raises:
        UserError: not readable, not a mapping, or keys that are no flags.
    """
    path = args.config
    try:
        content = read_yaml(path)
    except (OSError, DocumentError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    if not isinstance(content, Mapping):
        raise UserError(f"{path}: expected flags and their values, such as 'target: macs=0.5'")
    fields = content.get("exp") or {}
    if not isinstance(fields, Mapping):
        raise UserError(f"{path}: exp holds fields of the Exp and their values: {fields!r}")
    content = {str(key): value for key, value in content.items() if key != "exp"}
    flags = {flag for action in parser._actions for flag in action.option_strings}
    unknown = [key for key in content if f"--{key}" not in flags or key in ("config", "help")]
    if unknown:
        known = ", ".join(sorted(flag[2:] for flag in flags if flag.startswith("--")))
        raise UserError(f"{path}: unknown {', '.join(unknown)}; there are {known}")
    named = args.exp_file or args.name
    words: list[str] = []
    for key, value in content.items():
        if not (named and key in ("exp_file", "name")):
            words += _flag(key, value, flags)
    return words, [str(word) for pair in fields.items() for word in pair]


def _flag(key: str, value: Any, flags: Collection[str]) -> list[str]:
    if isinstance(value, bool):
        name = f"--{key}" if value else f"--no-{key}"
        return [name] if name in flags else []
    if value is None:
        return []
    values = value if isinstance(value, list) else [value]
    return [f"--{key}", *map(str, values)]


if __name__ == "__main__":
    cli.entry(main)
