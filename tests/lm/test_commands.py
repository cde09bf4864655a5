"""`zeta-edu train` and `zeta-edu generate`, as typed."""

import csv
import io
import re
import shlex
import sys
from contextlib import contextmanager
from unittest.mock import patch

import pytest
import torch
from safetensors.torch import load_file

from zeta_edu import load_lora
from zeta_edu.cli import main
from zeta_edu.lm import load_pretrained, reporting

SMALL = "--dim 16 --depth 2 --heads 2 --dim-head 8 --vocab 300 --length 16 --batch 4 --warmup 2"
SHORT = "--steps 8 --evaluate-every 4 --save-every 4 --threads 1"


@pytest.fixture(autouse=True)
def settings_of_torch():
    """The commands change settings of torch, as a process of their own may."""
    precision, threads = torch.get_float32_matmul_precision(), torch.get_num_threads()
    yield
    torch.set_float32_matmul_precision(precision)
    torch.set_num_threads(threads)


@pytest.fixture
def folder(tmp_path, monkeypatch, text):
    """The current folder, with a few files of text."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    for number in range(4):
        (tmp_path / "mine" / f"{number}.py").write_text(f"# file {number}\n{text}")
    return tmp_path


def train(options="", expect=0):
    code = main(shlex.split(f"train --text mine --out out {SMALL} {SHORT} {options}"))
    assert code == expect


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_training_tells_what_it_did_and_how_to_go_on(folder, capsys):
    train()
    said = capsys.readouterr().out
    assert "3 files to train on" in said
    assert "set_float32_matmul_precision('medium')" in said
    assert "8 steps, 512 tokens" in said
    assert re.search(r"validation loss 5\.\d+ \(\d\.\d+ bits per byte\)", said)
    command = re.search(r"zeta-edu (generate .*)", said)[1]
    assert main([*shlex.split(command), "--max-tokens", "5"]) == 0
    assert capsys.readouterr().out.startswith("def add(")


def test_training_without_terminal_shows_lines_and_with_one_a_bar(folder, capsys, monkeypatch):
    train()
    assert "step 4 of 8: loss" in capsys.readouterr().err

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    train("--out other")
    shown = sys.stderr.getvalue()
    assert "8/8" in shown
    assert re.search(r"loss \d\.\d+, validation \d\.\d+, \d+ tokens/s", shown)


def test_the_result_is_a_model_with_card_log_and_tokenizer(folder):
    train("--half --keep 2,8")
    model, tokenizer = load_pretrained("out")
    assert model.config["dim"] == 16
    assert len(tokenizer) == 300
    assert torch.equal(model.embedding.weight, model.embedding.weight.half().float())
    assert [row["step"] for row in rows(folder / "out" / "log.csv")] == ["4", "8"]
    kept = load_pretrained("out/steps/000002")[0]
    assert not torch.equal(kept.embedding.weight, model.embedding.weight)
    last = load_pretrained("out/steps/000008")[0]
    assert torch.equal(last.embedding.weight, model.embedding.weight)


def test_the_command_on_the_card_trains_the_same_model_again(folder):
    train("--seed 5 --qk-rmsnorm --dropout 0.1")
    card = (folder / "out" / "README.md").read_text()
    command = re.search(r"    zeta-edu (train .*)", card)[1]
    assert "--seed 5" in command
    assert main([*shlex.split(command), "--out", "again"]) == 0
    names = ("model.safetensors", "tokenizer.json", "config.json")
    for name in names:
        assert (folder / "again" / name).read_bytes() == (folder / "out" / name).read_bytes()


def test_the_card_says_what_the_model_is(folder):
    train()
    card = (folder / "out" / "README.md").read_text()
    assert "Seed 0, 8 steps of 64 tokens, 512 tokens in all" in card
    assert re.search(r"\| validation \| \d\.\d{4} bits per byte \|", card)
    assert torch.__version__ in card


def test_the_help_gives_defaults_and_no_empty_ones(capsys):
    for command in ("train", "finetune", "generate"):
        with pytest.raises(SystemExit):
            main([command, "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "of weights, windows and dropout (default: 0)" in said
    assert "(default: python-small)" in said
    assert not re.search(r"default: (None|False|\[\])", said)


def test_a_folder_with_braces_in_its_name_is_text_too(folder):
    (folder / "mine").rename(folder / "{mine}")
    train("--text {mine}")
    assert "found at `{mine}`" in (folder / "out" / "README.md").read_text()


@contextmanager
def interrupted_at_step_6():
    """Ctrl-C, as soon as the sixth step is told."""
    show = reporting.ProgressBar.__call__

    def interrupt(self, progress):
        show(self, progress)
        if progress.step == 6:
            raise KeyboardInterrupt

    with patch.object(reporting.ProgressBar, "__call__", interrupt):
        yield


def test_an_interrupted_training_goes_on_as_if_it_had_not_been(folder, capsys):
    train("--out unbroken")
    with interrupted_at_step_6():
        train(expect=130)
    assert "--resume goes on" in capsys.readouterr().out
    capsys.readouterr()
    train("--resume")
    shown = capsys.readouterr().err
    assert "step 8 of 8" in shown
    assert "step 4 of 8" not in shown
    for name in ("model.safetensors", "tokenizer.json"):
        assert (folder / "out" / name).read_bytes() == (folder / "unbroken" / name).read_bytes()
    losses = [
        [
            (row["step"], row["loss"], row["validation_loss"])
            for row in rows(folder / out / "log.csv")
        ]
        for out in ("out", "unbroken")
    ]
    assert losses[0] == losses[1]


def test_rows_of_the_log_beyond_the_checkpoint_are_written_once(folder):
    train("--steps 4", 0)
    log = folder / "out" / "log.csv"
    with log.open("a") as file:
        file.write("7,448,1.0,,0.1,0.1,100\n9,5")
    from zeta_edu.lm.reporting import CsvLog
    from zeta_edu.lm.training import Progress

    again = CsvLog(log)
    for step in (5, 6, 7, 8, 9, 10):
        again(Progress(step=step, tokens=step, loss=2.0, seconds=1.0))
    again.close()
    assert [row["step"] for row in rows(log)] == ["4", "10"]


def test_a_kill_while_a_log_is_taken_up_again_loses_no_row(tmp_path, monkeypatch):
    from zeta_edu.lm import reporting
    from zeta_edu.lm.options import Progress

    log = reporting.CsvLog(tmp_path / "log.csv", every=1)
    log(Progress(step=1, tokens=1, loss=2.0, seconds=1.0))
    log.close()

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", killed)
    again = reporting.CsvLog(tmp_path / "log.csv", every=1)
    with pytest.raises(KeyboardInterrupt):
        again(Progress(step=2, tokens=2, loss=2.0, seconds=1.0))
    assert [row["step"] for row in rows(tmp_path / "log.csv")] == ["1"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("--text nowhere", "no file or folder at text path 'nowhere'"),
        ("--text empty", "no text files in folder 'empty'"),
        ("--text picture.png", "'picture.png' is not a text"),
        ("--text short.txt", "the text has"),
        ("--resume", "nothing to resume"),
        ("--device warp", "--device must be one of cpu, cuda, mps, xpu, got 'warp'"),
        ("--threads 0", "--threads must be a positive integer"),
        ("--vocab 100", "--vocab must lie between 257"),
        ("--steps 0", "steps must be at least 1"),
        ("--keep 9", "--keep 9 is not among the steps 1 to 8"),
        ("--lr -1", "--lr must be positive"),
        ("--dim-head 7", "dim_head must be even"),
        ("--dropout 1", "--dropout must be"),
        ("--lr 1e30", "a lower learning rate may help"),
        ("--out mine/0.py", "mine/0.py: File exists"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_sentence(folder, capsys, options, sentence):
    (folder / "empty").mkdir()
    (folder / "picture.png").write_bytes(b"\x89PNG\0")
    (folder / "short.txt").write_text("short")
    train(options, expect=2)
    said = capsys.readouterr().err.splitlines()
    assert sentence in said[-1]


def test_a_model_or_a_readme_that_is_there_is_not_written_over(folder, capsys):
    train()
    before = (folder / "out" / "model.safetensors").read_bytes()
    train("--seed 1", expect=2)
    assert "is there already" in capsys.readouterr().err
    assert (folder / "out" / "model.safetensors").read_bytes() == before
    (folder / "mine" / "README.md").write_text("precious")
    train("--out mine", expect=2)
    assert (folder / "mine" / "README.md").read_text() == "precious"


def test_generation_repeats_with_a_seed_and_stops(folder, capsys):
    train()
    capsys.readouterr()
    said = []
    for options in ("--seed 1", "--seed 1", "--seed 2", "--max-tokens 0"):
        assert main(shlex.split(f"generate 'def f():\\n' --model out {options}")) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1] != said[2]
    assert said[3] == "def f():\n\n"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("--model nowhere", "no model named 'nowhere'"),
        ("--model mine", "not a model's folder"),
        ("--temperature -1", "temperature must be"),
        ("--top-p 2", "top_p must be"),
        ("--max-tokens -1", "--max-tokens must not be negative"),
    ],
)
def test_generation_that_cannot_be_is_said_in_one_sentence(folder, capsys, options, sentence):
    train()
    capsys.readouterr()
    assert main(shlex.split(f"generate x --model out {options}")) == 2
    assert sentence in capsys.readouterr().err


def test_a_task_is_trained_and_told(folder, capsys):
    assert main(shlex.split(f"train --task sorting --out out {SMALL} {SHORT} --keep 4")) == 0
    said = capsys.readouterr().out
    assert "Letters in any order" in said
    assert re.search(r"8 steps: loss \d\.\d+, accuracy \d+\.\d\d% on 2,048 new lines", said)
    command = re.search(r"zeta-edu (generate .*)", said)[1]
    assert main(shlex.split(command)) == 0
    assert [row["accuracy"] != "" for row in rows(folder / "out" / "log.csv")] == [True, True]
    card = (folder / "out" / "README.md").read_text()
    assert re.search(r"    zeta-edu train .*--task sorting", card)
    assert load_pretrained("out/steps/000004")[0].config["num_tokens"] == 257


def test_the_manual_is_a_text_too(folder):
    train_on = f"train --documentation --out out {SMALL} {SHORT}"
    assert main(shlex.split(train_on)) == 0
    assert "topics of Python's manual" in (folder / "out" / "README.md").read_text()


def finetune(options="", expect=0):
    words = f"finetune --model out --text mine --out tuned --batch 4 --length 16 {SHORT} {options}"
    assert main(shlex.split(words)) == expect


def test_an_adapter_is_trained_saved_and_put_on(folder, capsys):
    train("--steps 30")
    before = (folder / "out" / "model.safetensors").read_bytes()
    (folder / "mine" / "0.py").write_text("zebra = 'zebra'\n" * 300)
    capsys.readouterr()
    finetune("--steps 40 --rank 2 --lr 0.03")
    said = capsys.readouterr().out
    found = re.search(r"(\d\.\d+) bits per byte of held-out text before, (\d\.\d+) with", said)
    size = (folder / "tuned" / "adapter.safetensors").stat().st_size
    assert f"saved in tuned, {size / 1000:.1f} kB" in said
    assert size < 3000
    assert (folder / "out" / "model.safetensors").read_bytes() == before
    assert re.search(r"\| held-out text, the model alone", (folder / "tuned/README.md").read_text())
    assert found[1] != found[2]
    command = re.search(r"zeta-edu (generate .*)", said)[1]
    assert "--adapter tuned" in command
    assert main([*shlex.split(command), "--seed", "1"]) == 0
    model, _ = load_pretrained("out")
    tokens = torch.tensor([[1, 2, 3]])
    alone = model(tokens)
    difference = load_lora(model, "tuned")(tokens) - alone
    assert difference.abs().max() > 1e-4


@pytest.mark.parametrize("options", ["", "--small --rank 4"])
def test_a_stopped_finetuning_goes_on(folder, options):
    train()
    finetune(f"--out unbroken {options}")
    with interrupted_at_step_6():
        finetune(options, expect=130)
    finetune(f"--resume {options}")
    tuned, unbroken = (
        load_file(folder / out / "adapter.safetensors") for out in ("tuned", "unbroken")
    )
    assert tuned.keys() == unbroken.keys()
    assert all(tuned[name].equal(unbroken[name]) for name in tuned)
    train("--out other --seed 3")
    finetune("--resume --model other", expect=2)


def test_a_small_adapter_is_put_on_like_any_other(folder, capsys):
    train()
    finetune("--small --rank 4 --lr 0.03")
    said = capsys.readouterr().out
    assert re.search(r"\n128 numbers to train", said)  # 4 targets of 2 blocks, 16 each
    assert main(shlex.split("generate x --model out --adapter tuned --max-tokens 4")) == 0
    train("--out other --seed 3")
    capsys.readouterr()
    assert main(shlex.split("generate x --model other --adapter tuned")) == 2
    assert "with other weights" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("--model nowhere", "no model named 'nowhere'"),
        ("--text nowhere", "no file or folder at text path"),
        ("--rank 0", "rank must be a positive integer"),
        ("--small --rank 99", "rank must be at most"),
        ("--targets q,x", "targets must be some of"),
        ("--resume", "nothing to resume"),
    ],
)
def test_a_finetuning_that_cannot_be_is_said_in_one_sentence(folder, capsys, options, sentence):
    train()
    capsys.readouterr()
    finetune(options, expect=2)
    assert sentence in capsys.readouterr().err.splitlines()[-1]


def test_an_adapter_for_another_model_is_refused_in_one_sentence(folder, capsys):
    train()
    finetune()
    train("--out wide --dim 32")
    capsys.readouterr()
    assert main(shlex.split("generate x --model wide --adapter tuned")) == 2
    assert "adapter.safetensors" in capsys.readouterr().err


def test_the_results_are_no_part_of_the_text(folder, capsys):
    small = f"{SMALL} {SHORT}"
    assert main(shlex.split(f"train --text . {small}")) == 0
    assert "3 files to train on" in capsys.readouterr().out
    assert main(shlex.split(f"train --text . --out second {small}")) == 0
    assert "3 files to train on" in capsys.readouterr().out


def test_a_text_learned_by_heart_is_told(folder, capsys):
    (folder / "few").mkdir()
    (folder / "few" / "a.txt").write_text("one two three four five six seven eight nine ten\n" * 2)
    (folder / "few" / "b.txt").write_text("zebra quick jumps over my lazy fox\n" * 3)
    train("--text few --steps 80 --lr 0.03")
    assert re.search(r"validation was best at step \d+ .*by heart", capsys.readouterr().out)


def test_a_text_that_changes_meanwhile_changes_nothing(folder):
    train("--out unbroken")
    with interrupted_at_step_6():
        train(expect=130)
    (folder / "mine" / "0.py").unlink()
    train("--resume")
    files = [(folder / out / "model.safetensors").read_bytes() for out in ("out", "unbroken")]
    assert files[0] == files[1]


def test_a_training_stopped_before_its_first_checkpoint_starts_anew(folder, capsys):
    train("--steps 8")
    for name in ("training-state.safetensors", "model.safetensors", "README.md"):
        (folder / "out" / name).unlink()
    capsys.readouterr()
    train("--resume")
    assert "starts anew" in capsys.readouterr().out
    assert (folder / "out" / "model.safetensors").exists()


def test_a_full_disk_is_told_and_the_checkpoint_before_stays(folder, capsys, monkeypatch):
    import os

    calls, fsync = [], os.fsync

    def disk_full(number):
        calls.append(number)
        if len(calls) == 7:  # tokenizer, tokens twice, facts, log, first checkpoint; then this
            raise OSError(28, "No space left on device")
        fsync(number)

    monkeypatch.setattr(os, "fsync", disk_full)
    train(expect=2)
    assert "out/training-state.safetensors: No space left" in capsys.readouterr().err
    monkeypatch.setattr(os, "fsync", fsync)
    train("--resume")
    assert "8 steps, 512 tokens" in capsys.readouterr().out


def test_another_tokenizer_in_the_folder_is_told(folder, capsys, text):
    from zeta_edu.lm import Tokenizer

    train()
    Tokenizer.train([text], 290).save("out/tokenizer.json")
    train("--resume", expect=2)
    assert "has the id" in capsys.readouterr().err


def test_a_log_for_tensorboard_or_a_sentence_why_not(folder, capsys, monkeypatch):
    import types

    points = []

    class Writer:
        def __init__(self, log_dir, purge_step):
            points.append(("begin", log_dir, purge_step))

        def add_scalar(self, name, number, step):
            points.append((name, number, step))

        def close(self):
            points.append("closed")

    board = types.SimpleNamespace(SummaryWriter=Writer)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", board)
    train("--log tensorboard")
    assert points[0] == ("begin", "out/tensorboard", 1)
    assert points[-1] == "closed"
    steps = [point[2] for point in points[1:-1] if point[0] == "validation/loss"]
    assert steps == [4, 8]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    train("--log tensorboard --out other", expect=2)
    assert "the tensorboard package is missing" in capsys.readouterr().err


def test_fsdp_in_one_process_is_told(folder, capsys):
    train("--fsdp", expect=2)
    assert "--fsdp needs several processes" in capsys.readouterr().err
