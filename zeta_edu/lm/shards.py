"""Checkpoints in parts, by torch.distributed.checkpoint: every process writes what it holds.

The parts are safetensors files, so that loading them executes nothing. A checkpoint is a folder
`step-00000100` that gets its name when all of it is there.
"""

import os
import shutil
import warnings
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import (
    HuggingFaceStorageReader,
    HuggingFaceStorageWriter,
)
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load as load_state_dict
from torch.distributed.checkpoint.state_dict_saver import save as save_state_dict

from zeta_edu.files import write_json
from zeta_edu.lm import parallel
from zeta_edu.lm.resume import TEXTS

PARTIAL = ".partial"


def save(folder: Path, tensors: dict[str, Tensor], texts: dict[str, str], step: int) -> None:
    """Write a checkpoint of tensors spread over processes; all of them must call.

    Args:
        folder: of the training's checkpoints; the one before this is removed in the end.
        tensors: parts of tensors (DTensor), or tensors that all or only some processes have.
        texts: kept beside them.
        step: of the training.
    """
    partial, target = folder / PARTIAL, folder / f"step-{step:08d}"
    if parallel.is_first():
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    parallel.wait()
    writer = HuggingFaceStorageWriter(str(partial), save_distributed=True)
    save_state_dict(dict(tensors), storage_writer=writer)
    parallel.wait()
    if parallel.is_first():
        write_json(partial / TEXTS, texts)
        for file in partial.iterdir():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)
        for other in folder.glob("step-*"):
            if other != target:
                shutil.rmtree(other)
    parallel.wait()


def load(checkpoint: Path, expected: dict[str, Tensor]) -> dict[str, Tensor]:
    """Read a checkpoint, spread as the expected tensors are, on any number of processes.

    Args:
        checkpoint: one that `save` wrote.
        expected: tensors of the names, shapes and distribution that are wanted.

    Returns:
        The tensors, and the random states of every process that wrote some.

    Raises:
        ValueError: a file is damaged, or its names or shapes are others.
    """
    try:
        reader = HuggingFaceStorageReader(str(checkpoint))
        stored = _stored(reader.read_metadata())
        wanted = {name: torch.empty_like(t) for name, t in expected.items()}
        wanted |= {
            name: torch.empty(tensor.shape, dtype=tensor.dtype)
            for name, tensor in stored.items()
            if name.startswith("random.")
        }
        _check_names(stored, wanted, checkpoint)
        with warnings.catch_warnings():  # that there is one process only, which is no fault
            warnings.simplefilter("ignore")
            load_state_dict(wanted, storage_reader=reader)
    except (CheckpointException, SafetensorError, OSError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{str(checkpoint)!r} is not a whole checkpoint: {reason}") from None
    return wanted


def _stored(metadata: Metadata) -> dict[str, Tensor]:
    """Return, without memory, tensors of the names and shapes in a checkpoint."""
    return {
        name: torch.empty(entry.size, dtype=entry.properties.dtype, device="meta")
        for name, entry in metadata.state_dict_metadata.items()
        if isinstance(entry, TensorStorageMetadata)
    }


def _check_names(stored: dict[str, Tensor], wanted: dict[str, Tensor], path: Path) -> None:
    for name in sorted(stored.keys() ^ wanted.keys()):
        fault = "lacks" if name in wanted else "has an unknown tensor"
        raise ValueError(f"{str(path)!r} {fault} {name!r}")
    for name, tensor in wanted.items():
        if stored[name].shape != tensor.shape:
            shapes = f"{tuple(stored[name].shape)}, not {tuple(tensor.shape)}"
            raise ValueError(f"{str(path)!r}: {name!r} has shape {shapes}")
