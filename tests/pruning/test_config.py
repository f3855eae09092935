"""What a config says by itself, which is what the command line says by default."""

from __future__ import annotations

from yolox.pruning import PruneConfig
from yolox.tools.flags.prunmodel import make_parser
from yolox.tools.prune_args import prune_config


def test_config_defaults_are_those_of_the_command() -> None:
    assert prune_config(make_parser().parse_args([]), seed=0) == PruneConfig()
