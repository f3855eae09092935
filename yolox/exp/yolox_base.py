"""The recipe of a training run: typed fields, and methods that build what they describe.

An Exp file is Python that a person chose to run. It subclasses `Exp` (or `VOCExp`), sets fields in
``__init__`` and overrides whatever method it wants to.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from loguru import logger
from torch import Tensor, nn

from yolox.core import build_sgd, resize_batch
from yolox.data import (
    VOC_CLASSES,
    COCODataset,
    DataLoader,
    DetectionDataset,
    MosaicDetection,
    RecordSet,
    TrainTransform,
    UnknownClassesError,
    ValTransform,
    annotation_files,
    build_eval_loader,
    build_train_loader,
    get_yolox_datadir,
    read_coco,
    stack_labels,
    with_classes,
)
from yolox.data.datasets.coco import coco_classes
from yolox.evaluators import COCOEvaluator, Evaluator
from yolox.exp.checks import own_types, problems_of
from yolox.exp.classes import advice_on
from yolox.exp.fields import ExpError, plain
from yolox.exp.recipe import Recipe
from yolox.models import YOLOX, ModelSpec, build_model
from yolox.utils.cores import cores
from yolox.utils.dist import get_rank, get_world_size
from yolox.utils.lr_scheduler import LRScheduler

if TYPE_CHECKING:
    from yolox.core import Trainer  # and with it what takes a second to import

RESIZE_INTERVAL = 10  # iterations between two input sizes of multi-scale training


class Exp(Recipe):
    """The defaults of YOLOX training, on data in the COCO layout. Sizes are (height, width).

    Fields are those of `Recipe`; ``key value`` pairs on a command line set them.
    Data are ``data_dir/annotations/<train_ann>`` with images in ``data_dir/<train_name>``, and the
    same for ``val`` and ``test``; override `get_dataset` and `get_eval_dataset` for others.
    """

    # The model that `get_model` built last; no field.
    model: YOLOX
    # Whose classes `class_names` are, and what to do where the data have others.
    _classes_from: tuple[str, str] | None = None

    # ---------------------------------------------------------------- checks

    def check(self) -> None:
        """Raise `ExpError` with every value that cannot work."""
        if self.seed is None:
            self.put(seed=0)  # official Exps say None where they do not care
        own_schedule = type(self).get_lr_scheduler is not Exp.get_lr_scheduler
        if problems := problems_of(self, own_schedule=own_schedule):
            raise ExpError("; ".join(problems))
        kinds = own_types(self)
        self.put(**{k: plain(getattr(self, k), kinds[k]) for k in self.assigned & kinds.keys()})

    def resolve_classes(self) -> None:
        """Fill `class_names` from the data where they are empty, and `num_classes` from them."""
        if not self.class_names:
            self.put(class_names=self.find_classes())
        if "num_classes" in self.given and self.num_classes != len(self.class_names):
            logger.warning(
                f"without effect: num_classes {self.num_classes}, since there are "
                f"{len(self.class_names)} class names: {', '.join(self.class_names)}"
            )
        self.put(num_classes=len(self.class_names))

    def find_classes(self) -> tuple[str, ...]:
        """The class names of the training data, in the order of the class ids."""
        if type(self).get_dataset is Exp.get_dataset:
            # To evaluate, the annotations of the evaluation images are enough.
            folder = self.data_folder()
            here = [bool(annotation_files(folder, a)) for a in (self.train_ann, self.val_ann)]
            alone = here == [False, True]
            if names := coco_classes(folder, self.val_ann if alone else self.train_ann):
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
        """A freshly initialised model, which is ``self.model`` from then on."""
        self.put(model=build_model(self.model_spec()))
        return self.model

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
        return TrainTransform(
            self.max_labels or None, flip_prob=self.flip_prob, hsv_prob=self.hsv_prob
        )

    def val_transform(self, legacy: bool = False) -> ValTransform:
        """What evaluation images go through."""
        return ValTransform(legacy=legacy)

    def _of_this_run(self, read: Callable[[], DetectionDataset]) -> DetectionDataset:
        """A data set with the run's class ids, whichever list it is read with."""
        try:
            return self._relabeled(read())
        except UnknownClassesError as error:
            if self._classes_from is None:
                raise
            advice = advice_on(self.class_names, self._classes_from, error.names)
            raise error.with_advice(advice) from error

    def _relabeled(self, dataset: DetectionDataset) -> DetectionDataset:
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
        """Training batches; `batch_size` is that of all processes together.

        Whether they are put into pinned memory the trainer decides, which knows the device.
        """
        cache = {"cache": True, "cache_type": cache_img} if cache_img else {"cache": False}
        dataset = MosaicDetection(
            self._of_this_run(partial(self.get_dataset, **cache)),
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
            self._of_this_run(partial(self.get_eval_dataset, testdev=testdev, legacy=legacy)),
            batch_size=max(batch_size // world_size, 1),
            num_workers=self.num_workers(),
            rank=rank,
            world_size=world_size,
        )

    def num_workers(self) -> int:
        """Loader processes: `data_num_workers`, but no more than this one has processors."""
        return min(self.data_num_workers, cores())

    def calibration_batches(self, images: int, batch_size: int) -> list[tuple[Tensor, Tensor]]:
        """Plain, letterboxed training images with their labels, drawn by the seed.

        Returns:
            Batches of images (B, 3, H, W) at `test_size` and targets (B, G, 5); images without
            objects are left out.
        """
        dataset = self._of_this_run(partial(self.get_dataset, cache=False))
        plain = TrainTransform(flip_prob=0.0, hsv_prob=0.0)
        order = np.random.default_rng(self.seed or 0).permutation(len(dataset))
        chosen = [int(i) for i in order if len(dataset.labels(int(i)))][:images]
        pairs = []
        for index in chosen:
            image, labels, _, _ = dataset.pull_item(index)
            rng = np.random.default_rng(self.seed or 0)
            pixels, targets = plain(image, labels, self.test_size, rng)
            pairs.append((torch.from_numpy(pixels), torch.from_numpy(targets)))
        return [
            (torch.stack([p for p, _ in part]), stack_labels([t for _, t in part]))
            for part in (pairs[i : i + batch_size] for i in range(0, len(pairs), batch_size))
        ]

    # -------------------------------------------------------------- training

    def train_sizes(self) -> tuple[tuple[int, int], ...]:
        """Input sizes that training draws from, by `random_size` or `multiscale_range`."""
        strides = self.input_size[0] // 32
        low, high = strides - self.multiscale_range, strides + self.multiscale_range
        if self.draws_by_random_size():
            low, high = self.random_size
        aspect = self.input_size[1] / self.input_size[0]
        return tuple((32 * n, 32 * max(round(n * aspect), 1)) for n in range(max(low, 1), high + 1))

    def draws_by_random_size(self) -> bool:
        """Whether `random_size` says the sizes: not where a person set others more expressly."""
        others = "input_size", "multiscale_range"
        return bool(self.random_size) and not self.outranked("random_size", *others)

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
            data_loader: not used here; for overriding methods.
            epoch: from 0.
            rank: of this process; not used here.
            is_distributed: not used here.
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

    def get_optimizer(
        self, batch_size: int, model: nn.Module | None = None
    ) -> torch.optim.Optimizer:
        """SGD with Nesterov momentum, the learning rate proportional to the batch size.

        Args:
            batch_size: of all processes together.
            model: by default, and for a method that leaves it out, ``self.model``.

        Raises:
            ExpError: there is no model yet.
        """
        model = getattr(self, "model", None) if model is None else model
        if model is None:
            raise ExpError("get_optimizer has no model to train: call get_model before it")
        return build_sgd(
            model,
            lr=self.basic_lr_per_img * batch_size,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
        )

    def get_lr_scheduler(self, lr: float, iters_per_epoch: int, **kwargs: Any) -> LRScheduler:
        """Learning rate by iteration; `kwargs` go to `LRScheduler`."""
        # A run without mosaic from its first epoch on has no last part to be low in.
        tail = self.no_aug_epochs if self.no_aug_epochs < self.max_epoch else 0
        return LRScheduler(
            self.scheduler,
            lr,
            iters_per_epoch,
            self.max_epoch,
            warmup_epochs=min(self.warmup_epochs, self.max_epoch - tail),
            warmup_lr_start=self.warmup_lr,
            no_aug_epochs=tail,
            min_lr_ratio=self.min_lr_ratio,
            **{"milestones": self.milestones, **kwargs},
        )

    def get_trainer(self, args: argparse.Namespace) -> Trainer:
        """The trainer of a training command's flags; see `tools/train.py`."""
        # In the official API the recipe hands out its trainer, which is built of recipes: the one
        # import that goes up.
        from yolox.jobs.train import trainer_of_command

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
