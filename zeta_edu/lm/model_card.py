"""The model card: a README beside the weights that says where they come from."""

import platform
import textwrap
from dataclasses import dataclass
from typing import Any

import torch

from zeta_edu.lm.model import TransformerLM
from zeta_edu.lm.options import Progress, TrainingOptions

STANDARD_LIBRARY = (
    "The text is the source of Python's standard library, as it came with Python {python}, under "
    "the licence of the Python Software Foundation (PSF-2.0). Tests and tables of data are left "
    "out."
)
DOCUMENTATION = (
    "The text is the topics of Python's manual, as they came with Python {python}, under the "
    "licence of the Python Software Foundation (PSF-2.0)."
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
_TASK_CARD = """\
# {name}

A model made of {depth} transformer blocks of zeta_edu: {parameters:,} parameters. It was made to be
looked at while it learns one thing.

## What it was trained on

The synthetic task `{task}`. {description} Lines are drawn at random; here is one, each of its
characters a token:

    {line}

## How

    {command}

Seed {seed}, {steps:,} steps of {batch_size} lines. Python {python}, torch {torch}, on {device}. The
same command on the same versions makes the same kind of model; the last digits depend on the
processor.

## What came of it

| | |
|---|---|
| training loss, last step | {loss:.4f} nats per token |
| accuracy on {examples:,} new lines | {accuracy:.2%} of the determined tokens |
"""
_ADAPTER_CARD = """\
# {name}

A LoRA adapter for the model `{base}`, {size:,} bytes. Put it on with
`load_lora(model, "adapter.safetensors")`.

## How

    {command}

Seed {seed}, {steps:,} steps of {tokens_per_step:,} tokens of what was found at `{text}`. Python
{python}, torch {torch}.

## What came of it

| | |
|---|---|
| held-out text, the model alone | {before:.4f} bits per byte |
| held-out text, with the adapter | {after:.4f} bits per byte |
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


@dataclass(frozen=True)
class TaskFacts:
    """What the card of a model for a task tells, beyond model, options and progress."""

    name: str
    command: str
    task: str
    description: str
    line: str
    accuracy: float
    examples: int
    device: str


@dataclass(frozen=True)
class AdapterFacts:
    """What the card of an adapter tells, beyond options and progress."""

    name: str
    base: str
    command: str
    text: str
    size: int
    before: float
    after: float


def model_card(
    facts: Facts, model: TransformerLM, options: TrainingOptions, progress: Progress
) -> str:
    """Return the text of a model card."""
    return _written(_CARD, vars(facts) | _shape(model), options, progress)


def task_card(
    facts: TaskFacts, model: TransformerLM, options: TrainingOptions, progress: Progress
) -> str:
    """Return the text of the card of a model that was trained on a task."""
    return _written(_TASK_CARD, vars(facts) | _shape(model), options, progress)


def adapter_card(facts: AdapterFacts, options: TrainingOptions, progress: Progress) -> str:
    """Return the text of the card of an adapter."""
    return _written(_ADAPTER_CARD, vars(facts), options, progress)


def _shape(model: TransformerLM) -> dict[str, int]:
    return {
        "depth": model.config["depth"],
        "num_tokens": model.config["num_tokens"],
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
    }


def _written(card: str, facts: dict[str, Any], options: TrainingOptions, progress: Progress) -> str:
    values = {
        "seed": options.seed,
        "steps": progress.step,
        "tokens": progress.tokens,
        "tokens_per_step": options.tokens_per_step,
        "batch_size": options.batch_size,
        "length": options.length,
        "loss": progress.loss,
        "python": platform.python_version(),
        "torch": torch.__version__,
        **facts,
    }
    paragraphs = card.format(**values).split("\n\n")
    return "\n\n".join(map(_filled, paragraphs))


def _filled(paragraph: str) -> str:
    """Break a paragraph into lines of 100 characters, unless its lines mean something."""
    if paragraph.startswith(("#", "|", "    ")):
        return paragraph
    return textwrap.fill(paragraph, 100, break_long_words=False, break_on_hyphens=False) + (
        "\n" if paragraph.endswith("\n") else ""
    )
