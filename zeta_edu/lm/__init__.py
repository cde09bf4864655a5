"""Language models that stand on the block: text, tokenizer, model, training, generation."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zeta_edu.lm.checkpoints import load_model, load_pretrained, save_model, shipped_models
    from zeta_edu.lm.data import Document, python_source, read_texts, split_documents
    from zeta_edu.lm.generation import Sampling, generate, stream
    from zeta_edu.lm.model import ModelCache, TransformerLM
    from zeta_edu.lm.tokenizer import Tokenizer
    from zeta_edu.lm.training import Progress, TrainingOptions, bits_per_byte, evaluate, train

__all__ = [
    "Document",
    "ModelCache",
    "Progress",
    "Sampling",
    "Tokenizer",
    "TrainingOptions",
    "TransformerLM",
    "bits_per_byte",
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
]

# Where each name is, loaded on first use: the command line need not wait for torch.
_HOMES = {
    "Document": "data",
    "ModelCache": "model",
    "Progress": "training",
    "Sampling": "generation",
    "Tokenizer": "tokenizer",
    "TrainingOptions": "training",
    "TransformerLM": "model",
    "bits_per_byte": "training",
    "evaluate": "training",
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
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value  # found at once from now on
    return value
