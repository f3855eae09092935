"""The recipe of a training run: typed fields, and methods that build what they describe.

An Exp file is Python that a person chose to run. It subclasses `Exp` (or `VOCExp`), sets fields in
``__init__`` and overrides whatever method it wants to.
"""

from __future__ import annotations

import argparse
import difflib
import os
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from yolox.core import Trainer, build_sgd, resize_batch
from yolox.data import (
    VOC_CLASSES,
    COCODataset,
    DataLoader,
    DetectionDataset,
    MosaicDetection,
    RecordSet,
    TrainTransform,
    ValTransform,
    annotation_files,
    build_eval_loader,
    build_train_loader,
    get_yolox_datadir,
    read_coco,
    with_classes,
)
from yolox.evaluators import COCOEvaluator, Evaluator
from yolox.exp.build import trainer_of_command
from yolox.exp.checks import problems_of
from yolox.exp.fields import ExpError, read_field, type_name
from yolox.exp.official import RESIZE_INTERVAL
from yolox.models import YOLOX, ModelSpec, build_model
from yolox.utils.dist import get_rank, get_world_size
from yolox.utils.lr_scheduler import LRScheduler

MAX_LABELS = 120  # objects of a mosaic that the loss sees


class Exp:
    """The defaults of YOLOX training, on data in the COCO layout. Sizes are (height, width).

    Fields are the annotated attributes below; ``key value`` pairs on a command line set them.
    Data are ``data_dir/annotations/<train_ann>`` with images in ``data_dir/<train_name>``, and the
    same for ``val`` and ``test``; override `get_dataset` and `get_eval_dataset` for others.
    """

    # model
    architecture: str
    num_classes: int
    depth: float
    width: float
    act: str
    depthwise: bool
    finetune_act: str
    finetune_lr: float
    finetune_epochs: int
    # data
    data_dir: str | None
    train_ann: str
    val_ann: str
    test_ann: str
    train_name: str
    val_name: str
    test_name: str
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
    retake_statistics: bool
    weight_decay: float
    momentum: float
    seed: int | None
    print_interval: int
    eval_interval: int
    save_history_ckpt: bool
    output_dir: str
    exp_name: str
    # distillation
    distill_cls: float
    distill_obj: float
    distill_box: float
    distill_feature: float
    distill_temperature: float
    # sparsity training
    sparsity: float
    sparsity_form: str
    sparsity_schedule: str
    sparsity_warmup: float
    sparsity_shift: float
    sparsity_proximal: bool
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
        # Of fine-tuning a pruned model: factor on basic_lr_per_img; epochs, 0 for max_epoch.
        self.finetune_lr = 1.0
        self.finetune_epochs = 0

        # A folder; empty stands for the default place, see get_yolox_datadir.
        self.data_dir = ""
        self.train_ann = "instances_train2017.json"
        self.val_ann = "instances_val2017.json"
        self.test_ann = "instances_test2017.json"
        self.train_name = "train2017"
        self.val_name = "val2017"
        self.test_name = "test2017"
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
        # Evaluate and save with the batch norms' statistics on an epoch's last images, not with
        # the running ones, which can lag in short runs. With a penalty it is done anyway.
        self.retake_statistics = False
        self.weight_decay = 5e-4
        self.momentum = 0.9
        self.seed = 0
        self.print_interval = 10
        self.eval_interval = 10
        self.save_history_ckpt = False
        self.output_dir = "YOLOX_outputs"
        self.exp_name = "yolox"

        # What a teacher's terms weigh in the loss, 0 for none of it, where there is a teacher.
        self.distill_cls = 1.0
        self.distill_obj = 1.0
        self.distill_box = 1.0
        self.distill_feature = 1.0
        # Of the softmax over the positions of a feature map's channel.
        self.distill_temperature = 1.0

        # Strength of a penalty on the scales of batch norms, 0 for none; see docs/sparsity.md.
        self.sparsity = 0.0
        self.sparsity_form = "l1"
        self.sparsity_schedule = "constant"
        # Fraction of the run in which it rises from 0.
        self.sparsity_warmup = 0.0
        # Strength of the same penalty on the shifts.
        self.sparsity_shift = 0.0
        # Stop at 0, rather than swing around it.
        self.sparsity_proximal = True

        self.test_size = (640, 640)
        self.test_conf = 0.01
        self.nmsthre = 0.65

    # ---------------------------------------------------------------- fields

    def field_types(self) -> dict[str, Any]:
        """Every field and its type: annotated ones, and those that a subclass only assigns."""
        declared = typing.get_type_hints(type(self))
        assigned = {
            name: type(value)
            for name, value in vars(self).items()
            if not isinstance(value, nn.Module)
        }
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
                values[key] = read_field(text, fields[key], getattr(self, key))
            except ValueError:
                problems.append(f"{key} takes {type_name(fields[key])}, got {text!r}")
        if problems:
            raise ExpError("; ".join(problems))
        for key, value in values.items():
            setattr(self, key, value)

    def check(self) -> None:
        """Raise `ExpError` with every value that cannot work."""
        if self.seed is None:
            self.seed = 0  # official Exps say None where they do not care
        if problems := problems_of(self):
            raise ExpError("; ".join(problems))

    def resolve_classes(self) -> None:
        """Fill `class_names` from the data where they are empty, and `num_classes` from them."""
        if not self.class_names:
            self.class_names = self.find_classes()
        self.num_classes = len(self.class_names)

    def find_classes(self) -> tuple[str, ...]:
        """The class names of the training data, in the order of the class ids."""
        if type(self).get_dataset is Exp.get_dataset:
            # To evaluate, the annotations of the evaluation images are enough.
            folder = self.data_folder()
            here = [bool(annotation_files(folder, a)) for a in (self.train_ann, self.val_ann)]
            alone = here == [False, True]
            names = (self.eval_records() if alone else self.train_records()).classes
            if names:
                return names
        names = tuple(self.get_dataset(cache=False).class_names)
        if self.num_classes == len(VOC_CLASSES) and set(names) < set(VOC_CLASSES):
            return VOC_CLASSES
        return names

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

    def data_folder(self) -> Path:
        """`data_dir`, or the default place."""
        return Path(self.data_dir) if self.data_dir else Path(get_yolox_datadir()) / "COCO"

    def train_records(self) -> RecordSet:
        """The training annotations as they are written, for the data doctor."""
        return read_coco(self.data_folder(), self.train_ann, self.train_name)

    def eval_records(self) -> RecordSet:
        """The evaluation annotations as they are written."""
        return read_coco(self.data_folder(), self.val_ann, self.val_name)

    def get_dataset(self, cache: bool = False, cache_type: str = "ram") -> DetectionDataset:
        """Training images, without mosaic.

        Args:
            cache: keep decoded images.
            cache_type: where: ``"ram"`` or ``"disk"``.
        """
        return COCODataset(
            data_dir=self.data_folder(),
            json_file=self.train_ann,
            name=self.train_name,
            img_size=self.input_size,
            preproc=self.train_transform(),
            cache=cache,
            cache_type=cache_type,
            classes=self.class_names or None,
        )

    def get_eval_dataset(self, **kwargs: Any) -> DetectionDataset:
        """Evaluation images; those without annotations where ``testdev`` is true."""
        testdev = kwargs.get("testdev", False)
        return COCODataset(
            data_dir=self.data_folder(),
            json_file=self.test_ann if testdev else self.val_ann,
            name=self.test_name if testdev else self.val_name,
            img_size=self.test_size,
            preproc=self.val_transform(kwargs.get("legacy", False)),
            classes=self.class_names or None,
        )

    def train_transform(self) -> TrainTransform:
        """What training images go through after the mosaic."""
        return TrainTransform(MAX_LABELS, flip_prob=self.flip_prob, hsv_prob=self.hsv_prob)

    def val_transform(self, legacy: bool = False) -> ValTransform:
        """What evaluation images go through."""
        return ValTransform(legacy=legacy)

    def _of_this_run(self, dataset: DetectionDataset) -> DetectionDataset:
        """A data set with the run's class ids, whichever list it was read with."""
        if not isinstance(dataset, DetectionDataset):
            raise ExpError(
                f"{type(self).__name__}.get_dataset and get_eval_dataset must return a "
                f"yolox.data.DetectionDataset, got {type(dataset).__name__}: make one of a list of "
                "Sample, or use COCODataset, VOCDetection or YOLODataset"
            )
        return with_classes(dataset, self.class_names) if self.class_names else dataset

    def get_data_loader(
        self,
        batch_size: int,
        is_distributed: bool = False,
        no_aug: bool = False,
        cache_img: str | None = None,
    ) -> DataLoader:
        """Training batches; `batch_size` is that of all processes together."""
        cache = {"cache": True, "cache_type": cache_img} if cache_img else {"cache": False}
        dataset = MosaicDetection(
            self._of_this_run(self.get_dataset(**cache)),
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
        rank, world_size = (get_rank(), get_world_size()) if is_distributed else (0, 1)
        return build_train_loader(
            dataset,
            batch_size=batch_size // world_size,
            seed=self.seed or 0,
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
    ) -> DataLoader:
        """Evaluation batches, every image once, in order; this process's share of them.

        `batch_size` is that of all processes together.
        """
        rank, world_size = (get_rank(), get_world_size()) if is_distributed else (0, 1)
        return build_eval_loader(
            self._of_this_run(self.get_eval_dataset(testdev=testdev, legacy=legacy)),
            batch_size=max(batch_size // world_size, 1),
            num_workers=self.num_workers(),
            rank=rank,
            world_size=world_size,
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
        dataset = self._of_this_run(self.get_dataset(cache=False))
        plain = TrainTransform(MAX_LABELS, flip_prob=0.0, hsv_prob=0.0)
        order = np.random.default_rng(self.seed or 0).permutation(len(dataset))
        chosen = [int(i) for i in order if len(dataset.labels(int(i)))][:images]
        pairs = []
        for index in chosen:
            image, labels, _, _ = dataset.pull_item(index)
            rng = np.random.default_rng(self.seed or 0)
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

    def random_resize(
        self,
        data_loader: Any,
        epoch: int,
        rank: int,
        is_distributed: bool,
        *,
        iteration: int = 1,
    ) -> tuple[int, int]:
        """The input size of an iteration, from the seed alone, so that a resumed run repeats it.

        Args:
            data_loader, rank, is_distributed: for overriding methods.
            epoch: from 0.
            iteration: in the epoch, from 1. A method without it is asked every tenth iteration.
        """
        sizes = self.train_sizes()
        drawn = np.random.default_rng([self.seed or 0, epoch, (iteration - 1) // RESIZE_INTERVAL])
        return sizes[int(drawn.integers(len(sizes)))]

    def preprocess(
        self, inputs: Tensor, targets: Tensor, tsize: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """Scale a batch of images and targets to a size; see `resize_batch`."""
        return resize_batch(inputs, targets, tsize)

    def get_optimizer(self, batch_size: int, model: nn.Module) -> torch.optim.Optimizer:
        """SGD with Nesterov momentum, the learning rate proportional to the batch size.

        An overriding method may leave `model` out and find it as ``self.model``.
        """
        return build_sgd(
            model,
            lr=self.basic_lr_per_img * batch_size,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
        )

    def get_lr_scheduler(self, lr: float, iters_per_epoch: int, **kwargs: Any) -> LRScheduler:
        """Learning rate by iteration; `kwargs` go to `LRScheduler`, as milestones."""
        return LRScheduler(
            self.scheduler,
            lr,
            iters_per_epoch,
            self.max_epoch,
            warmup_epochs=min(self.warmup_epochs, self.max_epoch - self.no_aug_epochs),
            warmup_lr_start=self.warmup_lr,
            no_aug_epochs=self.no_aug_epochs,
            min_lr_ratio=self.min_lr_ratio,
            **kwargs,
        )

    def get_trainer(self, args: argparse.Namespace) -> Trainer:
        """The trainer of a training command's flags; see `tools/train.py`."""
        return trainer_of_command(self, args)

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
        self,
        model: nn.Module,
        evaluator: Evaluator,
        is_distributed: bool,
        half: bool = False,
        return_outputs: bool = False,
    ) -> Any:
        """AP50-95, AP50 and a summary of the model; see `Evaluator.evaluate`."""
        return evaluator.evaluate(model, is_distributed, half, return_outputs=return_outputs)

    def output_folder(self, name: str | None = None) -> Path:
        """Where a run of this Exp writes."""
        return Path(self.output_dir) / (name or self.exp_name)
