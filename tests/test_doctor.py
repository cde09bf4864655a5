"""`zeta-edu doctor`: what is there, what is missing, and how to get it."""

import pytest
import torch

from zeta_edu import cli, doctor


def test_a_whole_installation_is_well(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor"]) == 0
    said = capsys.readouterr().out
    assert f"torch             {torch.__version__}" in said
    assert "for the lessons and the views:" in said
    assert "lessons in" in said


@pytest.mark.parametrize(
    ("package", "extra", "code"),
    [("anywidget", "notebooks", 1), ("tqdm", "train", 1), ("tensorboard", "log", 0)],
)
def test_what_is_missing_is_named_with_what_gets_it(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    package: str,
    extra: str,
    code: int,
) -> None:
    """What few need is no fault."""
    there = doctor.installed
    monkeypatch.setattr(doctor, "installed", lambda name: None if name == package else there(name))
    assert cli.main(["doctor"]) == code
    said = capsys.readouterr().out
    assert f"{package:18}missing" in said
    assert f"pip install 'zeta-edu[{extra}]'" in said


def test_a_torch_that_cannot_be_loaded_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    assert doctor.devices()[0].startswith("torch cannot be loaded: ")


def test_every_device_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda i: f"card {i}")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert doctor.devices()[1:] == [
        "and on cuda:0, card 0",
        "and on cuda:1, card 1",
        "and on mps, the GPU of this Mac",
    ]


def test_a_package_without_lessons_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> None:
        raise FileNotFoundError("no lessons were found")

    monkeypatch.setattr("zeta_edu.lab.find_lessons", none)
    assert doctor.lessons() == "no lessons were found"
