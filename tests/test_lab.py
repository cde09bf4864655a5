"""`zeta-edu lab`: copies that belong to the learner, and a server that starts, tells and ends."""

import argparse
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from functools import partial
from pathlib import Path

import nbformat
import pytest
from nbformat import v4
from nbformat.sign import NotebookNotary

from zeta_edu import cli, lab


def write_lesson(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # The id is given, so that the same text makes the same file.
    nbformat.write(v4.new_notebook(cells=[v4.new_markdown_cell(text, id="only")]), path)


@pytest.fixture
def shipped(tmp_path: Path) -> Path:
    write_lesson(tmp_path / "shipped" / "00-start-here.ipynb", "first")
    write_lesson(tmp_path / "shipped" / "01-attention.ipynb", "second")
    picture = tmp_path / "shipped" / "figures" / "map.svg"
    picture.parent.mkdir()
    picture.write_text("<svg/>")
    return tmp_path / "shipped"


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "jupyter"))
    return tmp_path / "mine"


def texts(folder: Path) -> dict[str, str]:
    paths = sorted(folder.glob("*.ipynb"))
    return {path.stem: nbformat.read(path, as_version=4).cells[0].source for path in paths}


def trusted(path: Path) -> bool:
    notary = NotebookNotary()
    try:
        return notary.check_signature(nbformat.read(path, as_version=4))
    finally:
        notary.store.close()


def test_lessons_and_pictures_are_copied_and_trusted(shipped: Path, mine: Path) -> None:
    lines = lab.copy_lessons(shipped, mine)
    assert texts(mine) == {"00-start-here": "first", "01-attention": "second"}
    assert (mine / "figures" / "map.svg").read_text() == "<svg/>"
    assert lines == [f"Copied 3 files to {mine}"]
    assert trusted(mine / "00-start-here.ipynb")


