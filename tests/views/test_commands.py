"""`zeta-edu view` writes a page."""

import subprocess
import sys
import webbrowser
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import zeta_edu
from zeta_edu import TransformerBlock
from zeta_edu.cli import main


class Letters:
    """A tokenizer whose tokens are letters."""

    def encode(self, text: str) -> list[int]:
        return [ord(letter) % 32 for letter in text]

    def pieces(self, ids: list[int]) -> list[str]:
        return [chr(96 + number) for number in ids]


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(32, 16)
        self.block = TransformerBlock(16, 8, heads=2)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.block(self.embedding(tokens))


@pytest.fixture(autouse=True)
def small_model(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    asked: list[str] = []

    def load(name: str) -> tuple[Model, Letters]:
        asked.append(name)
        return Model(), Letters()

    monkeypatch.setattr(zeta_edu, "load_pretrained", load, raising=False)
    return asked


def test_a_page_is_written_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], small_model: list[str]
) -> None:
    page = tmp_path / "page.html"
    assert main(["view", "abc", "-o", str(page), "--model", "other"]) == 0
    assert "application/json" in page.read_text("utf-8")
    assert capsys.readouterr().out == f"wrote {page}\n"
    assert small_model == ["other"]


def test_the_page_is_opened_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Any] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    assert main(["view", "abc", "-o", str(tmp_path / "a.html")]) == 0
    assert main(["view", "abc", "-o", str(tmp_path / "b.html"), "--open"]) == 0
    assert opened == [(tmp_path / "b.html").as_uri()]


def test_a_wrong_ending_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["view", "abc", "-o", str(tmp_path / "page.pdf")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_neither_the_package_nor_its_commands_load_the_pictures() -> None:
    code = (
        "import sys, zeta_edu, zeta_edu.views, zeta_edu.views.commands;"
        "heavy = {'matplotlib', 'ipywidgets', 'anywidget', 'IPython'};"
        "print(heavy & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "set()\n"


def test_without_matplotlib_the_views_say_what_to_install() -> None:
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "try: from zeta_edu.views import attention_view\n"
        "except ImportError as error: print(error)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == 'the views draw with matplotlib: pip install "zeta-edu[notebooks]"\n'
