"""Generation: one token after another, each drawn from the model's prediction."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int
from torch import Tensor

from zeta_edu.lm.sampling import AS_IT_IS, Sampling, choose
from zeta_edu.lm.stopping import Stop, cut_at, ids_of_stop, split_stop
from zeta_edu.modes import evaluating

if TYPE_CHECKING:
    from zeta_edu.lm.model import TransformerLM

__all__ = ["Sampling", "choose", "cut_at", "generate", "stream"]

# Compiled forward passes by model: compiling takes longer than many a continuation.
_COMPILED: "WeakKeyDictionary[torch.nn.Module, Callable[..., Tensor]]" = WeakKeyDictionary()


def generate(
    model: "TransformerLM",
    prompt: str | Tensor | Sequence[str] | Sequence[Tensor],
    max_new_tokens: int,
    sampling: Sampling = AS_IT_IS,
    stop: Stop = None,
    *,
    compile: bool = False,
) -> Any:
    """Continue a prompt, or several at once.

    Args:
        model: a text prompt needs its `tokenizer`.
        prompt: a text, or ids (n,) or (batch, n) with at least one token; or a list of texts or
            of ids (n,), whose lengths may differ: they are padded on the left.
        max_new_tokens: most tokens to add.
        sampling: how each token is drawn.
        stop: a string or an id, or several, that end the continuation. A text ends before the
            stop, and always at the end of a document. Ids end with it; in a batch, a row that
            has ended is filled with the id it ended on.
        compile: compile the model with torch.compile, over a cache of fixed size. It takes up to
            a minute the first time, and pays for long continuations.

    Returns:
        The prompt and its continuation: text for text, ids with the prompt's axes for ids; for a
        list, a list of them.

    Raises:
        TypeError, ValueError: an argument is not of the kind above, or an id out of range.

    >>> from zeta_edu.lm import TransformerLM
    >>> model = TransformerLM(num_tokens=50, dim=16, depth=1, heads=2, dim_head=8)
    >>> generate(model, torch.tensor([1, 2, 3]), 4).shape
    torch.Size([7])
    >>> [len(ids) for ids in generate(model, [torch.tensor([1]), torch.tensor([1, 2])], 4)]
    [5, 6]
    """
    _check_count(max_new_tokens)
    run = _Run(model, max_new_tokens, sampling, compile)
    if isinstance(prompt, str):
        return prompt + "".join(_stream_text(run, prompt, stop))
    if isinstance(prompt, list | tuple):
        if not prompt:
            return []
        if all(isinstance(one, str) for one in prompt):
            return _continue_texts(run, prompt, stop)
        rows = [_as_row(model, f"prompt[{i}]", ids) for i, ids in enumerate(prompt)]
        new = list(run.new_tokens(*_padded(rows), ids_of_stop(stop)))
        return [
            torch.cat([ids, *(token[i : i + 1] for token in new)]) for i, ids in enumerate(rows)
        ]
    tokens = _as_batch(model, prompt)
    new = list(run.new_tokens(tokens, None, ids_of_stop(stop)))
    tokens = torch.cat([tokens, *(token[:, None] for token in new)], dim=1)
    return tokens[0] if cast(Tensor, prompt).ndim == 1 else tokens


def stream(
    model: "TransformerLM",
    prompt: str | Tensor,
    max_new_tokens: int,
    sampling: Sampling = AS_IT_IS,
    stop: Stop = None,
    *,
    compile: bool = False,
) -> Iterator[str] | Iterator[Tensor]:
    """Continue a prompt, handing out each piece as soon as it is certain.

    Args:
        model: a text prompt needs its `tokenizer`.
        prompt: as for `generate`, but one.
        max_new_tokens: as for `generate`.
        sampling: as for `generate`.
        stop: as for `generate`.
        compile: as for `generate`.

    Returns:
        An iterator over pieces of the new text, or over ids (batch,), one per new token.

    Raises:
        TypeError, ValueError: as for `generate`.
    """
    _check_count(max_new_tokens)
    run = _Run(model, max_new_tokens, sampling, compile)
    if isinstance(prompt, str):
        return _stream_text(run, prompt, stop)
    return run.new_tokens(_as_batch(model, prompt), None, ids_of_stop(stop))


class _Run:
    """One continuation: the model, how many tokens, and how they are drawn."""

    def __init__(
        self, model: "TransformerLM", max_new_tokens: int, sampling: Sampling, compile: bool
    ) -> None:
        self.model, self.sampling, self.compile = model, sampling, compile
        self.max_new_tokens = max_new_tokens

    def new_tokens(
        self,
        tokens: Int[Tensor, "batch n"],
        keep: Bool[Tensor, "batch n"] | None,
        stop_ids: frozenset[int],
    ) -> Iterator[Int[Tensor, " batch"]]:
        """Yield one new token per row at a time, until every row has met a stop id.

        `keep` is False where a row is padded.
        """
        generator = self.sampling.generator(tokens.device)
        predict = self._predictor(tokens, keep)
        seen = self._seen(tokens, keep)
        stops = torch.tensor(sorted(stop_ids), dtype=tokens.dtype, device=tokens.device)
        ended = torch.zeros(len(tokens), dtype=torch.bool, device=tokens.device)
        last = tokens[:, -1]
        for _ in range(self.max_new_tokens):
            with evaluating(self.model), torch.no_grad():  # no mode leaks while suspended
                logits = predict(tokens)[:, -1]
            drawn = choose(logits, self.sampling, generator, seen).to(tokens.dtype)
            last = torch.where(ended, last, drawn)
            yield last
            ended = ended | torch.isin(last, stops)
            if ended.all():
                return
            tokens = last[:, None]
            if seen is not None:
                seen = seen.scatter(1, tokens.long(), True)

    def _predictor(
        self, tokens: Int[Tensor, "batch n"], keep: Bool[Tensor, "batch n"] | None
    ) -> Callable[[Tensor], Tensor]:
        """Return what gives the logits after more tokens, with a cache of those before."""
        length = tokens.shape[1] + self.max_new_tokens
        cache = self.model.new_cache(len(tokens), length if self.compile else None)
        forward = self._forward(tokens)
        if keep is None:
            return lambda new: forward(new, cache=cache)
        mask = F.pad(keep, (0, self.max_new_tokens), value=True)
        return lambda new: forward(new, mask[:, : cache.length + new.shape[1]], cache=cache)

    def _forward(self, tokens: Tensor) -> Callable[..., Tensor]:
        if not self.compile:
            return self.model
        self.model.check_tokens(tokens)  # compiled code does not
        if self.model not in _COMPILED:
            _COMPILED[self.model] = torch.compile(self.model)
        return _COMPILED[self.model]

    def _seen(
        self, tokens: Int[Tensor, "batch n"], keep: Bool[Tensor, "batch n"] | None
    ) -> Bool[Tensor, "batch num_tokens"] | None:
        """Return the tokens that a prompt has, padding aside; None when nobody asks."""
        if self.sampling.repetition_penalty == 1:
            return None
        ones = torch.ones_like(tokens) if keep is None else keep.to(tokens.dtype)
        counts = tokens.new_zeros(len(tokens), self.model.config["num_tokens"])
        return counts.scatter_add(1, tokens.long(), ones) > 0


def _stream_text(run: _Run, prompt: str, stop: Stop) -> Iterator[str]:
    strings, stop_ids, ids = _encoded(run.model, [prompt], stop)
    new = run.new_tokens(ids[0][None], None, stop_ids)
    kept = (i for token in new if (i := int(token)) not in stop_ids)
    return cut_at(run.model.tokenizer.decode_each(kept), strings)


def _continue_texts(run: _Run, prompts: Sequence[str], stop: Stop) -> list[str]:
    """Continue several texts at once; each ends at its own stop, all when the last one has."""
    strings, stop_ids, ids = _encoded(run.model, prompts, stop)
    tokenizer = run.model.tokenizer
    rows: list[list[int]] = [[] for _ in prompts]
    texts = [""] * len(prompts)
    over = [False] * len(prompts)
    for token in run.new_tokens(*_padded(ids), stop_ids):
        for i, number in enumerate(token.tolist()):
            if not over[i] and number not in stop_ids:
                rows[i].append(number)
                texts[i] = "".join(cut_at(tokenizer.decode_each(rows[i]), strings))
            over[i] |= number in stop_ids or any(s in tokenizer.decode(rows[i]) for s in strings)
        if all(over):
            break
    return [prompt + text for prompt, text in zip(prompts, texts, strict=True)]


def _encoded(
    model: "TransformerLM", prompts: Sequence[str], stop: Stop
) -> tuple[list[str], frozenset[int], list[Int[Tensor, " n"]]]:
    """Return the strings and the ids that end texts, and the ids of the prompts."""
    if model.tokenizer is None:
        raise ValueError("prompt is a text, but the model has no tokenizer; give ids")
    strings, stop_ids = split_stop(stop)
    start, device = model.tokenizer.start, model.embedding.weight.device
    ids = [model.tokenizer.encode(prompt) or [start] for prompt in prompts]
    return strings, stop_ids | {start}, [torch.tensor(row, device=device) for row in ids]


def _padded(
    rows: Sequence[Int[Tensor, " n"]],
) -> tuple[Int[Tensor, "batch longest"], Bool[Tensor, "batch longest"] | None]:
    """Return rows of one length, padded on the left, and where they are not; None if nowhere."""
    longest = max(map(len, rows))
    tokens = torch.stack([F.pad(row, (longest - len(row), 0)) for row in rows])
    if min(map(len, rows)) == longest:
        return tokens, None
    lengths = torch.tensor([len(row) for row in rows], device=tokens.device)
    return tokens, torch.arange(longest, device=tokens.device) >= longest - lengths[:, None]


def _check_count(max_new_tokens: int) -> None:
    if isinstance(max_new_tokens, bool) or not isinstance(max_new_tokens, int):
        raise TypeError(f"max_new_tokens must be an int, got {type(max_new_tokens).__name__}")
    if max_new_tokens < 0:
        raise ValueError(f"max_new_tokens must not be negative, got {max_new_tokens}")


def _as_row(model: "TransformerLM", name: str, ids: Any) -> Int[Tensor, " n"]:
    if isinstance(ids, Tensor) and (ids.ndim != 1 or not len(ids)):
        raise ValueError(f"{name} must have shape (n,) with n at least 1, got {tuple(ids.shape)}")
    return _as_batch(model, ids)[0]


def _as_batch(model: "TransformerLM", prompt: Any) -> Int[Tensor, "batch n"]:
    if not isinstance(prompt, Tensor):
        raise TypeError(
            f"prompt must be a str or a tensor of ids, or a list of them, got "
            f"{type(prompt).__name__}"
        )
    if prompt.ndim not in (1, 2) or prompt.shape[-1] == 0:
        raise ValueError(
            f"prompt must have shape (n,) or (batch, n) with n at least 1, got "
            f"{tuple(prompt.shape)}"
        )
    return prompt.to(model.embedding.weight.device).reshape(-1, prompt.shape[-1])
