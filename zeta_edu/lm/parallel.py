"""One training in several processes, as `torchrun` starts them: who does what.

Every process reads the same batch and takes its own rows of it. Gradients are averaged by DDP, or
by FSDP2, which also spreads weights and moments. All functions here do the obvious in a single
process, so that training is written once. FSDP2 is imported where it is used: it takes a second.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from zeta_edu.block import TransformerBlock


def processes() -> int:
    """Return how many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Return this process's number, from 0."""
    return dist.get_rank() if processes() > 1 else 0


def is_first() -> bool:
    """Whether this process is the one that writes and speaks."""
    return rank() == 0


def start(device: str) -> str:
    """Join the processes that `torchrun` started, if it did.

    Args:
        device: "cpu", or a kind of accelerator, of which each process then gets its own.

    Returns:
        The device of this process.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1 or processes() > 1:
        return device
    if device != "cpu":
        device = f"{torch.device(device).type}:{os.environ['LOCAL_RANK']}"
        torch.accelerator.set_device_index(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("gloo" if device == "cpu" else None)
    return device


def finish() -> None:
    """Wait for the others and, where there are any, end the process.

    It ends without taking the model and the group down: now and then the destructors of the two
    wait for each other for ever (torch 2.13, gloo).
    """
    if processes() > 1:
        dist.barrier()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def wait() -> None:
    """Wait until every process is here."""
    if processes() > 1:
        dist.barrier()


def wrap(model: nn.Module, fsdp: bool) -> nn.Module:
    """Return the module to call in training: the model, or what averages its gradients.

    Args:
        model: with `fsdp`, its parameters become parts of tensors, in place.
        fsdp: FSDP2, in units of blocks, instead of DDP.
    """
    if processes() == 1:
        return model
    if not fsdp:
        return DistributedDataParallel(model)
    from torch.distributed.fsdp import fully_shard

    for module in model.modules():
        if isinstance(module, TransformerBlock):
            fully_shard(module)
    fully_shard(model, reshard_after_forward=True)  # parameters are parts again after a validation
    return model


def own_rows(batch: Tensor) -> Tensor:
    """Return this process's rows of a batch that all have read.

    Raises:
        ValueError: the rows cannot be shared out evenly.
    """
    if len(batch) % processes():
        raise ValueError(
            f"batch_size must be a multiple of the {processes()} processes, got {len(batch)}"
        )
    return batch.chunk(processes())[rank()]


@contextmanager
def averaging(trained: nn.Module, wanted: bool) -> Iterator[None]:
    """Average gradients in the backward passes inside, or keep that for a later one."""
    if isinstance(trained, DistributedDataParallel):
        with nullcontext() if wanted else trained.no_sync():
            yield
        return
    if processes() > 1:  # FSDP2 has given the model this method
        trained.set_requires_gradient_sync(wanted)  # type: ignore[operator]
    yield


def total(value: Tensor) -> Tensor:
    """Return the sum over all processes of a tensor that each has."""
    if processes() > 1:
        value = value.clone()
        dist.all_reduce(value)
    return value


def is_spread(tensor: Tensor) -> bool:
    """Whether this process holds a part of a tensor only (a DTensor)."""
    return hasattr(tensor, "full_tensor")


def whole(tensor: Any) -> Tensor:
    """Return a whole tensor of one that may be spread over processes; all must call."""
    return tensor.full_tensor() if is_spread(tensor) else tensor


def like(tensor: Tensor, example: Any) -> Tensor:
    """Return a whole tensor, which every process has, spread as the example is."""
    if not is_spread(example) or is_spread(tensor):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    tensor = tensor.to(example.device)
    mesh, placements = example.device_mesh, example.placements
    return distribute_tensor(tensor, mesh, placements, src_data_rank=None)


def gather(value: Any) -> list[Any]:
    """Return the values of all processes, by rank."""
    if processes() == 1:
        return [value]
    gathered: list[Any] = [None] * processes()
    dist.all_gather_object(gathered, value)
    return gathered


def say(text: str) -> None:
    """Print a line, once for all processes."""
    if is_first():
        print(text, flush=True)
