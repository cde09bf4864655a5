"""Drawing a token: temperature, top-k, top-p, repetition penalty."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from zeta_edu.checks import number, positive_integer, random_seed

SMALLEST = 1e-4  # of what logits are divided by: below, they leave float32


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn.

    Args:
        temperature: what the logits are divided by; 0 always takes the likeliest token.
        top_k: draw from the k likeliest tokens only.
        top_p: draw from the fewest likeliest tokens whose probabilities reach p together.
        repetition_penalty: what the logits of tokens that are there already are divided by, or
            multiplied with where they are negative; 1 leaves them.
        seed: of the draws; another result each time when not given.

    Raises:
        TypeError, ValueError: an option is not a number, or outside what it may be; it is named.

    Source: top-k from Fan, Lewis and Dauphin, "Hierarchical Neural Story Generation", 2018;
    top-p from Holtzman et al., "The Curious Case of Neural Text Degeneration", 2020;
    the penalty from Keskar et al., "CTRL", 2019, section 4.1.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    seed: int | None = None
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        if number("temperature", self.temperature) and self.temperature < SMALLEST:
            raise ValueError(
                f"temperature must be 0 or at least {SMALLEST:g}, got {self.temperature}"
            )
        if self.top_k is not None:
            positive_integer("top_k", self.top_k)
        if self.top_p is not None and not 0 < number("top_p", self.top_p) <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1, got {self.top_p}")
        if number("repetition_penalty", self.repetition_penalty) < SMALLEST:
            raise ValueError(
                f"repetition_penalty must be at least {SMALLEST:g}, got {self.repetition_penalty}"
            )
        if self.seed is not None:
            random_seed("seed", self.seed)

    def generator(self, device: torch.device) -> torch.Generator:
        """Return a source of randomness of its own: torch's global one is left alone."""
        generator = torch.Generator(device)
        if self.seed is None:
            generator.seed()
        else:
            generator.manual_seed(self.seed)
        return generator


AS_IT_IS = Sampling()  # from the model's own probabilities


def choose(
    logits: Float[Tensor, "batch num_tokens"],
    sampling: Sampling,
    generator: torch.Generator,
    seen: Bool[Tensor, "batch num_tokens"] | None = None,
) -> Int[Tensor, " batch"]:
    """Draw a token for each row of logits.

    Args:
        logits: (batch, num_tokens).
        sampling: how.
        generator: the source of randomness.
        seen: the tokens that are there already, for the repetition penalty.

    Returns:
        Ids (batch,).
    """
    if seen is not None and sampling.repetition_penalty != 1:
        logits = _penalised(logits, seen, sampling.repetition_penalty)
    if sampling.temperature == 0:
        return logits.argmax(dim=-1)
    logits = logits.float() / sampling.temperature
    if sampling.top_k is not None:
        logits = _keep_top_k(logits, sampling.top_k)
    if sampling.top_p is not None:
        logits = _keep_top_p(logits, sampling.top_p)
    return torch.multinomial(logits.softmax(dim=-1), 1, generator=generator)[:, 0]


def _penalised(
    logits: Float[Tensor, "batch num_tokens"], seen: Bool[Tensor, "batch num_tokens"], by: float
) -> Float[Tensor, "batch num_tokens"]:
    # The sign decides, so that a penalty above 1 always makes a token less likely.
    lowered = torch.where(logits > 0, logits / by, logits * by)
    return torch.where(seen, lowered, logits)


def _keep_top_k(
    logits: Float[Tensor, "batch num_tokens"], top_k: int
) -> Float[Tensor, "batch num_tokens"]:
    kept = logits.topk(min(top_k, logits.shape[-1]), dim=-1)
    # By index, not by value: of equal logits at the border only k may stay.
    return torch.full_like(logits, -torch.inf).scatter(-1, kept.indices, kept.values)


def _keep_top_p(
    logits: Float[Tensor, "batch num_tokens"], top_p: float
) -> Float[Tensor, "batch num_tokens"]:
    ordered, indices = logits.sort(dim=-1, descending=True)
    probabilities = ordered.softmax(dim=-1)
    # A token stays while those before it have not reached p, so the first always stays.
    reached_before = probabilities.cumsum(dim=-1) - probabilities >= top_p
    reached_before[:, 0] = False
    return logits.scatter(-1, indices, ordered.masked_fill(reached_before, -torch.inf))
