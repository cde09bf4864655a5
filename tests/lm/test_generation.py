"""Generation: what may be drawn, when it ends, and that it repeats."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zeta_edu.lm import Sampling, TransformerLM
from zeta_edu.lm.generation import choose, cut_at

logits = st.lists(st.floats(-20, 20), min_size=2, max_size=12).map(lambda x: torch.tensor([x]))


def draws(logits, count=50, **options):
    """The set of tokens drawn from one row of logits."""
    sampling = Sampling(**options)
    rows = logits.expand(count, -1)
    return set(choose(rows, sampling, sampling.generator(torch.device("cpu"))).tolist())


@given(logits=logits, k=st.integers(1, 12), seed=st.integers(0, 100))
def test_top_k_draws_only_from_the_k_likeliest(logits, k, seed):
    likeliest = logits[0].sort(descending=True).values[:k]
    drawn = draws(logits, top_k=k, seed=seed)
    assert len(drawn) <= k
    assert all(logits[0, token] >= likeliest[-1] for token in drawn)


@given(logits=logits, p=st.floats(0.01, 1), seed=st.integers(0, 100))
def test_top_p_never_draws_a_token_once_likelier_ones_reach_p(logits, p, seed):
    probabilities = logits[0].double().softmax(0)
    for token in draws(logits, top_p=p, seed=seed):
        likelier = probabilities[probabilities > probabilities[token]].sum()
        assert likelier < p + 1e-5


def test_top_p_keeps_the_token_that_crosses_p():
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    assert draws(logits, 500, top_p=0.6, seed=0) == {0, 1}
    assert draws(logits, 500, top_p=0.49, seed=0) == {0}
    assert draws(logits, 500, top_p=1.0, seed=0) == {0, 1, 2, 3}


def test_equal_logits_do_not_widen_top_k():
    assert len(draws(torch.zeros(1, 10), 500, top_k=3, seed=0)) == 3


def test_draws_follow_the_probabilities():
    logits = torch.tensor([[0.7, 0.2, 0.1]]).log().expand(20_000, -1)
    sampling = Sampling(seed=0)
    counts = choose(logits, sampling, sampling.generator(torch.device("cpu"))).bincount()
    torch.testing.assert_close(counts / 20_000, torch.tensor([0.7, 0.2, 0.1]), atol=0.015, rtol=0)


def test_a_low_temperature_draws_the_likeliest():
    assert draws(torch.tensor([[1.0, 2.0, 1.5]]), 200, temperature=0.01, seed=0) == {1}


@pytest.mark.parametrize("seed", range(5))
def test_greedy_generation_with_cache_equals_generation_without(model, seed):
    model.double()
    prompt = torch.randint(300, (2, 5), generator=torch.Generator().manual_seed(seed))
    tokens = prompt
    with torch.no_grad():
        for _ in range(12):
            tokens = torch.cat([tokens, model(tokens)[:, -1:].argmax(-1)], dim=1)
    assert model.generate(prompt, 12, temperature=0).equal(tokens)


def test_a_seed_repeats_a_text_and_leaves_torch_s_own_randomness_alone(model):
    state = torch.get_rng_state()
    first = model.generate("def ", 20, seed=3)
    assert model.generate("def ", 20, seed=3) == first
    assert model.generate("def ", 20, seed=4) != first
    assert torch.get_rng_state().equal(state)


def test_without_a_seed_texts_differ(model):
    assert len({model.generate("def ", 20) for _ in range(4)}) > 1


def test_text_gives_text_and_ids_give_ids_of_their_shape(model, tokenizer):
    ids = torch.tensor(tokenizer.encode("def add"))
    assert model.generate("def add", 5, seed=0).startswith("def add")
    assert model.generate(ids, 5, seed=0).shape == (len(ids) + 5,)
    assert model.generate(ids.expand(3, -1), 5, seed=0).shape == (3, len(ids) + 5)
    assert model.generate(ids, 0).equal(ids)


def test_a_streamed_text_is_the_generated_one(model):
    pieces = list(model.stream("def ", 30, seed=1))
    assert len(pieces) > 1
    assert "def " + "".join(pieces) == model.generate("def ", 30, seed=1)


def test_streamed_ids_are_the_generated_ones(model):
    prompt = torch.tensor([[5, 6], [7, 8]])
    streamed = torch.stack(list(model.stream(prompt, 6, seed=1)), dim=1)
    assert torch.cat([prompt, streamed], dim=1).equal(model.generate(prompt, 6, seed=1))


def test_an_empty_prompt_begins_a_document(model):
    start = torch.tensor([model.tokenizer.start])
    ids = model.generate(start, 8, seed=2, stop=0)[1:]
    expected = model.tokenizer.decode(ids.tolist())
    assert model.generate("", 8, seed=2) == expected


class Parrot(torch.nn.Module):
    """A model that says a given text whatever it is told."""

    def __init__(self, tokenizer, text):
        super().__init__()
        self.tokenizer = tokenizer
        self.embedding = torch.nn.Embedding(1, 1)
        self.ids = text if isinstance(text, list) else tokenizer.encode(text)
        self.modes = []

    def new_cache(self, batch_size, max_length=None):
        return iter(self.ids)

    def forward(self, tokens, *, cache):
        self.modes.append((self.training, torch.is_grad_enabled()))
        logits = torch.zeros(*tokens.shape, len(self.tokenizer))
        logits[..., next(cache)] = 1.0
        return logits


def say(tokenizer, text, count=None, **options):
    from zeta_edu.lm import stream

    parrot = Parrot(tokenizer, text)
    count = len(parrot.ids) if count is None else count
    return list(stream(parrot, "x", count, Sampling(temperature=0), **options))


@given(text=st.text("ab\n", min_size=1, max_size=30), stop=st.text("ab\n", min_size=1, max_size=4))
def test_a_text_ends_before_the_first_stop(tokenizer, text, stop):
    assert "".join(say(tokenizer, text, stop=stop)) == text.split(stop)[0]


@given(text=st.text(min_size=1, max_size=20).filter(lambda t: t.isprintable()))
def test_characters_of_several_tokens_are_streamed_whole(tokenizer, text):
    pieces = say(tokenizer, text)
    assert "".join(pieces) == text
    assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces) or "�" in text


def test_what_begins_a_stop_in_vain_is_passed_on(tokenizer):
    assert "".join(say(tokenizer, "a\n\nb\n\n\nc", stop=["\n\n\nd", "zzz"])) == "a\n\nb\n\n\nc"


@pytest.mark.parametrize("pieces", ["one two three", ["one two three"], ["one t", "wo three"]])
def test_the_earliest_of_several_stops_counts(pieces):
    assert "".join(cut_at(iter(pieces), ["three", "two"])) == "one "


def test_a_text_ends_with_its_document(tokenizer):
    ids = [*tokenizer.encode("end"), tokenizer.start, *tokenizer.encode("more")]
    assert "".join(say(tokenizer, ids)) == "end"


def test_ids_end_with_their_stop_and_fill_the_row(model):
    prompt = torch.tensor([[3], [9]])
    free = model.generate(prompt, 10, seed=0)
    stop = int(free[0, 3])
    assert stop not in free[0, 1:3]
    rows = model.generate(prompt, 10, seed=0, stop=stop)
    assert rows[0, :4].equal(free[0, :4])
    assert (rows[0, 4:] == stop).all()
    assert rows[1].equal(free[1])
    assert model.generate(prompt[0], 10, seed=0, stop=int(free[0, 1])).tolist() == [3, free[0, 1]]


def test_a_model_in_training_generates_without_dropout_and_trains_on(tokenizer):
    from zeta_edu.lm import stream

    parrot = Parrot(tokenizer, "abc").train()
    pieces = stream(parrot, "x", 3, Sampling(temperature=0))
    next(pieces)
    assert parrot.training
    assert torch.is_grad_enabled()
    assert parrot.modes == [(False, False)]


@pytest.mark.parametrize(
    ("options", "argument"),
    [
        ({"temperature": -1}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_k": 0}, "top_k"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.5}, "top_p"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"stop": ""}, "stop"),
        ({"stop": [1.5]}, "stop"),
        ({"max_new_tokens": -1}, "max_new_tokens"),
    ],
)
def test_an_option_that_means_nothing_is_refused(model, options, argument):
    with pytest.raises(ValueError, match=argument):
        model.generate("def", **({"max_new_tokens": 3} | options))


@pytest.mark.parametrize(
    ("prompt", "error", "message"),
    [
        (torch.zeros(0, dtype=torch.long), ValueError, "prompt must have shape"),
        (torch.zeros(1, 1, 1, dtype=torch.long), ValueError, "prompt must have shape"),
        ([1, 2], TypeError, "prompt must be a str or a tensor of ids, or a list of them, got int"),
        (torch.tensor([300]), ValueError, "between 0 and 299"),
        (torch.tensor([1.0]), TypeError, "int64"),
    ],
)
def test_a_prompt_that_is_none_is_refused(model, prompt, error, message):
    with pytest.raises(error, match=message):
        model.generate(prompt, 3)


def test_text_without_a_tokenizer_is_refused(model):
    model.tokenizer = None
    with pytest.raises(ValueError, match="no tokenizer"):
        model.generate("def", 3)


def test_a_stop_string_for_ids_is_refused(model):
    with pytest.raises(ValueError, match="stop holds the string"):
        model.generate(torch.tensor([1]), 3, stop="x")


prompts = st.lists(st.integers(1, 12), min_size=1, max_size=5)


def random_prompts(lengths, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(1, 300, (n,), generator=generator) for n in lengths]


@pytest.fixture(scope="module")
def exact(tokenizer):
    """A small model in double precision, whose likeliest tokens are not a matter of rounding."""
    torch.manual_seed(3)
    model = TransformerLM(len(tokenizer), dim=16, depth=2, heads=2, dim_head=8).double().eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    model.tokenizer = tokenizer
    return model


@settings(max_examples=25)
@given(lengths=prompts, seed=st.integers(0, 50))
def test_prompts_of_any_lengths_continue_together_as_they_do_alone(exact, lengths, seed):
    rows = random_prompts(lengths, seed)
    together = exact.generate(rows, 6, temperature=0)
    for prompt, continued in zip(rows, together, strict=True):
        assert continued.equal(exact.generate(prompt, 6, temperature=0))


@settings(max_examples=25)
@given(length=st.integers(1, 10), seed=st.integers(0, 50))
def test_greedy_with_a_cache_is_greedy_without(exact, length, seed):
    (tokens,) = random_prompts([length], seed)
    cached = exact.generate(tokens, 8, temperature=0)
    with torch.no_grad():
        for _ in range(8):
            tokens = torch.cat([tokens, exact(tokens[None])[0, -1:].argmax(-1)])
    assert cached.equal(tokens)


def test_texts_continue_together_as_they_do_alone(exact):
    texts = ["def add_name(first", "", "return first + second\n\n\n", "def"]
    for stop in (None, ["e", "\n"]):
        together = exact.generate(texts, 12, temperature=0, stop=stop)
        assert together == [exact.generate(one, 12, temperature=0, stop=stop) for one in texts]


def test_texts_end_when_the_last_one_has(exact):
    calls = []
    handle = exact.register_forward_hook(lambda *_: calls.append(1))
    alone = [len(exact.generate(one, 40, temperature=0, stop="a")) for one in ("def", "self")]
    calls.clear()
    exact.generate(["def", "self"], 40, temperature=0, stop="a")
    handle.remove()
    assert len(calls) <= max(alone)


def test_of_no_prompts_nothing_comes(model):
    assert model.generate([], 3) == []


def test_prompts_of_two_kinds_are_refused(model):
    with pytest.raises(TypeError, match="a str or a tensor of ids, or a list of them, got str"):
        model.generate(["def", torch.tensor([1])], 3)


@given(logits=logits, by=st.floats(1.1, 5))
def test_a_penalty_lowers_what_is_there_and_nothing_else(logits, by):
    from zeta_edu.lm.sampling import _penalised

    seen = torch.zeros_like(logits, dtype=torch.bool)
    seen[0, 0] = True
    lowered = _penalised(logits, seen, by)
    assert lowered[0, 1:].equal(logits[0, 1:])
    assert lowered[0, 0] < logits[0, 0] or logits[0, 0].abs() < 1e-30


def test_a_high_penalty_never_says_a_token_twice(exact):
    with torch.no_grad():
        free = exact.generate(torch.tensor([5, 6, 7]), 40, temperature=0).tolist()
        penalised = exact.generate(
            torch.tensor([5, 6, 7]), 40, temperature=0, repetition_penalty=1e9
        ).tolist()
    assert len(set(free)) < len(free)
    assert len(set(penalised)) == len(penalised)


def test_padding_is_not_penalised(exact):
    rows = [torch.tensor([5]), torch.tensor([7, 8, 9, 10])]
    options = {"temperature": 0, "repetition_penalty": 3.0}
    together = exact.generate(rows, 12, **options)
    for prompt, continued in zip(rows, together, strict=True):
        assert continued.equal(exact.generate(prompt, 12, **options))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_compiled_generation_is_the_same(tokenizer, monkeypatch):
    from zeta_edu.lm import generation

    torch._dynamo.reset()
    torch.manual_seed(0)
    model = TransformerLM(300, dim=8, depth=1, heads=2, dim_head=4).double().eval()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    monkeypatch.setattr(generation, "_COMPILED", {model: compiled})
    rows = random_prompts([3, 6])
    found = model.generate(rows, 5, temperature=0, compile=True)
    wanted = model.generate(rows, 5, temperature=0)
    assert all(a.equal(b) for a, b in zip(found, wanted, strict=True))
    with pytest.raises(ValueError, match="between 0 and 299"):
        model.generate(torch.tensor([300]), 3, compile=True)
    torch._dynamo.reset()


def test_a_batch_inside_a_list_is_refused(model):
    with pytest.raises(ValueError, match=r"prompt\[1\] must have shape \(n,\) with n at least 1"):
        model.generate([torch.tensor([1, 2]), torch.tensor([[1, 2], [3, 4]])], 2)


def test_a_part_that_rests_goes_on_resting(model):
    model.train()
    model.blocks[0].eval()
    model.generate(torch.tensor([1, 2]), 2)
    assert model.training
    assert not model.blocks[0].training
    assert not model.blocks[0].norm.training


@pytest.mark.parametrize(
    ("option", "value", "complaint"),
    [
        ("temperature", "a", "temperature must be a number, got 'a'"),
        ("temperature", 1e-40, "temperature must be 0 or at least 0.0001"),
        ("temperature", -1.0, "temperature must be 0 or at least 0.0001"),
        ("repetition_penalty", 1e-40, "repetition_penalty must be at least 0.0001"),
        ("top_k", 2.5, "top_k must be a positive integer, got 2.5"),
        ("seed", 1.5, "seed must be an int, got 1.5"),
        ("seed", 2**70, "seed must be at least 0 and below 2 \\*\\* 63"),
    ],
)
def test_what_is_no_way_to_draw_is_refused_at_once(option, value, complaint):
    with pytest.raises((TypeError, ValueError), match=complaint):
        Sampling(**{option: value})
