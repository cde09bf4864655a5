"""The exercises of lesson 09: pairs in calls, one step, a chunk, fading while reading."""

import torch
from einops import rearrange, repeat
from torch import Tensor

from zeta_edu.exercises.exercise import Arguments, Exercise, Mistake

LESSON = "09 the KV cache"


def _draw(*shapes: tuple[int, ...], seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in shapes]


# How many pairs of a query and a key each call computes.


def _calls() -> list[Arguments]:
    return [{"new": torch.tensor(new)} for new in ([2, 1], [4, 1, 1, 3], [1, 1, 5, 2, 7])]


PAIRS = Exercise(
    name="cache.pairs",
    inputs=_calls,
    solution=lambda new: new * new.cumsum(dim=0),
    mistakes=(
        Mistake(
            "This is the work without a cache: only the new tokens have queries.",
            lambda new: new.cumsum(dim=0) ** 2,
        ),
        Mistake(
            "The new tokens' own keys are missing; they are in the cache when it is read.",
            lambda new: new * (new.cumsum(dim=0) - new),
        ),
        Mistake(
            "New queries meet new keys only; what the cache holds is missing.",
            lambda new: new * new,
        ),
        Mistake(
            "These are the keys that a call reads; each of its queries meets all of them.",
            lambda new: new.cumsum(dim=0),
        ),
        Mistake(
            "The hidden pairs are left out; a product of matrices computes them as well.",
            lambda new: new * new.cumsum(dim=0) - new * (new - 1) // 2,
        ),
        Mistake(
            "These are all pairs up to each call; asked is each call's own number.",
            lambda new: (new * new.cumsum(dim=0)).cumsum(dim=0),
        ),
        Mistake(
            "Every call is taken to read the whole text; it reads what has come so far.",
            lambda new: new * new.sum(),
        ),
    ),
    hints=(
        "A call has a query for each of its own tokens, and a key for each token so far.",
        "`new.cumsum(dim=0)` is how many tokens have come by the end of each call.",
        "The number of pairs is the product of the two.",
    ),
    verified="right for texts in two, four and five calls.",
    gradients=False,
)


# One step of several heads that share keys and values.


def _heads() -> list[Arguments]:
    drawn = [
        _draw((2, 2), (1, 2, 2), (1, 2, 2), seed=1),
        _draw((4, 3), (2, 5, 3), (2, 5, 3), seed=2),
        _draw((6, 8), (3, 9, 8), (3, 9, 8), seed=3),
    ]
    return [dict(zip(("query", "keys", "values"), inputs, strict=True)) for inputs in drawn]


def _step(query: Tensor, keys: Tensor, values: Tensor, scale: float | None = None) -> Tensor:
    grouped = rearrange(query, "(kv g) d -> kv g d", kv=len(keys))
    scores = grouped @ keys.mT * (query.shape[-1] ** -0.5 if scale is None else scale)
    return rearrange(scores.softmax(dim=-1) @ values, "kv g d -> (kv g) d")


