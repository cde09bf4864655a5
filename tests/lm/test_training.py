"""Training: that it learns, and that stopping changes nothing."""

import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.lm.small import Losses, new_model, options
from zeta_edu.lm import bits_per_byte, evaluate, train
from zeta_edu.lm.training import make_optimizer, set_learning_rate


def test_a_model_learns_a_regular_text(tokens):
    model = new_model()
    before = evaluate(model, tokens, length=32)
    train(model, tokens, tokens, options(steps=60, batch_size=8, length=32, learning_rate=1e-2))
    after = evaluate(model, tokens, length=32)
    assert before == pytest.approx(math.log(300), abs=0.1)
    assert after < 0.5 * before


def test_the_same_seed_gives_the_same_losses_and_another_seed_others(tokens):
    runs = [Losses(), Losses(), Losses()]
    for losses, seed in zip(runs, (0, 0, 1), strict=True):
        train(new_model(), tokens, tokens, options(seed=seed), report=losses)
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


def test_every_step_reads_its_own_windows(tokens):
    from zeta_edu.lm.data import TokenWindows

    model, seen = new_model(), []
    model.embedding.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    train(model, tokens, tokens, options(steps=4, evaluate_every=100, seed=7))
    windows = TokenWindows(tokens, batch_size=4, length=16, seed=7)
    assert all(seen[step].equal(windows.batch(step)[0]) for step in range(4))


def test_accumulation_gives_the_gradient_of_the_whole_batch(tokens):
    whole, parts = new_model().double(), new_model().double()
    for model, accumulate in ((whole, 1), (parts, 4)):
        train(model, tokens, tokens, options(steps=3, accumulate=accumulate))
    for name, parameter in whole.named_parameters():
        torch.testing.assert_close(parts.get_parameter(name), parameter, atol=1e-6, rtol=1e-4)


def test_bfloat16_trains_float32_weights(tokens):
    model, losses = new_model(), Losses()
    exact = Losses()
    train(model, tokens, tokens, options(bf16=True), report=losses)
    train(new_model(), tokens, tokens, options(), report=exact)
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    assert losses != exact
    assert losses[-1][1] == pytest.approx(exact[-1][1], abs=0.05)


def test_the_rate_rises_in_a_line_and_falls_to_a_tenth():
    chosen = options(steps=100, warmup=10, learning_rate=1.0)
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.0)
    rates = []
    for step in range(101):
        set_learning_rate(optimizer, chosen, step)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates[:11] == pytest.approx([*(0.1 * i for i in range(1, 11)), 1.0])
    assert rates[55] == pytest.approx(0.55)
    assert rates[100] == pytest.approx(0.1)
    assert sorted(rates[10:], reverse=True) == rates[10:]


def test_only_the_matrices_of_blocks_decay():
    model = new_model(qk_rmsnorm=True)
    decayed, free = (group["params"] for group in make_optimizer(model, options()).param_groups)
    names = {parameter: name for name, parameter in model.named_parameters()}
    kinds = {names[parameter].split(".", 2)[-1] for parameter in decayed}
    assert kinds == {"fused_attn_ff_proj.weight", "attn_out.weight", "ff_out.2.weight"}
    assert len(decayed) + len(free) == len(names)


def test_without_a_gradient_only_the_decayed_shrink(tokens):
    model = new_model()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = make_optimizer(model, options(weight_decay=0.5, learning_rate=0.1))
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in model.named_parameters():
        shrunk = "blocks" in name and parameter.ndim == 2
        torch.testing.assert_close(parameter, before[name] * (0.95 if shrunk else 1.0))


def test_a_large_gradient_is_clipped(tokens):
    small, large = new_model(), new_model()
    seen = []
    train(small, tokens, tokens, options(steps=1), report=lambda p: seen.append(p.gradient_norm))
    assert seen[0] > 0.01
    # Adam's step is blind to the gradient's scale, so look at the gradients it was given.
    gradients = {}
    for parameter in large.parameters():
        parameter.register_post_accumulate_grad_hook(lambda p: gradients.update({p: p.grad}))
    train(large, tokens, tokens, options(steps=1, clip=0.01))
    norm = torch.stack([gradient.norm() for gradient in gradients.values()]).norm()
    assert norm == pytest.approx(0.01, rel=1e-3)


