"""Which fields a person set, and that these decide."""

from __future__ import annotations

import copy
import shlex
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from yolox.exp import Exp, ExpError, VOCExp, get_exp, use_model
from yolox.exp.fields import write_names
from yolox.exp.idle import idle_in_training, idle_without_training

EXPS = sorted((Path(__file__).parents[2] / "exps" / "default").glob("*.py"))


def _exp(folder: Path, body: str, base: str = "Exp") -> Exp:
    """An Exp of a file whose ``__init__`` has these lines."""
    lines = "\n".join(f"        {line}" for line in body.splitlines())
    file = folder / "exp.py"
    file.write_text(
        f"from yolox.exp import {base} as MyExp\nfrom yolox.exp import use_model\n\n\n"
        f"class Exp(MyExp):\n    act = 'relu'\n\n    def __init__(self):\n{lines}\n",
        encoding="utf-8",
    )
    return get_exp(file)


BODIES = {
    "after": "super(Exp, self).__init__()\nuse_model(self, 'yolox-nano')\n{}",
    "between": "super(Exp, self).__init__()\n{}\nuse_model(self, 'yolox-nano')",
    "before": "{}\nsuper(Exp, self).__init__()\nuse_model(self, 'yolox-nano')",
}


@pytest.mark.parametrize("place", BODIES)
def test_what_an_exp_file_sets_decides_wherever_it_sets_it(place: str, tmp_path: Path) -> None:
    own = "self.exp_name = 'mine'\nself.input_size = (128, 128)\nself.max_epoch = 7"
    exp = _exp(tmp_path, BODIES[place].format(own))
    assert (exp.exp_name, exp.max_epoch, exp.act) == ("mine", 7, "relu")
    assert (exp.depth, exp.width, exp.depthwise) == (0.33, 0.25, True)
    assert exp.test_size == (416, 416)
    assert {"exp_name", "input_size", "max_epoch", "act"} <= exp.assigned
    assert exp.assigned.isdisjoint({"depth", "test_size", "random_size", "enable_mixup"})
    # Around 128, not the 320 to 640 of nano's own random_size.
    assert exp.train_sizes() == tuple((32 * n, 32 * n) for n in range(1, 10))


STEPS = {
    "exp_name": "mine",
    "input_size": (128, 128),
    "test_size": (160, 160),
    "multiscale_range": 1,
    "enable_mixup": True,
    "depth": 1.0,
    "mosaic_scale": (0.9, 1.1),
}


@given(
    st.permutations(["super", "model", *STEPS]),
    st.sets(st.sampled_from([*STEPS])),
    st.sampled_from(["yolox-nano", "yolox-tiny"]),
)
def test_what_a_person_assigns_wins_whatever_the_order(
    order: list[str], given_fields: set[str], model: str
) -> None:
    class Own(Exp):
        def __init__(self) -> None:
            for step in order:
                if step == "super":
                    super().__init__()
                elif step == "model":
                    use_model(self, model)
                elif step in given_fields:
                    setattr(self, step, STEPS[step])

    exp = Own()
    assert {name: getattr(exp, name) for name in given_fields} == {
        name: STEPS[name] for name in given_fields
    }
    others = Exp()
    use_model(others, model)
    for name in STEPS.keys() - given_fields:
        assert getattr(exp, name) == getattr(others, name)
    heights = [height for height, _ in exp.train_sizes()]
    if given_fields & {"input_size", "multiscale_range"}:  # the model's own range has no say
        middle, reach = exp.input_size[0], 32 * exp.multiscale_range
        assert (min(heights), max(heights)) == (max(middle - reach, 32), middle + reach)
    else:
        assert (min(heights), max(heights)) == (320, 640)


SIZES = [  # body, command line, heights in strides of 32
    ("use_model(self, 'yolox-nano')", "", (10, 20)),
    ("use_model(self, 'yolox-tiny')", "multiscale_range 0", (13, 13)),
    ("use_model(self, 'yolox-nano')", "input_size 128,128 multiscale_range 1", (3, 5)),
    ("use_model(self, 'yolox-nano')", "random_size 3,4 input_size 128,128", (3, 4)),
    ("use_model(self, 'yolox-nano')\nself.multiscale_range = 5", "", (8, 18)),
    ("self.random_size = (14, 26)\nself.input_size = (640, 640)", "", (14, 26)),
    ("self.random_size = (14, 26)\nself.multiscale_range = 3", "", (14, 26)),
    ("self.random_size = (14, 26)", "multiscale_range 2", (18, 22)),
    ("self.random_size = (14, 26)", "input_size 320,320", (5, 15)),
    ("self.random_size = (14, 26)\nself.multiscale_range = 1", "random_size ()", (19, 21)),
    ("self.multiscale_range = 0", "random_size 3,4", (3, 4)),
]


