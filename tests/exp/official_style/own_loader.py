"""An Exp with its own training loader, optimizer, schedule and multi-scale draw."""
# ruff: noqa

import random

import torch
import torch.nn as nn

from tests.exp.official_style.voc_datasets import Exp as VOCStyleExp


class Exp(VOCStyleExp):
    def __init__(self):
        super(Exp, self).__init__()
        self.exp_name = "own_loader"
        self.scheduler = "multistep"
        self.milestones = [1]

    def get_data_loader(self, batch_size, is_distributed, no_aug=False, cache_img=None):
        from yolox.data import (
            DataLoader,
            InfiniteSampler,
            MosaicDetection,
            TrainTransform,
            YoloBatchSampler,
            worker_init_reset_seed,
        )
        from yolox.utils import wait_for_the_master

        with wait_for_the_master():
            dataset = self.get_dataset(cache=cache_img is not None)
        dataset = MosaicDetection(
            dataset,
            mosaic=not no_aug,
            img_size=self.input_size,
            preproc=TrainTransform(max_labels=120, flip_prob=0.5, hsv_prob=1.0),
            degrees=self.degrees,
            translate=self.translate,
            mosaic_scale=self.mosaic_scale,
            mixup_scale=self.mixup_scale,
            shear=self.shear,
            enable_mixup=self.enable_mixup,
            mosaic_prob=self.mosaic_prob,
            mixup_prob=self.mixup_prob,
        )
        self.dataset = dataset
        if is_distributed:
            import torch.distributed as dist

            batch_size = batch_size // dist.get_world_size()
        sampler = InfiniteSampler(len(self.dataset), seed=self.seed if self.seed else 0)
        batch_sampler = YoloBatchSampler(
            sampler=sampler, batch_size=batch_size, drop_last=False, mosaic=not no_aug
        )
        return DataLoader(
            self.dataset,
            num_workers=self.data_num_workers,
            pin_memory=False,
            batch_sampler=batch_sampler,
            worker_init_fn=worker_init_reset_seed,
        )

    def random_resize(self, data_loader, epoch, rank, is_distributed):
        size = random.choice([2, 3])
        return (32 * size, 32 * size)

    def get_optimizer(self, batch_size):
        if "optimizer" not in self.__dict__:
            biases = [p for n, p in self.model.named_parameters() if n.endswith("bias")]
            others = [p for n, p in self.model.named_parameters() if not n.endswith("bias")]
            optimizer = torch.optim.SGD(others, lr=self.basic_lr_per_img * batch_size, momentum=0.9)
            optimizer.add_param_group({"params": biases})
            self.optimizer = optimizer
        return self.optimizer

    def get_lr_scheduler(self, lr, iters_per_epoch, **kwargs):
        from yolox.utils import LRScheduler

        return LRScheduler(
            self.scheduler, lr, iters_per_epoch, self.max_epoch, milestones=self.milestones
        )
