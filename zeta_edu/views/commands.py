"""The command line's part of the views: `zeta-edu view`."""

import argparse


def add_commands(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `view` to the commands of `zeta-edu`."""
    parser = subparsers.add_parser(
        "view",
        help="write a page that shows a model's attention over a text",
        description="Write one HTML page, alive without a network, that shows where a model looks.",
        epilog='example: zeta-edu view "def add(a, b):" --output add.html --open',
    )
    parser.add_argument("text", help="the text the model reads")
    parser.add_argument("--model", default="python-small", help="a model's name (python-small)")
    parser.add_argument(
        "-o",
        "--output",
        default="attention.html",
        help="where to write: .html, .png or .svg (attention.html)",
    )
    parser.add_argument("--open", action="store_true", help="open the page in the browser")
    parser.set_defaults(run=_view)


def _view(args: argparse.Namespace) -> int:
    import webbrowser

    from zeta_edu import load_pretrained
    from zeta_edu.views import attention_view

    model, tokenizer = load_pretrained(args.model)
    path = attention_view(model, tokenizer, args.text).save(args.output).resolve()
    print(f"wrote {path}")
    if args.open:
        webbrowser.open(path.as_uri())
    return 0
