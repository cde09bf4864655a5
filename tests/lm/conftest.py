"""What the tests of language models share: a small text, its tokenizer, small models."""

import numpy as np
import pytest
import torch

from zeta_edu.lm import Tokenizer, TransformerLM

FUNCTIONS = "".join(
    f"def {verb}_{noun}(first, second):\n    return first {sign} second\n\n\n"
    for verb in ("get", "set", "add", "join")
    for noun in ("name", "value", "path", "item", "file")
    for sign in "+-*/"
)


@pytest.fixture(scope="session")
def text() -> str:
    """Some regular Python."""
    return FUNCTIONS


@pytest.fixture(scope="session")
def tokenizer(text: str) -> Tokenizer:
    """A tokenizer with few merges."""
    return Tokenizer.train([text], vocab_size=300)


@pytest.fixture
def model(tokenizer: Tokenizer) -> TransformerLM:
    """A small untrained model, in evaluation mode, with its tokenizer."""
    torch.manual_seed(0)
    model = TransformerLM(len(tokenizer), dim=32, depth=2, heads=2, dim_head=16, ff_mult=2)
    model.tokenizer = tokenizer
    return model.eval()


@pytest.fixture(scope="session")
def tokens(tokenizer: Tokenizer, text: str) -> np.ndarray:
    """The small text as ids."""
    return np.array(tokenizer.encode(text), dtype=np.uint16)
