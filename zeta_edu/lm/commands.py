"""`zeta-edu train`, `zeta-edu finetune` and `zeta-edu generate`: what the commands accept.

What they do is in `train_command.py` and below, imported only when a command runs.
"""

import argparse
from typing import Any

TASKS = ("induction", "brackets", "recall", "sorting")
TRAIN = """\
examples:
  zeta-edu train --text my-folder --out mine --steps 500
  zeta-edu train --text my-folder --out mine --steps 500 --resume
  zeta-edu train --task induction --out copies
"""
FINETUNE = """\
examples:
  zeta-edu finetune --text my-folder --out adapter --steps 80
  zeta-edu finetune --text my-folder --small --lr 0.03 --out smaller
  zeta-edu generate "def add(" --adapter adapter
"""
GENERATE = """\
examples:
  zeta-edu generate "def add(a, b):" --max-tokens 40 --temperature 0
  zeta-edu generate --seed 1 -- "- a text that begins with a dash"
"""


class _Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows a default where there is one, and examples line by line."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.default is False or action.default == []:
            return action.help
        return super()._get_help_string(action)


def add_commands(subparsers: Any) -> None:
    """Add the subcommands `train`, `finetune` and `generate` to the command line."""
    _add_train(subparsers)
    _add_finetune(subparsers)
    _add_generate(subparsers)


def _add_train(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "train",
        help="train a language model on Python's standard library or on your own text",
        description="Train a language model. Without options it trains a small one\n"
        "on the source of Python's own standard library in a few minutes.",
        epilog=TRAIN,
        formatter_class=_Formatter,
    )
    parser.set_defaults(run=run_train)
    parser.add_argument(
        "--out", type=_named, default="model", metavar="FOLDER", help="where to save"
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--text", type=_named, metavar="PATH", help="a file or folder; else Python's library"
    )
    source.add_argument(
        "--documentation", action="store_true", help="the topics of Python's manual"
    )
    source.add_argument(
        "--task", choices=TASKS, help="a task with known answers, for which --length is its own"
    )
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")

    _add_shape(parser.add_argument_group("shape of the model"))
    _add_training(parser.add_argument_group("training"))
    running = parser.add_argument_group("running")
    _add_running(running)
    running.add_argument(
        "--keep",
        type=_steps,
        default=[],
        metavar="STEP,STEP,...",
        help="also keep the model as it is at these steps, in --out/steps",
    )
    running.add_argument("--half", action="store_true", help="save the model in float16")


def _add_finetune(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "finetune",
        help="teach a trained model a text of your own, in a small file beside it (LoRA)",
        description="Train a LoRA adapter: a small file that changes a model, and can be taken\n"
        "off again.",
        epilog=FINETUNE,
        formatter_class=_Formatter,
    )
    parser.set_defaults(run=run_finetune)
    parser.add_argument(
        "--text", type=_named, metavar="PATH", required=True, help="a file or folder"
    )
    parser.add_argument("--model", default="python-small", help="a shipped model, or a folder")
    parser.add_argument(
        "--out", type=_named, default="adapter", metavar="FOLDER", help="where to save"
    )
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    adapter = parser.add_argument_group("adapter")
    adapter.add_argument("--rank", type=int, default=8, help="inner features of its updates")
    adapter.add_argument(
        "--small",
        action="store_true",
        help="learn one rank x rank matrix a target (LoRA-XS): a few kB, on q,k,v,o",
    )
    adapter.add_argument("--alpha", type=float, help="strength of its updates; the rank if absent")
    adapter.add_argument(
        "--targets", type=_targets, help="which of q,k,v,o are updated; q,v if absent"
    )
    adapter.add_argument("--dropout", type=float, default=0.0, help="of the adapter's inputs")
    _add_training(parser.add_argument_group("training"), steps=300, length=256, lr=1e-2, warmup=20)
    _add_running(parser.add_argument_group("running"), every=100)


