"""What to say where a model and the data have other classes."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from yolox.data import rows_by_name
from yolox.exp.fields import write_names


def advice_on(theirs: Sequence[str], source: tuple[str, str], others: Sequence[str]) -> str:
    """What to do where the data have objects of other classes than a model.

    Args:
        theirs: the model's classes.
        source: what the model is called, and what can be done in general.
        others: classes of the data.
    """
    name, advice = source
    rows = rows_by_name(theirs, others)
    if None not in rows:
        spelled = dict(zip(rows, others, strict=True))
        names = [spelled.get(i, own) for i, own in enumerate(theirs)]
        advice = f"spell them as the data do: class_names {shlex.quote(write_names(names))}"
    return f"The list is that of {name}: {advice}; or correct the annotations"
