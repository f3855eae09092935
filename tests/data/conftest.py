"""Data to read: a tiny VOC tree that tests may break, a demo data set that they may not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from loguru import logger

from tests.data.helpers import VocTree
from yolox.data.synthetic import generate_demo_dataset


@pytest.fixture
def voc(tmp_path: Path) -> VocTree:
    tree = VocTree(tmp_path)
    tree.add("a", [("dog", (11, 6, 31, 26), 0), ("cat", (1, 1, 60, 40), 1)])
    tree.add("b", [("dog", (5, 5, 20, 20), 0)])
    tree.split("trainval", "a", "b")
    return tree


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("demo")
    return generate_demo_dataset(root, num_images=15, image_size=(96, 128), seed=3)


@pytest.fixture
def log() -> Iterator[Callable[[str], list[str]]]:
    """``log("WARNING")`` gives the messages of that level so far."""
    records: list[tuple[str, str]] = []

    def sink(message: object) -> None:
        record = message.record  # type: ignore[attr-defined]
        records.append((record["level"].name, record["message"]))

    handle = logger.add(sink, level="INFO")
    yield lambda level: [text for name, text in records if name == level]
    logger.remove(handle)
