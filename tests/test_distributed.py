"""Two processes train as one: DDP, and FSDP2 with its sharded parameters."""

import os
import socket
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from tests.strategies import make_block
from zeta_edu import TransformerBlock

close = torch.testing.assert_close
OPTIONS = {"dim": 8, "dim_head": 4, "heads": 4, "kv_heads": 2, "qk_rmsnorm": True}
STEPS = 3

pytestmark = pytest.mark.skipif(
    not (dist.is_available() and dist.is_gloo_available()), reason="gloo is not built in"
)


class Stack(nn.Module):
    def __init__(self, flash: bool):
        super().__init__()
        self.layers = nn.ModuleList(
            make_block(seed=seed, flash_attn=flash, **OPTIONS) for seed in range(2)
        )

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        for layer in self.layers:
            x = x + layer(x, mask)
        return x


def batch(step: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(4, 9, 8, dtype=torch.float64, generator=generator)
    return x, torch.arange(9) >= torch.tensor([[0], [2], [5], [0]])


def train(model: nn.Module, rows: slice) -> None:
    optimiser = torch.optim.SGD(model.parameters(), lr=0.02)
    for step in range(STEPS):
        x, mask = batch(step)
        model(x[rows], mask[rows]).square().mean().backward()
        optimiser.step()
        optimiser.zero_grad()


def whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def work(rank: int, port: int, kind: str, flash: bool, path: str) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    model: nn.Module = Stack(flash)
    if kind == "DDP":
        model = DistributedDataParallel(model)
    else:
        for layer in model.layers:
            fully_shard(layer)
        assert isinstance(fully_shard(model), FSDPModule)
    train(model, slice(2 * rank, 2 * rank + 2))
    state = {n.removeprefix("module."): whole(t) for n, t in model.state_dict().items()}
    if rank == 0:
        torch.save(state, path)
    dist.barrier()
    # Without taking the model and its process group down: now and then the two destructors wait
    # for each other for ever (torch 2.13, gloo).
    os._exit(0)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize(("kind", "flash"), [("DDP", False), ("FSDP2", True)])
def test_two_processes_train_as_one(kind: str, flash: bool, tmp_path: Path):
    path = tmp_path / "state.pt"
    torch.multiprocessing.spawn(work, (free_port(), kind, flash, str(path)), nprocs=2)
    alone = Stack(flash)
    train(alone, slice(None))
    together = torch.load(path)
    assert list(together) == list(alone.state_dict())
    for name, tensor in alone.state_dict().items():
        close(together[name], tensor, atol=1e-12, rtol=1e-10)
    assert isinstance(alone.layers[0], TransformerBlock)
