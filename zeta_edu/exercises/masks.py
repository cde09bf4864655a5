"""The exercises of lesson 03: padding, a window, texts side by side, softmax under a mask."""

import torch
from torch import Tensor

from zeta_edu.exercises.exercise import Arguments, Exercise, Mistake

LESSON = "03 masks"


def _draw(*shapes: tuple[int, ...], seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in shapes]


def _earlier(keys: int, queries: int | None = None) -> Tensor:
    """True where a key is not later than the query; the queries are the last positions."""
    positions = torch.arange(keys)
    return positions <= positions[keys - (keys if queries is None else queries) :, None]


# Padding and causality, from tokens.


def _padded_texts() -> list[Arguments]:
    texts = (
        [[5, 7, 0]],
        [[0, 5, 7], [4, 5, 6]],
        [[0, 0, 3, 3, 1], [2, 4, 1, 0, 0], [9, 8, 7, 6, 5]],
    )
    return [{"tokens": torch.tensor(text)} for text in texts]


def _visible(tokens: Tensor) -> Tensor:
    return _earlier(tokens.shape[1]) & (tokens != 0)[:, None, None]


PADDING = Exercise(
    name="masks.padding",
    inputs=_padded_texts,
    solution=_visible,
    mistakes=(
        Mistake(
            "True stands where a key is hidden; it should stand where a key may be seen.",
            lambda tokens: ~_visible(tokens),
        ),
        Mistake(
            "The padding hides queries; it should hide keys, the last axis.",
            lambda tokens: _earlier(tokens.shape[1]) & (tokens != 0)[:, None, :, None],
        ),
        Mistake(
            "A token sees later ones; it should see itself and those before it.",
            lambda tokens: (tokens != 0)[:, None, None].expand(-1, 1, tokens.shape[1], -1),
        ),
        Mistake(
            "The padding is seen; a key that is 0 should be hidden from all.",
            lambda tokens: _earlier(tokens.shape[1]).expand(len(tokens), 1, -1, -1),
        ),
        Mistake(
            "One reason to see a key is enough here; both must hold: `&`, not `|`.",
            lambda tokens: _earlier(tokens.shape[1]) | (tokens != 0)[:, None, None],
        ),
        Mistake(
            "A token does not see itself; it should: `<=`, not `<`.",
            lambda tokens: (
                _earlier(tokens.shape[1]).tril(diagonal=-1) & (tokens != 0)[:, None, None]
            ),
        ),
        Mistake(
            "The axis of the heads is missing; the result is (batch, 1, query, key).",
            lambda tokens: _visible(tokens)[:, 0],
        ),
    ),
    hints=(
        "Two tables, each True where a key may be seen, joined by `&`.",
        "`tokens != 0` is (batch, key); `[:, None, None]` makes it (batch, 1, 1, key).",
        (
            "With `positions = torch.arange(n)`, a key is not later than a query where "
            "`positions <= positions[:, None]`."
        ),
    ),
    verified="right with padding on the left, on the right, and without.",
    gradients=False,
)


# A window of three, behind a cache.


def _asking_and_asked() -> list[Arguments]:
    shapes = (((1, 1), (4, 1)), ((2, 2), (3, 2)), ((3, 2), (7, 2)), ((6, 2), (6, 2)))
    return [dict(zip(("queries", "keys"), _draw(*pair), strict=True)) for pair in shapes]


def _distance(queries: Tensor, keys: Tensor) -> Tensor:
    """How many positions a key lies before a query, which comes last."""
    positions = torch.arange(len(keys))
    return positions[len(keys) - len(queries) :, None] - positions


def _window(queries: Tensor, keys: Tensor) -> Tensor:
    distance = _distance(queries, keys)
    return (distance >= 0) & (distance < 3)


WINDOW = Exercise(
    name="masks.window",
    inputs=_asking_and_asked,
    solution=_window,
    mistakes=(
        Mistake(
            "The first query stands at the first key; the last query stands at the last key.",
            lambda queries, keys: _window(keys, keys)[: len(queries)],
        ),
        Mistake(
            "The window is one too wide: three before the token, and itself, make four.",
            lambda queries, keys: _distance(queries, keys).ge(0) & _distance(queries, keys).lt(4),
        ),
        Mistake(
            "The window is one too narrow: two before the token, and itself, make three.",
            lambda queries, keys: _distance(queries, keys).ge(0) & _distance(queries, keys).lt(2),
        ),
        Mistake(
            "The window reaches into the future; later keys should be hidden.",
            lambda queries, keys: _distance(queries, keys).abs() < 3,
        ),
        Mistake(
            "A token sees all that came before; keys further back than two should be hidden.",
            lambda queries, keys: _distance(queries, keys) >= 0,
        ),
        Mistake(
            "True stands where a key is hidden; it should stand where a key may be seen.",
            lambda queries, keys: ~_window(queries, keys),
        ),
        Mistake(
            "A token does not see itself; it and the two before it make three.",
            lambda queries, keys: _window(queries, keys) & (_distance(queries, keys) > 0),
        ),
    ),
    hints=(
        "Give each query and each key its position. The queries are the last positions.",
        "`positions[len(keys) - len(queries):, None] - positions` is how far back each key lies.",
        "A key may be seen where that distance is at least 0 and below 3.",
    ),
    verified="right for a single query, for a few behind a cache, and for whole texts.",
    gradients=False,
)


