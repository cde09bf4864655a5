"""Language models that stand on the block: text, tokenizer, model, training, generation."""

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
