"""Distillation: each term by hand, what the teacher touches, runs that resume, and refusals."""

from __future__ import annotations

import copy
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn

from tests.runs import STEPS, command, differences, error_lines, new_trainer, read, tree
from yolox.core import distill, make_fabric, step
from yolox.core.distill import (
    Distillation,
    DistillConfig,
    binary_divergence,
    box_term,
    channel_term,
    confidence,
    load_teacher,
    logit_terms,
    teacher_cost,
)
from yolox.core.state import capture_state, restore_state
from yolox.core.step import forward_losses
from yolox.jobs.train import TrainOptions
from yolox.models import YOLOX, ModelSpec, build_model, checkpoint_payload
from yolox.tools import train
from yolox.utils.checkpoint import CheckpointError, save_checkpoint
from yolox.utils.errors import UserError

LN3 = math.log(3)
DIVERGENCE = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)  # KL of (3/4, 1/4) from (1/2, 1/2)
SPEC = ModelSpec(depth=0.33, width=0.125, num_classes=3, input_size=(64, 64))
PARTS = ("cls", "obj", "box", "feature")


def _model(seed: int, **changes: Any) -> YOLOX:
    torch.manual_seed(seed)
    return build_model(ModelSpec(**{**SPEC.to_dict(), **changes}))


def _settled(seed: int) -> YOLOX:
    """In evaluation mode, with batch norms that have seen images: else nothing comes through."""
    model = _model(seed)
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        model.raw(_batch(4)[0])
    return model.eval()


def _sure(seed: int) -> YOLOX:
    """A teacher that is confident of many anchors, not of all."""
    model = _settled(seed)
    with torch.no_grad():
        for conv in (*model.head.obj_preds, *model.head.cls_preds):
            assert isinstance(conv, nn.Conv2d)
            conv.weight.normal_()
            conv.bias.zero_()  # type: ignore[union-attr]
    return model


def _batch(images: int = 2) -> tuple[Tensor, Tensor]:
    torch.manual_seed(5)
    targets = torch.zeros(images, 3, 5)
    targets[:, 0] = torch.tensor([1.0, 20, 24, 18, 30])
    targets[0, 1] = torch.tensor([2.0, 44, 40, 25, 20])
    return torch.rand(images, 3, 64, 64) * 255, targets


# --------------------------------------------------------------------------------- terms, by hand


def test_divergence_of_one_probability() -> None:
    found = binary_divergence(torch.tensor([0.0, LN3, -2.0]), torch.tensor([LN3, LN3, -2.0]))
    torch.testing.assert_close(found, torch.tensor([DIVERGENCE, 0, 0]), atol=1e-6, rtol=1e-6)


def test_logit_terms_sum_classes_and_weigh_anchors() -> None:
    student = torch.zeros(2, 7)
    teacher = torch.zeros(2, 7)
    teacher[0, 5:] = LN3
    teacher[1, 4] = LN3
    teacher[:, :4] = 9  # boxes are none of its business
    cls, obj = logit_terms(student, teacher, torch.tensor([0.5, 0.25]))
    assert cls.item() == pytest.approx(0.5 * 2 * DIVERGENCE, rel=1e-5)
    assert obj.item() == pytest.approx(0.25 * DIVERGENCE, rel=1e-5)


def test_box_term_weighs_one_minus_squared_iou() -> None:
    student = torch.tensor([[10.0, 10, 4, 4], [10.0, 10, 4, 4]])
    teacher = torch.tensor([[10.0, 10, 4, 4], [10.0, 10, 4, 2]])
    found = box_term(student, teacher, torch.tensor([1.0, 0.5]))
    assert found.item() == pytest.approx(0.5 * (1 - 0.25))


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_channel_term_compares_where_a_channel_looks(temperature: float) -> None:
    teacher = torch.zeros(1, 2, 1, 2)
    teacher[0, 0, 0, 0] = LN3 * temperature
    student = torch.zeros(1, 2, 1, 2)
    student[0, 1] = 7  # the same everywhere: a channel's level does not count
    found = channel_term(student, teacher, temperature)
    assert found.item() == pytest.approx(temperature**2 * DIVERGENCE / 2, rel=1e-5)
    assert channel_term(teacher + 3, teacher, temperature).item() == pytest.approx(0, abs=1e-6)


