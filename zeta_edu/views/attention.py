"""The attention view: every head of every layer, over the text it reads."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from zeta_edu.views import arguments, codec
from zeta_edu.views.attention_figure import attention_figure
from zeta_edu.views.display import Control, View
from zeta_edu.views.patterns import findings
from zeta_edu.views.tokens import visible

SOFTMAX = "softmax"
# What the steps of attention are called; any other name is shown as it is given.
STEP_TITLES = {
    "scores": "raw scores q·k",
    "scaled": "scaled scores",
    "masked": "masked scores",
    SOFTMAX: "weights after softmax",
}


class AttentionView(View):
    """Attention weights on their text. Made by `attention_view`, which explains the arguments."""

    modules = (
        "runtime.js",
        "frame.js",
        "attention_data.js",
        "attention_map.js",
        "attention_heads.js",
        "attention_text.js",
        "attention_legend.js",
        "attention_words.js",
        "attention.css",
        "attention.js",
    )

    def __init__(
        self,
        weights: Float[np.ndarray, "layers heads queries keys"],
        tokens: list[str],
        query_tokens: list[str] | None = None,
        stages: Mapping[str, Float[np.ndarray, "layers heads queries keys"]] | None = None,
        layer: int | None = None,
        head: int | None = None,
        query: int | None = None,
        kv_heads: int | None = None,
    ) -> None:
        self.weights = weights
        self.kv_heads = kv_heads
        self.tokens = tokens
        self.query_tokens = query_tokens
        self.stages = dict(stages or {})
        self.findings = findings(weights, tokens, query_tokens is None)
        interest = np.array([[head.interest for head in row] for row in self.findings])
        if layer is not None:
            interest[np.arange(len(interest)) != layer] = -1
        if head is not None:
            interest[:, np.arange(interest.shape[1]) != head] = -1
        # It opens where there is most to see, unless told; and at the newest token.
        clearest = np.unravel_index(interest.argmax(), interest.shape)
        self.layer, self.head = (int(index) for index in clearest)
        self.query = max(weights.shape[2] - 1, 0) if query is None else query

    @property
    def title(self) -> str:
        """The habit of the head that the view opens at."""
        sentence = self.findings[self.layer][self.head].sentence
        if self.alone:
            return sentence[0].upper() + sentence[1:]
        return f"Layer {self.layer}, head {self.head}: {sentence}"

    @property
    def alone(self) -> bool:
        """Whether there is one head only, which then needs no name."""
        return self.weights.shape[:2] == (1, 1)

    @property
    def alt(self) -> str:
        """How much is shown, and what its first head does."""
        layers, heads, queries, keys = self.weights.shape
        size = f"{keys} tokens" if self.query_tokens is None else f"{queries} queries, {keys} keys"
        many = "s" if layers != 1 else "", "s" if heads != 1 else ""
        shape = f"{layers} layer{many[0]} with {heads} head{many[1]} each over {size}"
        if self.alone:
            shape = f"one head over {size}"
        if 0 in self.weights.shape:
            return f"Attention weights of {shape}: nothing to look at yet."
        return f"Attention weights of {shape}. {self.title}."

    def controls(self) -> dict[str, Control]:
        """Layer, head, pinned token, step, direction and scale, with their ranges."""
        layers, heads, queries, keys = self.weights.shape
        return {
            "layer": range(layers),
            "head": range(heads),
            "query": range(max(queries, keys)),
            "stage": (*self.stages, SOFTMAX),
            "direction": ("query", "key"),
            "scale": ("linear", "log"),
        }

    def state(self) -> dict[str, Any]:
        """Coded arrays, visible tokens, each head's habit, and where the controls start."""
        arrays = {name: codec.encode_scores(scores) for name, scores in self.stages.items()}
        arrays[SOFTMAX] = codec.encode_weights(self.weights)
        queries, keys = self.weights.shape[2:]
        later = np.triu(np.ones((queries, keys), dtype=bool), k=1)
        empty = "Nothing to look at yet: the text has no tokens."
        return {
            "kind": "attention",
            "empty": empty if 0 in self.weights.shape else None,
            "shape": list(self.weights.shape),
            "key_labels": [visible(token) for token in self.tokens],
            "query_labels": self.query_tokens and [visible(token) for token in self.query_tokens],
            "findings": [[head.sentence for head in row] for row in self.findings],
            "kv_heads": self.kv_heads or self.weights.shape[1],
            "causal": self.query_tokens is None and not self.weights[..., later].any(),
            "has_nan": any(np.isnan(a).any() for a in (self.weights, *self.stages.values())),
            "stages": [_step(name, coded) for name, coded in arrays.items()],
            "arrays": arrays,
            "start": {
                "layer": self.layer,
                "head": self.head,
                "query": self.query,
                "stage": SOFTMAX,
                "direction": "query",
                "scale": "linear",
            },
        }

    def figure(self) -> Figure:
        """The opened head large, with its tokens, beside all heads small."""
        return attention_figure(self)


