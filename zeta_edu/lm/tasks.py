"""Synthetic tasks with known answers: what a small model can learn within a minute, and how well.

An example is a line of characters. Every character is one token: the id of a byte is the byte
plus 1, as in `Tokenizer.of_bytes()`, and id 0 stands behind each line. Of every
token it is known whether the ones before it determine it; accuracy is the share of those that
the model finds likeliest.
"""

import string
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from zeta_edu.lm.model import TransformerLM
from zeta_edu.lm.options import Progress, TrainingOptions
from zeta_edu.lm.training import UNSCORED, Report, Saving, fit
from zeta_edu.modes import evaluating

NUM_TOKENS = 257
_VALIDATION_SEED = 2**31  # no training has it
_VALIDATION_ROWS = 256

# A line, and for each of its characters whether it is determined by those before it.
Line = tuple[str, list[bool]]


@dataclass(frozen=True)
class Task:
    """A source of examples whose answers are known.

    Args:
        name: of the task.
        length: tokens that the model reads of an example.
        answers_only: learn the determined tokens only, not also what is drawn at random.
        draw: makes a line of at most `length` + 1 characters.
        description: one sentence.
    """

    name: str
    length: int
    answers_only: bool
    draw: Callable[[np.random.Generator], Line]
    description: str

    def examples(
        self, batch_size: int, seed: int, step: int
    ) -> tuple[Int[Tensor, "batch length+1"], Bool[Tensor, "batch length"]]:
        """Draw examples, a function of the seed and the step alone.

        Returns:
            The ids, and for each id but the first whether those before it determine it.

        >>> tokens, determined = TASKS["induction"].examples(4, seed=0, step=0)
        >>> tokens.shape, determined.shape
        (torch.Size([4, 32]), torch.Size([4, 31]))
        """
        random = np.random.default_rng([seed, step])
        tokens = np.zeros((batch_size, self.length + 1), dtype=np.int64)
        determined = np.zeros((batch_size, self.length), dtype=bool)
        for row in range(batch_size):
            text, known = self.draw(random)
            ids = np.frombuffer(text.encode("ascii"), dtype=np.uint8)
            tokens[row, : len(ids)] = ids.astype(np.int64) + 1
            determined[row, : len(known) - 1] = known[1:]
        return torch.from_numpy(tokens), torch.from_numpy(determined)

    def accuracy(
        self, model: nn.Module, examples: int = _VALIDATION_ROWS, seed: int = _VALIDATION_SEED
    ) -> float:
        """Return the share of determined tokens that a model finds likeliest.

        Args:
            model: gives logits for ids, as `TransformerLM` does.
            examples: how many are read.
            seed: of the examples.
        """
        return self._validate(model, examples, seed)[1]

    @torch.no_grad()
    def _validate(self, model: nn.Module, examples: int, seed: int) -> tuple[float, float]:
        """Return the mean loss over what is learned, and the accuracy."""
        tokens, determined = self.examples(examples, seed, step=0)
        device = next(model.parameters()).device
        tokens, determined = tokens.to(device), determined.to(device)
        with evaluating(model):
            logits = model(tokens[:, :-1]).float()
        targets = self._targets(tokens, determined)
        loss = nn.functional.cross_entropy(
            logits.flatten(0, 1), targets.flatten(), ignore_index=UNSCORED
        )
        right = logits.argmax(dim=-1) == tokens[:, 1:]
        return loss.item(), right[determined].double().mean().item()

    def _targets(self, tokens: Tensor, determined: Tensor) -> Tensor:
        targets = tokens[:, 1:]
        return targets.masked_fill(~determined, UNSCORED) if self.answers_only else targets


@dataclass(frozen=True)
class TaskExamples:
    """The batches of a task, for `fit`."""

    task: Task
    batch_size: int
    seed: int

    def batch(self, step: int) -> tuple[Int[Tensor, "batch n"], Int[Tensor, "batch n"]]:
        """Return the inputs of a step and its targets, -100 where nothing is to be learned."""
        tokens, determined = self.task.examples(self.batch_size, self.seed, step)
        return tokens[:, :-1], self.task._targets(tokens, determined)


