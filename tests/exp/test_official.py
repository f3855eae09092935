"""Exp files written for the official package: train, rebuild, evaluate, prune."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.runs import STEPS, command, differences, new_trainer, read
from yolox.data import COCODataset, Draw, InfiniteSampler, VOCDetection, YoloBatchSampler
from yolox.exp import ExpError, get_exp
from yolox.jobs.train import TrainOptions
from yolox.models import load_model
from yolox.tools import eval as evaluate
from yolox.tools import prunmodel, train

STYLE = Path(__file__).parent / "official_style"
FILES = ("voc_datasets", "nano_model", "own_loader", "frozen_backbone", "coco_fields")


def _coco(devkit: Path, folder: Path) -> None:
    """The tiny VOC data as COCO JSON, its images where COCO has them."""
    (folder / "annotations").mkdir(parents=True)
    for split, json_file, name in (
        ("trainval", "train.json", "train2017"),
        ("test", "val.json", "val2017"),
    ):
        (folder / name).mkdir()
        voc = VOCDetection(devkit, [("2007", split)])
        images, annotations = [], []
        for sample in voc.samples:
            (folder / name / sample.path.name).write_bytes(sample.path.read_bytes())
            images.append(
                {
                    "id": sample.image_id + 100,
                    "file_name": sample.path.name,
                    "height": sample.height,
                    "width": sample.width,
                }
            )
            for (x1, y1, x2, y2), label in zip(sample.boxes.tolist(), sample.classes, strict=True):
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": sample.image_id + 100,
                        "category_id": 10 * int(label) + 7,
                        "bbox": [x1, y1, x2 - x1, y2 - y1],
                        "area": (x2 - x1) * (y2 - y1),
                        "iscrowd": 0,
                    }
                )
        categories = [{"id": 10 * i + 7, "name": n} for i, n in enumerate(voc.class_names)]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (folder / "annotations" / json_file).write_text(json.dumps(content))


@pytest.fixture(scope="session")
def datadir(devkit: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of data sets: VOCdevkit and coco."""
    folder = tmp_path_factory.mktemp("datasets")
    (folder / "VOCdevkit").symlink_to(devkit)
    _coco(devkit, folder / "coco")
    return folder


