"""The command `zeta-edu`: one door to the lessons, the models and the views."""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

EXAMPLES = """\
a first hour:
  zeta-edu lab                              open the lessons, on copies of your own
  zeta-edu generate "def add(a, b):"        let the shipped model go on with a line of Python
  zeta-edu view "def add(a, b):" -o a.html  write a page that shows what its heads look at
  zeta-edu train --text mine                train a model of your own on text of your own
  zeta-edu finetune --text mine             teach the shipped model that text, in a small file
  zeta-edu lessons                          list the lessons and the state of your copies
  zeta-edu export 04                        write lesson 04 as one page, its views alive
  zeta-edu doctor                           say what is installed and what is missing
  zeta-edu completion bash                  let your shell complete all of these

"zeta-edu COMMAND --help" tells all that a command can do.
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser with every command that the parts of the package bring."""
    from zeta_edu import doctor, lab, lessons
    from zeta_edu.lm import commands as model_commands
    from zeta_edu.pages import commands as page_commands
    from zeta_edu.views import commands as view_commands

    parser = argparse.ArgumentParser(
        prog="zeta-edu",
        description="Learn a transformer block by building it, see it move, and use it.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"zeta-edu {version('zeta-edu')}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND")
    for part in (lab, lessons, page_commands, model_commands, view_commands, doctor):
        part.add_commands(subparsers)
    add_completion(parser, subparsers)
    return parser


def add_completion(parser: argparse.ArgumentParser, subparsers: Any) -> None:
    """Add `completion`, which knows every other command."""
    completion = subparsers.add_parser(
        "completion",
        help="print a script that lets your shell complete these commands",
        description="Print what lets a shell complete the commands, their options and the names "
        "of files, with the TAB key.",
        epilog='bash:  eval "$(zeta-edu completion bash)" in ~/.bashrc\n'
        "zsh:   zeta-edu completion zsh, into a file _zeta-edu in a folder of $fpath\n"
        "tcsh:  zeta-edu completion tcsh, into a file that ~/.tcshrc sources",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    completion.add_argument("shell", choices=("bash", "zsh", "tcsh"))

    def run(arguments: argparse.Namespace) -> int:
        import shtab

        for command in subparsers.choices.values():
            for action in command._actions:
                if action.type is Path:
                    action.complete = shtab.FILE
        print(shtab.complete(parser, arguments.shell))
        return 0

    completion.set_defaults(run=run)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: the words after `zeta-edu`; those of the command line when None.

    Returns:
        The exit code: 0 when all went well, 2 when the command could not do what was asked (one
        sentence on stderr says why), 130 when it was interrupted.
    """
    try:
        if hasattr(sys.stdout, "reconfigure"):
            sys.stdout.reconfigure(errors="replace")  # what its encoding lacks becomes "?"
        parser = build_parser()
        arguments = parser.parse_args(argv)
        if not hasattr(arguments, "run"):
            parser.print_help()
            return 0
        code = int(arguments.run(arguments) or 0)
        if sys.stdout is not None:  # None where the shell has closed it
            sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of a pipe has gone (zeta-edu generate ... | head): nobody is left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, TypeError, OSError, ImportError) as error:
        print(f"zeta-edu: {one_sentence(error)}", file=sys.stderr)
        return 2
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        print("zeta-edu: there is not enough memory for this; try smaller sizes", file=sys.stderr)
        return 2


# What the package calls in its errors what is an option of another name here.
OPTIONS = {
    "max_new_tokens": "--max-tokens",
    "learning_rate": "--lr",
    "vocab_size": "--vocab",
    "batch_size": "--batch",
    "attn_dropout": "--dropout",
}


def out_of_memory(error: Exception) -> bool:
    """Whether an error says that the memory, of the machine or of a device, did not suffice."""
    words = ("out of memory", "not enough memory", "can't allocate memory", "exceeds memory")
    return isinstance(error, MemoryError) or any(word in str(error).lower() for word in words)


def one_sentence(error: Exception) -> str:
    """Return what went wrong on one line, without the error's class or number."""
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    first, _, rest = " ".join(str(error).split()).partition(" ")
    return f"{OPTIONS.get(first, first)} {rest}".strip() or type(error).__name__
