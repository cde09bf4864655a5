"""Training: that it learns, and that stopping changes nothing."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from zeta_edu.lm import TrainingOptions, TransformerLM, bits_per_byte, evaluate, train
from zeta_edu.lm.training import make_optimizer, set_learning_rate


@pytest.fixture(scope="module")
def tokens(tokenizer, text):
    """The small text as ids."""
    return np.array(tokenizer.encode(text), dtype=np.uint16)


def new_model(**options):
    torch.manual_seed(0)
    shape = {"num_tokens": 300, "dim": 32, "depth": 2, "heads": 2, "dim_head": 16, "ff_mult": 2}
    return TransformerLM(**(shape | options))


def options(**changes):
    small = {"steps": 12, "batch_size": 4, "length": 16, "warmup": 3, "evaluate_every": 4}
    return TrainingOptions(**(small | {"save_every": 4} | changes))


class Losses(list):
    """The losses of every step; stops the training after ``stop`` steps."""

    def __init__(self, stop=None):
        super().__init__()
        self.stop = stop

    def __call__(self, progress):
        self.append((progress.step, progress.loss, progress.validation.get(progress.step)))
        if progress.step == self.stop:
            raise KeyboardInterrupt


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


@pytest.mark.parametrize("stop", [4, 5, 7, 8, 11])
@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_a_stopped_training_goes_on_to_the_same_bits(tokens, tmp_path, stop, dropout):
    shape = {"attn_dropout": dropout, "ff_dropout": dropout, "qk_rmsnorm": True}
    whole, before, after = Losses(), Losses(stop), Losses()
    unbroken, state = new_model(**shape), tmp_path / "state"
    train(unbroken, tokens, tokens, options(), report=whole)
    broken = new_model(**shape)
    with pytest.raises(KeyboardInterrupt):
        train(broken, tokens, tokens, options(), state=state, report=before)
    torch.manual_seed(99)
    broken = TransformerLM(**broken.config)
    progress = train(broken, tokens, tokens, options(), state=state, resume=True, report=after)
    assert before + after[stop % 4 :] == whole
    assert progress.tokens == 12 * 4 * 16
    assert sorted(progress.validation) == [4, 8, 12]
    for name, parameter in unbroken.named_parameters():
        assert broken.get_parameter(name).equal(parameter), name


def test_every_step_reads_its_own_windows(tokens):
    from zeta_edu.lm.data import TokenWindows

    model, seen = new_model(), []
    model.embedding.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    train(model, tokens, tokens, options(steps=4, evaluate_every=100, seed=7))
    windows = TokenWindows(tokens, batch_size=4, length=16, seed=7)
    assert all(seen[step].equal(windows.batch(step)[0]) for step in range(4))


KILLED = """
import os, signal, sys
import numpy as np, torch
from zeta_edu.lm import TrainingOptions, TransformerLM, train
torch.set_num_threads(1)
torch.manual_seed(0)
model = TransformerLM(300, 32, 2, heads=2, dim_head=16, ff_mult=2)
options = TrainingOptions(steps=12, batch_size=4, length=16, warmup=3, save_every=1)
def report(progress):
    print(progress.step, progress.loss.hex(), flush=True)
    if progress.step == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
tokens = np.load(sys.argv[1])
train(model, tokens, tokens, options, state="state", resume=os.path.exists("state"), report=report)
"""


def test_a_killed_process_goes_on_to_the_same_bits(tokens, tmp_path):
    np.save(tmp_path / "tokens.npy", tokens)
    runs = []
    for kill, folder in ((5, "killed"), (0, "killed"), (0, "unbroken")):
        (tmp_path / folder).mkdir(exist_ok=True)
        command = [sys.executable, "-c", KILLED, str(tmp_path / "tokens.npy"), str(kill)]
        result = subprocess.run(command, cwd=tmp_path / folder, capture_output=True, text=True)
        assert result.returncode == (-9 if kill else 0), result.stderr
        runs.append(result.stdout.splitlines())
    assert runs[0] + runs[1] == runs[2]


def test_accumulation_gives_the_gradient_of_the_whole_batch(tokens):
    whole, parts = new_model().double(), new_model().double()
    for model, accumulate in ((whole, 1), (parts, 4)):
        train(model, tokens, tokens, options(steps=3, accumulate=accumulate))
    for name, parameter in whole.named_parameters():
        torch.testing.assert_close(parts.get_parameter(name), parameter, atol=1e-6, rtol=1e-4)


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
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


@pytest.fixture
def state(tokens, tmp_path):
    """The checkpoint of a training."""
    train(new_model(), tokens, tokens, options(steps=4), state=tmp_path / "state")
    return tmp_path / "state"


def go_on(tokens, state, model=None, **changes):
    model = model or new_model()
    return train(model, tokens, tokens, options(**{"steps": 4} | changes), state=state, resume=True)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"steps": 8}, "steps = 4, not 8"),
        ({"learning_rate": 1e-3}, "learning_rate = 0.002, not 0.001"),
        ({"seed": 3}, "seed = 0, not 3"),
    ],
)
def test_another_training_cannot_go_on(tokens, state, changes, fault):
    with pytest.raises(ValueError, match=fault):
        go_on(tokens, state, **changes)


def test_another_model_or_text_cannot_go_on(tokens, state):
    with pytest.raises(ValueError, match="begun with model = "):
        go_on(tokens, state, new_model(dim=16))
    with pytest.raises(ValueError, match="another text or tokenizer"):
        go_on(tokens[::-1], state)


def test_how_often_is_saved_may_change(tokens, state):
    assert go_on(tokens, state, save_every=1, evaluate_every=1).step == 4


def test_nothing_to_resume_is_told(tokens, tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing to resume"):
        go_on(tokens, tmp_path / "nothing")


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.999])
def test_a_torn_checkpoint_is_refused(tokens, state, share):
    content = state.read_bytes()
    state.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ValueError, match="state' is not a whole safetensors file"):
        go_on(tokens, state)


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("model.norm.gamma", r"lacks 'model\.norm\.gamma'"),
        ("optimizer.norm.gamma.exp_avg", r"lacks 'optimizer\.norm\.gamma\.exp_avg'"),
        ("random.cpu", r"lacks the state 'random\.cpu'"),
    ],
)
def test_a_checkpoint_that_lacks_something_is_refused(tokens, state, name, fault):
    from safetensors import safe_open

    with safe_open(state, framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(state)
    del tensors[name]
    save_file(tensors, state, metadata)
    with pytest.raises(ValueError, match=fault):
        go_on(tokens, state)


def test_a_model_file_is_no_checkpoint(tokens, tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "state")
    with pytest.raises(ValueError, match="not the checkpoint of a training"):
        go_on(tokens, tmp_path / "state")


def test_a_text_too_short_is_told(tokens):
    with pytest.raises(ValueError, match="the text has 16 tokens"):
        train(new_model(), tokens[:16], tokens, options())
    with pytest.raises(ValueError, match="the validation text has 1 tokens"):
        train(new_model(), tokens, tokens[:1], options())
