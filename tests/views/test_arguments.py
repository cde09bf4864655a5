"""What attention_view takes, and what it refuses by name."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from zeta_edu import TransformerBlock, record_attention
from zeta_edu.views import attention_view, codec
from zeta_edu.views.attention import SOFTMAX

WORDS = ["a", "b", "c", "d"]


def weights(layers: int = 2, heads: int = 3, queries: int = 4, keys: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(layers, heads, queries, keys, generator=generator).softmax(-1)


def drawn(view: Any) -> np.ndarray:
    return codec.decode(view.state()["arrays"][SOFTMAX])


class Letters:
    """A tokenizer whose tokens are letters."""

    def encode(self, text: str) -> list[int]:
        return [ord(letter) % 32 for letter in text]

    def pieces(self, ids: list[int]) -> list[str]:
        return [chr(96 + number) for number in ids]


class Model(nn.Module):
    """Two blocks on an embedding, as far as a view can tell a language model."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(32, 16)
        self.blocks = nn.ModuleList(TransformerBlock(16, 8, heads=3) for _ in range(2))

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        for block in self.blocks:
            x = x + block(x)
        return x


@pytest.mark.parametrize(
    "form",
    [
        lambda w: w,
        lambda w: w.numpy(),
        lambda w: w.double(),
        lambda w: w.requires_grad_(),
        lambda w: tuple(w[:, None]),
        lambda w: list(w),
        lambda w: [layer.numpy() for layer in w],
        lambda w: SimpleNamespace(attentions=tuple(w[:, None])),
    ],
)
def test_weights_in_any_form_are_the_same_weights(form: Any) -> None:
    view = attention_view(form(weights()), WORDS)
    np.testing.assert_allclose(drawn(view), weights().numpy(), atol=2.5e-4)


def test_one_layer_may_come_without_its_axis() -> None:
    assert attention_view(weights()[0], WORDS).state()["shape"] == [1, 3, 4, 4]


def test_bfloat16_weights_are_read() -> None:
    view = attention_view(weights().bfloat16(), WORDS)
    np.testing.assert_allclose(drawn(view), weights().numpy(), atol=4e-3)


def test_a_record_is_shown_layer_by_layer() -> None:
    torch.manual_seed(0)
    model = Model().eval()
    with torch.no_grad(), record_attention(model) as record:
        model(torch.tensor([[1, 2, 3, 4]]))
    view = attention_view(record, WORDS)
    np.testing.assert_allclose(drawn(view)[1], record[1][0].numpy(), atol=2.5e-4)


@pytest.mark.parametrize("flash", [False, True])
def test_a_model_is_run_and_shown_and_left_as_it_was(flash: bool) -> None:
    torch.manual_seed(0)
    model = Model().train()
    for block in model.blocks:
        block.flash_attn = flash
    ids = torch.tensor([Letters().encode("abca")])
    with torch.no_grad(), record_attention(model.eval()) as record:
        model(ids)
    view = attention_view(model.train(), Letters(), "abca")
    assert model.training
    assert view.state()["key_labels"] == ["a", "b", "c", "a"]
    np.testing.assert_allclose(drawn(view), torch.cat(list(record)).numpy(), atol=2.5e-4)


def test_a_model_may_carry_its_tokenizer() -> None:
    model = Model()
    model.tokenizer = Letters()
    assert attention_view(model, "abc").state()["shape"] == [2, 3, 3, 3]


def test_a_tokenizer_without_pieces_decodes_token_by_token() -> None:
    tokenizer = SimpleNamespace(encode=Letters().encode, decode=lambda ids: f"<{ids[0]}>")
    assert attention_view(Model(), tokenizer, "ab").tokens == ["<1>", "<2>"]


def test_an_empty_text_has_an_empty_view() -> None:
    view = attention_view(Model(), Letters(), "")
    assert view.state()["shape"] == [1, 1, 0, 0]
    assert "nothing to look at" in view.alt


def test_without_tokens_the_keys_are_numbered() -> None:
    assert attention_view(weights()).state()["key_labels"] == ["0", "1", "2", "3"]


def test_queries_may_differ_from_keys() -> None:
    view = attention_view(weights(queries=2), WORDS, query_tokens=["x", "y"])
    assert view.state()["query_labels"] == ["x", "y"]
    assert not view.state()["causal"]