def test_confidence_is_objectness_times_the_best_class_above_a_floor() -> None:
    raw = torch.tensor([[[9.0, 9, 9, 9, 0, 0, LN3], [0.0, 0, 0, 0, -4, 9, 9]]])
    assert confidence(raw).tolist() == [[pytest.approx(0.5 * 0.75), 0.0]]


def test_a_teachers_cost_is_that_of_the_median_step() -> None:
    starts = [0.0, 5.0, 6.0, 7.0, 60.0]  # a slow first step, an evaluation before the last
    assert teacher_cost(starts, [2.0, 0.25, 0.25, 0.25]) == (0.25, 3.0)


# -------------------------------------------------------------------------------------- objective


def test_a_student_that_is_its_teacher_has_nothing_to_learn() -> None:
    teacher = _sure(0)
    student = copy.deepcopy(teacher)  # batch norms in evaluation mode, as the teacher's
    objective = Distillation(student, teacher, DistillConfig())
    assert all(isinstance(adapter, nn.Identity) for adapter in objective.adapters)
    images, targets = _batch()
    losses = objective(images, targets)
    for name in PARTS:
        assert losses[f"distill_{name}_loss"].item() == pytest.approx(0, abs=1e-4), name
    plain = student.loss(images, targets)
    for name, value in plain.items():
        torch.testing.assert_close(losses[name], value, atol=1e-4, rtol=1e-5, msg=name)


def test_terms_are_weighted_and_part_of_the_total() -> None:
    student, teacher = _settled(1), _sure(0)
    weights = dict(zip(PARTS, (2.0, 3.0, 0.5, 4.0), strict=True))
    images, targets = _batch()
    ones = Distillation(student, teacher, DistillConfig())(images, targets)
    losses = Distillation(student, teacher, DistillConfig(**weights))(images, targets)
    for name, weight in weights.items():
        assert ones[f"distill_{name}_loss"].item() > 1e-3, name
        torch.testing.assert_close(
            losses[f"distill_{name}_loss"], weight * ones[f"distill_{name}_loss"]
        )
    parts = sum(losses[f"distill_{name}_loss"] for name in PARTS)
    torch.testing.assert_close(losses["distill_loss"], parts)
    plain = student.loss(images, targets)["total_loss"]
    torch.testing.assert_close(losses["total_loss"], plain + parts)


@pytest.mark.parametrize("only", PARTS)
def test_a_weight_of_zero_leaves_a_term_out(only: str) -> None:
    config = DistillConfig(**{name: float(name == only) for name in PARTS})
    objective = Distillation(_model(1, width=0.25), _sure(0), config)
    assert len(objective.adapters) == (3 if only == "feature" else 0)
    losses = objective(*_batch())
    names = {name for name in losses if name.startswith("distill")}
    assert names == {"distill_loss", f"distill_{only}_loss"}


def test_predictions_are_averaged_by_the_teachers_confidence() -> None:
    student, teacher = _settled(1), _sure(0)
    images, targets = _batch()
    losses = Distillation(student, teacher, DistillConfig())(images, targets)
    with torch.no_grad():
        own, theirs = student.raw(images).raw_BAK, teacher.raw(images).raw_BAK
    score = theirs[..., 4].sigmoid() * theirs[..., 5:].max(-1).values.sigmoid()
    score = score * (score >= 0.05)
    assert 0 < int((score > 0).sum()) < score.numel()
    q, p = theirs[..., 4].sigmoid(), own[..., 4].sigmoid()
    divergence = q * (q / p).log() + (1 - q) * ((1 - q) / (1 - p)).log()
    expected = (divergence * score).sum() / score.sum()
    torch.testing.assert_close(losses["distill_obj_loss"], expected, rtol=1e-4, atol=1e-5)


