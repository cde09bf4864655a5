"""The web site, built once for all tests that look at it, whichever worker they run on."""

import os
from pathlib import Path

import pytest
from filelock import FileLock

from tests.site_build import build_site


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the built site; with ZETA_EDU_SITE, one that has just been built."""
    if given := os.environ.get("ZETA_EDU_SITE"):
        return Path(given).resolve()
    base = tmp_path_factory.getbasetemp()
    # Workers of one run have folders side by side.
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    built = shared / "site"
    with FileLock(shared / "site.lock"):
        if not built.exists():
            done = build_site(built)
            assert done.returncode == 0, done.stderr[-5000:]
    return built
