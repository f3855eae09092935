"""Fields that were given on a command line and do nothing there: each is told, with the cause."""

from __future__ import annotations

from collections.abc import Iterable

from loguru import logger

from yolox.exp.yolox_base import Exp

Case = tuple[Iterable[str], str]  # fields, and why they do nothing

_MODEL = ("architecture", "depth", "width", "depthwise", "act")
_GEOMETRY = ("degrees", "translate", "shear", "mosaic_scale")  # of mosaics
_UNREAD_BY_SCHEDULE = {  # no_aug_epochs ends the mosaics too
    "yoloxwarmcos": ("milestones",),
    "warmcos": ("min_lr_ratio", "milestones"),
    "cos": ("warmup_epochs", "warmup_lr", "min_lr_ratio", "milestones"),
    "multistep": ("warmup_epochs", "warmup_lr", "min_lr_ratio"),
}
_INPUT = ("input_size", "multiscale_range", "random_size")
_AUGMENTATION = (
    "mosaic_prob",
    "mixup_prob",
    "enable_mixup",
    "mixup_scale",
    "hsv_prob",
    "flip_prob",
)
_SCHEDULE = (
    "max_epoch",
    "scheduler",
    "milestones",
    "warmup_epochs",
    "warmup_lr",
    "no_aug_epochs",
    "min_lr_ratio",
)
_OPTIMIZER = ("batch_size", "basic_lr_per_img", "accumulate", "weight_decay", "momentum")
_AVERAGE = ("ema", "ema_decay", "retake_statistics")
_INTERVALS = ("print_interval", "eval_interval", "save_history_ckpt")
_TRAINING = _INPUT + _AUGMENTATION + _GEOMETRY + _SCHEDULE + _OPTIMIZER + _AVERAGE + _INTERVALS
_TRAINING_PREFIXES = ("sparsity", "distill_", "finetune_")
_EVALUATION = ("test_conf", "nmsthre")
_TEST_IMAGES = ("test_ann", "test_name", "test_sets", "test_split")


def reads_training(name: str) -> bool:
    """Whether a field is of training, and of nothing else."""
    return name in _TRAINING or name.startswith(_TRAINING_PREFIXES)


def tell_idle(exp: Exp, cases: Iterable[Case]) -> None:
    """Warn of the fields among these that were given, a line for each cause, each field once."""
    told: set[str] = set()
    for names, cause in cases:
        idle = [name for name in names if name in exp.given and name not in told]
        if idle:
            told.update(idle)
            logger.warning(f"without effect: {', '.join(idle)}, since {cause}")


def idle_in_training(exp: Exp, *, tuned: bool, penalised: bool, taught: bool) -> list[Case]:
    """What does nothing in a training run.

    Args:
        exp: with the fields as they were given.
        tuned: it fine-tunes a pruned model.
        penalised: it trains with a sparsity penalty.
        taught: it learns from a teacher.
    """
    mixed = exp.enable_mixup and exp.mixup_prob > 0 and exp.mosaic_prob > 0
    by_random_size = exp.draws_by_random_size()
    own_sizes = type(exp).random_resize.__module__ != "yolox.exp.yolox_base"
    cases: list[tuple[bool, Iterable[str], str]] = [
        (not penalised, _starting(exp, "sparsity_"), "no penalty is on: give `sparsity`"),
        (not taught, _starting(exp, "distill_"), "there is no teacher: give `teacher`"),
        (not tuned, _starting(exp, "finetune_"), "the model is not pruned"),
        (tuned and "max_epoch" in exp.given, ["finetune_epochs"], "max_epoch is given too"),
        (tuned and "finetune_act" in exp.given, ["act"], "finetune_act is given for the same"),
        (not exp.ema, ["ema_decay"], "ema is False"),
        (not mixed, ["mixup_scale"], "there is no mix-up"),
        (exp.mosaic_prob == 0, ["mixup_prob", "enable_mixup", *_GEOMETRY], "there is no mosaic"),
        (not exp.enable_mixup, ["mixup_prob"], "enable_mixup is False"),
        (
            True,
            _UNREAD_BY_SCHEDULE.get(exp.scheduler, ()),
            f"the scheduler {exp.scheduler} does not read that",
        ),
        (not exp.warmup_epochs, ["warmup_lr"], "there are no warm-up epochs"),
        (by_random_size and not own_sizes, ["multiscale_range"], "random_size says the sizes"),
        (True, _TEST_IMAGES, "they are for an evaluation on test images"),
    ]
    return [(names, cause) for idle, names, cause in cases if idle] + _idle_everywhere(exp)


def idle_without_training(
    exp: Exp, *, kept: Iterable[str] = (), evaluates: bool = True, test: bool = False
) -> list[Case]:
    """What does nothing where a checkpoint is evaluated, pruned or converted.

    Args:
        exp: with the fields as they were given.
        kept: fields of training that are read all the same.
        evaluates: AP is measured.
        test: on the test images.
    """
    training = {name for name in exp.given if reads_training(name)}.difference(kept)
    cases = [(sorted(training), "nothing is trained"), (_MODEL, "the file says what model it is")]
    if not evaluates:
        cases.append((_EVALUATION, "AP is not measured"))
    if not test:
        cases.append((_TEST_IMAGES, "they are for an evaluation on test images"))
    return [*cases, *_idle_everywhere(exp)]


def _idle_everywhere(exp: Exp) -> list[Case]:
    cases: list[Case] = []
    for method, names in (
        ("get_dataset", ("train_ann", "train_name")),
        ("get_eval_dataset", ("val_ann", "val_name", "test_ann", "test_name")),
    ):
        home = getattr(type(exp), method).__module__
        if home in ("yolox.exp.voc", "yolox.exp.yolo"):
            cases.append((names, "the data are not in COCO's layout"))
    return cases


def _starting(exp: Exp, prefix: str) -> list[str]:
    return sorted(name for name in exp.given if name.startswith(prefix))
