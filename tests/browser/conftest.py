"""A real browser, and a real JupyterLab, for the tests that look at what is drawn.

Without a browser these tests are skipped, each by name; with ZETA_EDU_REQUIRE_BROWSER=1 (as the
full check sets it) they fail instead. Everything but the machine itself is out of reach: a page
that asks the network for anything fails its test.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser.lab import Lab
from tests.browser.screen import Screen

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def absent(reason: str) -> None:
    """Skip, or fail where a browser has been promised."""
    if os.environ.get("ZETA_EDU_REQUIRE_BROWSER") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A Chromium without a window."""
    named = os.environ.get("CHROMIUM")
    program = next(
        (path for name in (named, *NAMES) if name and (path := shutil.which(name))), None
    )
    if program is None:
        absent("no Chromium on the path: apt-get install chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        absent("playwright is not installed: make .venv")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def screen(browser: Any) -> Iterator[Callable[..., Screen]]:
    """Opens pages: `screen(url or path, width=..., dark=...)`. Errors on them fail the test."""
    opened: list[Screen] = []

    def open_page(where: str | Path, **options: Any) -> Screen:
        opened.append(Screen(browser, where, **options))
        return opened[-1]

    yield open_page
    for page in opened:
        page.close()
    assert [error for page in opened for error in page.errors] == []
    assert [request for page in opened for request in page.refused] == []


@pytest.fixture(scope="session")
def lab_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The settings, signatures and notebooks of the JupyterLabs of these tests."""
    return tmp_path_factory.mktemp("lab")


@pytest.fixture(scope="session")
def lab(lab_home: Path) -> Iterator[Lab]:
    """A running JupyterLab."""
    with Lab(lab_home, kernels=True) as running:
        yield running


@pytest.fixture(scope="session")
def lab_without_kernels(lab_home: Path) -> Iterator[Lab]:
    """A JupyterLab on the same notebooks that has no kernel to offer."""
    with Lab(lab_home, kernels=False) as running:
        yield running
