"""The recipe of a training run: typed fields, and methods that build what they describe.

An Exp file is Python that a person chose to run. It subclasses `Exp` (or `VOCExp`), sets fields in
``__init__`` and overrides whatever method it wants to.
"""

from __future__ import annotations

import difflib
import os
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from yolox.core import build_sgd
from yolox.data import (
    DetectionDataset,
    MosaicDetection,
    TrainLoader,
    TrainTransform,
    ValTransform,
    build_eval_loader,
    build_train_loader,
)
from yolox.evaluators import COCOEvaluator, Evaluator
from yolox.models import ACTIVATIONS, ARCHITECTURES, YOLOX, ModelSpec, build_model
from yolox.utils.errors import UserError
from yolox.utils.lr_scheduler import WarmupCosineSchedule

MAX_LABELS = 120  # objects of a mosaic that the loss sees
_LEAST = {
    "num_classes": 1,
    "max_epoch": 1,
    "batch_size": 1,
    "accumulate": 1,
    "print_interval": 1,
    "eval_interval": 1,
    "multiscale_range": 0,
    "data_num_workers": 0,
    "warmup_epochs": 0,
    "weight_decay": 0,
    "seed": 0,
}


class ExpError(UserError):
    """An Exp that cannot be loaded, or a field or value it does not have."""


