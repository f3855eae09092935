"""What a compression is asked for."""

from __future__ import annotations

from dataclasses import dataclass

from yolox.exp import Exp
from yolox.export.runtimes import (
    LAYER_RUNTIMES,
    OPENVINO_PRECISIONS,
    RUNTIMES,
    runtimes_of,
)
from yolox.export.settings import FORMATS, PACKAGES, SUFFIXES, optional_packages
from yolox.jobs.train.finetune import FULL_RATE_UPDATES
from yolox.pruning import PruneConfig
from yolox.pruning.config import SMALL_SHARE
from yolox.pruning.sparsity import SparsityConfig
from yolox.utils.choices import LATENCY_RUNTIME, SPARSITY_EPOCHS, STEP_EPOCHS, TUNING_EPOCHS
from yolox.utils.device import resolve_device
from yolox.utils.errors import UserError

LEAST_BARE_SHARE = 0.125  # of the MACs; with less a bare cut may lose a class for good
_COUNTS = ("images", "steps", "step_epochs", "sparsity_epochs", "epochs", "threads")


class CompressError(UserError):
    """Arguments of a compression that cannot work; each stands in `backticks`."""


@dataclass(frozen=True, kw_only=True)
class CompressSettings:
    """How a checkpoint is pruned, fine-tuned, exported and measured.

    Attributes:
        target: what shall remain, ``macs=0.5``, ``params=0.5``, ``latency=0.5`` or
            ``latency=12ms``.
        importance: criterion by which channels go.
        round_to: channels left are a multiple of it; pruning's own choice by default.
        images: training images to score on.
        sensitivity: measure layers first, and keep sensitive ones whole.
        refit: refit layers after the cut; by default as `cuts_bare` says.
        steps, step_epochs: rounds of pruning, and epochs of training between two.
        sparsity, sparsity_epochs: strength of sparsity training before pruning, None for none, and
            its length.
        epochs: of fine-tuning.
        distill: let the fine-tuned model learn from the trained one.
        formats: files to export; each is evaluated in its own runtime.
        runtime: to measure in beside PyTorch and those of the formats; a target in latency is met
            in it.
        threads: of measurements.
        openvino_precision: arithmetic of OpenVINO.
        device: where everything is computed, see `yolox.utils.device.resolve_device`.

    Raises:
        CompressError: listing everything that cannot work.
    """

    target: str = "macs=0.5"
    importance: str = PruneConfig.importance
    round_to: int | None = None
    images: int = 64
    sensitivity: bool = False
    refit: bool | None = None
    steps: int = 1
    step_epochs: int = STEP_EPOCHS
    sparsity: float | None = None
    sparsity_epochs: int = SPARSITY_EPOCHS
    epochs: int = TUNING_EPOCHS
    distill: bool = False
    formats: tuple[str, ...] = ("onnx",)
    runtime: str | None = None
    threads: int = 2
    openvino_precision: str = "f32"
    device: str = "auto"

    def __post_init__(self) -> None:
        object.__setattr__(self, "formats", tuple(dict.fromkeys(self.formats)))
        if self.runtime is None and self.in_latency:
            object.__setattr__(self, "runtime", LATENCY_RUNTIME)
        problems = [
            f"`{name}` must be at least 1, got {getattr(self, name)}"
            for name in _COUNTS
            if getattr(self, name) < 1
        ]
        if self.round_to is not None and self.round_to < 1:
            problems.append(f"`round_to` must be at least 1, got {self.round_to}")
        if self.sparsity is not None:
            try:
                SparsityConfig(strength=self.sparsity)
            except UserError as error:
                problems.append(str(error))
        try:
            PruneConfig(target=self.target, importance=self.importance)
        except UserError as error:
            problems.append(str(error))
        if self.in_latency and self.steps > 1:
            problems.append("`steps` goes towards a target in macs or params, not in latency")
        choices = (
            *(("formats", form, FORMATS) for form in self.formats),
            *(("runtime", name, LAYER_RUNTIMES) for name in (self.runtime,) if name),
            ("openvino_precision", self.openvino_precision, OPENVINO_PRECISIONS),
        )
        problems += [
            f"`{name}` must be of {', '.join(known)}, got {value!r}"
            for name, value, known in choices
            if value not in known
        ]
        idle = self.openvino_precision != OPENVINO_PRECISIONS[0]
        if idle and not problems and "openvino" not in self.runtimes:
            problems.append(
                "`openvino_precision` is of OpenVINO, in which nothing runs: give it as `runtime`, "
                "or among `formats`"
            )
        try:
            resolve_device(self.device)
        except UserError as error:
            problems.append(str(error))
        if problems:
            raise CompressError("; ".join(problems))

    def cuts_bare(self, updates: int) -> bool:
        """Whether layers are left as the cut leaves them, which long fine-tuning made more of.

        Measured for between a third and an eighth of the MACs, and from 700 updates on: see
        docs/results.md.

        Args:
            updates: steps of the fine-tuning.
        """
        if self.refit is not None:
            return not self.refit
        config = PruneConfig(target=self.target)
        return (
            config.target_kind() == "macs"
            and LEAST_BARE_SHARE <= config.target_fraction() < SMALL_SHARE
            and updates >= FULL_RATE_UPDATES
        )

    @property
    def in_latency(self) -> bool:
        """Whether the target is a latency."""
        return str(self.target).startswith("latency=")

    @property
    def runtimes(self) -> tuple[str, ...]:
        """What is measured in: PyTorch, `runtime`, and those of the formats."""
        own = [self.runtime] if self.runtime else []
        return tuple(dict.fromkeys(["torch", *own, *map(_runtime_of, self.formats)]))

    def check(self, exp: Exp) -> None:
        """Refuse before hours of work what would fail at their end.

        Raises:
            CompressError: listing fields of the Exp that these settings overrule, and packages
                that are not installed.
        """
        problems = []
        lengths = {"epochs": self.epochs}
        if self.sparsity is not None:
            lengths["sparsity_epochs"] = self.sparsity_epochs
        instead = " and ".join(f"`{name}`" for name in lengths)
        for name, arguments in (
            ("max_epoch", instead),
            ("finetune_epochs", instead),
            ("sparsity", "`sparsity`"),
        ):
            if name in exp.given:
                problems.append(f"{name} has no say here: give {arguments}")
        if "no_aug_epochs" in exp.given and exp.no_aug_epochs > min(lengths.values()):
            problems.append(
                f"no_aug_epochs {exp.no_aug_epochs} is more than the epochs of a training, "
                + ", ".join(f"`{name}` {epochs}" for name, epochs in lengths.items())
            )
        forms = [form for form in FORMATS if _runtime_of(form) == self.runtime]
        packages = [PACKAGES[form] for form in (*self.formats, *forms)]
        if self.in_latency and self.runtime:
            packages.append(RUNTIMES[self.runtime].layer_packages)
        for names in dict.fromkeys(packages):
            try:
                optional_packages(*names)
            except UserError as error:
                problems.append(str(error))
        if problems:
            raise CompressError("; ".join(problems))


def _runtime_of(form: str) -> str:
    """The runtime that files of a format are made for."""
    return runtimes_of(SUFFIXES[form][0])[0]
