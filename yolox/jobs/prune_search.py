"""A plan searched for by what its refitted model loses; a search that was stopped goes on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from loguru import logger
from torch import Tensor, nn

from yolox.jobs.calibration import Calibration
from yolox.pruning import Group, LabelledImages, PruneConfig, PruningError, PruningPlan
from yolox.pruning.search import Progress
from yolox.pruning.search_plan import PlanSearch
from yolox.utils.device import float64_device
from yolox.utils.documents import json_text, read_json
from yolox.utils.files import write_text
from yolox.utils.progress import track

SEARCH_IMAGES = 16  # that each plan is refitted on
RECORD_EVERY = 10  # moves between two writings of the record
FORMAT = "yolox-pruning-search"


def search_plan(
    model: nn.Module,
    groups: Sequence[Group],
    config: PruneConfig,
    ranked: PruningPlan,
    calibration: Calibration,
    count_input: Tensor,
    record: Path,
    *,
    scored: int,
    source: str,
) -> PruningPlan:
    """The best plan of `PruneConfig.search` moves; the ranking's or equal shares if none is better.

    Args:
        model: the model; not changed.
        groups: all groups of it.
        config: what to prune, and by how much.
        ranked: the plan of the config's ranking.
        calibration: training images, and where they are run.
        count_input: float (1, 3, H, W) that MACs are counted at.
        record: file that says how far the search has come; one of the same search is gone on from.
        scored: how many images to score on.
        source: digest of the model's file.

    Raises:
        PruningError: there are too few images, or the record cannot be read or written.
    """
    fitted, held = calibration.split(config)
    few = fitted.first(SEARCH_IMAGES)
    images = few.images()
    if images is None or not len(held):
        raise PruningError(
            f"a search refits on some images and judges on others, and there are {len(calibration)}"
            ": give more training images, or no `search`"
        )
    settings = {k: v for k, v in config.to_dict().items() if k != "search"}
    whole = calibration.first(scored).batches
    parts = [source, settings, *map(image_digest, (whole, few.batches, held.batches))]
    mark = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
    earlier = _earlier(record, mark)
    search = PlanSearch(
        model,
        groups,
        config,
        ranked,
        batches=whole,
        images=images.to(float64_device(calibration.device, "plans are judged")),
        labelled=LabelledImages(loss=calibration.loss, fitted=few.batches, held=held.joined()),
        count_input=count_input,
    )
    moves = config.search
    left = moves - (earlier.tried if earlier else 0)
    progress = None
    for progress in track(search.run(moves, earlier), "Searching", max(left, 0) + 1):
        if progress.tried % RECORD_EVERY == 0 or progress.tried == moves:
            content = {"format": FORMAT, "mark": mark, "progress": progress.to_dict()}
            write_text(record, json_text(content, indent=1) + "\n", PruningError)
    assert progress is not None
    (logger.info if progress.better else logger.warning)(progress.sentence())
    return search.plan(progress.shares)


def image_digest(batches: Sequence[tuple[Tensor, ...]]) -> str:
    """What images and their labels are told from others by."""
    digest = hashlib.sha256(str(len(batches)).encode())
    for batch in batches:
        for part in batch:
            digest.update(str(tuple(part.shape)).encode())
            digest.update(part.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _earlier(record: Path, mark: str) -> Progress | None:
    """How far the same search has come, None where there is no record of it."""
    if not record.exists():
        return None
    try:
        content = read_json(record)
        if content["format"] != FORMAT or content["mark"] != mark:
            return None
        progress = Progress.from_dict(content["progress"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PruningError(f"{record} is not the record of such a search: delete it") from error
    logger.info(f"the search continues after {progress.tried} moves, by {record}")
    return progress
