"""The command `zeta-edu lab`: the lessons in JupyterLab, on copies that belong to the learner.

JupyterLab saves by itself, so the lessons are never opened where they are shipped. They are copied
to a working folder. A manifest there keeps the hash of every file as it was copied: a copy that
still has its hash was not edited and follows the package; one that was edited is left alone.
"""

import argparse
import hashlib
import importlib.util
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import webbrowser
from pathlib import Path
from typing import Any

from zeta_edu.files import write_atomically, write_json

MANIFEST = ".zeta_edu.json"
SETTINGS = {"@jupyterlab/apputils-extension:notification": {"fetchNews": "false"}}
SECONDS_TO_START = 120


def add_commands(subparsers: Any) -> None:
    """Add `lab` to the commands of `zeta-edu`."""
    parser = subparsers.add_parser(
        "lab",
        help="open the lessons in JupyterLab, on copies of your own",
        description="Copy the lessons to a folder of yours and open them in JupyterLab. What you "
        "edit there is never overwritten: a newer lesson is put beside your copy.",
        epilog="After --, options for JupyterLab itself: zeta-edu lab -- --ServerApp.ip=0.0.0.0",
    )
    parser.add_argument("--port", type=int, default=8888, help="the port to serve at (8888)")
    parser.add_argument("--no-browser", action="store_true", help="print the address, open nothing")
    add_folder(parser)
    parser.add_argument("jupyter", nargs="*", help=argparse.SUPPRESS)
    parser.set_defaults(run=run_lab)


def add_folder(parser: argparse.ArgumentParser) -> None:
    """Add the option that names the learner's folder."""
    parser.add_argument(
        "--dir",
        type=Path,
        default=Path.home() / "zeta_edu_lessons",
        help="the folder of your copies (~/zeta_edu_lessons)",
    )


def run_lab(arguments: argparse.Namespace) -> int:
    """Copy the lessons, serve them until Ctrl-C, and return the exit code."""
    if importlib.util.find_spec("jupyterlab") is None:
        raise ImportError(
            "the lessons need JupyterLab, which is not installed: pip install 'zeta-edu[notebooks]'"
        )
    check_port(arguments.port)
    folder = arguments.dir.expanduser().resolve()
    lessons = find_lessons()
    for line in copy_lessons(lessons, folder):
        print(line)
    first = min(path.name for path in lessons.glob("*.ipynb"))
    return serve(folder / first, arguments.port, not arguments.no_browser, arguments.jupyter)


def find_lessons() -> Path:
    """Return the folder of the shipped lessons: in the package, or in the checkout around it.

    Raises:
        FileNotFoundError: neither has any.
    """
    package = Path(__file__).resolve().parent
    for folder in (package / "notebooks", package.parent / "notebooks"):
        if any(folder.glob("*.ipynb")):
            return folder
    raise FileNotFoundError("no lessons were found beside the package; install zeta-edu again")


