from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from yolox.data import (
    DataLoader,
    InfiniteSampler,
    MosaicDetection,
    TrainBatchSampler,
    TrainTransform,
    ValTransform,
    VOCDetection,
    YoloBatchSampler,
    build_eval_loader,
    build_train_loader,
    get_yolox_datadir,
)
from yolox.jobs.train.official import epoch_loader

SETS = (("2007", "trainval"),)
numbers = st.integers(1, 9)


@given(length=st.integers(1, 60), batch=numbers, seed=st.integers(0, 2**40), epoch=numbers)
def test_an_epoch_is_full_batches_that_show_every_image(length, batch, seed, epoch):
    sampler = TrainBatchSampler(length, batch, seed)
    sampler.set_epoch(epoch, mosaic=True)
    batches = list(sampler)
    assert len(batches) == len(sampler) == -(-length // batch)
    assert {len(b) for b in batches} == {batch}
    draws = [draw for b in batches for draw in b]
    counts = Counter(draw.index for draw in draws)
    assert set(counts) == set(range(length))
    assert [d.index for d in draws[length:]] == [
        draws[i % length].index for i in range(len(draws) - length)
    ]
    assert len({draw.seed for draw in draws}) == len(draws)
    assert batches == list(sampler)


@given(length=st.integers(1, 40), batch=st.integers(1, 4), world=st.integers(1, 4))
def test_processes_share_the_draws_of_one(length, batch, world):
    single = TrainBatchSampler(length, batch * world, seed=5)
    ranks = [TrainBatchSampler(length, batch, 5, rank, world) for rank in range(world)]
    steps = zip(single, *ranks, strict=True)
    for whole, *parts in steps:
        assert sorted(whole) == sorted(draw for part in parts for draw in part)


@pytest.mark.parametrize("first", [0, 2, 5])
def test_an_epoch_without_its_first_batches_is_the_rest_of_it(first):
    images = InfiniteSampler(50, seed=3)
    for sampler in (TrainBatchSampler(50, 10, seed=3), YoloBatchSampler(images, 10)):
        sampler.set_epoch(2, mosaic=True)
        whole = list(sampler)
        sampler.set_epoch(2, True, first)
        assert list(sampler) == whole[first:]
        assert len(sampler) == 5
        sampler.set_epoch(3, mosaic=True)
        assert len(list(sampler)) == 5


def test_of_a_foreign_loader_the_first_batches_are_dropped():
    loader = epoch_loader(["a", "b", "c"])
    loader.set_epoch(0, True, 2)
    assert list(loader) == ["c"]
    loader.set_epoch(1, mosaic=True)
    assert list(loader) == ["a", "b", "c"]


def test_epochs_and_seeds_differ_in_order_and_in_seeds():
    sampler = TrainBatchSampler(50, 10, seed=1)
    found = []
    for epoch in (0, 1):
        sampler.set_epoch(epoch, mosaic=epoch == 0)
        found.append([draw for batch in sampler for draw in batch])
    other = [draw for batch in TrainBatchSampler(50, 10, seed=2) for draw in batch]
    assert [d.index for d in found[0]] != [d.index for d in found[1]]
    assert [d.index for d in found[0]] != [d.index for d in other]
    seeds = [d.seed for draws in (*found, other) for d in draws]
    assert len(set(seeds)) == len(seeds)
    assert all(d.mosaic for d in found[0])
    assert not any(d.mosaic for d in found[1])


@pytest.mark.parametrize(
    "arguments", [(0, 1, 0), (1, 0, 0), (1, 1, -1), (1, 1, 0, 1, 1), (1, 1, 0, -1, 2)]
)
def test_sampler_refuses_numbers_out_of_range(arguments):
    with pytest.raises(ValueError, match="expected"):
        TrainBatchSampler(*arguments)
    with pytest.raises(ValueError, match="expected"):
        TrainBatchSampler(1, 1, 0).set_epoch(-1, mosaic=True)


def digest(loader):
    value = hashlib.sha256()
    for epoch, mosaic in ((0, True), (1, True), (2, False)):
        loader.set_epoch(epoch, mosaic)
        for images, targets, info, ids in loader:
            for tensor in (images, targets, *info, ids):
                value.update(tensor.numpy().tobytes())
    return value.hexdigest()


def test_batches_are_the_same_bytes_for_any_number_of_workers(demo):
    dataset = VOCDetection(demo, SETS)
    mosaic = MosaicDetection(dataset, (64, 64), preproc=TrainTransform())
    digests = {
        digest(build_train_loader(mosaic, batch_size=4, seed=11, num_workers=workers))
        for workers in (0, 1, 2)
    }
    assert len(digests) == 1
    assert digest(build_train_loader(mosaic, batch_size=4, seed=12, num_workers=0)) not in digests


def test_what_a_training_batch_holds(demo):
    mosaic = MosaicDetection(VOCDetection(demo, SETS), (64, 96), preproc=TrainTransform(20))
    loader = build_train_loader(mosaic, batch_size=5, seed=0, num_workers=0)
    assert len(loader) == 3
    images, targets, info, ids = next(iter(loader))
    assert (images.shape, images.dtype) == ((5, 3, 64, 96), torch.float32)
    assert (targets.shape, targets.dtype) == ((5, 20, 5), torch.float32)
    assert [side.tolist() for side in info] == [[64] * 5, [96] * 5]
    assert (ids.shape, ids.dtype) == ((5, 1), torch.int64)
    assert targets[..., 0].max() <= 2
    assert images.max() > 1  # 0..255


def test_a_batch_has_the_rows_of_its_fullest_image(demo):
    mosaic = MosaicDetection(VOCDetection(demo, SETS), (64, 96), preproc=TrainTransform())
    loader = build_train_loader(mosaic, batch_size=5, seed=0, num_workers=0)
    batches = list(loader)
    for draws, (_, targets, _, _) in zip(loader.batch_sampler, batches, strict=True):
        rows = [mosaic[draw][1] for draw in draws]
        assert targets.shape == (5, max(map(len, rows)), 5)
        for labels, padded in zip(rows, targets.numpy(), strict=True):
            np.testing.assert_array_equal(padded[: len(labels)], labels)
            assert not padded[len(labels) :].any()
    assert len({targets.shape[1] for _, targets, _, _ in batches}) > 1


def test_an_own_loader_pads_too_and_an_own_collate_is_kept(demo):
    """As official Exps build theirs: of a sampler, with nothing said of batches."""
    mosaic = MosaicDetection(VOCDetection(demo, SETS), (64, 96), preproc=TrainTransform())
    _, targets, _, _ = next(iter(DataLoader(mosaic, batch_size=3)))
    assert targets.shape[::2] == (3, 5)
    assert next(iter(DataLoader(mosaic, batch_size=3, collate_fn=len))) == 3
    empty = [(np.zeros(1), np.zeros((0, 5), np.float32), (1, 1), np.zeros(1))] * 2
    assert next(iter(DataLoader(empty, batch_size=2)))[1].shape == (2, 0, 5)


def test_evaluation_reads_every_image_once_in_order(demo):
    dataset = VOCDetection(demo, SETS, img_size=(64, 64), preproc=ValTransform())
    loader = build_eval_loader(dataset, batch_size=5, num_workers=0)
    batches = list(loader)
    assert [len(b[0]) for b in batches] == [5, 5, 2]
    assert torch.cat([b[3] for b in batches]).flatten().tolist() == list(range(12))
    assert batches[0][2][0].tolist() == [96] * 5
    np.testing.assert_array_equal(batches[1][0][2].numpy(), dataset[7][0])
    parts = [
        torch.cat([b[3] for b in build_eval_loader(
            dataset, batch_size=5, num_workers=0, rank=rank, world_size=2)])
        for rank in range(2)
    ]  # fmt: skip
    assert sorted(torch.cat(parts).flatten().tolist()) == list(range(12))


def test_data_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("YOLOX_DATADIR", raising=False)
    monkeypatch.chdir(tmp_path)
    assert Path(get_yolox_datadir()) == Path(__file__).resolve().parents[2] / "datasets"
    installed = tmp_path / "site-packages" / "yolox" / "data" / "datadir.py"
    with monkeypatch.context() as patch:  # nothing is looked for among installed packages
        patch.setattr("yolox.data.datadir.__file__", str(installed))
        assert Path(get_yolox_datadir()) == tmp_path / "datasets"
    (tmp_path / "datasets").mkdir()
    assert Path(get_yolox_datadir()) == tmp_path / "datasets"
    monkeypatch.setenv("YOLOX_DATADIR", "/elsewhere")
    assert get_yolox_datadir() == "/elsewhere"
