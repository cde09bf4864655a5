"""What `zeta-edu train` does: reads the text, trains, saves, and tells what it did."""

import argparse
import platform
import shlex
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from zeta_edu.checks import positive_integer
from zeta_edu.lm import data, model_card
from zeta_edu.lm.checkpoints import TOKENIZER, WEIGHTS, save_model
from zeta_edu.lm.files import write_atomically
from zeta_edu.lm.model import TransformerLM
from zeta_edu.lm.reporting import CsvLog, ProgressBar
from zeta_edu.lm.tokenizer import Tokenizer
from zeta_edu.lm.training import Progress, TrainingOptions, bits_per_byte, evaluate, train

STATE, LOG, CARD = "training-state.safetensors", "log.csv", "README.md"


@dataclass(frozen=True)
class Text:
    """One side of the split: its documents and, encoded, its tokens."""

    documents: Sequence[data.Document]
    tokens: np.ndarray

    @property
    def bytes(self) -> int:
        """Length of the text in UTF-8."""
        return sum(len(document.text.encode()) for document in self.documents)


def run(arguments: argparse.Namespace) -> int:
    """Train a model as the arguments say."""
    options = _options(arguments)
    out = _out_folder(arguments)
    _set_up(arguments)
    tokenizer, training, validation = _read(arguments, out)
    model = _model(arguments, tokenizer)
    _announce(model, training, validation, options)
    progress = _train(arguments, model, options, training, validation)
    save_model(model, out, dtype=_dtype(arguments))
    _finish(arguments, model, options, progress, training, validation)
    return 0


def _train(
    arguments: argparse.Namespace,
    model: TransformerLM,
    options: TrainingOptions,
    training: Text,
    validation: Text,
) -> Progress:
    out = Path(arguments.out)
    bar, log = ProgressBar(options.steps), CsvLog(out / LOG)

    def report(progress: Progress) -> None:
        bar(progress)
        log(progress)
        if progress.step in arguments.keep:
            save_model(model, out / "steps" / f"{progress.step:06d}", dtype=_dtype(arguments))

    saving = {"state": out / STATE, "resume": arguments.resume}
    try:
        with closing(bar), closing(log):
            return train(
                model, training.tokens, validation.tokens, options, **saving, report=report
            )
    except FloatingPointError as error:
        raise ValueError(str(error)) from None
    except KeyboardInterrupt:
        print(f"\nStopped. The same command with --resume goes on from {str(out / STATE)!r}.")
        raise


def _options(arguments: argparse.Namespace) -> TrainingOptions:
    for step in arguments.keep:
        if not 1 <= step <= arguments.steps:
            raise ValueError(f"--keep {step} is not among the steps 1 to {arguments.steps}")
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
        evaluate_every=arguments.evaluate_every,
        save_every=arguments.save_every,
    )


def _out_folder(arguments: argparse.Namespace) -> Path:
    out = Path(arguments.out)
    if arguments.resume and not (out / STATE).exists():
        raise ValueError(f"nothing to resume: {str(out / STATE)!r} is not there")
    if not arguments.resume:
        for name in (STATE, WEIGHTS, CARD):
            if (out / name).exists():
                raise ValueError(
                    f"{str(out / name)!r} is there already; go on with a training by --resume, "
                    "or give another --out"
                )
    out.mkdir(parents=True, exist_ok=True)
    return out


def _set_up(arguments: argparse.Namespace) -> None:
    if arguments.threads is not None:
        torch.set_num_threads(positive_integer("--threads", arguments.threads))
    try:
        torch.empty(0, device=arguments.device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"--device {arguments.device} cannot be used: {reason}") from None
    torch.set_float32_matmul_precision("medium")
    print("float32 matrix products take torch's fast path: set_float32_matmul_precision('medium')")
    torch.manual_seed(arguments.seed)


def _documents(arguments: argparse.Namespace) -> list[data.Document]:
    if arguments.text is not None:
        return data.read_texts(arguments.text)
    return data.python_source()