@pytest.mark.parametrize(("body", "words", "expected"), SIZES)
def test_sizes_are_those_that_were_asked_for_most_expressly(
    body: str, words: str, expected: tuple[int, int], tmp_path: Path
) -> None:
    exp = _exp(tmp_path, f"super().__init__()\n{body}")
    exp.merge(words.split())
    sizes = exp.train_sizes()
    assert (sizes[0][0] // 32, sizes[-1][0] // 32) == expected


def test_only_the_command_line_gives() -> None:
    exp = VOCExp()
    exp.max_epoch = 9
    exp.merge(["depth", "0.33"])
    exp.put(width=0.25)
    assert exp.given == {"depth"}
    assert {"depth", "max_epoch"} <= exp.assigned
    assert "width" not in exp.assigned
    use_model(exp, "yolox-x")
    assert (exp.depth, exp.width) == (0.33, 1.25)
    assert VOCExp().given == frozenset()


def test_copies_remember_apart() -> None:
    exp = Exp()
    twin = copy.copy(exp)
    twin.merge(["max_epoch", "3"])
    assert (exp.given, exp.max_epoch, twin.max_epoch) == (frozenset(), 300, 3)


@pytest.mark.parametrize("file", EXPS, ids=lambda path: path.stem)
def test_the_optimizer_of_the_official_api(file: Path) -> None:
    exp = get_exp(file)
    exp.merge(["width", "0.125"] if exp.architecture == "yolox" else [])
    with pytest.raises(ExpError, match="call get_model before"):
        exp.get_optimizer(16)
    model = exp.get_model()
    optimizer = exp.get_optimizer(16)
    trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert trained == {id(p) for p in model.parameters()}
    assert exp.get_optimizer(16, exp.get_model()).param_groups[0]["lr"] == 16 * 0.01 / 64


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("max_epoch 50 -expn mine", "flags go before .*: move -expn before 'max_epoch'"),
        ("max_epoch 50 --fp16", "move --fp16 before"),
        ("max_epoch 50 --resume seed 3", "move --resume before"),
        ("data_dir -f exp.py", "data_dir"),
        ("seed 3 data_dir --fp16", "data_dir has no value"),
    ],
)
def test_flags_among_the_fields_are_named(words: str, message: str) -> None:
    with pytest.raises(ExpError, match=message) as caught:
        VOCExp().merge(words.split())
    assert "unknown Exp key" not in str(caught.value)


@example(["-A", "--b"])
@given(
    st.lists(
        st.text(
            st.characters(blacklist_categories=["C", "Z"], blacklist_characters='"'), min_size=1
        )
        .map(str.strip)
        .filter(bool),
        min_size=1,
        max_size=5,
    )
)
def test_the_line_that_sets_class_names_can_be_read(names: list[str]) -> None:
    words = shlex.split(f"class_names {shlex.quote(write_names(names))}")
    exp = Exp()
    exp.merge(words)
    assert exp.class_names == tuple(names)


def _told(exp: Exp, cases: Any) -> set[str]:
    return {name for names, _ in cases for name in names if name in exp.given}


@pytest.mark.parametrize(
    ("words", "idle"),
    [
        ("max_epoch 3 mosaic_scale 0.5,1", set()),
        ("ema False ema_decay 0.9", {"ema_decay"}),
        ("enable_mixup False mixup_prob 1 mixup_scale 1,2", {"mixup_prob", "mixup_scale"}),
        ("mosaic_prob 0 degrees 5 hsv_prob 1", {"degrees"}),
        ("scheduler cos warmup_epochs 1", {"warmup_epochs"}),
        ("warmup_epochs 0 warmup_lr 0.1", {"warmup_lr"}),
        ("random_size 3,4 multiscale_range 1", {"multiscale_range"}),
        ("train_ann a.json test_name b", {"train_ann", "test_name"}),
        ("finetune_lr 0.5 distill_cls 2", {"finetune_lr", "distill_cls"}),
        ("sparsity_form group", {"sparsity_form"}),
    ],
)  # fmt: skip
def test_fields_without_effect_in_training(words: str, idle: set[str]) -> None:
    exp = VOCExp()
    exp.merge(words.split())
    cases = idle_in_training(exp, tuned=False, penalised=False, taught=False)
    assert _told(exp, cases) == idle


def test_fields_without_effect_in_fine_tuning() -> None:
    exp = VOCExp()
    exp.merge(
        [
            "max_epoch",
            "3",
            "finetune_epochs",
            "4",
            "act",
            "relu",
            "finetune_act",
            "mish",
            "finetune_lr",
            "1",
        ]
    )
    cases = idle_in_training(exp, tuned=True, penalised=False, taught=False)
    assert _told(exp, cases) == {"finetune_epochs", "act"}


def test_fields_without_effect_where_nothing_is_trained() -> None:
    exp = VOCExp()
    words = "max_epoch 3 depth 1 test_conf 0.1 data_dir x finetune_act relu input_size 64,64"
    exp.merge(words.split())
    assert _told(exp, idle_without_training(exp)) == {
        "max_epoch",
        "depth",
        "finetune_act",
        "input_size",
    }
    kept = idle_without_training(exp, kept=["finetune_act"], evaluates=False)
    assert _told(exp, kept) == {"max_epoch", "depth", "input_size", "test_conf"}