def _in_turn(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Head h reads key head h modulo their number."""
    group = len(query) // len(keys)
    keys, values = (repeat(t, "kv n d -> (g kv) n d", g=group) for t in (keys, values))
    return _step(query, keys, values)


def _over_heads(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    grouped = rearrange(query, "(kv g) d -> kv g d", kv=len(keys))
    weights = (grouped @ keys.mT / query.shape[-1] ** 0.5).softmax(dim=-2)
    return rearrange(weights @ values, "kv g d -> (kv g) d")


STEP = Exercise(
    name="cache.step",
    inputs=_heads,
    solution=_step,
    mistakes=(
        Mistake(
            "The scores are not divided by √d.",
            lambda query, keys, values: _step(query, keys, values, scale=1.0),
        ),
        Mistake(
            "Query heads take the key heads in turn; heads in a row should share one.",
            _in_turn,
        ),
        Mistake(
            "All query heads read key head 0.",
            lambda query, keys, values: _step(query, keys[:1], values[:1]),
        ),
        Mistake(
            "The softmax is over the heads; it belongs on the kept tokens.",
            _over_heads,
        ),
        Mistake(
            "The last token is left out; the new token sees itself.",
            lambda query, keys, values: _step(query, keys[:, :-1], values[:, :-1]),
        ),
        Mistake(
            "Only the first token is seen: a mask counts the one query from 0. It needs no mask.",
            lambda query, keys, values: _step(query, keys[:, :1], values[:, :1]),
        ),
        Mistake(
            "Keys and values are exchanged.",
            lambda query, keys, values: _step(query, values, keys),
        ),
    ),
    hints=(
        "No mask is needed: everything that is kept is the past, or the token itself.",
        '`rearrange(query, "(kv g) d -> kv g d", kv=len(keys))` groups the heads.',
        "`grouped @ keys.mT` is (kv, g, n); scale it, take softmax over n, multiply by the values.",
    ),
    verified="right for two, four and six heads, the gradients too.",
)


# A chunk: several queries, the last of the positions.


def _chunks() -> list[Arguments]:
    drawn = [
        _draw((2, 2), (3, 2), (3, 2), seed=4),
        _draw((3, 4), (7, 4), (7, 4), seed=5),
        _draw((4, 8), (4, 8), (4, 8), seed=6),
    ]
    return [dict(zip(("queries", "keys", "values"), inputs, strict=True)) for inputs in drawn]


def _chunk(queries: Tensor, keys: Tensor, values: Tensor, diagonal: int | None = None) -> Tensor:
    """Attention in which query i sees the keys up to i + diagonal."""
    past = len(keys) - len(queries) if diagonal is None else diagonal
    later = torch.ones(len(queries), len(keys), dtype=torch.bool).triu(past + 1)
    scores = queries @ keys.T / queries.shape[-1] ** 0.5
    return scores.masked_fill(later, -torch.inf).softmax(dim=-1) @ values


CHUNK = Exercise(
    name="cache.chunk",
    inputs=_chunks,
    solution=_chunk,
    mistakes=(
        Mistake(
            "The mask counts the queries from 0, but they are the last of the positions.",
            lambda queries, keys, values: _chunk(queries, keys, values, 0),
        ),
        Mistake(
            "Nothing is hidden: a new token sees the new ones after it.",
            lambda queries, keys, values: _chunk(queries, keys, values, len(keys)),
        ),
        Mistake(
            "A token sees the one after it: the mask begins one place too late.",
            lambda queries, keys, values: _chunk(
                queries, keys, values, len(keys) - len(queries) + 1
            ),
        ),
        Mistake(
            "A token does not see itself, and the first token sees nothing.",
            lambda queries, keys, values: _chunk(
                queries, keys, values, len(keys) - len(queries) - 1
            ),
        ),
        Mistake(
            "Only what was cached is read; the keys of the new tokens are missing.",
            lambda queries, keys, values: _chunk(
                queries,
                keys[: max(1, len(keys) - len(queries))],
                values[: max(1, len(keys) - len(queries))],
                len(keys),
            ),
        ),
        Mistake(
            "The scores are not divided by √d.",
            lambda queries, keys, values: _chunk(queries * queries.shape[-1] ** 0.5, keys, values),
        ),
    ),
    hints=(
        "The first new token stands at position `len(keys) - len(queries)`.",
        "If `at = torch.arange(len(keys))`, the queries are at `at[len(keys) - len(queries) :]`.",
        "Hide where the key's position is greater than the query's, before the softmax.",
    ),
    verified="right with an empty cache and with one and four tokens in it, the gradients too.",
)


# Turned keys, kept without fading, fade when they are read.


def _turned() -> list[Arguments]:
    drawn = [
        [torch.ones(2), torch.ones(3, 2), torch.tensor([0.5])],
        [*_draw((4,), (5, 4), seed=7), torch.tensor([0.3, 0.7])],
        [*_draw((8,), (20, 8), seed=8), torch.tensor([0.3, 0.45, 0.65, 0.8])],
    ]
    return [dict(zip(("query", "keys", "zeta"), inputs, strict=True)) for inputs in drawn]


def _faded(query: Tensor, keys: Tensor, zeta: Tensor, distances: Tensor | None = None) -> Tensor:
    if distances is None:
        distances = torch.arange(len(keys) - 1, -1, -1)
    factors = (zeta ** (distances[:, None] / 8)).repeat(1, 2)
    return (keys * factors) @ query / len(query) ** 0.5


def _interleaved(query: Tensor, keys: Tensor, zeta: Tensor) -> Tensor:
    distances = torch.arange(len(keys) - 1, -1, -1)
    factors = (zeta ** (distances[:, None] / 8)).repeat_interleave(2, dim=1)
    return (keys * factors) @ query / len(query) ** 0.5


FADE = Exercise(
    name="cache.fade",
    inputs=_turned,
    solution=_faded,
    mistakes=(
        Mistake(
            "The keys grow with distance; the exponent is the distance, not its negative.",
            lambda query, keys, zeta: _faded(query, keys, zeta, -torch.arange(len(keys)).flip(0)),
        ),
        Mistake(
            "Late keys fade instead of early ones: position is not distance.",
            lambda query, keys, zeta: _faded(query, keys, zeta, torch.arange(len(keys))),
        ),
        Mistake(
            "The last key fades too: it is the query's own, at distance 0.",
            lambda query, keys, zeta: _faded(query, keys, zeta, torch.arange(len(keys), 0, -1)),
        ),
        Mistake(
            "Nothing fades; that is rotation alone.",
            lambda query, keys, zeta: _faded(query, keys, zeta, torch.zeros(len(keys))),
        ),
        Mistake(
            "The scale base is missing: after 8 positions a pair has faded to zeta.",
            lambda query, keys, zeta: _faded(
                query, keys, zeta, 8 * torch.arange(len(keys)).flip(0)
            ),
        ),
        Mistake(
            "The factors are interleaved; features i and i + d/2 make a pair and share one.",
            _interleaved,
        ),
        Mistake(
            "The scores are not divided by √d.",
            lambda query, keys, zeta: _faded(query, keys, zeta) * len(query) ** 0.5,
        ),
        Mistake(
            "Products fade twice: query and key both take the whole distance.",
            lambda query, keys, zeta: _faded(
                query, keys, zeta, 2 * torch.arange(len(keys)).flip(0)
            ),
        ),
    ),
    hints=(
        "The last key has the distance 0, the first n − 1.",
        "`zeta ** (distances[:, None] / 8)` is what is left of each pair at each distance.",
        "Pairs are features i and i + d/2: `.repeat(1, 2)` puts the factors behind themselves.",
    ),
    verified="right for one, two and four pairs, the gradients too.",
)

EXERCISES = (PAIRS, STEP, CHUNK, FADE)
