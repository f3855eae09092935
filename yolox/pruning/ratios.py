"""Files of ratios by layer, as an analysis of sensitivity writes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from yolox.pruning.config import PruningError
from yolox.utils.documents import read_json


def read_ratios(path: Path) -> dict[str, float]:
    """Ratios by pattern, from a JSON file.

    Raises:
        PruningError: it cannot be read, or holds something else.
    """
    try:
        content = read_json(path)
        if not content:
            raise ValueError("it is empty")
        if odd := [value for value in content.values() if type(value) not in (int, float)]:
            raise ValueError(f"{str(odd[0])[:60]!r} is no ratio")
        return {str(pattern): float(ratio) for pattern, ratio in content.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise PruningError(
            f"cannot read layer ratios from {path}: {error}; expected a JSON object "
            'such as {"backbone.*": 0.3}'
        ) from error


def sensitive_layers(path: Path, layers: Sequence[str]) -> tuple[str, ...]:
    """Those of some layers that a file of ratios has none for.

    A file that is missing is that of an analysis which found no ratio for any.

    Raises:
        PruningError: the file cannot be read, or these are all layers.
    """
    fine = read_ratios(path) if path.exists() else {}
    found = tuple(layer for layer in layers if layer not in fine)
    if len(found) == len(layers):
        raise PruningError(
            f"every layer is sensitive by {path}, so there is nothing to prune: allow a larger "
            "loss in the analysis, or do without it"
        )
    return found
