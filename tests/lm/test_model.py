"""TransformerLM: what it predicts from what it may see, and what it refuses."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zeta_edu import record_attention
from zeta_edu.lm import TransformerLM


def small(**options):
    torch.manual_seed(0)
    shape = {"num_tokens": 50, "dim": 16, "depth": 3, "heads": 2, "dim_head": 8, "ff_mult": 2}
    return TransformerLM(**(shape | options)).eval()


def some_tokens(*shape):
    return torch.randint(50, shape, generator=torch.Generator().manual_seed(1))


configurations = st.fixed_dictionaries(
    {
        "depth": st.integers(1, 3),
        "heads": st.sampled_from([2, 4]),
        "kv_heads": st.sampled_from([1, 2]),
        "qk_rmsnorm": st.booleans(),
        "use_xpos": st.booleans(),
        "flash_attn": st.booleans(),
    }
)


@settings(max_examples=15, deadline=None)
@given(options=configurations, position=st.integers(0, 8))
def test_a_later_token_changes_no_earlier_logits(options, position):
    model, tokens = small(**options).double(), some_tokens(2, 9)
    changed = tokens.clone()
    changed[:, position] = (tokens[:, position] + 1) % 50
    before, after = model(tokens), model(changed)
    torch.testing.assert_close(before[:, :position], after[:, :position], atol=1e-12, rtol=0)
    assert not before[:, position].allclose(after[:, position])


@settings(max_examples=15, deadline=None)
@given(options=configurations, cuts=st.sets(st.integers(1, 11)))
def test_cached_logits_equal_those_of_one_pass_however_the_text_is_cut(options, cuts):
    model, tokens = small(**options).double(), some_tokens(2, 12)
    cache = model.new_cache(batch_size=2)
    chunks = torch.tensor_split(tokens, sorted(cuts), dim=1)
    with torch.no_grad():
        logits = torch.cat([model(chunk, cache=cache) for chunk in chunks], dim=1)
        torch.testing.assert_close(logits, model(tokens), atol=1e-10, rtol=0)
    assert cache.length == 12


def test_padding_in_front_changes_nothing():
    model, tokens = small().double(), some_tokens(1, 6)
    padded = torch.cat([torch.full((1, 4), 7), tokens], dim=1)
    mask = torch.arange(10)[None] >= 4
    torch.testing.assert_close(model(padded, mask)[:, 4:], model(tokens), atol=1e-10, rtol=0)


def test_a_reset_cache_is_a_new_one():
    model, tokens = small(), some_tokens(1, 5)
    cache = model.new_cache(1)
    with torch.no_grad():
        first = model(tokens, cache=cache)
        cache.reset()
        assert cache.length == 0
        assert model(tokens, cache=cache).equal(first)


def test_a_reordered_cache_continues_the_other_sequence():
    model, tokens = small().double(), some_tokens(2, 6)
    cache, last = model.new_cache(2), some_tokens(2, 1)
    with torch.no_grad():
        model(tokens, cache=cache)
        cache.reorder(torch.tensor([1, 1]))
        logits = model(last, cache=cache)
        expected = model(torch.cat([tokens[[1, 1]], last], dim=1))[:, -1:]
    torch.testing.assert_close(logits, expected, atol=1e-10, rtol=0)


def test_the_model_is_a_residual_stream_read_through_the_embedding():
    model, tokens = small(), some_tokens(2, 7)
    x = model.embedding.weight[tokens]
    for block in model.blocks:
        x = x + block(x)
    torch.testing.assert_close(model(tokens), model.norm(x) @ model.embedding.weight.T)


def test_the_residual_leaves_the_embedding_as_it_was():
    model = small()
    weight = model.embedding.weight.detach().clone()
    with torch.inference_mode():
        model(some_tokens(2, 5))
    assert model.embedding.weight.equal(weight)


def test_every_block_is_recorded_once_in_order():
    model = small()
    with record_attention(model) as record, torch.no_grad():
        model(some_tokens(1, 6))
    assert [weights.shape for weights in record] == [(1, 2, 6, 6)] * 3
    assert list(record.names) == [f"blocks.{i}" for i in range(3)]


def test_the_logits_are_products_with_the_embedding():
    model, tokens = small(), some_tokens(1, 4)
    names = [name for name, _ in model.named_parameters()]
    assert sum(parameter.shape == (50, 16) for parameter in model.parameters()) == 1
    assert [name for name in names if "." not in name.removesuffix(".weight")] == [
        "embedding.weight"
    ]
    before = model(tokens)
    with torch.no_grad():
        model.embedding.weight[49] *= 2
    torch.testing.assert_close(model(tokens)[..., 49], before[..., 49] * 2)


def test_an_untrained_model_knows_nothing():
    torch.manual_seed(0)
    model = TransformerLM(num_tokens=1000, dim=64, depth=4, heads=4, dim_head=16)
    probabilities = model(torch.randint(1000, (4, 32))).softmax(dim=-1)
    assert probabilities.max() < 0.01


def test_every_parameter_gets_a_gradient():
    model = small(qk_rmsnorm=True)
    model(some_tokens(2, 6)).logsumexp(-1).sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.parameters())


def test_the_configuration_makes_the_same_model_again():
    model = small(qk_rmsnorm=True, qk_scale=4, xpos_scale_base=64, kv_heads=2)
    again = TransformerLM(**json.loads(json.dumps(model.config)))
    again.load_state_dict(model.state_dict())
    assert again.config == model.config
    assert again.eval()(some_tokens(1, 5)).equal(model(some_tokens(1, 5)))


def test_the_configuration_names_the_defaults_too():
    assert small().config["qk_scale"] == 8
    assert small().config["kv_heads"] == 1


def test_the_configuration_cannot_be_changed_from_outside():
    model = small()
    model.config["dim"] = 1
    assert model.config["dim"] == 16


@pytest.mark.parametrize("shape", [(0, 5), (2, 0)])
def test_nothing_in_nothing_out(shape):
    assert small()(torch.zeros(shape, dtype=torch.long)).shape == (*shape, 50)


@pytest.mark.parametrize(
    ("tokens", "error", "message"),
    [
        (torch.zeros(2, 3), TypeError, "tokens must be .* got torch.float32"),
        ([[1, 2]], TypeError, "tokens must be .* got list"),
        (torch.zeros(3, dtype=torch.long), ValueError, r"\(batch, n\), got \(3,\)"),
        (torch.tensor([[1, 50]]), ValueError, "between 0 and 49, got 50"),
        (torch.tensor([[-1, 3]]), ValueError, "between 0 and 49, got -1"),
    ],
)
def test_tokens_that_are_none_are_refused(tokens, error, message):
    with pytest.raises(error, match=message):
        small()(tokens)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"num_tokens": 0}, ValueError, "num_tokens"),
        ({"depth": 2.0}, TypeError, "depth"),
        ({"depth": True}, TypeError, "depth"),
        ({"dim": -16}, ValueError, "dim"),
        ({"head": 8}, TypeError, "unknown block option 'head'.*heads"),
        ({"finetune_modules": None}, TypeError, "finetune_modules"),
        ({"heads": 0}, ValueError, "heads"),
    ],
)
def test_a_shape_that_is_none_is_refused(options, error, message):
    with pytest.raises(error, match=message):
        small(**options)


def test_a_foreign_cache_is_refused():
    with pytest.raises(ValueError, match="cache has 2 layers, the model 3"):
        small()(some_tokens(1, 2), cache=small(depth=2).new_cache(1))
    with pytest.raises(TypeError, match="new_cache"):
        small()(some_tokens(1, 2), cache=[])


def test_a_cache_that_a_failed_call_left_uneven_is_refused(model):
    tokens, cache = torch.tensor([[1, 2, 3]]), model.new_cache(1)
    broken = model.blocks[1].register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        model(tokens, cache=cache)
    broken.remove()
    with pytest.raises(ValueError, match=r"layers of different lengths, \[3, 0"):
        model(tokens, cache=cache)
    cache.reset()
    torch.testing.assert_close(model(tokens, cache=cache), model(tokens))
