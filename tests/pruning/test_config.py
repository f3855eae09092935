"""What a config says by itself, which is what the command line says by default."""

from __future__ import annotations

from typing import Any

import pytest

from yolox.jobs.compress.settings import CompressError, CompressSettings
from yolox.pruning import PruneConfig, PruningError
from yolox.tools.flags.prunmodel import make_parser
from yolox.tools.prune_args import prune_config


def test_config_defaults_are_those_of_the_command() -> None:
    assert prune_config(make_parser().parse_args([]), seed=0) == PruneConfig()


@pytest.mark.parametrize("target", [0.5, 0, "0.5", "macs", ["macs=0.5"]])
def test_a_target_that_is_none_says_what_one_is(target: Any) -> None:
    for make, error in ((PruneConfig, PruningError), (CompressSettings, CompressError)):
        with pytest.raises(error, match=r"target must be params=FRACTION.*, or latency=NUMBERms"):
            make(target=target)
