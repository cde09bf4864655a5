"""A training killed again and again, at random moments, ends as one that was left alone."""

import csv
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
KILLS = int(os.environ.get("ZETA_EDU_KILLS", "3"))  # more of them by hand
TRAIN = (
    "train --text mine --dim 16 --depth 1 --heads 2 --dim-head 8 --vocab 300 --length 16 --batch 4 "
    "--warmup 5 --evaluate-every 10 --save-every 2 --dropout 0.1 --keep 4,8 --threads 1"
)
# Runs the command; a while after so many steps a thread kills the process, whatever it does then.
PROGRAM = """
import os, signal, sys, threading
from zeta_edu.cli import main
from zeta_edu.lm import training

steps, seconds, words = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]
set_learning_rate, calls = training.set_learning_rate, []

def counted(*arguments):
    set_learning_rate(*arguments)
    calls.append(1)
    if len(calls) == steps:
        threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGKILL)).start()

training.set_learning_rate = counted
sys.exit(main(words))
"""


@pytest.fixture
def folder(tmp_path: Path, text: str) -> Path:
    (tmp_path / "mine").mkdir()
    for number in range(3):
        (tmp_path / "mine" / f"{number}.py").write_text(f"# file {number}\n{text}")
    return tmp_path


def run(folder: Path, out: str, steps: int, seconds: float) -> int:
    """Run the training, or go on with it; return how the process ended."""
    resume = ["--resume"] if (folder / out).exists() else []
    words = [*TRAIN.split(), "--steps", str(8 + 4 * KILLS), "--out", out, *resume]
    command = [sys.executable, "-c", PROGRAM, str(steps), str(seconds), *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode in (0, -9), done.stderr
    return done.returncode


def log(folder: Path, out: str) -> list[tuple[str, str, str]]:
    with (folder / out / "log.csv").open(newline="") as file:
        return [(row["step"], row["loss"], row["validation_loss"]) for row in csv.DictReader(file)]


def test_any_number_of_kills_changes_no_loss_and_no_weight(folder: Path) -> None:
    drawn = random.Random(KILLS)
    assert run(folder, "whole", 0, 0.0) == 0
    for _ in range(KILLS):
        assert run(folder, "killed", drawn.randint(1, 8), drawn.uniform(0, 0.03)) == -9
    assert run(folder, "killed", 0, 0.0) == 0
    assert log(folder, "killed") == log(folder, "whole")
    for file in ("model", "training-state", "steps/000004/model", "steps/000008/model"):
        name = f"{file}.safetensors"
        ours, theirs = (load_file(folder / out / name) for out in ("killed", "whole"))
        assert ours.keys() == theirs.keys()
        assert all(ours[key].equal(theirs[key]) for key in theirs)
    assert not list((folder / "killed").rglob("*.partial"))
