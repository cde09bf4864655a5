"""Language models that stand on the block: text, tokenizer, model, training, generation."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zeta_edu.lm.checkpoints import load_model, load_pretrained, save_model, shipped_models
    from zeta_edu.lm.data import (
        Document,
        documentation,
        python_source,
        read_texts,
        split_documents,
    )
    from zeta_edu.lm.evaluation import bits_per_byte, evaluate
    from zeta_edu.lm.generation import Sampling, generate, stream
    from zeta_edu.lm.model import ModelCache, TransformerLM
    from zeta_edu.lm.options import Progress, TrainingOptions
    from zeta_edu.lm.tasks import TASKS, Task, train_task
    from zeta_edu.lm.tokenizer import Tokenizer
    from zeta_edu.lm.training import train

__all__ = [
    "TASKS",
    "Document",
    "ModelCache",
    "Progress",
    "Sampling",
    "Task",
    "Tokenizer",
    "TrainingOptions",
    "TransformerLM",
    "bits_per_byte",
    "documentation",
    "evaluate",
    "generate",
    "load_model",
    "load_pretrained",
    "python_source",
    "read_texts",
    "save_model",
    "shipped_models",
    "split_documents",
    "stream",
    "train",
    "train_task",
]

# Where each name is, loaded on first use: the command line need not wait for torch.
_HOMES = {
    "TASKS": "tasks",
    "Document": "data",
    "ModelCache": "model",
    "Progress": "options",
    "Sampling": "generation",
    "Task": "tasks",
    "Tokenizer": "tokenizer",
    "TrainingOptions": "options",
    "TransformerLM": "model",
    "bits_per_byte": "evaluation",
    "documentation": "data",
    "evaluate": "evaluation",
    "generate": "generation",
    "load_model": "checkpoints",
    "load_pretrained": "checkpoints",
    "python_source": "data",
    "read_texts": "data",
    "save_model": "checkpoints",
    "shipped_models": "checkpoints",
    "split_documents": "data",
    "stream": "generation",
    "train": "training",
    "train_task": "tasks",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value  # found at once from now on
    return value
