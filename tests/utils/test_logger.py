"""The log file of a run: what was said before the run had a folder stands first in it."""

from __future__ import annotations

from pathlib import Path

import pytest
from loguru import logger

from yolox.utils.logger import remembering, setup_logger


def test_what_was_said_earlier_stands_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        setup_logger()
        logger.info("of another run")
        with remembering() as told:
            logger.warning("data: 3 images without objects")
            logger.info("fine-tuning recipe: 20 epochs")
        logger.info("not the block's")
        setup_logger(tmp_path, earlier=told)
        logger.info("epoch 1")
    finally:
        setup_logger()
    lines = (tmp_path / "train_log.txt").read_text(encoding="utf-8").splitlines()
    assert [line[20:] for line in lines] == [
        "WARNING data: 3 images without objects",
        "INFO    fine-tuning recipe: 20 epochs",
        "INFO    epoch 1",
    ]
    assert capsys.readouterr().err.count("fine-tuning recipe") == 1