def test_filling_values_count_as_masked() -> None:
    scores = torch.zeros(2, 3, 4, 4)
    scores[..., 3] = torch.finfo(torch.float32).min
    view = attention_view(weights(), WORDS, stages={"masked": scores})
    assert np.isneginf(codec.decode(view.state()["arrays"]["masked"])[..., 3]).all()


def test_where_it_opens_can_be_chosen_and_counts_from_the_end() -> None:
    start = attention_view(weights(), WORDS, layer=1, head=-1, query=-2).state()["start"]
    assert (start["layer"], start["head"], start["query"]) == (1, 2, 2)


def test_it_opens_at_the_clearest_head_of_what_was_not_chosen() -> None:
    clear = weights(tokens := 1, 3, 9, 9).repeat(2, 1, 1, 1)
    assert tokens == 1
    clear[1, 2] = torch.eye(9).roll(1, 0)
    assert attention_view(clear).state()["start"]["head"] == 2
    assert attention_view(clear).state()["start"]["layer"] == 1
    assert attention_view(clear, layer=0).state()["start"]["layer"] == 0


@pytest.mark.parametrize(
    ("arguments", "options", "error", "words"),
    [
        (("text",), {}, TypeError, "weights"),
        ((None,), {}, TypeError, "weights"),
        (([],), {}, ValueError, "weights is empty"),
        ((torch.zeros(0, 2, 3, 3),), {}, ValueError, "a layer and a head"),
        ((torch.rand(3, 3),), {}, ValueError, r"got shape \(3, 3\)"),
        ((torch.randn(1, 2, 3, 3) * 9,), {}, ValueError, "between 0 and 1"),
        ((torch.full((1, 1, 2, 2), torch.inf),), {}, ValueError, "between 0 and 1"),
        ((np.array([["a"]]),), {}, TypeError, "real numbers"),
        ((torch.ones(1, 1, 1, 1, dtype=torch.complex64),), {}, TypeError, "real numbers"),
        (((None, None),), {}, ValueError, "eager"),
        (([torch.ones(2, 1, 3, 3)],), {}, ValueError, "batch of 2"),
        (([torch.ones(1, 3)],), {}, ValueError, r"weights\[0\]"),
        (([torch.ones(1, 1, 1, 1), torch.ones(1, 2, 1, 1)],), {}, ValueError, "one shape"),
        ((weights(), "abcd"), {}, TypeError, "tokens must be a list"),
        ((weights(), ["a", "b"]), {}, ValueError, "tokens must have 4"),
        ((weights(), ["a", "b", "c", 4]), {}, TypeError, r"tokens\[3\]"),
        ((weights(), WORDS, WORDS), {}, TypeError, "once"),
        ((weights(), WORDS), {"tokens": WORDS}, TypeError, "once"),
        ((weights(queries=2), WORDS), {"query_tokens": WORDS}, ValueError, "query_tokens"),
        ((weights(), WORDS), {"layer": 2}, ValueError, "layer must be in 0 to 1, got 2"),
        ((weights(), WORDS), {"head": -4}, ValueError, "head"),
        ((weights(), WORDS), {"query": 1.0}, TypeError, "query"),
        ((weights(), WORDS), {"query": True}, TypeError, "query"),
        ((weights(), WORDS), {"stages": [1]}, TypeError, "stages"),
        ((weights(), WORDS), {"stages": {1: weights()}}, TypeError, "stages"),
        ((weights(), WORDS), {"stages": {"softmax": weights()}}, ValueError, "softmax"),
        ((weights(), WORDS), {"stages": {"s": weights(1)}}, ValueError, r"stages\['s'\]"),
        ((weights(), WORDS), {"stages": {"s": weights() / 0}}, ValueError, "infinity"),
        ((Model(),), {}, TypeError, "text"),
        ((Model(), "text"), {}, TypeError, "tokenizer"),
        ((Model(), 7, "text"), {}, TypeError, "tokenizer"),
        ((Model(), Letters(), 7), {}, TypeError, "text must be a str"),
        ((Model(), Letters(), "a"), {"tokens": WORDS}, TypeError, "tokens"),
        ((nn.Linear(2, 2), Letters(), "a"), {}, ValueError, "TransformerBlock"),
    ],
)
def test_a_wrong_argument_is_refused_by_name(
    arguments: tuple[Any, ...], options: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        attention_view(*arguments, **options)
