"""Generation: one token after another, each drawn from the model's prediction."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

if TYPE_CHECKING:
    from zeta_edu.lm.model import TransformerLM

Stop = str | int | Sequence[str | int] | None


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn.

    Args:
        temperature: what the logits are divided by; 0 always takes the likeliest token.
        top_k: draw from the k likeliest tokens only.
        top_p: draw from the fewest likeliest tokens whose probabilities reach p together.
        seed: of the draws; another result each time when not given.

    Source: top-k from Fan, Lewis and Dauphin, "Hierarchical Neural Story Generation", 2018;
    top-p from Holtzman et al., "The Curious Case of Neural Text Degeneration", 2020.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature must be 0 or a positive number, got {self.temperature}")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k must be at least 1, got {self.top_k}")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1, got {self.top_p}")

    def generator(self, device: torch.device) -> torch.Generator:
        """Return a source of randomness of its own: torch's global one is left alone."""
        generator = torch.Generator(device)
        if self.seed is None:
            generator.seed()
        else:
            generator.manual_seed(self.seed)
        return generator


def choose(
    logits: Float[Tensor, "batch num_tokens"], sampling: Sampling, generator: torch.Generator
) -> Int[Tensor, " batch"]:
    """Draw a token for each row of logits.

    Args:
        logits: (batch, num_tokens).
        sampling: how.
        generator: the source of randomness.

    Returns:
        Ids (batch,).
    """
    if sampling.temperature == 0:
        return logits.argmax(dim=-1)
    logits = logits.float() / sampling.temperature
    if sampling.top_k is not None:
        logits = _keep_top_k(logits, sampling.top_k)
    if sampling.top_p is not None:
        logits = _keep_top_p(logits, sampling.top_p)
    return torch.multinomial(logits.softmax(dim=-1), 1, generator=generator)[:, 0]


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


def generate(
    model: "TransformerLM",
    prompt: str | Tensor,
    max_new_tokens: int,
    sampling: Sampling = Sampling(),
    stop: Stop = None,
) -> str | Tensor:
    """Continue a prompt.

    Args:
        model: a text prompt needs its `tokenizer`.
        prompt: a text, or ids (n,) or (batch, n) with at least one token.
        max_new_tokens: most tokens to add.
        sampling: how each token is drawn.
        stop: a string or an id, or several, that end the continuation. A text ends before the
            stop, and always at the end of a document. Ids end with it; in a batch, a row that
            has ended is filled with the id it ended on.

    Returns:
        The prompt and its continuation: text for text, ids with the prompt's axes for ids.

    Raises:
        TypeError, ValueError: an argument is not of the kind above, or an id out of range.

    >>> from zeta_edu.lm import TransformerLM
    >>> model = TransformerLM(num_tokens=50, dim=16, depth=1, heads=2, dim_head=8)
    >>> generate(model, torch.tensor([1, 2, 3]), 4).shape
    torch.Size([7])
    """
    if isinstance(prompt, str):
        return prompt + "".join(_stream_text(model, prompt, max_new_tokens, sampling, stop))
    _check_count(max_new_tokens)
    tokens = _as_batch(model, prompt)
    new = list(_new_tokens(model, tokens, max_new_tokens, sampling, _stop_ids(stop)))
    tokens = torch.cat([tokens, *(token[:, None] for token in new)], dim=1)
    return tokens[0] if prompt.ndim == 1 else tokens


def stream(
    model: "TransformerLM",
    prompt: str | Tensor,
    max_new_tokens: int,
    sampling: Sampling = Sampling(),
    stop: Stop = None,
) -> Iterator[str] | Iterator[Tensor]:
    """Continue a prompt, handing out each piece as soon as it is certain.

    Args:
        model: a text prompt needs its `tokenizer`.
        prompt: as for `generate`.
        max_new_tokens: as for `generate`.
        sampling: as for `generate`.
        stop: as for `generate`.

    Returns:
        An iterator over pieces of the new text, or over ids (batch,), one per new token.

    Raises:
        TypeError, ValueError: as for `generate`.
    """
    if isinstance(prompt, str):
        return _stream_text(model, prompt, max_new_tokens, sampling, stop)
    _check_count(max_new_tokens)
    tokens = _as_batch(model, prompt)
    return _new_tokens(model, tokens, max_new_tokens, sampling, _stop_ids(stop))


