"""How many images a prune reads, and what each of them is for."""

from __future__ import annotations

import pytest

from yolox.jobs.calibration import Calibration, images_needed
from yolox.pruning import PruneConfig


@pytest.mark.parametrize(
    ("reconstruct", "recalibrate", "fitted", "held"),
    [(64, 0, 64, 32), (0, 64, 64, 32), (64, 256, 256, 32), (256, 64, 256, 32), (0, 0, 0, 0)],
)
def test_the_larger_number_of_images_is_read(
    reconstruct: int, recalibrate: int, fitted: int, held: int
) -> None:
    config = PruneConfig(reconstruct=reconstruct, bn_recalibrate=recalibrate)
    assert images_needed(config, 8) == max(8, fitted + held)
    parts = Calibration(batches=range(1000)).split(config)
    assert [len(part) for part in parts] == [fitted, held]