def test_a_teacher_sure_of_nothing_adds_nothing() -> None:
    losses = Distillation(_model(1), _model(0), DistillConfig(feature=0))(*_batch())
    assert losses["distill_loss"].item() == 0
    losses["total_loss"].backward()


def test_the_teacher_is_seen_by_nothing_that_trains_or_saves() -> None:
    student, teacher = _model(1, width=0.0625 * 3), _sure(0).train()
    objective = Distillation(student, teacher, DistillConfig())
    before = copy.deepcopy(teacher.state_dict())
    adapters = list(objective.adapters.parameters())
    assert [tuple(a.shape[:2]) for a in adapters[::2]] == [(32, 48), (64, 96), (128, 192)]
    own = {id(p) for p in (*student.parameters(), *adapters)}
    assert {id(p) for p in objective.parameters()} == own
    assert all(name.startswith(("student.", "adapters.")) for name in objective.state_dict())
    objective.train()
    objective(*_batch())["total_loss"].backward()
    assert not any(module.training for module in teacher.modules())
    assert all(p.grad is None for p in teacher.parameters())
    assert differences(dict(before), dict(teacher.state_dict())) == []
    assert all(p.grad is not None and bool(p.grad.any()) for p in objective.adapters.parameters())
    assert student.backbone.backbone.stem.conv.conv.weight.grad is not None  # type: ignore[union-attr]