def test_a_loss_that_is_not_finite_stops_before_it_does_harm(tokens, tmp_path):
    model = new_model()
    state = tmp_path / "state"
    train(model, tokens, tokens, options(steps=4), state=state)
    before = state.read_bytes()
    model.norm.gamma.data[0] = float("nan")
    with pytest.raises(FloatingPointError, match="loss became nan; a lower learning rate"):
        train(model, tokens, tokens, options(steps=4), state=state)
    assert state.read_bytes() == before


def test_validation_reads_every_window_once(tokens):
    model = new_model().eval()
    exact = []
    for start in range(0, len(tokens) - 16, 16):
        window = torch.from_numpy(tokens[start : start + 17].astype(np.int64))
        logits = model(window[None, :-1])[0]
        exact.append(torch.nn.functional.cross_entropy(logits, window[1:]).item())
    assert evaluate(model, tokens, 16, windows=None) == pytest.approx(np.mean(exact), rel=1e-5)


def test_validation_without_dropout_leaves_a_training_model_training(tokens):
    model = new_model(ff_dropout=0.5).train()
    assert evaluate(model, tokens, 16) == evaluate(model, tokens, 16)
    assert model.training


def test_bits_per_byte_of_a_uniform_guess_over_bytes_is_eight():
    assert bits_per_byte(math.log(256), tokens=10, text_bytes=10) == pytest.approx(8)


@pytest.mark.parametrize(
    ("changes", "argument"),
    [
        ({"steps": 0}, "steps"),
        ({"batch_size": 0}, "batch_size"),
        ({"length": -1}, "length"),
        ({"learning_rate": 0}, "learning_rate"),
        ({"learning_rate": math.nan}, "learning_rate"),
        ({"clip": 0}, "clip"),
        ({"warmup": -1}, "warmup"),
        ({"weight_decay": -0.1}, "weight_decay"),
        ({"seed": -1}, "seed"),
        ({"accumulate": 3}, "accumulate must divide batch_size"),
    ],
)
def test_an_option_that_means_nothing_is_refused(changes, argument):
    with pytest.raises(ValueError, match=argument):
        options(**changes)


def test_a_text_too_short_is_told(tokens):
    with pytest.raises(ValueError, match="the text has 16 tokens"):
        train(new_model(), tokens[:16], tokens, options())
    with pytest.raises(ValueError, match="the validation text has 1 tokens"):
        train(new_model(), tokens, tokens[:1], options())


def test_a_text_of_a_larger_vocabulary_is_told(tokens):
    large = tokens.copy()
    large[5] = 300
    for name, texts in (("training", (large, tokens)), ("validation", (tokens, large))):
        with pytest.raises(ValueError, match=f"the {name} text has the id 300, but the model's"):
            train(new_model(), *texts, options())


def test_what_needs_no_gradient_is_neither_trained_nor_saved(tokens, tmp_path):
    model = new_model()
    model.embedding.weight.requires_grad_(False)
    before = model.embedding.weight.clone()
    train(model, tokens, tokens, options(), state=tmp_path / "state")
    assert model.embedding.weight.equal(before)
    assert "model.embedding.weight" not in load_file(tmp_path / "state")
    other = new_model()
    torch.nn.init.ones_(other.embedding.weight).requires_grad_(False)
    with pytest.raises(ValueError, match="was trained on another base model"):
        train(other, tokens, tokens, options(), state=tmp_path / "state", resume=True)


def test_without_a_compiler_compiling_is_refused_in_one_sentence(tmp_path):
    (tmp_path / "a.txt").write_text("one two three four five six seven\n" * 200)
    small = "--dim 8 --depth 1 --heads 1 --dim-head 8 --vocab 260 --length 8 --batch 2 --steps 2"
    command = f"train --text a.txt --out out --compile {small}"
    environment = os.environ | {
        "PATH": "",
        "CXX": "no-such-compiler",
        "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    words = [sys.executable, "-m", "zeta_edu", *command.split()]
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert "--compile cannot be used here" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
