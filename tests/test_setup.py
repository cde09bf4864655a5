"""The making of .venv: every failure is one sentence that says what to do."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.skipif(os.name == "nt", reason="make and sh are not Windows' own")
TOOLS = ("sh", "dirname", "grep", "rm", "touch")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name in ("tools/make_venv.sh", "Makefile", "pyproject.toml", "constraints.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in TOOLS:
        (tools / tool).symlink_to(str(shutil.which(tool)))
    return tmp_path


def add_python(checkout: Path, name: str, version: str, complete: bool = True) -> None:
    """Put a stand-in on the path that answers what the set-up asks an interpreter."""
    old = tuple(map(int, version.split("."))) < (3, 11)
    script = checkout / "bin" / name
    script.write_text(
        "#!/bin/sh\n"
        'case "$2" in\n'
        f"*version_info*) exit {int(old)} ;;\n"
        f"*ensurepip*) exit {int(not complete)} ;;\n"
        f"*python_version*) echo {version} ;;\n"
        "*) exit 1 ;;\n"
        "esac\n"
    )
    script.chmod(0o755)


def set_up(checkout: Path, **environment: str) -> str:
    """Run the set-up, which must fail, and return its one sentence."""
    done = subprocess.run(
        ["sh", "tools/make_venv.sh"],
        cwd=checkout,
        env={"PATH": str(checkout / "bin"), "HOME": str(checkout), **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert not (checkout / ".venv" / ".stamp").exists()
    assert done.stderr.startswith("set-up stopped: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


def test_no_python_is_said(checkout: Path) -> None:
    assert "no Python was found; install Python 3.11 or newer" in set_up(checkout)


def test_a_python_too_old_is_said(checkout: Path) -> None:
    add_python(checkout, "python3", "3.9.2")
    assert "needs Python 3.11 or newer, and python3 is Python 3.9.2" in set_up(checkout)


def test_a_python_without_venv_is_said(checkout: Path) -> None:
    add_python(checkout, "python3.12", "3.12.4", complete=False)
    assert "python3.12 (Python 3.12.4) cannot make virtual environments" in set_up(checkout)


def test_the_python_that_was_asked_for_is_the_one_judged(checkout: Path) -> None:
    add_python(checkout, "python3.12", "3.12.4", complete=False)
    assert "PYTHON=/no/such is no Python" in set_up(checkout, PYTHON="/no/such")
    add_python(checkout, "ancient", "3.8.0")
    assert "and ancient is Python 3.8.0" in set_up(checkout, PYTHON="ancient")


def test_a_venv_that_cannot_be_made_is_said(checkout: Path) -> None:
    add_python(checkout, "python3.11", "3.11.7")
    assert "could not make .venv; what it said stands in setup.log" in set_up(checkout)


def test_make_shows_the_sentence(checkout: Path) -> None:
    add_python(checkout, "python3", "3.9.2")
    done = subprocess.run(
        [str(shutil.which("make")), "lab"],
        cwd=checkout,
        env={"PATH": str(checkout / "bin"), "HOME": str(checkout)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[0].endswith("make PYTHON=/path/to/python3.12")
    assert len(done.stderr.splitlines()) == 2  # the second is make's own


def test_no_package_index_is_said_in_one_sentence(checkout: Path) -> None:
    offline = {
        "PATH": os.environ["PATH"],
        "PYTHON": sys.executable,
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
    }
    sentence = set_up(checkout, **offline)
    assert "no package index could be reached; check the network and run make again" in sentence
    assert "Connection" in (checkout / "setup.log").read_text()