def _stream_text(
    model: "TransformerLM", prompt: str, max_new_tokens: int, sampling: Sampling, stop: Stop
) -> Iterator[str]:
    _check_count(max_new_tokens)
    tokenizer = model.tokenizer
    if tokenizer is None:
        raise ValueError("prompt is a text, but the model has no tokenizer; give ids")
    stop_strings, stop_ids = _split_stop(stop)
    stop_ids = stop_ids | {tokenizer.start}
    ids = tokenizer.encode(prompt) or [tokenizer.start]
    tokens = torch.tensor([ids], device=model.embedding.weight.device)
    new = _new_tokens(model, tokens, max_new_tokens, sampling, stop_ids)
    kept = (i for token in new if (i := int(token)) not in stop_ids)
    return cut_at(tokenizer.decode_each(kept), stop_strings)


def _check_count(max_new_tokens: int) -> None:
    if isinstance(max_new_tokens, bool) or not isinstance(max_new_tokens, int):
        raise TypeError(f"max_new_tokens must be an int, got {type(max_new_tokens).__name__}")
    if max_new_tokens < 0:
        raise ValueError(f"max_new_tokens must not be negative, got {max_new_tokens}")


def _as_batch(model: "TransformerLM", prompt: Tensor) -> Int[Tensor, "batch n"]:
    if not isinstance(prompt, Tensor):
        raise TypeError(f"prompt must be a str or a tensor of ids, got {type(prompt).__name__}")
    if prompt.ndim not in (1, 2) or prompt.shape[-1] == 0:
        raise ValueError(
            f"prompt must have shape (n,) or (batch, n) with n at least 1, got "
            f"{tuple(prompt.shape)}"
        )
    return prompt.to(model.embedding.weight.device).reshape(-1, prompt.shape[-1])


def _new_tokens(
    model: "TransformerLM",
    tokens: Int[Tensor, "batch n"],
    max_new_tokens: int,
    sampling: Sampling,
    stop_ids: frozenset[int],
) -> Iterator[Int[Tensor, " batch"]]:
    """Yield one new token per row at a time, until every row has met a stop id."""
    generator = sampling.generator(tokens.device)
    cache = model.new_cache(len(tokens))
    stops = torch.tensor(sorted(stop_ids), dtype=tokens.dtype, device=tokens.device)
    ended = torch.zeros(len(tokens), dtype=torch.bool, device=tokens.device)
    last = tokens[:, -1]
    for _ in range(max_new_tokens):
        with _evaluating(model):
            logits = model(tokens, cache=cache)[:, -1]
        drawn = choose(logits, sampling, generator).to(tokens.dtype)
        last = torch.where(ended, last, drawn)
        yield last
        ended = ended | torch.isin(last, stops)
        if ended.all():
            return
        tokens = last[:, None]


@contextmanager
def _evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients for one step, so that no mode leaks while suspended."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


def _split_stop(stop: Stop) -> tuple[list[str], frozenset[int]]:
    stops = [] if stop is None else [stop] if isinstance(stop, str | int) else list(stop)
    for one in stops:
        if isinstance(one, bool) or not isinstance(one, str | int) or one == "":
            raise ValueError(f"stop must be ids or strings that are not empty, got {one!r}")
    strings = [one for one in stops if isinstance(one, str)]
    return strings, frozenset(one for one in stops if isinstance(one, int))


def _stop_ids(stop: Stop) -> frozenset[int]:
    strings, ids = _split_stop(stop)
    if strings:
        raise ValueError(f"stop holds the string {strings[0]!r}, but the prompt is ids; give ids")
    return ids


def cut_at(pieces: Iterator[str], stops: Sequence[str]) -> Iterator[str]:
    """Pass text on up to the first stop, holding back what may be the beginning of one."""
    held = ""
    for piece in pieces:
        held += piece
        found = [held.index(stop) for stop in stops if stop in held]
        if found:
            yield held[: min(found)]
            return
        certain = len(held) - _possible_beginning(held, stops)
        if certain:
            yield held[:certain]
            held = held[certain:]
    if held:
        yield held


def _possible_beginning(text: str, stops: Sequence[str]) -> int:
    """Return the length of the longest end of the text with which some stop begins."""
    longest = max(map(len, stops), default=1) - 1
    lengths = range(min(longest, len(text)), 0, -1)
    return next((n for n in lengths if any(s.startswith(text[-n:]) for s in stops)), 0)
