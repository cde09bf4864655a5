"""Builds the web site from the stored lessons and the docstrings; nothing is run or fetched.

    python docs/site/build.py                  into site/
    python docs/site/build.py --output folder  elsewhere

The sources of the pages are put together in a temporary folder. What was there before is replaced
only when the whole site has been built without a warning.
"""

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE))

from sphinx.cmd.build import main as sphinx_build  # noqa: E402
from zeta_site.staging import stage  # noqa: E402


def main(argv: list[str] | None = None) -> int:
    """Build the site and say where it is; return the exit code."""
    parser = argparse.ArgumentParser(description="Build the web site.")
    parser.add_argument("--output", type=Path, default=ROOT / "site", help="site/ by default")
    output: Path = parser.parse_args(argv).output.resolve()
    if output.exists() and not (output / "searchindex.js").exists() and any(output.iterdir()):
        parser.error(f"--output must be a new folder or an earlier site, got {str(output)!r}")
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        stage(work / "source", ROOT)
        failed = sphinx_build(sphinx_options(work))
        if failed:
            print("the site was not built; what was there before still is", file=sys.stderr)
            return 1
        shutil.rmtree(output, ignore_errors=True)
        shutil.move(work / "pages", output)
    pages = [*output.rglob("*.html")]
    size = sum(path.stat().st_size for path in output.rglob("*") if path.is_file()) / 1e6
    seconds = time.perf_counter() - start
    print(f"{len(pages)} pages, {size:.0f} MB, {seconds:.0f} s: {(output / 'index.html').as_uri()}")
    return 0


def sphinx_options(work: Path) -> list[str]:
    """What Sphinx is told: every warning is an error, and all of them are shown."""
    folders = [str(work / "source"), str(work / "pages"), "-d", str(work / "doctrees")]
    return ["-b", "html", "-W", "--keep-going", "-q", "-c", str(HERE), *folders]


if __name__ == "__main__":
    sys.exit(main())
