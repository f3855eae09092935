"""Processes that tell each other things; without a group there is one."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import multiprocessing, nn

from yolox.utils.dist import (
    from_first_process,
    gather_values,
    get_local_rank,
    get_rank,
    get_world_size,
    is_main_process,
    synchronize,
    take_buffers_of_first_process,
    wait_for_the_master,
)


class _Buffered(nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.register_buffer("mean", torch.full((2, 3), value))
        self.register_buffer("precise", torch.full((), value, dtype=torch.float64))
        self.register_buffer("count", torch.tensor(int(value)))
        self.weight = nn.Parameter(torch.full((2,), value))


def test_a_process_alone() -> None:
    assert (get_rank(), get_world_size(), get_local_rank(), is_main_process()) == (0, 1, 0, True)
    synchronize()
    with wait_for_the_master():
        pass
    assert gather_values(torch.tensor([1.0, 2.0])).tolist() == [[1.0, 2.0]]
    value = {"a": 1}
    assert from_first_process(value) is value
    model = _Buffered(3.0)
    take_buffers_of_first_process(model)
    assert model.mean.unique().tolist() == [3.0]


def _talk(rank: int, port: int, folder: Path) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), LOCAL_RANK=str(rank))
    dist.init_process_group("gloo", rank=rank, world_size=2)
    models = [_Buffered(10.0 * rank + number) for number in (1, 2)]
    take_buffers_of_first_process(*models)
    file = folder / "order"
    with wait_for_the_master():
        with file.open("a") as order:
            order.write(str(rank))
        if rank == 0:
            assert file.read_text() == "0"
    synchronize()
    heard: dict[str, Any] = {
        "who": [get_rank(), get_world_size(), get_local_rank(), is_main_process()],
        "gathered": gather_values(torch.tensor([rank + 0.5, rank * 2.0])),
        "first": from_first_process({"rank": rank}),
        "buffers": [dict(model.named_buffers()) for model in models],
        "weights": [model.weight.tolist() for model in models],
        "order": file.read_text(),
    }
    torch.save(heard, folder / f"{rank}.pth")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes(tmp_path: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    multiprocessing.start_processes(_talk, (port, tmp_path), nprocs=2, start_method="spawn")  # type: ignore[no-untyped-call]
    for rank in (0, 1):
        heard = torch.load(tmp_path / f"{rank}.pth", weights_only=True)
        assert heard["who"] == [rank, 2, rank, rank == 0]
        assert heard["gathered"].tolist() == [[0.5, 0.0], [1.5, 2.0]]
        assert heard["first"] == {"rank": 0}
        assert heard["order"] == "01"
        for number, (buffers, weights) in enumerate(
            zip(heard["buffers"], heard["weights"], strict=True), start=1
        ):
            assert buffers["mean"].tolist() == [[number] * 3] * 2
            assert buffers["precise"].item() == number
            assert buffers["precise"].dtype == torch.float64
            assert buffers["count"].item() == 10 * rank + number  # whole numbers stay
            assert weights == [10 * rank + number] * 2
