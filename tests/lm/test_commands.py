"""`zeta-edu train` and `zeta-edu generate`, as typed."""

import csv
import io
import re
import shlex
import sys

import pytest
import torch

from zeta_edu.cli import main
from zeta_edu.lm import load_pretrained

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
    for command in ("train", "generate"):
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


def test_an_interrupted_training_goes_on_as_if_it_had_not_been(folder, capsys, monkeypatch):
    train("--out unbroken")
    from zeta_edu.lm import reporting

    show = reporting.ProgressBar.__call__

    def interrupt(self, progress):
        show(self, progress)
        if progress.step == 6:
            raise KeyboardInterrupt

    monkeypatch.setattr(reporting.ProgressBar, "__call__", interrupt)
    train(expect=130)
    assert "--resume goes on" in capsys.readouterr().out
    monkeypatch.setattr(reporting.ProgressBar, "__call__", show)
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


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("--text nowhere", "no file or folder at text path 'nowhere'"),
        ("--text empty", "no text files in folder 'empty'"),
        ("--text picture.png", "'picture.png' is not a text"),
        ("--text short.txt", "the text has"),
        ("--resume", "nothing to resume"),
        ("--device warp", "--device warp cannot be used"),
        ("--threads 0", "--threads must be a positive integer"),
        ("--vocab 100", "vocab_size must lie between 257"),
        ("--steps 0", "steps must be at least 1"),
        ("--keep 9", "--keep 9 is not among the steps 1 to 8"),
        ("--lr -1", "learning_rate must be positive"),
        ("--dim-head 7", "dim_head must be even"),
        ("--dropout 1", "attn_dropout must be"),
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
        ("--max-tokens -1", "max_new_tokens must not be negative"),
    ],
)
def test_generation_that_cannot_be_is_said_in_one_sentence(folder, capsys, options, sentence):
    train()
    capsys.readouterr()
    assert main(shlex.split(f"generate x --model out {options}")) == 2
    assert sentence in capsys.readouterr().err
