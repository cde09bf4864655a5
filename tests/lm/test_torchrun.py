"""Training under torchrun: two processes give the losses of one, and go on where one stopped."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file

from tests.lm.small import Losses, new_model, options
from zeta_edu.lm import parallel, train
from zeta_edu.lm.evaluation import evaluate

SCRIPT = Path(__file__).with_name("torchrun_script.py")
ROOT = SCRIPT.parents[2]
SECONDS = 240  # two processes that wait for each other are killed then

pytestmark = pytest.mark.skipif(
    not (dist.is_available() and dist.is_gloo_available()), reason="gloo is not built in"
)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def in_processes(count: int, folder: Path, program: list[str]) -> str:
    """Run a program under torchrun; return what it printed."""
    launcher = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={count}"]
    command = [*launcher, f"--master-port={free_port()}", *program]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            said, _ = process.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            said, _ = process.communicate()
            pytest.fail(f"the processes had not ended after {SECONDS} s: {said[-2000:]}")
    assert process.returncode == 0, said[-4000:]
    return said


def losses_of(folder: Path, *parts: str) -> dict[str, list[tuple[int, float, float]]]:
    """Run trainings one after the other in two processes; return their losses."""
    in_processes(2, folder, [str(SCRIPT), *parts])
    return json.loads((folder / "losses.json").read_text())


def assert_equal_losses(found, expected):
    assert [entry[0] for entry in found] == [entry[0] for entry in expected]
    for (_, loss, validation), (_, other, wanted) in zip(found, expected, strict=True):
        assert loss == pytest.approx(other, rel=2e-6)
        assert validation == (None if wanted is None else pytest.approx(wanted, rel=2e-6))


@pytest.fixture(scope="module")
def folder(tokens, tmp_path_factory):
    folder = tmp_path_factory.mktemp("torchrun")
    np.save(folder / "tokens.npy", tokens)
    return folder


def in_this_process(tokens, stop=None, **saving):
    losses = Losses(stop)
    with contextlib.suppress(KeyboardInterrupt):
        train(new_model(), tokens, tokens, options(clip=0.1), **saving, report=losses)
    return losses


@pytest.fixture(scope="module")
def alone(tokens):
    """The losses of a single process."""
    return in_this_process(tokens)


@pytest.fixture(scope="module")
def together(folder, tokens):
    """The losses of two processes, of each kind."""
    for name in "kl":
        in_this_process(tokens, 6, state=folder / name)
    parts = ("ddp,0,99,a", "fsdp,0,99,b", "ddp+parts,0,99,c", "fsdp+parts,0,99,d")
    stopped = ("ddp,0,6,e", "fsdp,0,6,f", "ddp+dropout,0,99,g", "ddp+dropout,0,6,h")
    resumed = ("fsdp,4,99,e", "ddp,4,99,f", "ddp+dropout,4,99,h", "ddp,4,99,k", "fsdp,4,99,l")
    return losses_of(folder, *parts, *stopped, *resumed, "ddp,0,6,i", "fsdp,0,6,j")


@pytest.mark.parametrize("kind", ["ddp,0,99,a", "fsdp,0,99,b", "ddp+parts,0,99,c"])
def test_two_processes_give_the_losses_of_one(kind, alone, together):
    assert_equal_losses(together[kind], alone)


def test_accumulation_over_shards_gives_the_same(alone, together):
    assert_equal_losses(together["fsdp+parts,0,99,d"], alone)


def test_two_processes_save_one_whole_model(together, folder):
    models = [load_file(folder / f"{name}.model" / "model.safetensors") for name in "ab"]
    assert models[0].keys() == dict(new_model().state_dict()).keys()
    for name, tensor in models[0].items():
        assert tensor.shape == models[1][name].shape
        assert (tensor - models[1][name]).abs().max() < 1e-4


@pytest.mark.parametrize(("state", "resumed"), [("e", "fsdp,4,99,e"), ("f", "ddp,4,99,f")])
def test_either_kind_goes_on_from_the_other_s_checkpoint(state, resumed, alone, together):
    assert_equal_losses(together[resumed], alone[4:])


def test_dropout_goes_on_to_the_same_bits_in_every_process(together):
    whole, before = together["ddp+dropout,0,99,g"], together["ddp+dropout,0,6,h"]
    assert before[:4] + together["ddp+dropout,4,99,h"] == whole


@pytest.mark.parametrize("state", ["i", "j"])
def test_one_process_goes_on_from_two(state, folder, alone, together, tokens):
    losses = in_this_process(tokens, state=folder / state, resume=True)
    assert_equal_losses(losses, alone[4:])


@pytest.mark.parametrize("resumed", ["ddp,4,99,k", "fsdp,4,99,l"])
def test_two_processes_go_on_from_one(resumed, alone, together):
    assert_equal_losses(together[resumed], alone[4:])


def test_the_shards_of_a_checkpoint_are_safetensors_and_no_other_is_left(folder, together):
    (checkpoint,) = (folder / "b.shards").iterdir()
    assert checkpoint.name == "step-00000012"
    kinds = {file.suffix for file in checkpoint.iterdir()}
    assert kinds == {".safetensors", ".json"}
    assert not (folder / "f.shards").exists()  # DDP went on, and wrote a file
    assert not (folder / "e").exists()  # FSDP went on, and wrote shards


def test_a_damaged_shard_is_refused(folder, together, tokens):
    (checkpoint,) = (folder / "d.shards").iterdir()
    shard = sorted(checkpoint.glob("*.safetensors"))[0]
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"d\.shards.*is not a whole checkpoint"):
        train(
            new_model(),
            tokens,
            tokens,
            options(clip=0.1, accumulate=2),
            state=folder / "d",
            resume=True,
        )


def test_the_command_trains_under_torchrun(folder, text):
    (folder / "mine").mkdir(exist_ok=True)
    for number in range(3):
        (folder / "mine" / f"{number}.py").write_text(f"# file {number}\n{text}")
    small = "--dim 16 --depth 1 --heads 2 --dim-head 8 --vocab 300 --length 16 --batch 4 --warmup 2"
    command = f"train --text mine --out out --steps 4 --evaluate-every 2 --fsdp {small}"
    said = in_processes(2, folder, ["-m", "zeta_edu", *command.split()])
    assert said.count("4 steps, 256 tokens") == 1
    assert said.count("saved in out") == 1
    assert load_file(folder / "out" / "model.safetensors")["norm.gamma"].shape == (16,)


def test_a_batch_that_cannot_be_shared_is_refused(monkeypatch, tokens):
    monkeypatch.setattr(parallel, "processes", lambda: 3)
    with pytest.raises(ValueError, match="batch_size must be a multiple of the 3 processes, got 4"):
        parallel.own_rows(torch.zeros(4, 2))


def test_more_processes_than_windows_still_validate_each_once(monkeypatch, tokens):
    model = new_model().eval()
    expected = evaluate(model, tokens[:50], 16)
    summed = []
    monkeypatch.setattr(parallel, "processes", lambda: 4)
    monkeypatch.setattr(parallel, "total", lambda value: summed.append(value) or value)
    for rank in range(4):
        monkeypatch.setattr(parallel, "rank", lambda rank=rank: rank)
        evaluate(model, tokens[:50], 16)
    assert sum(map(float, summed)) / 48 == pytest.approx(expected)
