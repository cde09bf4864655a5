"""Files are whole or not there, whatever name they are written to."""

import os
from pathlib import Path

import pytest

from zeta_edu.files import write_atomically
from zeta_edu.views import rotary_view


def disk_full(_: int) -> None:
    raise OSError(28, "No space left on device")


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("old")
    monkeypatch.setattr("os.fsync", disk_full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(tmp_path / "file", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "old"


@pytest.mark.parametrize("ending", ["html", "png", "svg"])
def test_a_view_that_cannot_be_saved_leaves_the_old_page(
    ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = rotary_view(8).save(tmp_path / f"page.{ending}")
    old = page.read_bytes()
    monkeypatch.setattr("os.fsync", disk_full)
    with pytest.raises(OSError, match="No space left"):
        rotary_view(16).save(page)
    assert page.read_bytes() == old
    assert [path.name for path in tmp_path.iterdir()] == [page.name]


def test_of_a_link_the_target_is_written(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    try:
        (tmp_path / "link").symlink_to("real")
    except OSError:
        pytest.skip("this user may not make links here")
    write_atomically(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
def test_a_pipe_takes_the_bytes_and_stays_a_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_atomically(pipe, b"new")
    assert os.read(reader, 10) == b"new"
    os.close(reader)
    assert pipe.is_fifo()