class Exp:
    """The defaults of YOLOX training. Sizes are (height, width) in pixels.

    Fields are the annotated attributes below; ``key value`` pairs on a command line set them.
    """

    # model
    architecture: str
    num_classes: int
    depth: float
    width: float
    act: str
    depthwise: bool
    finetune_act: str
    # data
    data_dir: str
    class_names: tuple[str, ...]
    input_size: tuple[int, int]
    multiscale_range: int
    random_size: tuple[int, ...]
    data_num_workers: int
    # augmentation
    mosaic_prob: float
    mixup_prob: float
    hsv_prob: float
    flip_prob: float
    degrees: float
    translate: float
    mosaic_scale: tuple[float, float]
    enable_mixup: bool
    mixup_scale: tuple[float, float]
    shear: float
    # training
    batch_size: int
    warmup_epochs: float
    max_epoch: int
    warmup_lr: float
    min_lr_ratio: float
    basic_lr_per_img: float
    scheduler: str
    no_aug_epochs: int
    accumulate: int
    ema: bool
    ema_decay: float
    weight_decay: float
    momentum: float
    seed: int
    print_interval: int
    eval_interval: int
    save_history_ckpt: bool
    output_dir: str
    exp_name: str
    # evaluation
    test_size: tuple[int, int]
    test_conf: float
    nmsthre: float

    def __init__(self) -> None:
        self.architecture = "yolox"
        self.num_classes = 80
        self.depth = 1.0
        self.width = 1.0
        self.act = "silu"
        self.depthwise = False
        # Activation put into a pruned model when it is fine-tuned; empty keeps its own.
        self.finetune_act = ""

        # A folder; empty stands for the default place, see get_yolox_datadir.
        self.data_dir = ""
        # Names in the order of the class ids; empty takes them from the data.
        self.class_names = ()
        self.input_size = (640, 640)
        # Multi-scale training: the size changes by up to this many strides of 32 either way.
        self.multiscale_range = 5
        # Or, where given, the smallest and largest height in strides of 32.
        self.random_size = ()
        self.data_num_workers = 4

        self.mosaic_prob = 1.0
        self.mixup_prob = 1.0
        self.hsv_prob = 1.0
        self.flip_prob = 0.5
        self.degrees = 10.0
        self.translate = 0.1
        self.mosaic_scale = (0.1, 2.0)
        self.enable_mixup = True
        self.mixup_scale = (0.5, 1.5)
        self.shear = 2.0

        self.batch_size = 64
        self.warmup_epochs = 5.0
        self.max_epoch = 300
        self.warmup_lr = 0.0
        self.min_lr_ratio = 0.05
        self.basic_lr_per_img = 0.01 / 64
        self.scheduler = "yoloxwarmcos"
        self.no_aug_epochs = 15
        self.accumulate = 1
        self.ema = True
        self.ema_decay = 0.9998
        self.weight_decay = 5e-4
        self.momentum = 0.9
        self.seed = 0
        self.print_interval = 10
        self.eval_interval = 10
        self.save_history_ckpt = False
        self.output_dir = "YOLOX_outputs"
        self.exp_name = "yolox"

        self.test_size = (640, 640)
        self.test_conf = 0.01
        self.nmsthre = 0.65

    # ---------------------------------------------------------------- fields

    def field_types(self) -> dict[str, Any]:
        """Every field and its type: annotated ones, and those that a subclass only assigns."""
        declared = typing.get_type_hints(type(self))
        assigned = {name: type(value) for name, value in vars(self).items()}
        return {name: kind for name, kind in (assigned | declared).items() if name in vars(self)}

    def merge(self, pairs: Sequence[str]) -> None:
        """Set fields from ``[key, value, key, value, …]`` texts, each read as its field's type.

        Raises:
            ExpError: listing every unknown key (nearest names shown) and unreadable value.
        """
        if len(pairs) % 2:
            raise ExpError(f"overrides come as pairs of key and value; {pairs[-1]!r} has no value")
        fields = self.field_types()
        problems, values = [], {}
        for key, text in zip(pairs[::2], pairs[1::2], strict=True):
            if key not in fields:
                near = difflib.get_close_matches(key, fields, n=3, cutoff=0.5)
                hint = f"; did you mean {' or '.join(near)}?" if near else ""
                problems.append(f"unknown Exp key {key!r}{hint}")
                continue
            try:
                values[key] = _read(text, fields[key], getattr(self, key))
            except ValueError:
                problems.append(f"{key} takes {_type_name(fields[key])}, got {text!r}")
        if problems:
            raise ExpError("; ".join(problems))
        for key, value in values.items():
            setattr(self, key, value)

    def check(self) -> None:
        """Raise `ExpError` with every value that cannot work."""
        problems = [
            f"{name} must be multiples of 32: {getattr(self, name)}"
            for name in ("input_size", "test_size")
            if any(side < 32 or side % 32 for side in getattr(self, name))
        ]
        for name, least in _LEAST.items():
            if not getattr(self, name) >= least:
                problems.append(f"{name} must be at least {least}: {getattr(self, name)}")
        for name in ("depth", "width", "basic_lr_per_img"):
            if not getattr(self, name) > 0:
                problems.append(f"{name} must be positive: {getattr(self, name)}")
        for name in ("ema_decay", "momentum"):
            if not 0 <= getattr(self, name) < 1:
                problems.append(f"{name} must be in [0, 1): {getattr(self, name)}")
        for name in ("test_conf", "nmsthre", "mosaic_prob", "mixup_prob", "hsv_prob", "flip_prob"):
            if not 0 <= getattr(self, name) <= 1:
                problems.append(f"{name} must be in [0, 1]: {getattr(self, name)}")
        if self.architecture not in ARCHITECTURES:
            problems.append(f"architecture must be {' or '.join(ARCHITECTURES)}")
        for name in ("act", "finetune_act"):
            allowed = [*ACTIVATIONS, ""] if name == "finetune_act" else list(ACTIVATIONS)
            if getattr(self, name) not in allowed:
                problems.append(
                    f"{name} must be one of {', '.join(ACTIVATIONS)}: {getattr(self, name)!r}"
                )
        if self.random_size and not (
            len(self.random_size) == 2 and 1 <= self.random_size[0] <= self.random_size[1]
        ):
            problems.append(f"random_size must be two rising numbers or (): {self.random_size}")
        if not 0 <= self.no_aug_epochs <= self.max_epoch:
            problems.append(
                f"no_aug_epochs must be from 0 to max_epoch {self.max_epoch}: {self.no_aug_epochs}"
            )
        if self.class_names and len(self.class_names) != len(set(self.class_names)):
            problems.append(f"class_names holds a name twice: {self.class_names}")
        if problems:
            raise ExpError("; ".join(problems))

    def resolve_classes(self) -> None:
        """Fill `class_names` from the data where they are empty, and `num_classes` from them."""
        if self.class_names:
            self.num_classes = len(self.class_names)

    # ----------------------------------------------------------------- model

    def model_spec(self) -> ModelSpec:
        """Description of the model, as it goes into checkpoints."""
        return ModelSpec(
            architecture=self.architecture,
            depth=self.depth,
            width=self.width,
            num_classes=self.num_classes,
            act=self.act,
            depthwise=self.depthwise,
            class_names=tuple(self.class_names),
            input_size=self.test_size,
        )

    def get_model(self) -> YOLOX:
        """A freshly initialised model."""
        return build_model(self.model_spec())

    # ------------------------------------------------------------------ data

    def get_dataset(self, cache: bool = False, cache_type: str = "ram") -> DetectionDataset:
        """Training images, without mosaic. Nothing is cached, whatever the arguments say."""
        raise NotImplementedError

    def get_eval_dataset(self, **kwargs: Any) -> DetectionDataset:
        """Evaluation images."""
        raise NotImplementedError

    def train_transform(self) -> TrainTransform:
        """What training images go through after the mosaic."""
        return TrainTransform(MAX_LABELS, flip_prob=self.flip_prob, hsv_prob=self.hsv_prob)

    def val_transform(self, legacy: bool = False) -> ValTransform:
        """What evaluation images go through."""
        return ValTransform(legacy=legacy)

    def get_data_loader(
        self,
        batch_size: int,
        is_distributed: bool = False,
        no_aug: bool = False,
        cache_img: str | None = None,
        *,
        rank: int = 0,
        world_size: int = 1,
    ) -> TrainLoader:
        """Training batches; `batch_size` is that of all processes together."""
        dataset = MosaicDetection(
            self.get_dataset(cache=cache_img is not None, cache_type=cache_img or "ram"),
            img_size=self.input_size,
            mosaic=not no_aug,
            preproc=self.train_transform(),
            degrees=self.degrees,
            translate=self.translate,
            mosaic_scale=self.mosaic_scale,
            mixup_scale=self.mixup_scale,
            shear=self.shear,
            enable_mixup=self.enable_mixup,
            mosaic_prob=self.mosaic_prob,
            mixup_prob=self.mixup_prob,
        )
        return build_train_loader(
            dataset,
            batch_size=batch_size // world_size,
            seed=self.seed,
            num_workers=self.num_workers(),
            rank=rank,
            world_size=world_size,
            pin_memory=torch.cuda.is_available(),
        )

    def get_eval_loader(
        self,
        batch_size: int,
        is_distributed: bool = False,
        testdev: bool = False,
        legacy: bool = False,
    ) -> DataLoader[Any]:
        """Evaluation batches, every image once, in order."""
        return build_eval_loader(
            self.get_eval_dataset(testdev=testdev, legacy=legacy),
            batch_size=batch_size,
            num_workers=self.num_workers(),
        )

    def num_workers(self) -> int:
        """Loader processes: `data_num_workers`, but no more than there are processors."""
        return min(self.data_num_workers, os.cpu_count() or 1)

    def calibration_batches(self, images: int, batch_size: int) -> list[tuple[Tensor, Tensor]]:
        """Plain, letterboxed training images with their labels, drawn by the seed.

        Returns:
            Batches of images (B, 3, H, W) at `test_size` and targets (B, G, 5); images without
            objects are left out.
        """
        dataset = self.get_dataset()
        plain = TrainTransform(MAX_LABELS, flip_prob=0.0, hsv_prob=0.0)
        order = np.random.default_rng(self.seed).permutation(len(dataset))
        chosen = [int(i) for i in order if len(dataset.samples[i].classes)][:images]
        pairs = []
        for index in chosen:
            image, labels, _, _ = dataset.pull_item(index)
            rng = np.random.default_rng(self.seed)
            pixels, targets = plain(image, labels, self.test_size, rng)
            pairs.append((torch.from_numpy(pixels), torch.from_numpy(targets)))
        return [
            (torch.stack([p for p, _ in part]), torch.stack([t for _, t in part]))
            for part in (pairs[i : i + batch_size] for i in range(0, len(pairs), batch_size))
        ]

    # -------------------------------------------------------------- training

    def train_sizes(self) -> tuple[tuple[int, int], ...]:
        """Input sizes that training draws from, by `random_size` or `multiscale_range`."""
        strides = self.input_size[0] // 32
        low, high = strides - self.multiscale_range, strides + self.multiscale_range
        if self.random_size:
            low, high = self.random_size
        aspect = self.input_size[1] / self.input_size[0]
        return tuple((32 * n, 32 * max(round(n * aspect), 1)) for n in range(max(low, 1), high + 1))

    def get_optimizer(self, batch_size: int, model: torch.nn.Module) -> torch.optim.Optimizer:
        """SGD with Nesterov momentum, the learning rate proportional to the batch size."""
        return build_sgd(
            model,
            lr=self.basic_lr_per_img * batch_size,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
        )

    def get_lr_scheduler(
        self, lr: float, iters_per_epoch: int, **kwargs: Any
    ) -> WarmupCosineSchedule:
        """Learning rate by iteration."""
        if self.scheduler != "yoloxwarmcos":
            raise ExpError(f"scheduler must be yoloxwarmcos, got {self.scheduler!r}")
        return WarmupCosineSchedule(
            lr=lr,
            iters_per_epoch=iters_per_epoch,
            total_epochs=self.max_epoch,
            warmup_epochs=min(self.warmup_epochs, self.max_epoch - self.no_aug_epochs),
            warmup_lr_start=self.warmup_lr,
            no_aug_epochs=self.no_aug_epochs,
            min_lr_ratio=self.min_lr_ratio,
        )

    # ------------------------------------------------------------ evaluation

    def get_evaluator(
        self,
        batch_size: int,
        is_distributed: bool = False,
        testdev: bool = False,
        legacy: bool = False,
    ) -> Evaluator:
        """The evaluator over `get_eval_loader`, COCO AP in the headline."""
        return COCOEvaluator(
            dataloader=self.get_eval_loader(batch_size, is_distributed, testdev, legacy),
            img_size=self.test_size,
            confthre=self.test_conf,
            nmsthre=self.nmsthre,
            num_classes=self.num_classes,
            testdev=testdev,
        )

    def eval(
        self, model: torch.nn.Module, evaluator: Evaluator, is_distributed: bool, half: bool = False
    ) -> tuple[float, float, str]:
        """AP50-95, AP50 and a summary of the model."""
        return evaluator.evaluate(model, is_distributed, half)

    def output_folder(self, name: str | None = None) -> Path:
        """Where a run of this Exp writes."""
        return Path(self.output_dir) / (name or self.exp_name)


