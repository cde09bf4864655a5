"""Give the project its public address: python tools/address.py OWNER/NAME.

It is written into pyproject.toml and CITATION.cff, the README gets its badges, and every notebook
links to Colab and Binder and begins with a cell that installs in Colab. Nothing is run for it: the
outputs stay as they are.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BADGES = """\
[![tests](https://github.com/{0}/actions/workflows/test.yml/badge.svg)](https://github.com/{0}/actions/workflows/test.yml)
[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/{0}/blob/main/notebooks/00-start-here.ipynb)
[![Open in Binder](https://mybinder.org/badge_logo.svg)](https://mybinder.org/v2/gh/{0}/main?urlpath=lab/tree/notebooks/00-start-here.ipynb)
"""
# In each file: what an earlier address left, what comes before the new one, and the new one.
PLACES = {
    "pyproject.toml": (
        r'\[project\.urls\]\nRepository = "[^"]*"\n\n',
        r"(?=\[project\.optional-dependencies\])",
        '[project.urls]\nRepository = "https://github.com/{0}"\n\n',
    ),
    "CITATION.cff": (
        r'repository-code: "[^"]*"\n',
        r"(?=license: )",
        'repository-code: "https://github.com/{0}"\n',
    ),
    "README.md": (
        r"\[!\[tests\]\(https:(?:.*\n){3}\n",
        r"(?<=^# zeta_edu\n\n)",
        BADGES + "\n",
    ),
}


def main() -> None:
    """Write the address that the command line names, in place of an earlier one."""
    if len(sys.argv) != 2 or not re.fullmatch(r"[\w-]+/[\w.-]+", sys.argv[1]):
        sys.exit(f"the address must be OWNER/NAME as on GitHub, got {' '.join(sys.argv[1:])!r}")
    for name, (earlier, place, text) in PLACES.items():
        path = ROOT / name
        content = re.sub(earlier, "", path.read_text(encoding="utf-8"))
        content, found = re.subn(place, text.format(sys.argv[1]), content, count=1)
        if not found:
            sys.exit(f"{name} has no place for the address any more: {place}")
        path.write_text(content, encoding="utf-8", newline="\n")
    build = [sys.executable, str(ROOT / "notebooks" / "build.py"), "--no-run"]
    if subprocess.run(build).returncode:
        sys.exit(
            "the notebooks do not have the address yet: mend what stands above, or make lessons"
        )
    print(f"the project is at {sys.argv[1]}")


if __name__ == "__main__":
    main()
