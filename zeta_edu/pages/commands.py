"""The command `zeta-edu export`."""

import argparse
from pathlib import Path
from typing import Any


def add_commands(subparsers: Any) -> None:
    """Add `export` to the commands of `zeta-edu`."""
    parser = subparsers.add_parser(
        "export",
        help="write a lesson or a notebook as one page that needs nothing else",
        description="Write a notebook as one HTML file: its views stay alive, its formulas are "
        "drawn, without a kernel and without a network. Outputs are shown as they are stored.",
        epilog="example: zeta-edu export 04 --output rotary.html",
    )
    parser.add_argument("notebook", help="a lesson's number, such as 04, or an .ipynb file")
    parser.add_argument("-o", "--output", type=Path, help="where to write (its name, with .html)")
    parser.add_argument("--open", action="store_true", help="open the page in the browser")
    parser.set_defaults(run=run_export)


def run_export(arguments: argparse.Namespace) -> int:
    """Write the page and say where it is."""
    try:
        from zeta_edu.pages.export import export_notebook
    except ImportError as error:
        raise ImportError(
            f"pages need {error.name}, which is not installed: pip install 'zeta-edu[notebooks]'"
        ) from None
    from zeta_edu.files import write_atomically
    from zeta_edu.lab import find_lessons
    from zeta_edu.lessons import find

    source = Path(arguments.notebook)
    if source.suffix != ".ipynb":
        source = find(find_lessons(), arguments.notebook)
    output: Path = arguments.output or Path(f"{source.stem}.html")
    output.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(output, export_notebook(source).encode())
    print(f"wrote {output.resolve()}")
    if arguments.open:
        import webbrowser

        webbrowser.open(output.resolve().as_uri())
    return 0
