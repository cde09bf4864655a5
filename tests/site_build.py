"""How the tests build the web site: as `make site` does."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def build_site(output: Path) -> subprocess.CompletedProcess[str]:
    """Build into a folder; what was said is in the result."""
    command = [sys.executable, "docs/site/build.py", "--output", str(output)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