def _add_shape(shape: Any) -> None:
    shape.add_argument("--dim", type=int, default=128, help="width of the residual stream")
    shape.add_argument("--depth", type=int, default=4, help="number of blocks")
    shape.add_argument("--heads", type=int, default=4, help="attention heads")
    shape.add_argument("--dim-head", type=int, default=32, help="width of a head")
    shape.add_argument("--kv-heads", type=int, default=1, help="heads of keys and values")
    shape.add_argument("--ff-mult", type=int, default=2, help="feed-forward width over dim")
    shape.add_argument("--qk-rmsnorm", action="store_true", help="normalise queries and keys")
    shape.add_argument("--no-xpos", action="store_true", help="rotate without the xPos decay")
    shape.add_argument("--dropout", type=float, default=0.0, help="in attention and feed-forward")
    shape.add_argument("--vocab", type=int, default=2048, help="ids of the tokenizer")


def _add_training(
    training: Any, steps: int = 1000, length: int = 128, lr: float = 3e-3, warmup: int = 100
) -> None:
    training.add_argument("--steps", type=int, default=steps, help="optimizer steps")
    training.add_argument("--batch", type=int, default=16, help="windows in a step")
    training.add_argument("--length", type=int, default=length, help="tokens in a window")
    training.add_argument("--accumulate", type=int, default=1, help="parts a batch is cut into")
    training.add_argument("--lr", type=float, default=lr, help="peak learning rate")
    training.add_argument("--warmup", type=int, default=warmup, help="steps to the peak")
    training.add_argument("--weight-decay", type=float, default=0.1, help="of the matrices")
    training.add_argument("--clip", type=float, default=1.0, help="largest gradient norm")
    training.add_argument("--seed", type=int, default=0, help="of weights, windows and dropout")


def _add_running(running: Any, every: int = 250) -> None:
    running.add_argument("--device", default="cpu", help="cpu, cuda, mps, xpu")
    running.add_argument("--threads", type=int, help="of the CPU; torch's choice when not given")
    running.add_argument("--bf16", action="store_true", help="compute in bfloat16 (autocast)")
    running.add_argument("--compile", action="store_true", help="use torch.compile")
    running.add_argument(
        "--fsdp", action="store_true", help="under torchrun: spread the weights (FSDP2), not DDP"
    )
    running.add_argument("--log", choices=("csv", "tensorboard"), default="csv", help="kind of log")
    running.add_argument("--evaluate-every", type=int, default=every, help="steps to validation")
    running.add_argument("--save-every", type=int, default=every, help="steps to a checkpoint")


def _add_generate(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "generate",
        help="continue a text with a trained model",
        description="Print a text and what the model writes after it, as it comes.",
        epilog=GENERATE,
        formatter_class=_Formatter,
    )
    parser.set_defaults(run=run_generate)
    parser.add_argument("prompt", help="the text to continue; \\n stands for a new line")
    parser.add_argument("--model", default="python-small", help="a shipped model, or a folder")
    parser.add_argument("--adapter", metavar="PATH", help="what zeta-edu finetune made")
    parser.add_argument("--max-tokens", type=int, default=128, help="most tokens to add")
    parser.add_argument("--temperature", type=float, default=0.7, help="0 takes the likeliest")
    parser.add_argument("--top-k", type=int, help="draw from the k likeliest")
    parser.add_argument("--top-p", type=float, help="draw from the likeliest up to p")
    parser.add_argument(
        "--repetition-penalty", type=float, default=1.0, help="above 1, less of what was there"
    )
    parser.add_argument("--seed", type=int, help="another continuation each time when not given")
    parser.add_argument("--stop", action="append", metavar="TEXT", help="end before this text")
    parser.add_argument("--threads", type=int, help="of the CPU; torch's choice when not given")
    parser.add_argument("--compile", action="store_true", help="use torch.compile, for long texts")


def _named(text: str) -> str:
    if not text:  # as an unset variable of the shell gives it; it would be the current folder
        raise argparse.ArgumentTypeError("it must name a file or folder, got ''")
    return text


def _targets(text: str) -> list[str]:
    return text.split(",")


def _steps(text: str) -> list[int]:
    try:
        return [int(step) for step in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"steps must be whole numbers, got {text!r}") from None


def run_train(arguments: argparse.Namespace) -> int:
    """Train a model as the arguments say."""
    from zeta_edu.lm.train_command import run

    return run(arguments)


def run_finetune(arguments: argparse.Namespace) -> int:
    """Train an adapter as the arguments say."""
    from zeta_edu.lm.finetune_command import run

    return run(arguments)


def run_generate(arguments: argparse.Namespace) -> int:
    """Print a prompt and, as it comes, its continuation."""
    from zeta_edu.lm.generate_command import run

    return run(arguments)
