"""A JupyterLab of its own for the tests: temporary settings, a token, a free port."""

import json
import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.browser.screen import Screen

KERNEL_CONNECTED = """() => window.jupyterapp?.shell.currentWidget?.context?.sessionContext
    ?.session?.kernel?.connectionStatus === "connected" """
NOTEBOOK_SHOWN = """() => {
    const widget = window.jupyterapp?.shell.currentWidget;
    return widget?.content?.widgets?.length > 0 && widget.context?.isReady;
}"""
CODE_CELLS = """() => window.jupyterapp.shell.currentWidget.content.widgets
    .map((cell) => cell.model)
    .filter((model) => model.type === "code" && model.sharedModel.source)"""
IDLE = f"""() => {{
    const kernel = window.jupyterapp.shell.currentWidget.context.sessionContext.session.kernel;
    const ran = ({CODE_CELLS})().every((cell) => cell.executionCount !== null);
    return kernel.status === "idle" && ran;
}}"""
ERRORS = f"""() => ({CODE_CELLS})().flatMap((cell) => Array.from(
    {{ length: cell.outputs.length }}, (_, i) => cell.outputs.get(i).toJSON())
    .filter((output) => output.output_type === "error").map((output) => output.evalue))"""


class Lab:
    """A server on a folder `notebooks` inside `home`; enter it to start, leave it to stop."""

    def __init__(self, home: Path, kernels: bool) -> None:
        self.home, self.kernels = home, kernels
        self.folder = home / "notebooks"
        self.folder.mkdir(exist_ok=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.token = secrets.token_hex(8)

    def __enter__(self) -> Self:
        self.write_settings()
        with (self.home / f"server-{self.port}.log").open("wb") as log:
            self.server = subprocess.Popen(
                self.command(), env=self.environment(), stdout=log, stderr=subprocess.STDOUT
            )
        for _ in range(600):
            if self.answers():
                return self
            if self.server.poll() is not None:
                break
            time.sleep(0.1)
        self.server.kill()
        log_text = (self.home / f"server-{self.port}.log").read_text()
        raise RuntimeError(f"JupyterLab did not start:\n{log_text}")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.server.terminate()
        self.server.wait(timeout=20)

    def command(self) -> list[str]:
        options = {
            "ServerApp.ip": "127.0.0.1",
            "ServerApp.port": self.port,
            "ServerApp.port_retries": 0,
            "ServerApp.root_dir": self.folder,
            "IdentityProvider.token": self.token,
            "LabApp.expose_app_in_browser": True,
        }
        if not self.kernels:
            options |= {"KernelSpecManager.ensure_native_kernel": False}
            options |= {"KernelSpecManager.allowed_kernelspecs": "none-of-them"}
        given = [f"--{name}={value}" for name, value in options.items()]
        return [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", *given]

    def environment(self) -> dict[str, str]:
        folders = {
            f"JUPYTER_{kind}_DIR": str(self.home / kind.lower())
            for kind in ("CONFIG", "DATA", "RUNTIME")
        }
        own = {"JUPYTERLAB_SETTINGS_DIR": str(self.home / "settings"), "IPYTHONDIR": str(self.home)}
        inherited = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}
        return {**inherited, **folders, **own}

    def write_settings(self) -> None:
        settings = self.home / "settings" / "@jupyterlab" / "apputils-extension"
        settings.mkdir(parents=True, exist_ok=True)
        quiet = {"fetchNews": "false", "checkForUpdates": False}
        (settings / "notification.jupyterlab-settings").write_text(json.dumps(quiet))

    def answers(self) -> bool:
        url = f"http://127.0.0.1:{self.port}/api?token={self.token}"
        try:
            with urllib.request.urlopen(url, timeout=1) as reply:
                return bool(reply.status == 200)
        except OSError:
            return False

    def open(self, screen: Callable[..., Screen], notebook: str, **options: Any) -> Screen:
        """Open a notebook of the folder and wait until it, and its kernel, are there."""
        url = f"http://127.0.0.1:{self.port}/lab/tree/{notebook}?token={self.token}&reset"
        shown = screen(url, width=1500, height=1000, **options)
        shown.page.wait_for_function(NOTEBOOK_SHOWN, timeout=60_000)
        if self.kernels:
            shown.page.wait_for_function(KERNEL_CONNECTED, timeout=60_000)
        else:
            shown.page.locator(".jp-Dialog button", has_text="No Kernel").click(timeout=60_000)
        return shown

    def ask(self, shown: Screen, expression: str) -> str:
        """Let the notebook's kernel compute an expression; returns what it prints for it."""
        code = """async (code) => {
            const { kernel } = window.jupyterapp.shell.currentWidget.context.sessionContext.session;
            let said = "";
            const future = kernel.requestExecute({ code });
            future.onIOPub = ({ content }) => { said += content.text ?? ""; };
            await future.done;
            return said;
        }"""
        said: str = shown.page.evaluate(code, f"print({expression})")
        return said.strip()

    def hears(self, shown: Screen, expression: str, value: str) -> bool:
        """Whether the kernel says so within five seconds: a widget tells one change at a time."""
        end = time.monotonic() + 5
        while (said := self.ask(shown, expression)) != value and time.monotonic() < end:
            time.sleep(0.05)
        return said == value


def run_all(shown: Screen, timeout: float = 120) -> None:
    """Run all cells, wait for the last, and let an error of any cell fail the test."""
    shown.page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }")
    shown.page.wait_for_function(IDLE, timeout=1000 * timeout)
    assert shown.page.evaluate(ERRORS) == []


def save(shown: Screen) -> None:
    """Save the notebook, which also signs it as trusted."""
    shown.page.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")
    shown.page.wait_for_function(
        "() => !window.jupyterapp.shell.currentWidget.context.model.dirty", timeout=30_000
    )