def _read(arguments: argparse.Namespace, out: Path) -> tuple[Tokenizer, Text, Text]:
    """Read the text, split it, and encode it with a tokenizer learned from the training part."""
    documents = _documents(arguments)
    training, validation = data.split_documents(documents)
    if arguments.resume:
        tokenizer = Tokenizer.load(out / TOKENIZER)
    else:
        tokenizer = Tokenizer.train((document.text for document in training), arguments.vocab)
        tokenizer.save(out / TOKENIZER)
    training_text = Text(training, data.encode_documents(training, tokenizer))
    validation_text = Text(validation, data.encode_documents(validation, tokenizer))
    return tokenizer, training_text, validation_text


def _model(arguments: argparse.Namespace, tokenizer: Tokenizer) -> TransformerLM:
    model = TransformerLM(
        len(tokenizer),
        arguments.dim,
        arguments.depth,
        heads=arguments.heads,
        dim_head=arguments.dim_head,
        kv_heads=arguments.kv_heads,
        ff_mult=arguments.ff_mult,
        qk_rmsnorm=arguments.qk_rmsnorm,
        use_xpos=not arguments.no_xpos,
        attn_dropout=arguments.dropout,
        ff_dropout=arguments.dropout,
    )
    model.tokenizer = tokenizer
    return model.to(arguments.device)


def _dtype(arguments: argparse.Namespace) -> torch.dtype | None:
    return torch.float16 if arguments.half else None


def _announce(
    model: TransformerLM, training: Text, validation: Text, options: TrainingOptions
) -> None:
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(
        f"{len(training.documents)} files to train on ({len(training.tokens):,} tokens), "
        f"{len(validation.documents)} to validate on ({len(validation.tokens):,})\n"
        f"{parameters:,} parameters, {options.steps:,} steps of {options.tokens_per_step:,} tokens"
    )


def _finish(
    arguments: argparse.Namespace,
    model: TransformerLM,
    options: TrainingOptions,
    progress: Progress,
    training: Text,
    validation: Text,
) -> None:
    """Validate on the whole held-out text, write the model card, and tell what was done."""
    loss = evaluate(model, validation.tokens, options.length, windows=None)
    bits = bits_per_byte(loss, len(validation.tokens), validation.bytes)
    facts = model_card.Facts(
        name=Path(arguments.out).resolve().name,
        command=_command(arguments),
        text=_origin(arguments),
        files=len(training.documents),
        held_out_files=len(validation.documents),
        text_tokens=len(training.tokens),
        held_out_tokens=len(validation.tokens),
        validation_loss=loss,
        bits=bits,
        device=arguments.device,
    )
    card = model_card.model_card(facts, model, options, progress)
    write_atomically(Path(arguments.out) / CARD, card.encode())
    print(
        f"{progress.step:,} steps, {progress.tokens:,} tokens: training loss {progress.loss:.3f}, "
        f"validation loss {loss:.3f} ({bits:.3f} bits per byte)\n"
        f"saved in {arguments.out}; try\n"
        f"    zeta-edu generate {shlex.quote(_beginning(training))} --model "
        f"{shlex.quote(arguments.out)}"
    )


def _origin(arguments: argparse.Namespace) -> str:
    if arguments.text is not None:
        return f"The text is what was found at `{arguments.text}`."
    return model_card.STANDARD_LIBRARY.format(python=platform.python_version())


def _beginning(training: Text) -> str:
    """Return a few characters to begin with: of Python a function, of other text a line."""
    if any(document.name.endswith(".py") for document in training.documents):
        return "def add("
    return training.documents[0].text.lstrip()[:20].splitlines()[0]


def _command(arguments: argparse.Namespace) -> str:
    """Return the command line that repeats this training: every option, none left to defaults.

    Of the folder only the name is given: where it was is nobody's business.
    """
    words = ["zeta-edu", "train"]
    values = vars(arguments) | {"out": Path(arguments.out).resolve().name}
    for name, value in values.items():
        if name in ("run", "resume", "command") or value is None or value is False or value == []:
            continue
        words.append("--" + name.replace("_", "-"))
        if value is not True:
            words.append(shlex.quote(_spelled(value)))
    return " ".join(words)


def _spelled(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
