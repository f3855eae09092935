"""Pruning in steps: what each round removes of what is left."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from tests.pruning.helpers import bare
from yolox.exp import get_exp
from yolox.jobs.calibration import probe
from yolox.jobs.prune_steps import step_config, step_size
from yolox.models import LoadedModel, build_model
from yolox.pruning import apply_plan, plan_pruning, trace_groups
from yolox.pruning.select import select_groups


@pytest.mark.parametrize(
    "chosen",
    [
        {"ignore": ("backbone.backbone.*",)},
        {"mode": "layer", "layers": ("head.*",), "scope": "global"},
    ],
)
def test_steps_come_to_the_ratio_of_the_chosen_layers(chosen: dict[str, Any]) -> None:
    spec = dataclasses.replace(get_exp(None, "yolox-nano").model_spec(), input_size=(64, 64))
    config = bare(ch_sparsity=0.5, importance="random", rounds=1, **chosen)
    now = LoadedModel(model=build_model(spec).eval(), spec=spec, pruning=[], content={})

    def left() -> int:
        groups = select_groups(trace_groups(now.model, probe()), config)
        return sum(group.size * group.channels_per_slot for group in groups)

    start, whole = left(), step_size(now, config)
    for step in (1, 2):
        part = step_config(config, now, whole, step / 2)
        groups = trace_groups(now.model, probe())
        small = apply_plan(now.model, groups, plan_pruning(now.model, groups, part))
        now = dataclasses.replace(now, model=small)
        assert left() / start == pytest.approx(0.5 ** (step / 2), abs=0.02)