def train_task(
    model: TransformerLM,
    name: str,
    options: TrainingOptions,
    *,
    saving: Saving | None = None,
    report: Report | None = None,
) -> Progress:
    """Train a model on a synthetic task.

    Args:
        model: trained in place; with at least 257 ids.
        name: of the task, a key of `TASKS`.
        options: how to train; the length is the task's own.
        saving: where the state is kept.
        report: called after every step.

    Returns:
        Where the training stands at its end; `accuracy` holds the accuracies by step.

    Raises:
        ValueError: no such task, a model with fewer ids, or as for `fit`.

    >>> model = TransformerLM(NUM_TOKENS, dim=16, depth=1, heads=2, dim_head=8)
    >>> progress = train_task(model, "sorting", TrainingOptions(steps=2, batch_size=4))
    >>> list(progress.accuracy)
    [2]
    """
    task, saving = find_task(name), saving or Saving()
    if model.config["num_tokens"] < NUM_TOKENS:
        raise ValueError(
            f"a task needs a model of {NUM_TOKENS} ids, got {model.config['num_tokens']}"
        )

    def validate(progress: Progress) -> None:
        loss, accuracy = task._validate(model, _VALIDATION_ROWS, _VALIDATION_SEED)
        progress.validation[progress.step] = loss
        progress.accuracy[progress.step] = accuracy

    examples = TaskExamples(task, options.batch_size, options.seed)
    identity = {"task": name, **(saving.identity or {})}
    return fit(
        model, examples, validate, options, Saving(saving.state, saving.resume, identity), report
    )


def find_task(name: str) -> Task:
    """Return the task of a name.

    Raises:
        ValueError: there is none.
    """
    if name not in TASKS:
        raise ValueError(f"no task {name!r}; there are {', '.join(TASKS)}")
    return TASKS[name]


def repeated(random: np.random.Generator, sizes: tuple[int, int] = (8, 14)) -> Line:
    """Draw a circle of 8 to 14 of 16 letters; write pieces of it that begin anywhere.

    A piece ends with a space after one letter in ten, never one of the first two. Where a pair of
    letters stood before differs from piece to piece: only the letters themselves tell where to
    look. A letter is determined once it has followed its predecessor before.
    """
    size = int(random.integers(sizes[0], sizes[1] + 1))
    circle = "".join(random.permutation(list(string.ascii_lowercase[:16]))[:size])
    text = ""
    while len(text) < 32:
        start, letters = int(random.integers(size)), 2 + int(random.geometric(0.1))
        text += (6 * circle)[start : start + letters] + " "
    pairs = [text[:1], *(text[i : i + 2] for i in range(31))]  # that end at each position
    return text[:32], [" " not in pair and pair in pairs[1:i] for i, pair in enumerate(pairs)]


def brackets(random: np.random.Generator) -> Line:
    """Draw brackets that open and close rightly, then close whatever is open.

    After `=` the brackets still open are closed, the innermost first: all of it is determined.
    """
    closing = {"(": ")", "[": "]", "{": "}", "<": ">"}
    text, expected = "", ""
    for _ in range(20):
        if expected and (len(expected) == 10 or random.random() < 0.45):
            text, expected = text + expected[0], expected[1:]
        else:
            opened = str(random.choice(list(closing)))
            text, expected = text + opened, closing[opened] + expected
    return _with_answer(text, expected)


def recall(random: np.random.Generator) -> Line:
    """Draw pairs of a letter and a digit, then ask for the digits of the letters in any order."""
    letters = random.permutation(list(string.ascii_lowercase))[:8]
    digits = random.choice(list(string.digits), 8)
    pairs = [f"{letter}{digit}" for letter, digit in zip(letters, digits, strict=True)]
    asked = [pairs[i] for i in random.permutation(8)]
    text = "".join(pairs) + "=" + "".join(asked)
    return text, [position > 16 and position % 2 == 0 for position in range(len(text))]


def sorting(random: np.random.Generator) -> Line:
    """Draw letters, then give them in the order of the alphabet."""
    letters = random.choice(list(string.ascii_lowercase), 12)
    return _with_answer("".join(letters), "".join(sorted(letters)))


def _with_answer(text: str, answer: str) -> Line:
    """Join a question and its answer; the end of the line is determined too."""
    return f"{text}={answer}", [False] * (len(text) + 1) + [True] * (len(answer) + 1)


TASKS = {
    task.name: task
    for task in (
        Task("induction", 31, False, repeated, "What came after this letter before?"),
        Task("brackets", 31, True, brackets, "Brackets have opened: close those still open."),
        Task("recall", 32, True, recall, "Letters had digits: which digit had this letter?"),
        Task("sorting", 25, True, sorting, "Letters in any order: give them in the alphabet's."),
    )
}