def test_two_processes_average_to_one_with_all_images(monkeypatch: pytest.MonkeyPatch) -> None:
    student, teacher = _settled(1), _sure(0)
    with torch.no_grad():
        teacher.head.obj_preds[0].bias.fill_(-1.5)  # type: ignore[union-attr, operator]
    images, targets = _batch()
    objective = Distillation(student, teacher, DistillConfig())
    whole = forward_losses(objective, images, targets, ["a", "b"])

    for module in (step, distill):
        monkeypatch.setattr(module, "get_world_size", lambda: 2)
    told: dict[str, list[Tensor]] = {"distill": [], "step": []}
    for module in (step, distill):
        name = module.__name__.rpartition(".")[2]

        def tell(own: Tensor, name: str = name) -> Tensor:
            told[name].append(own)
            return own[None]

        monkeypatch.setattr(module, "gather_values", tell)
    for rank in (0, 1):
        forward_losses(objective, images[rank, None], targets[rank, None], ["a"])
    assert not torch.equal(*told["distill"])
    assert not torch.equal(*told["step"])
    monkeypatch.setattr(distill, "gather_values", lambda _: torch.stack(told["distill"][:2]))
    monkeypatch.setattr(step, "gather_values", lambda _: torch.stack(told["step"][:2]))
    halves = [
        forward_losses(objective, images[rank, None], targets[rank, None], ["a"]) for rank in (0, 1)
    ]
    for name in step.loss_names(whole):
        mean = (halves[0][name] + halves[1][name]) / 2
        torch.testing.assert_close(mean, whole[name], rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (dict.fromkeys(PARTS, 0.0), ["every distill_* weight is 0"]),
        (
            {"cls": -1.0, "box": float("nan")},
            ["distill_cls must be finite", "distill_box must"],
        ),
        ({"temperature": 0.0}, ["distill_temperature must be finite and positive: 0.0"]),
        ({"temperature": math.inf, "obj": math.inf}, ["distill_temperature", "distill_obj must"]),
    ],
)
def test_weights_that_cannot_be(fields: dict[str, float], words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        DistillConfig(**fields)
    for word in words:
        assert word in str(caught.value)


def test_a_students_own_losses_would_be_left_out() -> None:
    class Focal(YOLOX):
        def loss(self, x: Tensor, targets: Tensor) -> dict[str, Tensor]:
            return {name: 2 * value for name, value in super().loss(x, targets).items()}

    plain = _model(0)
    with pytest.raises(UserError, match=r"Focal\.loss\): train it without `teacher`"):
        Distillation(Focal(plain.backbone, plain.head), _model(1), DistillConfig())
    Distillation(plain, _model(1), DistillConfig())


# ---------------------------------------------------------------------------------------- teacher


def _save(path: Path, model: YOLOX, spec: ModelSpec) -> Path:
    save_checkpoint(path, checkpoint_payload(model, spec))
    return path


def test_teachers_that_cannot_teach(tmp_path: Path) -> None:
    student = _model(0)
    other = ModelSpec(**{**SPEC.to_dict(), "num_classes": 2, "class_names": ("a", "b")})
    path = _save(tmp_path / "two.pth", build_model(other), other)
    student.head.strides = (4, 8, 16)
    with pytest.raises(CheckpointError) as caught:
        load_teacher(path, student, SPEC)
    for word in ("two.pth cannot teach", "2 classes (a, b)", "3 (unnamed)", "(4, 8, 16)"):
        assert word in str(caught.value)
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        load_teacher(tmp_path / "none.pth", student, SPEC)


def test_a_teachers_classes_have_the_students_order(tmp_path: Path) -> None:
    named = [ModelSpec(**{**SPEC.to_dict(), "class_names": tuple(n)}) for n in ("abc", "bac")]
    path = _save(tmp_path / "t.pth", _model(0), named[0])
    with pytest.raises(CheckpointError, match=r"classes are a, b, c, the student's b, a, c"):
        load_teacher(path, _model(1), named[1])
    load_teacher(path, _model(1), named[0])
    load_teacher(path, _model(1), SPEC)  # names unknown: the number decides


def test_a_smaller_teacher_is_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = _save(tmp_path / "small.pth", _model(0), SPEC)
    assert command(_load(path, _model(1)), *()) == 0
    assert "smaller than the student" not in capsys.readouterr().err
    assert command(_load(path, _model(1, width=0.25)), *()) == 0
    assert "small.pth is smaller than the student: params" in capsys.readouterr().err


def _load(path: Path, student: YOLOX) -> Any:
    """A command, for its log."""
    return lambda _: load_teacher(path, student, SPEC)


# ------------------------------------------------------------------------------------------- runs

FIELDS: dict[str, Any] = {"max_epoch": 2, "finetune_act": "", "ema_decay": 0.9}


class _Stopped(Exception):
    pass


def test_a_distilled_run_resumes_to_the_same_bits(
    tiny_exp: Path, trained: Path, pruned: Path, tmp_path: Path
) -> None:
    teacher = trained / "best_ckpt.pth"
    contents = []
    for name, stop in (("straight", False), ("resumed", True)):
        output = tmp_path / name
        options = TrainOptions(checkpoint=pruned, teacher=teacher)
        trainer = new_trainer(tiny_exp, output, options=options, **FIELDS)
        latest = output / "tiny_finetune" / "latest_ckpt.pth"
        if stop:

            def second_epoch(module: nn.Module, _: object, latest: Path = latest) -> None:
                if module.training and latest.exists():
                    raise _Stopped

            trainer.model.backbone.register_forward_pre_hook(second_epoch)
            with pytest.raises(_Stopped):
                trainer.train()
            torch.manual_seed(99)
            options = TrainOptions(checkpoint=latest, resume=True, teacher=teacher)
            trainer = new_trainer(tiny_exp, output, options=options, **FIELDS)
        trainer.train()
        contents.append(read(latest))
    assert differences(*contents) == []
    straight = contents[0]
    assert straight["model"].keys() == read(pruned)["model"].keys()
    assert straight["train"]["raw_model"].keys() == straight["model"].keys()
    beside = straight["train"]["objective"]
    assert set(beside) <= {f"adapters.{n}.{kind}" for n in range(3) for kind in ("weight", "bias")}
    assert beside
    grouped = [p for g in trainer.optimizer.param_groups for p in g["params"]]
    assert trainer.objective is not None
    assert {id(p) for p in grouped} == {id(p) for p in trainer.objective.parameters()}
    assert "train" not in read(tmp_path / "straight" / "tiny_finetune" / "best_ckpt.pth")


def test_log_and_curves_tell_of_the_teacher(
    tiny_exp: Path, trained: Path, pruned: Path, tmp_path: Path
) -> None:
    status = command(
        train.main, "--precision", "fp32", "-f", tiny_exp, "-c", pruned,
        "--distill", trained / "best_ckpt.pth", "output_dir", tmp_path, "distill_box", 0,
    )  # fmt: skip
    assert status == 0
    folder = tmp_path / "tiny_finetune"
    text = (folder / "train_log.txt").read_text(encoding="utf-8")
    assert text.count(" distill ") == 2 * STEPS
    (cost,) = re.finditer(r"the teacher takes \d+ ms, \d+% of a step of \d+ ms", text)
    assert cost.start() < text.index(f"epoch 1/2 iter {STEPS}/{STEPS}")
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    tags = {tag for tag in events.Tags()["scalars"] if "distill" in tag}
    assert tags == {f"train/distill{part}_loss" for part in ("", "_cls", "_obj", "_feature")}


def test_a_run_is_resumed_with_its_own_teacher_only(
    own_exp: Path, trained: Path, pruned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    teacher, other = trained / "best_ckpt.pth", trained / "latest_ckpt.pth"
    common = ("--precision", "fp32", "-f", own_exp)
    pairs = ("max_epoch", 1, "finetune_act", "")
    latest = tmp_path / "out" / "tiny_finetune" / "latest_ckpt.pth"
    assert command(train.main, *common, "-c", pruned, "--distill", teacher, *pairs) == 0

    def refused(*args: object) -> str:
        before = tree(tmp_path)
        capsys.readouterr()
        assert command(train.main, *common, *args) == 1
        (error,) = error_lines(capsys.readouterr().err)
        assert tree(tmp_path) == before
        return error

    again = ("-c", latest, "--resume")
    error = refused(*again)
    assert "distilled from best_ckpt.pth (sha256 " in error
    assert "now there is none" in error
    error = refused(*again, "--distill", other)
    assert "now latest_ckpt.pth is another file (sha256 " in error
    error = refused(*again, "--distill", teacher, *pairs[2:], "distill_feature", 0)
    assert "distill_feature was 1.0" in error
    assert "is 0.0 now" in error
    error = refused("-c", other, "--resume", "--distill", teacher)
    assert "had no teacher" in error
    assert command(train.main, *common, *again, "--distill", teacher, "max_epoch", 2) == 0
    assert read(latest)["train"]["epoch"] == 2


def test_a_state_of_another_objective_is_refused_before_anything_changes() -> None:
    model = _model(1)
    before = copy.deepcopy(model.state_dict())
    objective = Distillation(model, _model(0, width=0.25), DistillConfig())
    other = _model(2)
    state = capture_state(
        fabric=make_fabric(devices=1, precision="fp32"),
        model=other,
        optimizer=torch.optim.SGD(other.parameters()),
        ema=None,
        epoch=1,
        best=(0.0, 0.0),
    )
    with pytest.raises(CheckpointError, match=r"trained nothing, this one adapters\.0\.weight"):
        restore_state(
            state,
            fabric=make_fabric(devices=1, precision="fp32"),
            model=model,
            optimizer=torch.optim.SGD(model.parameters()),
            ema=None,
            averaged={},
            objective=objective,
        )
    assert differences(dict(before), dict(model.state_dict())) == []


def test_a_pruned_file_is_no_run_to_be_resumed(
    own_exp: Path, pruned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tree(tmp_path)
    assert command(train.main, "-f", own_exp, "-c", pruned, "--resume") == 1
    (error,) = error_lines(capsys.readouterr().err)
    assert "pruned.pth holds no training state" in error
    assert "without --resume" in error
    assert tree(tmp_path) == before
