"""Tests of jobs: pruning is a means here."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.runs import one_probe


@pytest.fixture(autouse=True, scope="package")
def brief_proof() -> Iterator[None]:
    """See there."""
    with one_probe():
        yield
