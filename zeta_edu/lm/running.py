"""What the commands that train have in common: options, the folder, what is shown and said."""

import argparse
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import torch

from zeta_edu.checks import positive_integer
from zeta_edu.lm import parallel
from zeta_edu.lm.options import Progress, TrainingOptions
from zeta_edu.lm.reporting import CsvLog, ProgressBar, TensorBoardLog
from zeta_edu.lm.training import Report

STATE, LOG, CARD = "training-state.safetensors", "log.csv", "README.md"
BOARD = "tensorboard"
DEVICES = ("cpu", "cuda", "mps", "xpu")
MOST_THREADS = 1024


def training_options(arguments: argparse.Namespace) -> TrainingOptions:
    """Return the options of a training that a command line asks for."""
    return TrainingOptions(
        steps=arguments.steps,
        batch_size=arguments.batch,
        length=arguments.length,
        accumulate=arguments.accumulate,
        learning_rate=arguments.lr,
        warmup=arguments.warmup,
        weight_decay=arguments.weight_decay,
        clip=arguments.clip,
        seed=arguments.seed,
        bf16=arguments.bf16,
        compile=arguments.compile,
        fsdp=arguments.fsdp,
        evaluate_every=arguments.evaluate_every,
        save_every=arguments.save_every,
    )


def check_keep(arguments: argparse.Namespace) -> None:
    """Refuse to keep the model at a step that never comes."""
    for step in arguments.keep:
        if not 1 <= step <= arguments.steps:
            raise ValueError(f"--keep {step} is not among the steps 1 to {arguments.steps}")


def out_folder(arguments: argparse.Namespace, begun: str, done: Sequence[str]) -> bool:
    """Make the folder of the results, unless that would write over some.

    Args:
        arguments: with `out` and `resume`.
        begun: the file that shows that a training was begun there.
        done: the files that no training may write over.

    Returns:
        Whether there is a checkpoint to go on from.

    Raises:
        ValueError: there is something there and no `--resume`, or the other way round.
    """
    out = Path(arguments.out)
    states = [out / STATE, (out / STATE).with_suffix(".shards")]
    if arguments.resume:
        if any(state.exists() for state in states):
            return True
        if not (out / begun).exists():
            raise ValueError(f"nothing to resume: {str(states[0])!r} is not there")
        parallel.say("stopped before its first checkpoint: this training starts anew")
        return False
    for path in (*states, *(out / name for name in done)):
        if path.exists():
            raise ValueError(
                f"{str(path)!r} is there already; go on with a training by --resume, "
                "or give another --out"
            )
    out.mkdir(parents=True, exist_ok=True)
    return False


def set_up(arguments: argparse.Namespace) -> None:
    """Set threads, device, precision and seed; join the other processes under `torchrun`."""
    if arguments.threads is not None:
        set_threads(arguments.threads)
    check_device(arguments.device)
    arguments.device = parallel.start(arguments.device)
    if arguments.fsdp and parallel.processes() == 1:
        raise ValueError(
            "--fsdp needs several processes: torchrun --nproc-per-node 2 -m zeta_edu train ..."
        )
    torch.set_float32_matmul_precision("medium")
    parallel.say(
        "float32 matrix products take torch's fast path: set_float32_matmul_precision('medium')"
    )
    torch.manual_seed(arguments.seed)


def set_threads(threads: int) -> None:
    """Have torch use so many threads of the CPU, or say what the number may be."""
    if positive_integer("--threads", threads) > MOST_THREADS:
        raise ValueError(f"--threads must be at most {MOST_THREADS}, got {threads}")
    torch.set_num_threads(threads)


def check_device(device: str) -> None:
    """Raise ValueError when nothing can be trained on a device of that name here."""
    if device.split(":")[0] not in DEVICES:
        raise ValueError(f"--device must be one of {', '.join(DEVICES)}, got {device!r}")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise ValueError(f"--device {device} cannot be used: this torch finds none") from None


@contextmanager
def reporting(
    arguments: argparse.Namespace, save: Callable[[str], None] | None = None
) -> Iterator[Report]:
    """Show every step, log it, and turn what may go wrong into sentences.

    Args:
        arguments: with `out`, `steps`, `log`; with `keep`, if something is to be kept.
        save: saves the model as it is into a folder inside `out`.
    """
    out, keep = Path(arguments.out), getattr(arguments, "keep", [])
    bar = ProgressBar(arguments.steps)
    log = CsvLog(out / LOG) if arguments.log == "csv" else TensorBoardLog(out / BOARD)

    def report(progress: Progress) -> None:
        if parallel.is_first():
            bar(progress)
            log(progress)
        if save is not None and progress.step in keep:
            save(f"steps/{progress.step:06d}")

    try:
        with closing(bar), closing(log), compiler_explained():
            yield report
    except FloatingPointError as error:
        raise ValueError(str(error)) from None
    except KeyboardInterrupt:
        parallel.say("\nStopped. The same command with --resume goes on from the last checkpoint.")
        raise


@contextmanager
def compiler_explained() -> Iterator[None]:
    """Say in a sentence when torch.compile cannot do its work here."""
    try:
        yield
    except RuntimeError as error:
        if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"--compile cannot be used here ({reason}); leave it out, or install a C++ compiler"
        ) from None


def command_line(name: str, arguments: argparse.Namespace) -> str:
    """Return the command that repeats this training: every option, none left to defaults.

    Of the folder only the name is given: where it was is nobody's business.
    """
    words = ["zeta-edu", name]
    values = vars(arguments) | {"out": Path(arguments.out).resolve().name}
    for option, value in values.items():
        if option in ("run", "resume", "command") or value is None or value is False:
            continue
        if value == []:
            continue
        words.append("--" + option.replace("_", "-"))
        if value is not True:
            words.append(shlex.quote(_spelled(value)))
    return " ".join(words)


def _spelled(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
