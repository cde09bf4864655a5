"""The model card: a README beside the weights that says where they come from."""

import platform
import textwrap
from dataclasses import dataclass

import torch

from zeta_edu.lm.model import TransformerLM
from zeta_edu.lm.training import Progress, TrainingOptions

STANDARD_LIBRARY = (
    "The text is the source of Python's standard library, as it came with Python {python}, under "
    "the licence of the Python Software Foundation (PSF-2.0). Tests and tables of data are left "
    "out."
)
_CARD = """\
# {name}

A language model made of {depth} transformer blocks of zeta_edu: {parameters:,} parameters.

## What it was trained on

{text} {files} files train, {held_out_files} are held out for validation, chosen by a hash of
their names: {text_tokens:,} and {held_out_tokens:,} tokens of a byte-pair tokenizer with
{num_tokens:,} entries, learned from the training files.

## How

    {command}

Seed {seed}, {steps:,} steps of {tokens_per_step:,} tokens, {tokens:,} tokens in all. Python
{python}, torch {torch}, on {device}. The same command on the same versions makes the same kind
of model; the last digits depend on the processor.

## What came of it

| | |
|---|---|
| training loss, last step | {loss:.4f} nats per token |
| validation loss | {validation_loss:.4f} nats per token |
| validation | {bits:.4f} bits per byte |

Validation reads the whole held-out text once, in windows of {length} tokens.

## What it is for

It was made to be looked at. It has seen little text and knows nothing about the world; what it
writes may look like code, and is not to be run or relied upon.
"""


@dataclass(frozen=True)
class Facts:
    """What a model card tells, beyond model, options and progress."""

    name: str
    command: str
    text: str
    files: int
    held_out_files: int
    text_tokens: int
    held_out_tokens: int
    validation_loss: float
    bits: float
    device: str


def model_card(
    facts: Facts, model: TransformerLM, options: TrainingOptions, progress: Progress
) -> str:
    """Return the text of a model card."""
    values = {
        **vars(facts),
        "depth": model.config["depth"],
        "num_tokens": model.config["num_tokens"],
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "seed": options.seed,
        "steps": progress.step,
        "tokens": progress.tokens,
        "tokens_per_step": options.tokens_per_step,
        "length": options.length,
        "loss": progress.loss,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    paragraphs = _CARD.format(**values).split("\n\n")
    return "\n\n".join(map(_filled, paragraphs))


def _filled(paragraph: str) -> str:
    """Break a paragraph into lines of 100 characters, unless its lines mean something."""
    if paragraph.startswith(("#", "|", "    ")):
        return paragraph
    return textwrap.fill(paragraph, 100, break_long_words=False, break_on_hyphens=False) + (
        "\n" if paragraph.endswith("\n") else ""
    )