def _read(text: str, kind: Any, current: Any) -> Any:
    """A text as a value of a type; ValueError where it is none."""
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        if text.lower() == "none":
            return None
        (kind,) = (part for part in typing.get_args(kind) if part is not type(None))
        origin = typing.get_origin(kind)
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise ValueError(text)
        return text.lower() == "true"
    if kind in (int, float):
        return kind(text)
    if origin is tuple or kind in (tuple, list):
        parts = [part.strip() for part in text.strip().strip("()[]").split(",") if part.strip()]
        kinds = typing.get_args(kind) or tuple(type(item) for item in current) or (str,)
        fixed = len(kinds) if Ellipsis not in kinds and typing.get_args(kind) else None
        if fixed is not None and len(parts) != fixed:
            raise ValueError(text)
        items = [
            _read(part.strip("'\""), kinds[min(i, len(kinds) - 1)] if fixed else kinds[0], None)
            for i, part in enumerate(parts)
        ]
        return items if kind is list else tuple(items)
    if kind is str:
        return text
    raise ValueError(text)


def _type_name(kind: Any) -> str:
    names = {bool: "True or False", int: "an integer", float: "a number", str: "a text"}
    args = [arg for arg in typing.get_args(kind) if arg is not Ellipsis]
    if not args:
        return names.get(kind, getattr(kind, "__name__", str(kind)))
    count = "a list of" if Ellipsis in typing.get_args(kind) else str(len(args))
    return f"{count} {names.get(args[0], 'values').split()[-1]}s, as in 320,320"