# Several texts in one row.


def _rows_of_texts() -> list[Arguments]:
    rows = ([1, 1, 0], [2, 2, 0, 0, 1], [3, 3, 3, 5, 5, 1, 1, 1], [4, 4, 4, 4])
    return [{"text": torch.tensor(row)} for row in rows]


def _own_text(text: Tensor) -> Tensor:
    return (text[:, None] == text) & _earlier(len(text))


TEXTS = Exercise(
    name="masks.texts",
    inputs=_rows_of_texts,
    solution=_own_text,
    mistakes=(
        Mistake(
            "A token sees later ones of its text; it should see itself and those before it.",
            lambda text: text[:, None] == text,
        ),
        Mistake(
            "A token sees the texts before its own; only its own text should be seen.",
            lambda text: _earlier(len(text)),
        ),
        Mistake(
            "A token sees the other texts and not its own: `==`, not `!=`.",
            lambda text: (text[:, None] != text) & _earlier(len(text)),
        ),
        Mistake(
            "Texts are compared by size; their numbers need not grow: `==`.",
            lambda text: (text[:, None] >= text) & _earlier(len(text)),
        ),
        Mistake(
            "A token does not see itself; it should: `<=`, not `<`.",
            lambda text: _own_text(text).tril(diagonal=-1),
        ),
        Mistake(
            "Keys and queries have changed places: a token sees the later ones of its text.",
            lambda text: _own_text(text).T,
        ),
        Mistake(
            "One reason to see a key is enough here; both must hold: `&`, not `|`.",
            lambda text: (text[:, None] == text) | _earlier(len(text)),
        ),
    ),
    hints=(
        "Two tables (query, key), joined by `&`: the same text, and not later.",
        "`text[:, None] == text` compares the text of every query with the text of every key.",
    ),
    verified="right for one text and for several, in any order of their numbers.",
    gradients=False,
)


# Softmax over what is seen.


def _scores_and_masks() -> list[Arguments]:
    drawn = _draw((4, 6), (2, 3, 5), seed=1)
    causal, ragged = _earlier(4), torch.ones(2, 3, 5, dtype=torch.bool).tril(1)
    ragged[0, 1] = False
    pairs = [
        (torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[True, False], [False, False]])),
        (torch.tensor([[0.0, 1.0, 2.0, 1000.0]]), torch.tensor([[True, True, True, False]])),
        (torch.tensor([[1000.0, 999.0, 998.0, 0.0]]), torch.tensor([[False, True, True, True]])),
        (3 * drawn[0][:, :4], causal),
        (3 * drawn[1], ragged),
    ]
    return [dict(zip(("scores", "sees"), pair, strict=True)) for pair in pairs]


def _masked_softmax(scores: Tensor, sees: Tensor) -> Tensor:
    some = sees.any(-1, keepdim=True)
    return scores.masked_fill(~sees & some, -torch.inf).softmax(-1).masked_fill(~some, 0.0)


def _powers_under_one_maximum(scores: Tensor, sees: Tensor) -> Tensor:
    powers = (scores - scores.amax(-1, keepdim=True)).exp() * sees
    return powers / powers.sum(-1, keepdim=True).clamp(min=1e-30)


SOFTMAX = Exercise(
    name="masks.softmax",
    inputs=_scores_and_masks,
    solution=_masked_softmax,
    mistakes=(
        Mistake(
            "A row with nothing to see becomes NaN, from 0/0; its weights should be 0.",
            lambda scores, sees: scores.masked_fill(~sees, -torch.inf).softmax(-1),
        ),
        Mistake(
            "The rows do not sum to 1: what the hidden keys have taken is lost.",
            lambda scores, sees: scores.softmax(-1) * sees,
        ),
        Mistake(
            "The hidden scores still take part in the softmax: a large one presses the others to "
            "0, and then 0/0 is left.",
            lambda scores, sees: (
                scores.softmax(-1) * sees / (scores.softmax(-1) * sees).sum(-1, keepdim=True)
            ),
        ),
        Mistake(
            "A row with nothing to see spreads its weights over hidden keys; they should be 0.",
            lambda scores, sees: scores.masked_fill(~sees, -1e9).softmax(-1),
        ),
        Mistake(
            "Hidden scores are set to 0, which is still a score, and takes a weight.",
            lambda scores, sees: (scores * sees).softmax(-1),
        ),
        Mistake(
            "The maximum is taken over the hidden scores too; a large one leaves the others 0.",
            _powers_under_one_maximum,
        ),
        Mistake(
            "The mask is taken the wrong way round: True is where a key may be seen.",
            lambda scores, sees: _masked_softmax(scores, ~sees),
        ),
    ),
    hints=(
        "Softmax by hand: subtract each row's maximum, exp, divide by each row's sum.",
        (
            "The maximum of what is seen: put a very low number, "
            "`torch.finfo(scores.dtype).min`, in place of every hidden score first."
        ),
        (
            "Give each hidden score that maximum, so that no power is infinite, and multiply the "
            "powers by `sees`. A row that sees something has a sum of at least 1, since its "
            "maximum has the power 1; so `sum.clamp(min=1)` changes only the empty rows."
        ),
    ),
    verified="right with large hidden scores and with nothing to see, the gradients too.",
)

EXERCISES = (PADDING, WINDOW, TEXTS, SOFTMAX)
