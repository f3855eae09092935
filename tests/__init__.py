"""Tests run in one thread, as the processes do that they start: the same bits."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # read when PyTorch is first imported