def test_a_user_who_is_new_to_jupyter_can_trust(
    shipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "home" / ".local" / "share" / "jupyter"
    new = partial(NotebookNotary, data_dir=str(place))
    monkeypatch.setattr("nbformat.sign.NotebookNotary", new)
    lab.trust(shipped / "00-start-here.ipynb")
    assert (place / "notebook_secret").exists()


def test_a_second_start_does_nothing(shipped: Path, mine: Path) -> None:
    lab.copy_lessons(shipped, mine)
    before = {path: path.stat().st_mtime_ns for path in mine.glob("*.ipynb")}
    assert lab.copy_lessons(shipped, mine) == []
    assert {path: path.stat().st_mtime_ns for path in mine.glob("*.ipynb")} == before


def test_an_unedited_copy_follows_the_package(shipped: Path, mine: Path) -> None:
    lab.copy_lessons(shipped, mine)
    write_lesson(shipped / "01-attention.ipynb", "second, better")
    lines = lab.copy_lessons(shipped, mine)
    assert texts(mine)["01-attention"] == "second, better"
    assert len(lines) == 1
    assert "refreshed" in lines[0]
    assert trusted(mine / "01-attention.ipynb")


def test_an_edited_copy_is_kept_in_silence_while_nothing_is_newer(
    shipped: Path, mine: Path
) -> None:
    lab.copy_lessons(shipped, mine)
    write_lesson(mine / "01-attention.ipynb", "my notes")
    assert lab.copy_lessons(shipped, mine) == []
    assert texts(mine) == {"00-start-here": "first", "01-attention": "my notes"}
    assert not trusted(mine / "01-attention.ipynb")


def test_a_newer_lesson_is_put_beside_an_edited_copy_and_told_once(
    shipped: Path, mine: Path
) -> None:
    lab.copy_lessons(shipped, mine)
    write_lesson(mine / "01-attention.ipynb", "my notes")
    write_lesson(shipped / "01-attention.ipynb", "second, better")
    lines = lab.copy_lessons(shipped, mine)
    assert len(lines) == 1
    assert "yours is kept" in lines[0]
    assert texts(mine)["01-attention"] == "my notes"
    assert texts(mine)["01-attention-new"] == "second, better"
    assert lab.copy_lessons(shipped, mine) == []
    assert texts(mine)["01-attention"] == "my notes"


def test_a_newer_lesson_that_was_edited_too_is_kept(shipped: Path, mine: Path) -> None:
    lab.copy_lessons(shipped, mine)
    write_lesson(mine / "01-attention.ipynb", "my notes")
    for version in ("second, better", "second, best"):
        write_lesson(shipped / "01-attention.ipynb", version)
        lab.copy_lessons(shipped, mine)
        write_lesson(mine / "01-attention-new.ipynb", f"my notes on {version}")
    lab.copy_lessons(shipped, mine)
    assert texts(mine)["01-attention"] == "my notes"
    assert texts(mine)["01-attention-new"] == "my notes on second, best"


def test_a_deleted_copy_comes_back(shipped: Path, mine: Path) -> None:
    lab.copy_lessons(shipped, mine)
    (mine / "00-start-here.ipynb").unlink()
    lab.copy_lessons(shipped, mine)
    assert texts(mine)["00-start-here"] == "first"


@pytest.mark.parametrize("manifest", ["", "{not json", "[1, 2]", '{"01-attention.ipynb": 3}'])
def test_without_its_manifest_every_other_file_counts_as_edited(
    manifest: str, shipped: Path, mine: Path
) -> None:
    lab.copy_lessons(shipped, mine)
    write_lesson(mine / "01-attention.ipynb", "my notes")
    (mine / lab.MANIFEST).write_text(manifest)
    lab.copy_lessons(shipped, mine)
    assert texts(mine)["01-attention"] == "my notes"
    assert texts(mine)["01-attention-new"] == "second"


def test_a_file_that_is_no_notebook_is_kept(shipped: Path, mine: Path) -> None:
    mine.mkdir()
    (mine / "01-attention.ipynb").write_text("half a")
    lab.copy_lessons(shipped, mine)
    assert (mine / "01-attention.ipynb").read_text() == "half a"


def test_a_folder_that_is_a_file_is_one_sentence(
    shipped: Path, mine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine.write_text("")
    assert cli.main(["lab", "--no-browser", "--port", str(free_port()), "--dir", str(mine)]) == 2
    assert capsys.readouterr().err == f"zeta-edu: {mine}: File exists\n"


def test_the_lessons_of_the_checkout_are_found() -> None:
    assert (lab.find_lessons() / "00-start-here.ipynb").exists()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_taken_port_is_one_sentence(capsys: pytest.CaptureFixture[str], mine: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert cli.main(["lab", "--port", str(port), "--dir", str(mine)]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith(f"zeta-edu: port {port} is taken")
    assert shown.count("\n") == 1
    assert not mine.exists()


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_a_port_that_cannot_be_is_refused(port: int) -> None:
    with pytest.raises(ValueError, match=f"--port must lie between 1 and 65535, not {port}"):
        lab.check_port(port)


def test_without_jupyterlab_the_sentence_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, mine: Path
) -> None:
    monkeypatch.setattr(lab.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ImportError, match=r"pip install 'zeta-edu\[notebooks\]'"):
        lab.run_lab(argparse.Namespace(port=free_port(), dir=mine, no_browser=True, jupyter=[]))


def get(address: str) -> bytes:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(address, timeout=20) as answer:
        return bytes(answer.read())


@pytest.mark.skipif(os.name == "nt", reason="Windows cannot send an interrupt to one process")
def test_the_server_starts_tells_its_address_and_ends(tmp_path: Path, mine: Path) -> None:
    port = free_port()
    words = ["lab", "--no-browser", "--port", str(port), "--dir", str(mine)]
    # Tests that run in the background of a shell inherit that Ctrl-C is ignored.
    program = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    program += "from zeta_edu.cli import main; sys.exit(main(sys.argv[1:]))"
    log = tmp_path / "log"
    with log.open("w") as stream:
        server = subprocess.Popen(
            [sys.executable, "-c", program, *words], stdout=stream, stderr=subprocess.STDOUT
        )
    try:
        address = wait_for_address(log)
        base, token = address.split("/lab/tree/")[0], address.split("token=")[1]
        assert address.startswith(f"http://127.0.0.1:{port}/lab/tree/00-start-here.ipynb?")
        assert b"jupyter" in get(address).lower()
        with pytest.raises(urllib.error.HTTPError):
            get(f"{base}/api/contents")
        content = json.loads(get(f"{base}/api/contents/00-start-here.ipynb?token={token}"))
        code = [cell for cell in content["content"]["cells"] if cell["cell_type"] == "code"]
        assert code
        assert all(cell["metadata"]["trusted"] for cell in code)
        news = "@jupyterlab/apputils-extension:notification"
        settings = json.loads(get(f"{base}/lab/api/settings/{news}?token={token}"))
        assert settings["schema"]["properties"]["fetchNews"]["default"] == "false"
    finally:
        server.send_signal(signal.SIGINT)
        assert server.wait(timeout=30) == 0
    assert "Traceback" not in log.read_text()
    lab.check_port(port)  # raises while anything still listens


def test_a_server_that_fails_is_one_sentence_that_names_its_log(
    shipped: Path, mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.copy_lessons(shipped, mine)
    monkeypatch.setattr(lab, "server_command", lambda *_: [sys.executable, "-c", "1 / 0"])
    lesson = mine / "00-start-here.ipynb"
    with pytest.raises(OSError, match="ended with an error; what it said stands in") as error:
        lab.serve(lesson, free_port(), browser=False, extra=[])
    log = Path(str(error.value).rpartition(" ")[2])
    assert "ZeroDivisionError" in log.read_text()


def wait_for_address(log: Path) -> str:
    deadline = time.monotonic() + lab.SECONDS_TO_START
    while time.monotonic() < deadline:
        if found := re.search(r"http://\S+token=\w+", log.read_text()):
            return found.group()
        time.sleep(0.1)
    raise AssertionError(log.read_text())