@pytest.fixture(autouse=True)
def _environment(datadir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YOLOX_DATADIR", str(datadir))


@pytest.fixture(scope="session")
def runs(datadir: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The output folder of a run of each file, trained when first asked for."""
    output = tmp_path_factory.mktemp("official")
    done: dict[str, Path] = {}

    def run(name: str) -> Path:
        if name not in done:
            status = command(
                train.main, "-f", STYLE / f"{name}.py", "-b", 4, "--precision", "fp32",
                "output_dir", output,
            )  # fmt: skip
            assert status == 0
            done[name] = output / name
        return done[name]

    return run


@pytest.mark.parametrize("name", FILES)
def test_it_trains_and_its_checkpoint_describes_itself(name: str, runs: Any) -> None:
    folder = runs(name)
    loaded = load_model(folder / "best_ckpt.pth")
    assert loaded.spec.class_names == ("circle", "square", "triangle")
    assert loaded.spec.depthwise == (name == "nano_model")
    assert loaded.spec.input_size == (64, 64)
    assert not loaded.is_pruned
    assert read(folder / "latest_ckpt.pth")["train"]["epoch"] == 2


@pytest.mark.parametrize("name", ["voc_datasets", "nano_model", "coco_fields"])
def test_it_is_evaluated_and_pruned(name: str, runs: Any, tmp_path: Path) -> None:
    checkpoint, file = runs(name) / "best_ckpt.pth", STYLE / f"{name}.py"
    output = tmp_path / "pruned.pth"
    assert command(evaluate.main, "-f", file, "-c", checkpoint, "output_dir", tmp_path) == 0
    pruning = ("--ch-sparsity", 0.3, "--importance", "l2", "--reconstruct", 0, "--no-latency")
    assert command(prunmodel.main, "-f", file, "-c", checkpoint, *pruning, "-o", output) == 0
    assert load_model(output).is_pruned
    tuned = command(
        train.main, "-f", file, "-c", output, "-b", 4, "--precision", "fp32",
        "output_dir", tmp_path, "max_epoch", 1,
    )  # fmt: skip
    assert tuned == 0
    assert load_model(tmp_path / f"{name}_finetune" / "latest_ckpt.pth").is_pruned


def test_frozen_parts_stay_frozen_through_training_and_resume(runs: Any, tmp_path: Path) -> None:
    def backbone(content: Any) -> dict[str, torch.Tensor]:
        return {
            name: value
            for name, value in content["train"]["raw_model"].items()
            if name.startswith("backbone.backbone.")
        }

    file = STYLE / "frozen_backbone.py"
    fields = {"max_epoch": 1, "no_aug_epochs": 0, "batch_size": 4}
    trainer = new_trainer(file, tmp_path, **fields)
    before = {
        name: value.clone()
        for name, value in trainer.model.state_dict().items()
        if name.startswith("backbone.backbone.")
    }
    head = trainer.model.head.stems[0].conv.weight.detach().clone()
    trainer.train()
    latest = tmp_path / "frozen_backbone" / "latest_ckpt.pth"
    assert differences(backbone(read(latest)), before) == []
    assert not torch.equal(trainer.model.head.stems[0].conv.weight, head)
    resumed = new_trainer(
        file, tmp_path, options=TrainOptions(resume=True), **fields | {"max_epoch": 2}
    )
    assert not any(p.requires_grad for p in resumed.model.backbone.backbone.parameters())
    resumed.train()
    assert read(latest)["train"]["epoch"] == 2
    assert differences(backbone(read(latest)), before) == []


@pytest.mark.parametrize("how", ["resumed at another size", "fine-tuned", "fine-tuned, resumed"])
def test_frozen_parts_stay_frozen_in_later_runs(how: str, runs: Any, tmp_path: Path) -> None:
    file = STYLE / "frozen_backbone.py"
    fields = {"max_epoch": 1, "no_aug_epochs": 0, "batch_size": 4}
    source = runs("frozen_backbone") / "latest_ckpt.pth"
    options = TrainOptions(resume=True, checkpoint=source)
    if how == "resumed at another size":
        fields["test_size"] = (96, 96)
    else:
        output = tmp_path / "pruned.pth"
        assert command(
            prunmodel.main, "-f", file, "-c", source, "-o", output, "--importance", "l1",
            "--reconstruct", 0, "--no-latency",
        ) == 0  # fmt: skip
        options = TrainOptions(checkpoint=output)
        if how.endswith("resumed"):
            new_trainer(file, tmp_path, options=options, **fields).train()
            options = TrainOptions(resume=True, name="frozen_backbone_finetune")
    model = new_trainer(file, tmp_path, options=options, **fields).model
    frozen = model.backbone.backbone
    assert not any(weight.requires_grad for weight in frozen.parameters())
    assert not any(module.training for module in frozen.modules() if not list(module.children()))
    assert all(weight.requires_grad for weight in model.head.parameters())
    assert all(module.training for module in model.head.modules())


def test_a_loader_of_its_own_is_driven_epoch_by_epoch(tmp_path: Path) -> None:
    seen: list[list[Draw]] = []
    trainer = new_trainer(STYLE / "own_loader.py", tmp_path, batch_size=4)
    sampler: Any = trainer.train_loader.batch_sampler  # type: ignore[attr-defined]
    assert isinstance(sampler, YoloBatchSampler)
    assert len(trainer.train_loader) == STEPS
    sizes: set[int] = set()
    trainer.model.register_forward_pre_hook(
        lambda model, args: sizes.add(args[0].shape[-1]) if model.training else None
    )
    for epoch, mosaic in ((0, True), (1, False)):
        trainer.train_loader.set_epoch(epoch, mosaic)
        seen += list(sampler)
    assert [draw.mosaic for batch in seen for draw in batch] == [True] * 9 + [False] * 9
    assert {draw.index for batch in seen[:3] for draw in batch} == set(range(9))
    assert len({draw.seed for batch in seen for draw in batch}) == 18
    rates = [trainer.schedule(iteration) for iteration in (1, STEPS, STEPS + 1)]
    assert rates == pytest.approx([0.01 / 64 * 4, 0.001 / 64 * 4, 0.001 / 64 * 4])
    assert len(trainer.optimizer.param_groups) == 2
    trainer.train()
    assert sizes <= {64, 96}


def test_an_infinite_sampler_gives_each_process_its_share() -> None:
    ranks = [InfiniteSampler(7, seed=3, rank=rank, world_size=2) for rank in (0, 1)]
    assert [len(rank) for rank in ranks] == [4, 4]
    first, second = (rank.epoch_order(5) for rank in ranks)
    assert set(first) | set(second) == set(range(7))
    assert len(first) == len(second) == 4
    assert InfiniteSampler(7, shuffle=False).epoch_order(1) == list(range(7))
    stream = iter(InfiniteSampler(3, seed=0))
    assert sorted(next(stream) for _ in range(3)) == [0, 1, 2]
    assert sorted(next(stream) for _ in range(3)) == [0, 1, 2]


def test_coco_classes_follow_the_order_of_the_category_ids() -> None:
    exp = get_exp(STYLE / "coco_fields.py")
    exp.resolve_classes()
    assert exp.class_names == ("circle", "square", "triangle")
    dataset = exp.get_eval_dataset()
    assert isinstance(dataset, COCODataset)
    assert list(dataset.class_ids) == [7, 17, 27]
    assert {sample.image_id for sample in dataset.samples} == {100, 101, 102}


def test_evaluation_needs_no_training_annotations(runs: Any, datadir: Path, tmp_path: Path) -> None:
    coco = tmp_path / "coco"
    (coco / "annotations").mkdir(parents=True)
    (coco / "annotations" / "val.json").symlink_to(datadir / "coco" / "annotations" / "val.json")
    (coco / "val2017").symlink_to(datadir / "coco" / "val2017")
    checkpoint = tmp_path / "plain.pth"  # as an official one: nothing but weights
    torch.save({"model": read(runs("coco_fields") / "best_ckpt.pth")["model"]}, checkpoint)
    file = STYLE / "coco_fields.py"
    fields = ("data_dir", coco, "output_dir", tmp_path, "test_size", "64,64")
    assert command(evaluate.main, "-f", file, "-c", checkpoint, *fields) == 0


def test_the_twenty_voc_classes_need_not_all_occur(tmp_path: Path) -> None:
    exp = get_exp(STYLE / "voc_datasets.py")
    dataset = exp.get_dataset(cache=False)
    dataset.class_names = ("bird", "car", "person")
    exp.get_dataset = lambda *_, **__: dataset  # type: ignore[method-assign]
    exp.num_classes = 20
    exp.resolve_classes()
    assert len(exp.class_names) == 20
    loaded = exp.get_data_loader(4).dataset.dataset
    index = {name: exp.class_names.index(name) for name in dataset.class_names}
    for old, new in zip(dataset.samples, loaded.samples, strict=True):
        expected = [index[dataset.class_names[int(c)]] for c in old.classes]
        assert new.classes.tolist() == expected


def test_what_no_checkpoint_could_describe_is_refused(tmp_path: Path) -> None:
    exp = get_exp(STYLE / "voc_datasets.py")
    exp.get_model = lambda: torch.nn.Linear(2, 2)  # type: ignore[assignment, method-assign]
    with pytest.raises(ExpError, match=r"get_model builds a Linear .* could not be rebuilt"):
        new_trainer(exp, tmp_path)


def test_a_data_set_of_another_kind_is_refused(tmp_path: Path) -> None:
    exp = get_exp(STYLE / "voc_datasets.py")
    exp.class_names = ("a", "b", "c")
    exp.get_dataset = lambda *_, **__: [1, 2]  # type: ignore[assignment, method-assign]
    with pytest.raises(ExpError, match=r"must return a yolox\.data\.DetectionDataset, got list"):
        new_trainer(exp, tmp_path)
