"""The public address: one command writes it, and the notebooks open in Colab and Binder by it."""

import os
import re
import runpy
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType, SimpleNamespace

import nbformat
import pytest
import yaml
from packaging.requirements import Requirement

from tests.lessons import guards

ROOT = Path(__file__).resolve().parents[1]
FILES = ("pyproject.toml", "CITATION.cff", "README.md", "tools/address.py")
LESSON = "notebooks/01-attention.ipynb"
SOURCE = "notebooks/source/01-attention.py"


@pytest.fixture
def copy(tmp_path: Path, lesson_build: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project's files that take the address, and one lesson, as without an address."""
    for name in (*FILES, LESSON, SOURCE, "notebooks/build.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    tool = runpy.run_path(str(tmp_path / "tools" / "address.py"))
    for name, (earlier, *_) in tool["PLACES"].items():
        text = (tmp_path / name).read_text(encoding="utf-8")
        (tmp_path / name).write_text(re.sub(earlier, "", text), encoding="utf-8")
    with monkeypatch.context() as patch:
        patch.setattr(lesson_build, "PROJECT", tmp_path / "pyproject.toml")
        lesson_build.build(tmp_path / SOURCE, tmp_path / LESSON, run=False)
    return tmp_path


def name_it(copy: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "tools/address.py", *words]
    return subprocess.run(command, cwd=copy, capture_output=True, text=True)


def project(copy: Path) -> dict[str, dict[str, str]]:
    return tomllib.loads((copy / "pyproject.toml").read_text())["project"]


def test_every_place_names_the_last_address_once(copy: Path) -> None:
    for address in ("some-one/early", "other/zeta.edu"):
        assert name_it(copy, address).returncode == 0
    assert project(copy)["urls"] == {"Repository": "https://github.com/other/zeta.edu"}
    citation = yaml.safe_load((copy / "CITATION.cff").read_text())
    assert citation["repository-code"] == "https://github.com/other/zeta.edu"
    readme = (copy / "README.md").read_text()
    assert readme.count("badge") == 3
    assert "early" not in readme
    assert readme.startswith("# zeta_edu\n\n[![tests](https://github.com/other/zeta.edu/")
    for path in re.findall(r"(?:blob/main|urlpath=lab/tree)/(notebooks[\w/.-]+)", readme):
        assert (ROOT / path).exists()


def other_lines(path: Path, address: str) -> list[str]:
    lines = path.read_text().splitlines()
    return [line for line in lines if line not in ("", "[project.urls]") and address not in line]


def test_the_address_changes_nothing_else(copy: Path) -> None:
    before = {name: other_lines(copy / name, "no address yet") for name in FILES}
    name_it(copy, "other/zeta_edu")
    for name in FILES:
        assert other_lines(copy / name, "other/zeta_edu") == before[name]


@pytest.mark.parametrize("words", [(), ("zeta_edu",), ("https://github.com/a/b",), ("a/b", "c")])
def test_what_is_no_address_is_refused(copy: Path, words: tuple[str, ...]) -> None:
    before = (copy / "README.md").read_text()
    refused = name_it(copy, *words)
    assert refused.returncode == 1
    assert refused.stderr.startswith("the address must be OWNER/NAME as on GitHub, got '")
    assert (copy / "README.md").read_text() == before


def test_the_notebooks_get_it_without_being_run(
    copy: Path, lesson_build: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = nbformat.read(copy / LESSON, as_version=4)
    name_it(copy, "other/zeta_edu")
    after = nbformat.read(copy / LESSON, as_version=4)
    monkeypatch.setattr(lesson_build, "PROJECT", copy / "pyproject.toml")
    assert not list(guards.unfaithful(after, lesson_build.read_source(copy / SOURCE)))
    assert not list(guards.miscounted(after))
    assert "github.com/other/zeta_edu" in after.cells[1].source
    ran = [cell.outputs for cell in lesson_build.lesson_code(before)]
    for outputs in ran:
        for output in outputs:
            if "execution_count" in output:
                output.execution_count += 1
    assert [cell.outputs for cell in lesson_build.lesson_code(after)] == ran


def test_a_notebook_that_must_run_first_is_told(copy: Path) -> None:
    with (copy / SOURCE).open("a", encoding="utf-8") as source:
        source.write("\n# %%\nprint('new')\n")
    refused = name_it(copy, "other/zeta_edu")
    assert refused.returncode == 1
    assert "the code has changed since it ran: build it without --no-run" in refused.stderr


@pytest.mark.skipif(not shutil.which("git"), reason="there is no git to push with")
def test_the_first_push_to_github_writes_it(copy: Path) -> None:
    """The workflow's own steps, with a folder in GitHub's place."""
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "address.yml").read_text())
    steps = [step.get("run", "") for step in workflow["jobs"]["write"]["steps"]]
    look, write = (run for run in steps if "grep" in run or "git push" in run)
    public, told = copy.parent / "public.git", copy.parent / "told"
    environment = {**os.environ, "HOME": str(copy), "GITHUB_OUTPUT": str(told)}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment["GITHUB_REPOSITORY"] = "other/zeta_edu"

    def shell(script: str) -> str:
        command = ["bash", "-e", "-c", script]
        done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    shell("git init -q -b main && git config user.name me && git config user.email me@x.org")
    shell("git add . && git commit -q -m first")
    shell(f"git init -q --bare '{public}' && git remote add origin '{public}'")
    shell("git push -q -u origin main")
    shell(look)
    assert told.read_text() == "missing=true\n"
    shell(write)
    assert "mybinder.org/v2/gh/other/zeta_edu/main" in shell("git show origin/main:README.md")
    assert "github.com/other/zeta_edu" in shell(f"git show origin/main:{LESSON}")
    shell(look)
    assert told.read_text() == "missing=true\n"  # nothing more: the next push changes nothing


@pytest.fixture
def first_cell(copy: Path, lesson_build: ModuleType, monkeypatch: pytest.MonkeyPatch) -> str:
    """The first code of lesson 01 where the project has an address."""
    name_it(copy, "other/zeta_edu")
    monkeypatch.setattr(lesson_build, "PROJECT", copy / "pyproject.toml")
    notebook = lesson_build.read_source(ROOT / SOURCE)
    title, cell = notebook.cells[:2]
    assert title.source.endswith(
        "Open it in [Colab](https://colab.research.google.com/github/other/zeta_edu/blob/main/"
        "notebooks/01-attention.ipynb) or in [Binder](https://mybinder.org/v2/gh/other/zeta_edu/"
        "main?urlpath=lab/tree/notebooks/01-attention.ipynb)."
    )
    assert cell.metadata == {"tags": ["remove-cell"], "jupyter": {"source_hidden": True}}
    return str(cell.source)


@pytest.mark.parametrize("colab", [True, False])
def test_the_first_cell_installs_in_colab_and_nowhere_else(
    first_cell: str, colab: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[tuple[str, str]] = []
    shell = SimpleNamespace(run_line_magic=lambda *words: ran.append(words))
    if colab:
        monkeypatch.setitem(sys.modules, "google.colab", ModuleType("google.colab"))
    exec(first_cell, {"get_ipython": lambda: shell})  # noqa: S102
    assert len(ran) == colab
    for magic, words in ran:
        assert magic == "pip"
        quiet, wanted = words.removeprefix("install ").split(" ", 1)
        requirement = Requirement(wanted.strip("'"))
        assert quiet == "-q"
        assert requirement.url == "git+https://github.com/other/zeta_edu"
        assert requirement.extras <= set(project(ROOT)["optional-dependencies"])


def test_without_an_address_nothing_is_added(
    copy: Path, lesson_build: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = re.sub(r"\[project\.urls\]\n.*\n", "", (copy / "pyproject.toml").read_text())
    (copy / "pyproject.toml").write_text(text)
    monkeypatch.setattr(lesson_build, "PROJECT", copy / "pyproject.toml")
    notebook = lesson_build.read_source(ROOT / SOURCE)
    assert not any("colab" in cell.source.lower() for cell in notebook.cells)