def copy_lessons(shipped: Path, folder: Path) -> list[str]:
    """Bring the learner's folder up to date without touching what the learner changed.

    Args:
        shipped: the folder with the lessons (`*.ipynb`) and their pictures (`figures/`).
        folder: the learner's; made when missing.

    Returns:
        Lines that tell what was copied, refreshed or kept.

    Raises:
        OSError: the folder cannot be made, read or written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    manifest = read_manifest(folder)
    lines, copied = [], 0
    for source in shipped_files(shipped):
        name = source.relative_to(shipped).as_posix()
        what = place(source, name, folder, manifest)
        copied += what == "copied"
        if what == "refreshed":
            lines.append(f"{name}: refreshed (the lesson is newer, and yours was not edited)")
        if what == "kept" and name.endswith(".ipynb"):
            newer = f"{name.removesuffix('.ipynb')}-new.ipynb"
            if place(source, newer, folder, manifest) in ("copied", "refreshed"):
                lines.append(f"{name}: yours is kept; the newer lesson is {newer}")
    remember(folder, manifest)
    if copied:
        lines.insert(0, f"Copied {copied} file{'s' * (copied != 1)} to {folder}")
    return lines


def shipped_files(shipped: Path) -> list[Path]:
    """Return the lessons and the pictures that they show."""
    figures = [path for path in (shipped / "figures").rglob("*") if path.is_file()]
    return sorted(shipped.glob("*.ipynb")) + sorted(figures)


def place(source: Path, name: str, folder: Path, manifest: dict[str, str]) -> str:
    """Copy one file when that loses nothing; return what was done.

    Returns:
        "copied", "refreshed", "same" (nothing to do), "edited" (the learner's own; the package has
        nothing newer) or "kept" (the learner's own, and the package has something newer).
    """
    target = folder / name
    content = source.read_bytes()
    new, old = digest(content), manifest.get(name)
    current = digest(target.read_bytes()) if target.exists() else None
    if current is not None and current not in (new, old):
        return "edited" if old == new else "kept"
    if current != new:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(target, content)
    manifest[name] = new
    # Trusted on every start: a copy that is the package's own may show its views at once.
    trust(target)
    if current is None:
        return "copied"
    return "same" if current == new else "refreshed"


def digest(content: bytes) -> str:
    """Return the SHA-256 of a file's content."""
    return hashlib.sha256(content).hexdigest()


def read_manifest(folder: Path) -> dict[str, str]:
    """Return the hashes of the copies as they were made; none when they cannot be told.

    Without them every file that differs from the package's counts as the learner's own.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (FileNotFoundError, UnicodeDecodeError, json.JSONDecodeError):
        return {}
    return manifest if isinstance(manifest, dict) else {}


def remember(folder: Path, manifest: dict[str, str]) -> None:
    """Write the hashes of the copies as they were made."""
    write_json(folder / MANIFEST, manifest)


def trust(path: Path) -> None:
    """Sign a notebook for this user, so that JupyterLab runs the scripts of its outputs."""
    if path.suffix != ".ipynb":
        return
    import nbformat
    from nbformat.sign import NotebookNotary

    notary = NotebookNotary()
    # Jupyter's own folder, where the key is: a new user has none, and nbformat 5.10 makes none.
    Path(notary.secret_file).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    notary.sign(nbformat.read(path, as_version=4))
    notary.store.close()


def check_port(port: int) -> None:
    """Raise ValueError when nothing can be served at a port of this machine."""
    if not 1 <= port <= 65535:
        raise ValueError(f"--port must lie between 1 and 65535, not {port}")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, os.name == "posix")
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise ValueError(
                f"port {port} is taken or not allowed ({error.strerror}); "
                f"choose another: zeta-edu lab --port {port % 65535 + 1}"
            ) from None


def server_command(folder: Path, port: int, extra: list[str]) -> list[str]:
    """Return the command line of the server."""
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", f"--port={port}"]
    command += ["--ServerApp.port_retries=0", "--ServerApp.ip=127.0.0.1"]
    command += [f"--ServerApp.root_dir={folder}", "--ServerApp.answer_yes=True"]
    command += ["--Application.log_level=WARN"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")
    return command + extra


def server_environment(token: str, settings: Path) -> dict[str, str]:
    """Return the server's environment: its token, kept off the command line, and its settings.

    Args:
        token: what the address must carry.
        settings: a folder to keep the settings in; JupyterLab's question about news is answered.
    """
    labconfig = settings / "labconfig"
    labconfig.mkdir(parents=True, exist_ok=True)
    write_json(labconfig / "default_setting_overrides.json", SETTINGS)
    paths = [str(settings), *filter(None, [os.environ.get("JUPYTER_CONFIG_PATH")])]
    return {
        **os.environ,
        "JUPYTER_TOKEN": token,
        "JUPYTER_CONFIG_PATH": os.pathsep.join(paths),
        # The kernel of this environment, not one of the same name that the user once installed.
        "JUPYTER_PREFER_ENV_PATH": "1",
    }


def serve(lesson: Path, port: int, browser: bool, extra: list[str]) -> int:
    """Run JupyterLab on the folder of a lesson until it ends or Ctrl-C; return the exit code.

    Raises:
        OSError: it ended by itself with an error; the message names its log.
    """
    token = secrets.token_hex(16)
    address = f"http://127.0.0.1:{port}/lab/tree/{lesson.name}?token={token}"
    private = lesson.parent / ".jupyter"
    environment = server_environment(token, private)
    log = private / "server.log"
    # So that the server ends with us.
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with log.open("wb") as stream:
        server = subprocess.Popen(
            server_command(lesson.parent, port, extra),
            env=environment,
            stdout=stream,
            stderr=subprocess.STDOUT,
        )
    try:
        if wait_until_up(server, port):
            print(f"\nThe lessons are open at\n\n    {address}\n\nCtrl-C ends them.", flush=True)
            if browser:
                webbrowser.open(address)
        if server.wait() != 0:
            raise OSError(f"JupyterLab ended with an error; what it said stands in {log}")
        return 0
    except KeyboardInterrupt:
        print(f"\nClosed; your copies stay in {lesson.parent}", flush=True)
        return 0
    finally:
        stop(server)
        signal.signal(signal.SIGTERM, before)


def wait_until_up(server: subprocess.Popen[bytes], port: int) -> bool:
    """Return whether the server answers, as soon as it does; False when it ended instead."""
    deadline = time.monotonic() + SECONDS_TO_START
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while server.poll() is None:
        try:
            with direct.open(f"http://127.0.0.1:{port}/api", timeout=5):
                return True
        except (urllib.error.URLError, TimeoutError):
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"JupyterLab did not answer within {SECONDS_TO_START} s"
                ) from None
            time.sleep(0.1)
    return False


def stop(server: subprocess.Popen[bytes]) -> None:
    """End the server and its kernels, by force when it does not end by itself."""
    if server.poll() is None:
        server.terminate()
        try:
            server.wait(timeout=10)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            server.kill()
            server.wait()
