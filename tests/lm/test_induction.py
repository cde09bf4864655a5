"""The shipped induction model: that it copies by the letters themselves, and by which heads."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from zeta_edu import load_pretrained, record_attention
from zeta_edu.lm import TASKS, load_model, shipped_models
from zeta_edu.lm.checkpoints import SHIPPED
from zeta_edu.lm.tasks import repeated

TASK = TASKS["induction"]
LONGER = replace(TASK, draw=partial(repeated, sizes=(16, 16)))


@pytest.fixture(scope="module")
def model():
    return load_pretrained("induction")[0].eval()


def test_it_is_shipped():
    assert "induction" in shipped_models()


@pytest.mark.parametrize("task", [TASK, LONGER], ids=["as trained", "longer circles"])
def test_it_is_right_on_99_of_100_repeated_letters(model, task):
    assert task.accuracy(model, 512, seed=9) > 0.99


def test_one_head_looks_back_and_one_behind_the_same_letter(model):
    tokens, determined = TASK.examples(128, seed=9, step=0)
    with torch.no_grad(), record_attention(model) as record:
        model(tokens[:, :-1])
    before = record[0].diagonal(offset=-1, dim1=-2, dim2=-1)[:, 0]  # (128, 30)
    assert before.mean() > 0.55
    # From the letter i, what the head gives to the places j behind an earlier letter like it.
    letters = tokens[:, :-1]
    behind = (letters[:, :, None] == letters[:, None, :]).roll(1, dims=2).tril(diagonal=0)
    behind[:, :, 0] = False
    induction = (record[1][:, 1] * behind).sum(dim=-1)  # (128, 31)
    assert induction[determined].mean() > 0.9


def test_its_checkpoints_show_it_before_amid_and_after():
    folders = sorted((SHIPPED / "induction" / "steps").iterdir())
    early, amid, late = (TASK.accuracy(load_model(f).eval(), 256, seed=9) for f in folders)
    assert early < 0.2 < amid < 0.8
    assert late > 0.98
