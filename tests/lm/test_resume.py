"""Training that stops, by whatever cause, and goes on."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.lm.small import Losses, new_model, options
from zeta_edu.lm import TransformerLM, train


@pytest.mark.parametrize("stop", [5, 6, 8, 9, 11])
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
    saved = (stop - 1) // 4 * 4  # the stop comes before the step is saved
    assert before[:saved] + after == whole
    assert progress.tokens == 12 * 4 * 16
    assert sorted(progress.validation) == [4, 8, 12]
    for name, parameter in unbroken.named_parameters():
        assert broken.get_parameter(name).equal(parameter), name


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
    for kill in (5, 0):
        command = [sys.executable, "-c", KILLED, "tokens.npy", str(kill)]
        result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert result.returncode == (-9 if kill else 0), result.stderr
        runs.append(result.stdout.splitlines())
    whole = Losses()
    torch.set_num_threads(1)
    train(new_model(), tokens, tokens, options(), report=whole)
    assert runs[0][:4] + runs[1] == [f"{step} {loss.hex()}" for step, loss, _ in whole]


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
    with pytest.raises(ValueError, match="begun with dim = 32, not 16"):
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
        ("random.0.cpu", r"lacks the state 'random\.0\.cpu'"),
    ],
)
def test_a_checkpoint_that_lacks_something_is_refused(tokens, state, name, fault):
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
