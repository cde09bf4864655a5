"""Build the package and try it in an empty environment: python tools/check_wheel.py.

The environment gets the wheel with its extras, in the lowest versions that pyproject.toml declares
(torch apart, of which constraints.txt names the build), and everything runs in a folder that knows
nothing of the checkout: the commands, a lesson served by JupyterLab, and the tests of the block,
a view and two lessons. Before that, constraints.txt is checked against every extra.
"""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import tomllib
import urllib.request
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EXTRAS = ("notebooks", "train")
TESTING = ("pytest", "pytest-timeout", "hypothesis", "nbval", "beartype", "jupytext", "nbclient")
TESTS = (
    "tests/test_block.py",
    "tests/test_cache.py",
    "tests/test_lora.py",
    "tests/views/test_attention_view.py",
    "notebooks/00-start-here.ipynb",
    "notebooks/04-rotary.ipynb",
)


def main() -> None:
    """Do it all in a temporary folder; the first thing that fails ends it."""
    resolve()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        wheel = build(folder / "dist")
        scripts = install(wheel, folder)
        away = folder / "away"
        away.mkdir()
        use(scripts, away)
        serve(scripts, away)
        test(scripts, away)
    print("the wheel works in an empty environment, with the lowest versions")


def run(*command: str | Path, folder: Path = ROOT) -> str:
    """Run a command as a newcomer would, with nothing of this process's environment for Python."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=folder, env=clean, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(words)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def resolve() -> None:
    """Have pip find every extra in the versions of constraints.txt, without installing any."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = ",".join(project["optional-dependencies"])
    pip = (sys.executable, "-m", "pip", "install", "-q", "--dry-run")
    run(*pip, "-c", "constraints.txt", f".[{extras}]")
    print("constraints.txt fits:", extras)


def build(dist: Path) -> Path:
    """Build the wheel and the source package, and a wheel from the latter: the same files."""
    run(sys.executable, "-m", "hatchling", "build", "-d", dist)
    (wheel,), (source,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
    shutil.unpack_archive(source, dist, filter="data")
    unpacked = dist / source.name.removesuffix(".tar.gz")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", unpacked, folder=unpacked)
    (again,) = unpacked.glob("*.whl")
    if names(wheel) != names(again):
        sys.exit(f"wheels of checkout and source differ: {names(wheel) ^ names(again)}")
    print(f"built: {wheel.name} ({wheel.stat().st_size / 1e6:.1f} MB), {source.name}")
    return wheel


def names(wheel: Path) -> set[str]:
    """The files in a wheel."""
    return set(zipfile.ZipFile(wheel).namelist())


def install(wheel: Path, folder: Path) -> Path:
    """Make an empty environment with the wheel in it; return the folder of its commands."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"]]
    for extra in EXTRAS:
        wanted += project["optional-dependencies"][extra]
    pinned = (ROOT / "constraints.txt").read_text().splitlines()
    lowest = {line.replace(">=", "==") for line in wanted if not line.startswith("torch>")}
    lowest |= {line for line in pinned if line.split("==")[0] in ("torch", *TESTING)}
    constraints = folder / "lowest.txt"
    constraints.write_text("\n".join(sorted(lowest)))
    venv.create(folder / "empty", with_pip=True)
    scripts = folder / "empty" / ("Scripts" if os.name == "nt" else "bin")
    what = (f"{wheel}[{','.join(EXTRAS)}]", *TESTING)
    run(scripts / "python", "-m", "pip", "install", "-q", "-c", constraints, *what, folder=folder)
    print("installed:", ", ".join(sorted(lowest)))
    return scripts


def use(scripts: Path, away: Path) -> None:
    """Run the commands that need no browser, and look at what they leave."""
    command = scripts / "zeta-edu"
    run(command, "doctor", folder=away)
    said = run(command, "generate", "def add(", "--max-tokens", "8", folder=away)
    if not said.startswith("def add("):
        sys.exit(f"generate said {said!r}")
    run(command, "view", "def add(a, b):", "-o", "view.html", folder=away)
    run(command, "export", "04", "-o", "lesson.html", folder=away)
    for page in ("view.html", "lesson.html"):
        if "<zeta-view-" not in (away / page).read_text(encoding="utf-8"):
            sys.exit(f"{page} has no view")
    where = "import zeta_edu; print(zeta_edu.__file__)"
    if str(ROOT) in (found := run(scripts / "python", "-c", where, folder=away)):
        sys.exit(f"the package came from the checkout: {found}")
    print("commands: doctor, generate, view, export")


def serve(scripts: Path, away: Path) -> None:
    """Start `zeta-edu lab` as a new user would, and read a lesson from the address it prints."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [scripts / "zeta-edu", "lab", "--no-browser", "--port", port, "--dir", "lessons"]
    new = {**os.environ, "HOME": str(away / "home")}
    server = subprocess.Popen(
        [*map(str, words)], cwd=away, env=new, stdout=subprocess.PIPE, text=True
    )
    try:
        address = next((line.strip() for line in server.stdout or () if "token=" in line), "")
        token = address.partition("token=")[2]
        lesson = f"http://127.0.0.1:{port}/api/contents/01-attention.ipynb?content=0&token={token}"
        if b"notebook" not in urllib.request.urlopen(lesson, timeout=30).read():
            sys.exit("lab did not serve lesson 01")
    finally:
        server.terminate()
        server.wait(30)
    print("lab: serves the lessons")


def test(scripts: Path, away: Path) -> None:
    """Run part of the tests on what was installed; other packages' warnings are theirs."""
    for name in ("tests", "notebooks", "conftest.py", "pyproject.toml"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, away / name)
    options = ("-q", "--tb=short", "-o", "filterwarnings=default", "-W", "ignore")
    said = run(scripts / "python", "-m", "pytest", *options, *TESTS, folder=away)
    print("tests:", said.strip().splitlines()[-1])


if __name__ == "__main__":
    main()
