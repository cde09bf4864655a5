"""Synthetic tasks: that their answers are right, and that what is called determined is."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.lm.small import Losses, options
from zeta_edu.lm import TASKS, Tokenizer, TransformerLM, train_task
from zeta_edu.lm.tasks import NUM_TOKENS, TaskExamples, find_task
from zeta_edu.lm.training import UNSCORED, Saving

names = pytest.mark.parametrize("name", list(TASKS))
seeds = st.integers(0, 1000)
TOKENIZER = Tokenizer.of_bytes()


def lines(name, seed, count=4):
    """Lines of a task, each with the positions of its determined characters."""
    tokens, determined = TASKS[name].examples(count, seed, step=0)
    for row, known in zip(tokens, determined, strict=True):
        yield TOKENIZER.decode(row), (known.nonzero()[:, 0] + 1).tolist()


@given(seed=seeds)
def test_a_repeated_letter_follows_the_same_letter_as_before(seed):
    for text, known in lines("induction", seed):
        pieces = text.split(" ")
        followers = {}
        for now, following in itertools.chain(*map(itertools.pairwise, pieces)):
            assert followers.setdefault(now, following) == following  # there is one answer
        for position in range(1, len(text)):
            pair = text[position - 1 : position + 1]
            repeated = " " not in pair and text.find(pair) < position - 1
            assert (position in known) == repeated


@given(seed=seeds)
def test_no_distance_tells_where_a_repeated_letter_stood(seed):
    """Letters that come back do so at so many distances that the best is right on few of them."""
    at = [[] for _ in range(32)]
    for text, known in lines("induction", seed, count=64):
        for distance in range(1, 32):
            at[distance] += [text[i] == text[max(0, i - distance)] for i in known]
    assert max(sum(hits) / len(hits) for hits in at[1:]) < 0.4


@given(seed=seeds)
def test_brackets_are_closed_in_the_order_that_balances_them(seed):
    closes = {")": "(", "]": "[", "}": "{", ">": "<"}
    for text, known in lines("brackets", seed):
        opened = []
        for character in text.replace("=", ""):
            if character in closes:
                assert opened.pop() == closes[character]
            else:
                opened.append(character)
        assert not opened
        assert known == list(range(text.index("=") + 1, len(text) + 1))


@given(seed=seeds)
def test_a_recalled_digit_is_the_one_given_with_its_letter(seed):
    for text, known in lines("recall", seed):
        given_pairs, asked = text.split("=")
        pairs = dict(zip(given_pairs[::2], given_pairs[1::2], strict=True))
        assert len(pairs) == 8
        assert [text[i] for i in known] == [pairs[letter] for letter in asked[::2]]


@given(seed=seeds)
def test_sorted_letters_are_the_letters_sorted(seed):
    for text, known in lines("sorting", seed):
        question, answer = text.split("=")
        assert answer == "".join(sorted(question))
        assert known == list(range(13, 26))


@names
def test_examples_depend_on_seed_and_step_alone(name):
    task = TASKS[name]
    first = task.examples(4, seed=1, step=7)[0]
    task.examples(4, seed=1, step=3)
    assert task.examples(4, seed=1, step=7)[0].equal(first)
    assert not task.examples(4, seed=1, step=8)[0].equal(first)
    assert not task.examples(4, seed=2, step=7)[0].equal(first)


class Oracle(torch.nn.Module):
    """Finds the next token likeliest, or, for a share of the positions, another."""

    def __init__(self, tokens, wrong):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.tokens, self.wrong = tokens, wrong

    def forward(self, inputs):
        answers = torch.where(self.wrong, 1, self.tokens[:, 1:])
        return 10.0 * torch.nn.functional.one_hot(answers, NUM_TOKENS)


@names
def test_accuracy_counts_determined_tokens_and_no_others(name):
    tokens, determined = TASKS[name].examples(16, seed=5, step=0)
    assert TASKS[name].accuracy(Oracle(tokens, ~determined), 16, seed=5) == 1.0
    assert TASKS[name].accuracy(Oracle(tokens, determined), 16, seed=5) == 0.0
    half = torch.arange(determined.sum()) % 2 == 0
    wrong = determined.clone()
    wrong[determined] = half
    expected = 1 - half.double().mean().item()
    assert TASKS[name].accuracy(Oracle(tokens, wrong), 16, seed=5) == pytest.approx(expected)


@names
def test_training_learns_the_answers_and_of_repetitions_all(name):
    _, targets = TaskExamples(TASKS[name], 8, seed=0).batch(3)
    tokens, determined = TASKS[name].examples(8, seed=0, step=3)
    learned = torch.ones_like(determined) if name == "induction" else determined
    assert ((targets != UNSCORED) == learned).all()
    assert targets[learned].equal(tokens[:, 1:][learned])


def small_model(num_tokens=NUM_TOKENS):
    torch.manual_seed(0)
    return TransformerLM(num_tokens, dim=32, depth=2, heads=2, dim_head=16, ff_mult=1)


def test_a_model_learns_to_sort():
    model = small_model()
    chosen = options(steps=100, batch_size=32, learning_rate=1e-2, evaluate_every=100)
    before = TASKS["sorting"].accuracy(model)
    progress = train_task(model, "sorting", chosen)
    assert before < 0.25
    assert progress.accuracy[100] > 0.3
    assert progress.accuracy[100] == TASKS["sorting"].accuracy(model)


def test_a_stopped_training_on_a_task_goes_on_to_the_same_bits(tmp_path):
    whole, before, after = Losses(), Losses(5), Losses()
    train_task(small_model(), "recall", options(), report=whole)
    state = tmp_path / "state"
    with pytest.raises(KeyboardInterrupt):
        train_task(small_model(), "recall", options(), saving=Saving(state), report=before)
    saving = Saving(state, resume=True)
    progress = train_task(small_model(), "recall", options(), saving=saving, report=after)
    assert before + after[1:] == whole
    assert sorted(progress.accuracy) == sorted(progress.validation) == [4, 8, 12]
    with pytest.raises(ValueError, match="begun with task = recall, not sorting"):
        train_task(small_model(), "sorting", options(), saving=saving)


def test_what_is_no_task_or_no_model_for_one_is_refused():
    with pytest.raises(ValueError, match="no task 'chess'; there are induction, brackets, recall"):
        find_task("chess")
    with pytest.raises(ValueError, match="a task needs a model of 257 ids, got 100"):
        train_task(small_model(100), "sorting", options())
