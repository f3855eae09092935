"""The Python API: the road in ten lines, on the built-in data; and its refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from loguru import logger

import yolox
from tests.runs import read
from yolox.exp import DOTAExp, Exp, ExpError, VOCExp, YOLOExp
from yolox.jobs.calibration import probe
from yolox.models import load_model
from yolox.pruning import PruningError, PruningPlan, trace_groups
from yolox.utils.checkpoint import save_checkpoint

FIELDS = {
    "depth": 0.33,
    "width": 0.125,
    "input_size": (64, 64),
    "test_size": (64, 64),
    "multiscale_range": 0,
    "random_size": (),
    "batch_size": 4,
    "max_epoch": 1,
    "no_aug_epochs": 0,
    "warmup_epochs": 0,
    "data_num_workers": 0,
    "finetune_act": "",
}


@pytest.fixture
def exp(devkit: Path, tmp_path: Path) -> Exp:
    return yolox.get_exp("voc", data_dir=str(devkit), output_dir=str(tmp_path / "out"), **FIELDS)


def test_api_road_from_training_to_detections(exp: Exp, devkit: Path, tmp_path: Path) -> None:
    run = yolox.train(exp, precision="fp32")
    assert run.best_checkpoint.is_file()
    assert run.latest_checkpoint.is_file()
    small = yolox.prune(run.best_checkpoint, exp, target="macs=0.7", images=4, time_it=False)
    assert small.path == run.best_checkpoint.with_name("pruned.pth")
    assert 0.5 < small.report.macs[1] / small.report.macs[0] <= 0.7
    tuned = yolox.train(exp, checkpoint=small.path, precision="fp32")
    assert tuned.best_checkpoint.parent.name.endswith("_finetune")
    result = yolox.evaluate(tuned.best_checkpoint, exp)
    assert result.ap50_95 == pytest.approx(tuned.ap50_95, abs=1e-6)
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    file = yolox.export_model(tuned.best_checkpoint, tmp_path / "model.onnx", exp=exp)
    assert yolox.evaluate(file, exp).ap50_95 == pytest.approx(result.ap50_95, abs=1e-3)
    found = yolox.load(file, conf=0.0001).predict(devkit / "VOC2007" / "JPEGImages")
    assert len(found) == 12
    assert sum(map(len, found)) > 0


def test_api_train_leaves_the_recipe_as_it_is(exp: Exp, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(exp: Exp, _: object) -> None:
        exp.resolve_classes()
        raise PruningError(exp.act)

    monkeypatch.setattr("yolox.jobs.train.assemble.starting_point", stop)
    before = dict(vars(exp))
    with pytest.raises(PruningError, match="relu"):
        yolox.train(exp, act="relu", precision="fp32")
    assert vars(exp) == before


def test_api_compare_measures_checkpoints_beside_each_other(exp: Exp, trained: Path) -> None:
    files = [trained / "best_ckpt.pth", trained / "latest_ckpt.pth"]
    found = yolox.compare(files, exp, labels=["best", "latest"], runs=3)
    assert [row.label for row in found.rows] == ["best", "latest"]
    assert found.rows[0].ap50_95 == pytest.approx(yolox.evaluate(files[0], exp).ap50_95, abs=1e-3)
    assert found.rows[0].macs == found.rows[1].macs > 0
    assert found.differences == ()
    assert found.lines() == []
    assert "64×64 input, batch 1" in str(found.table().title)
    with pytest.raises(yolox.UserError, match="1 labels for 2 checkpoints"):
        yolox.compare(files, labels=["best"])
    with pytest.raises(yolox.UserError, match="give an Exp that names the data"):
        yolox.compare(files, paired=100)


def test_api_compare_has_all_models_at_one_size(exp: Exp, trained: Path, tmp_path: Path) -> None:
    first, other = trained / "best_ckpt.pth", tmp_path / "other.pth"
    content = read(first)
    save_checkpoint(other, {**content, "spec": {**content["spec"], "input_size": [96, 96]}})
    said: list[str] = []
    sink = logger.add(said.append, level="WARNING", format="{message}")
    found = yolox.compare([first, other], exp, labels=["own", "other"], runs=3)
    logger.remove(sink)
    assert found.rows[0].ap50_95 == found.rows[1].ap50_95
    assert found.rows[0].macs == found.rows[1].macs
    assert "AP is at 64×64 for all, which is not the size of other (96×96)" in "".join(said)


def test_api_layouts_are_recipes() -> None:
    for layout, kind in (("coco", Exp), ("voc", VOCExp), ("yolo", YOLOExp), ("dota", DOTAExp)):
        exp = yolox.get_exp(layout, model="yolox_nano", seed=3)
        assert type(exp) is kind
        assert (exp.depth, exp.width, exp.depthwise, exp.seed) == (0.33, 0.25, True, 3)
        assert exp.given == {"seed"}
    assert yolox.get_exp("voc").width == 0.5


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"exp_file": "voc", "model": "yolox-q"}, "no built-in Exp 'yolox-q'; nearest"),
        (
            {"exp_file": "voc", "max_epochs": 3},
            "unknown Exp key 'max_epochs'; did you mean",
        ),
        ({"exp_file": "exps/yolox_voc_s.py", "model": "yolox-s"}, "goes with a layout"),
        ({}, "name an Exp"),
    ],
)
def test_api_get_exp_refuses(arguments: dict[str, object], words: str) -> None:
    with pytest.raises(ExpError, match=words):
        yolox.get_exp(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"ch_sparsitty": 0.4}, "no such field of PruneConfig: ch_sparsitty"),
        ({"ch_sparsity": 0.4}, "importance taylor is measured on an Exp's images"),
        ({"importance": "l1", "reconstruct": 8}, "reconstruct need an Exp's images"),
        ({"importance": "l1", "evaluate": True}, "evaluate measures AP on an Exp's images"),
        ({"importance": "l1", "threads": 1}, "`threads` is of a measurement in `runtime`"),
        ({"importance": "l1", "runtime": "torch", "time_it": False}, "no `time_it=False`"),
        ({"plan": "p.json", "target": "macs=0.5", "search": 3}, "without `target` and `search`"),
    ],
)
def test_api_prune_refuses(
    trained: Path, tmp_path: Path, arguments: dict[str, object], words: str
) -> None:
    with pytest.raises(PruningError, match=words):
        yolox.prune(trained / "best_ckpt.pth", output=tmp_path / "p.pth", **arguments)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_api_prune_without_images_says_what_it_leaves_out(trained: Path, tmp_path: Path) -> None:
    said: list[str] = []
    sink = logger.add(said.append, format="{message}")
    record = yolox.prune(
        trained / "best_ckpt.pth", output=tmp_path / "p.pth", importance="l1", time_it=False
    )
    logger.remove(sink)
    assert any("no images to refit layers on" in line for line in said)
    assert record.path == tmp_path / "p.pth"
    assert record.config["reconstruct"] == 0


def test_api_prune_takes_what_a_latency_is_measured_with(
    exp: Exp, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    def stop(*_: object, **settings: object) -> None:
        asked.update(settings)
        raise PruningError("enough")

    monkeypatch.setattr(yolox.api, "prepare_pruning", stop)
    with pytest.raises(PruningError, match="enough"):
        yolox.prune(
            trained / "best_ckpt.pth", exp, output=tmp_path / "p.pth",
            target="latency=0.5", round_to=16, threads=1,
        )  # fmt: skip
    latency = asked["latency"]
    assert (latency.runtime, latency.round_to, latency.threads) == ("onnxruntime", 16, 1)


def test_api_prune_carries_out_a_plan_without_data_but_for_what_is_ignored(
    exp: Exp, trained: Path, tmp_path: Path
) -> None:
    source, names = trained / "best_ckpt.pth", ("head.stems.0.conv", "head.stems.1.conv")
    model = load_model(source).model
    sizes = {group.name: group.size for group in trace_groups(model, probe())}
    plan = PruningPlan(removed=dict.fromkeys(names, (0, 1)), sizes=sizes)
    exp.put(data_dir=str(tmp_path / "nowhere"))
    said: list[str] = []
    sink = logger.add(said.append, level="WARNING", format="{message}")
    for number, recipe in enumerate((exp, None)):
        record = yolox.prune(
            source, recipe, output=tmp_path / f"{number}.pth", plan=plan,
            ignore=("head.stems.1.*",), max_sparsity=0.5, time_it=False,
        )  # fmt: skip
        changed = [r.name for r in record.report.layers if r.channels[0] != r.channels[1]]
        assert changed == ["head.stems.0.conv"]
    logger.remove(sink)
    assert sum("without effect: `max_sparsity`, since `plan`" in line for line in said) == 2
    kept = PruningPlan.load(tmp_path / "0.plan.json")
    assert kept.config["ignore"] == ["head.stems.1.*"]
    # The same call again is the same request.
    again = yolox.prune(
        source, output=tmp_path / "1.pth", plan=plan, ignore=("head.stems.1.*",), time_it=False
    )
    assert again.path == tmp_path / "1.pth"


def test_api_export_refuses(trained: Path, tmp_path: Path) -> None:
    best = trained / "best_ckpt.pth"
    with pytest.raises(yolox.UserError, match=r"ends in \.onnx"):
        yolox.export_model(best, tmp_path / "model.tflite")
    with pytest.raises(yolox.UserError, match="no such field of ExportSettings: halff"):
        yolox.export_model(best, tmp_path / "model.onnx", halff=True)


@pytest.mark.usefixtures("brief_compression")
def test_api_compress_makes_all_of_it_and_once(exp: Exp, trained: Path, tmp_path: Path) -> None:
    source = trained / "best_ckpt.pth"
    settings: dict[str, object] = {
        "target": "params=0.7",
        "importance": "l1",
        "images": 4,
        "epochs": 1,
        "threads": 1,
    }
    settings |= {"formats": ("torchscript",), "round_to": 1}
    made = yolox.compress(source, exp, output=tmp_path / "small", **settings)
    assert made.folder == tmp_path / "small"
    assert made.met
    assert made.verdict.after / made.verdict.before == pytest.approx(0.7, abs=0.02)
    assert list(made.files) == ["torchscript"]
    assert made.files["torchscript"].is_file()
    assert made.report.is_file()
    assert made.ap_before == pytest.approx(yolox.evaluate(source, exp).ap50_95, abs=1e-6)
    assert made.ap_after == pytest.approx(yolox.evaluate(made.checkpoint, exp).ap50_95, abs=1e-6)
    written = made.checkpoint.stat().st_mtime_ns, made.report.stat().st_mtime_ns
    again = yolox.compress(source, exp, output=tmp_path / "small", **settings)
    assert (again.checkpoint.stat().st_mtime_ns, again.report.stat().st_mtime_ns) == written
    assert again.ap_after == pytest.approx(made.ap_after, abs=1e-6)
    assert again.verdict == made.verdict


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"targett": "macs=0.5"}, "no such field of CompressSettings: targett"),
        ({"target": "latency=0.5", "steps": 2, "epochs": 0}, "`epochs` must be .*; `steps` goes"),
        ({"formats": ("tflite",), "runtime": "tensorrt"}, "`formats` must be .*`runtime` must be"),
    ],
)
def test_api_compress_refuses(
    exp: Exp, trained: Path, tmp_path: Path, settings: dict[str, object], words: str
) -> None:
    with pytest.raises(yolox.UserError, match=words):
        yolox.compress(trained / "best_ckpt.pth", exp, output=tmp_path / "small", **settings)
    assert not (tmp_path / "small").exists()