def attention_view(
    source: Any,
    *words: Any,
    tokens: Sequence[str] | None = None,
    query_tokens: Sequence[str] | None = None,
    stages: Mapping[str, Any] | None = None,
    layer: int | None = None,
    head: int | None = None,
    query: int | None = None,
    kv_heads: int | None = None,
) -> AttentionView:
    """Look at the attention of a model, or of any tensors, over a text.

    Called as `attention_view(model, text)` for a model that carries its tokenizer, as
    `attention_view(model, tokenizer, text)`, or as `attention_view(weights, tokens)`.

    Args:
        source: a model made of `TransformerBlock`s, or a Hugging Face model; or weights (layers,
            heads, queries, keys) or (heads, queries, keys), as a tensor or array; or one (1, heads,
            queries, keys) for each layer: a record of `record_attention`, or the `attentions` of a
            Hugging Face output, or that output itself.
        words: the tokenizer and the text for a model; the tokens for weights.
        tokens: the same as the tokens in `words`: a str for each key. Without any, the keys are
            numbered.
        query_tokens: a str for each query, where the queries are not the keys.
        stages: named tensors of the weights' shape to step through before the weights, such as
            `{"scores": ..., "scaled": ..., "masked": ...}`; minus infinity stands for a mask.
        layer: the layer to open at; by default the head with the clearest pattern is opened.
        head: the head to open at.
        query: the query to pin at first; by default the last.
        kv_heads: how many key/value heads the query heads share; those that read the same one are
            drawn under it. A model says it itself.

    Returns:
        The view: display it, or call `save`, `live`, `figure` or `state` on it.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind, shape or range; it is named.

    Examples:
        >>> import torch
        >>> weights = torch.full((2, 4, 3, 3), 1 / 3)
        >>> attention_view(weights, ["a", "b", "c"], layer=1, head=2).title
        'Layer 1, head 2: each query spreads its attention over about 3 tokens'
    """
    reading = arguments.read(source, words, tokens)
    weights = arguments.weights(reading.weights)
    names = arguments.names("tokens", reading.tokens, weights.shape[3])
    asking = None
    if query_tokens is not None or weights.shape[2] != weights.shape[3]:
        asking = arguments.names("query_tokens", query_tokens, weights.shape[2])
    return AttentionView(
        weights,
        names,
        asking,
        arguments.stages(stages, weights.shape, SOFTMAX),
        layer=arguments.index("layer", layer, weights.shape[0]),
        head=arguments.index("head", head, weights.shape[1]),
        query=arguments.index("query", query, weights.shape[2]),
        kv_heads=arguments.shared_heads(kv_heads, reading.kv_heads, weights.shape[1]),
    )


def _step(name: str, coded: dict[str, Any]) -> dict[str, Any]:
    """What the browser says about one step: its name, and how exactly it has the numbers."""
    closer = ", closer for small ones" if coded.get("scale") == "sqrt" else ""
    exactly = f"to within {coded['error']:.2g}{closer}" if coded["error"] else "exactly"
    return {
        "name": name,
        "title": STEP_TITLES.get(name, name),
        "error": coded["error"],
        "precision": f"Numbers are kept {exactly} ({coded['dtype']}).",
    }
