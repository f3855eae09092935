"""Everything that computes, on an accelerator that mixes with nothing; see `accelerator`."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import deterministic_state
from tests.runs import REPO, environment, write_exp
from yolox.data import generate_demo_dataset
from yolox.models import ModelSpec, build_model, checkpoint_payload, load_model
from yolox.utils.checkpoint import save_checkpoint

# Before a step's losses are known to be finite the assignment has shapes that depend on values: the
# labels' rows, the grid's runs and sides, pairs near objects, candidates, who wants which, rivals.
MOST_WAITS = 14


class Part:
    """A part of the road, run once: what each of its steps found."""

    def __init__(self, root: Path, part: str) -> None:
        devkit = generate_demo_dataset(root / "data", num_images=10, image_size=(96, 96))
        write_exp(root / "exp.py", devkit, root / "out")
        names = ("circle", "square", "triangle")
        spec = ModelSpec(
            depth=0.33, width=0.125, num_classes=3, class_names=names, input_size=(64, 64)
        )
        model = build_model(spec)
        model.load_state_dict(deterministic_state(model))
        save_checkpoint(root / "trained.pth", checkpoint_payload(model, spec))
        self.root = root
        done = subprocess.run(
            [sys.executable, "-m", "tests.pretend.road", root, part],
            cwd=REPO,
            env=environment(),
            capture_output=True,
            text=True,
        )
        self.log, self.out = done.stderr, done.stdout
        lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
        self.steps = {line["step"]: line for line in map(json.loads, lines)}
        assert done.returncode == 0, self.log[-2000:]

    def found(self, step: str) -> Any:
        assert not self.steps[step]["error"], self.steps[step]["error"]
        return self.steps[step]["found"]


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Part:
    return Part(tmp_path_factory.mktemp("train"), "train")


@pytest.fixture(scope="module")
def pruning(tmp_path_factory: pytest.TempPathFactory) -> Part:
    return Part(tmp_path_factory.mktemp("prune"), "prune")


@pytest.fixture(scope="module")
def rest(tmp_path_factory: pytest.TempPathFactory) -> Part:
    return Part(tmp_path_factory.mktemp("rest"), "rest")


def test_training_leaves_a_file_for_every_device(training: Part) -> None:
    found = training.found("trained")
    assert (found["epoch"], found["elsewhere"], found["rng"]) == (2, 0, ["pretend"])
    assert load_model(training.root / "out/tiny/latest_ckpt.pth").spec.num_classes == 3


def test_a_training_step_waits_for_the_device_as_seldom_as_before(training: Part) -> None:
    waits = [Counter(step) for step in training.found("trained")["waits"]]
    assert len(waits) == 4
    assert max(step.total() for step in waits) <= MOST_WAITS, waits


def test_mixed_precision_with_and_without_a_loss_scale(training: Part) -> None:
    found = training.found("mixed")
    assert found["bf16"] == ["bf16-mixed", 0]
    assert found["fp16"][0] == "16-mixed"
    assert found["fp16"][1] > 0


def test_a_run_goes_on_on_either_device(training: Part) -> None:
    assert training.found("resumed") == [3, 4, 5]


def test_sparsity_computes_the_same_without_float64(training: Part) -> None:
    group, without = training.found("sparse")
    assert group == without > 0
    assert training.log.count("has no float64, which the penalty is computed in") == 1


def test_distillation_with_adapters(training: Part) -> None:
    assert "adapters.0.weight" in training.found("taught")


def test_out_of_memory_names_a_batch_that_fits(training: Part) -> None:
    some, none = training.found("full")
    assert "out of memory on pretend:0 with 4 images of 64×64" in some
    assert re.search(r"a batch size of [123] fits, by what one and two images take", some)
    assert "not even one fits" in none


def test_a_lost_device_keeps_the_checkpoint(training: Part) -> None:
    message = training.found("lost")
    assert "the accelerator failed" in message
    assert "continues from epoch 2" in message


def test_every_criterion_scores_on_the_device(pruning: Part) -> None:
    found = pruning.found("scored")
    assert len(found) >= 8
    assert set(map(tuple, found.values())) == {("cpu",)}


def test_pruning_computes_on_the_device_and_writes_for_all(pruning: Part) -> None:
    found = pruning.found("pruned")
    assert found["machine"].startswith("Pretend 100")
    assert found["elsewhere"] == 0
    assert len(found["losses"]) == 3


def test_refitting_falls_back_to_the_cpu(pruning: Part) -> None:
    assert pruning.found("refitted_elsewhere") == ["pretend", "cpu", "cpu"]
    assert "no float64, which layers are refitted in: on the CPU" in pruning.log
    assert "refitted on is too large for pretend:0: on the CPU now" in pruning.log


def test_a_model_that_lives_there_is_verified_and_stays(pruning: Part) -> None:
    assert pruning.found("verified") == ["pretend"]


def test_steps_and_sensitivity(pruning: Part) -> None:
    kind, (before, after) = pruning.found("in_steps")
    assert kind == "pretend"
    assert after < before
    assert pruning.found("sensitive") > 0


def test_evaluation_is_the_same_on_either_device(rest: Part) -> None:
    there, half, here = rest.found("evaluated")
    assert there == here
    assert half == pytest.approx(here, abs=0.01)


def test_a_model_that_lives_there_is_exported(rest: Part) -> None:
    found = rest.found("exported")
    assert set(found) == {"onnx", "torchscript"}
    assert max(found.values()) < 1e-2


def test_prediction_there(rest: Part) -> None:
    there, fused, half, here, tiles = rest.found("predicted")
    assert there == pytest.approx(here, rel=1e-5)
    assert fused == pytest.approx(here, rel=1e-3)
    assert half == pytest.approx(here, rel=0.2)
    assert tiles > 0


def test_reports_and_tables_name_the_device(rest: Part) -> None:
    places, accelerator = rest.found("compared")
    assert places == ["pretend", "cpu"]
    assert accelerator == "Pretend 100"
    assert "float32, Pretend 100, PyTorch" in rest.out
