"""The command `zeta-edu`: what it says, and how it ends."""

import argparse
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from zeta_edu import cli

COMMANDS = (
    *("lab", "lessons", "train", "finetune", "generate", "view", "export", "doctor"),
    "completion",
)


def parser_that(runs: Callable[[argparse.Namespace], int]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="zeta-edu")
    parser.add_subparsers().add_parser("go").set_defaults(run=runs)
    return parser


def outcome(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> int:
    def fail(_: argparse.Namespace) -> int:
        raise error

    monkeypatch.setattr(cli, "build_parser", lambda: parser_that(fail))
    return cli.main(["go"])


def test_help_names_every_command_and_shows_how_to_begin(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["--help"])
    shown = capsys.readouterr().out
    assert end.value.code == 0
    for command in COMMANDS:
        assert f"zeta-edu {command}" in shown


def test_no_command_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 0
    assert "a first hour:" in capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main([command, "--help"])
    assert end.value.code == 0
    assert f"zeta-edu {command}" in capsys.readouterr().out


def test_an_unknown_command_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["fly"])
    assert end.value.code == 2
    assert "fly" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (ValueError("depth must be at least 1,\n  not 0"), "depth must be at least 1, not 0"),
        (TypeError("prompt must be a str"), "prompt must be a str"),
        (ImportError("the lessons need JupyterLab"), "the lessons need JupyterLab"),
        (FileNotFoundError(2, "No such file or directory", "a.st"), "a.st: No such file or"),
        (OSError("the disk is full"), "the disk is full"),
        (ValueError(), "ValueError"),
        (MemoryError(), "there is not enough memory for this"),
        (RuntimeError("CUDA out of memory. Tried"), "there is not enough memory for this"),
        (ValueError("max_new_tokens must not be negative"), "--max-tokens must not be negative"),
    ],
)
def test_an_error_is_one_sentence_and_exit_code_2(
    error: Exception,
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert outcome(monkeypatch, error) == 2
    shown = capsys.readouterr().err
    assert shown.startswith(f"zeta-edu: {sentence}")
    assert shown.count("\n") == 1


def test_an_interrupt_is_silent_and_exit_code_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert outcome(monkeypatch, KeyboardInterrupt()) == 130
    assert capsys.readouterr().err == ""


def test_a_defect_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ZeroDivisionError):
        outcome(monkeypatch, ZeroDivisionError())


def test_a_reader_that_goes_away_is_no_error() -> None:
    program = (
        "import argparse, sys; from zeta_edu import cli\n"
        "parser = argparse.ArgumentParser()\n"
        "parser.set_defaults(run=lambda _: print('x\\n' * 200_000) or 0)\n"
        "cli.build_parser = lambda: parser\n"
        "sys.exit(cli.main([]))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(2)
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 0


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["le"], ["lessons"]),
        (["export", "--o"], ["--output", "--open"]),
        (["completion", ""], ["bash", "zsh", "tcsh"]),
        (["export", "-o", "mi"], ["mine.html"]),
    ],
)
def test_bash_completes_commands_options_and_files(
    words: list[str], offered: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["completion", "bash"]) == 0
    (tmp_path / "script").write_text(capsys.readouterr().out)
    (tmp_path / "mine.html").touch()
    line = " ".join(f"'{word}'" for word in ["zeta-edu", *words])
    program = (
        f"source ./script; COMP_WORDS=({line}); COMP_CWORD={len(words)}\n"
        '_shtab_zeta_edu; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == offered


@pytest.mark.parametrize("shell", ["zsh", "tcsh"])
def test_other_shells_get_a_script_of_their_own(
    shell: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(command in script for command in COMMANDS)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("train --out", "argument --out: it must name a file or folder, got ''"),
        ("train --text", "argument --text: it must name a file or folder, got ''"),
    ],
)
def test_an_empty_name_is_not_the_current_folder(
    words: str, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([*words.split(), ""])
    assert ended.value.code == 2
    assert complaint in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="a shell of Unix closes the output")
def test_a_closed_output_is_no_error() -> None:
    command = f"'{sys.executable}' -m zeta_edu lessons >&-"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("command", ["train", "finetune", "generate", "view", "export"])
def test_the_help_shows_examples_that_are_understood(command: str) -> None:
    parser = cli.build_parser()
    (commands,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    shown = commands.choices[command].format_help()
    examples = re.findall(r"^(?:example:| ) zeta-edu (.*)", shown, flags=re.MULTILINE)
    assert examples
    for example in examples:
        parser.parse_args(shlex.split(example))
