"""What `zeta-edu train` does with a text: reads it, trains, saves, and tells what it did."""

import argparse
import platform
import shlex
from pathlib import Path

import torch

from zeta_edu.files import write_atomically
from zeta_edu.lm import corpus, data, model_card, parallel, running
from zeta_edu.lm.checkpoints import TOKENIZER, WEIGHTS, save_model
from zeta_edu.lm.corpus import Corpus
from zeta_edu.lm.evaluation import bits_per_byte, evaluate
from zeta_edu.lm.model import TransformerLM
from zeta_edu.lm.options import Progress, TrainingOptions
from zeta_edu.lm.tokenizer import Tokenizer
from zeta_edu.lm.training import train

_DOCUMENTATION = "documentation"
_LIBRARY = "library"


def run(arguments: argparse.Namespace) -> int:
    """Train a model as the arguments say."""
    if arguments.task is not None:
        from zeta_edu.lm import task_command

        return task_command.run(arguments)
    options = running.training_options(arguments)
    running.check_keep(arguments)
    running.set_up(arguments)
    resume = _prepare(arguments)
    tokenizer = Tokenizer.load(Path(arguments.out) / TOKENIZER)
    text = corpus.open_corpus(Path(arguments.out) / corpus.FOLDER)
    if text.origin != _origin(arguments):
        raise ValueError(f"this training was begun on {text.origin!r}, not {_origin(arguments)!r}")
    model = new_model(arguments, len(tokenizer))
    model.tokenizer = tokenizer
    _announce(model, text, options)
    progress = _train(arguments, model, options, text, resume)
    save_model(model, arguments.out, dtype=dtype(arguments))
    _finish(arguments, model, options, progress, text)
    parallel.finish()
    return 0


def _prepare(arguments: argparse.Namespace) -> bool:
    """Read the text and write it as tokens, unless that was done; return whether to resume.

    Of several processes the first does it, and the others wait.
    """
    out, resume = Path(arguments.out), False
    facts = f"{corpus.FOLDER}/{corpus.FACTS}"
    if parallel.is_first():
        resume = running.out_folder(arguments, facts, (WEIGHTS, running.CARD))
        if not (arguments.resume and (out / facts).exists()):
            split = corpus.split_and_learn(_documents(arguments), arguments.vocab)
            training, validation, tokenizer = split
            tokenizer.save(out / TOKENIZER)
            origin = _origin(arguments)
            corpus.write_corpus(out / corpus.FOLDER, origin, training, validation, tokenizer)
    return any(parallel.gather(resume))


def _origin(arguments: argparse.Namespace) -> str:
    return arguments.text or (_DOCUMENTATION if arguments.documentation else _LIBRARY)


def _documents(arguments: argparse.Namespace) -> list[data.Document]:
    if arguments.text is not None:
        return data.read_texts(arguments.text, leave_out=arguments.out)
    return data.documentation() if arguments.documentation else data.python_source()


def new_model(arguments: argparse.Namespace, num_tokens: int) -> TransformerLM:
    """Return an untrained model of the shape that the arguments ask for."""
    model = TransformerLM(
        num_tokens,
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
    return model.to(arguments.device)


def dtype(arguments: argparse.Namespace) -> torch.dtype | None:
    """Return the type in which weights are saved; their own when None."""
    return torch.float16 if arguments.half else None


def _announce(model: TransformerLM, text: Corpus, options: TrainingOptions) -> None:
    parameters = sum(parameter.numel() for parameter in model.parameters())
    parallel.say(
        f"{text.training.files} files to train on ({len(text.training.tokens):,} tokens), "
        f"{text.validation.files} to validate on ({len(text.validation.tokens):,})\n"
        f"{parameters:,} parameters, {options.steps:,} steps of {options.tokens_per_step:,} tokens"
    )


def _train(
    arguments: argparse.Namespace,
    model: TransformerLM,
    options: TrainingOptions,
    text: Corpus,
    resume: bool,
) -> Progress:
    out = Path(arguments.out)

    def save(folder: str) -> None:
        save_model(model, out / folder, dtype=dtype(arguments))

    with running.reporting(arguments, save) as report:
        return train(
            model,
            text.training.tokens,
            text.validation.tokens,
            options,
            state=out / running.STATE,
            resume=resume,
            report=report,
        )


def _finish(
    arguments: argparse.Namespace,
    model: TransformerLM,
    options: TrainingOptions,
    progress: Progress,
    text: Corpus,
) -> None:
    """Validate on the whole held-out text, write the model card, and tell what was done."""
    loss = evaluate(model, text.validation.tokens, options.length, windows=None)
    bits = bits_per_byte(loss, len(text.validation.tokens), text.validation.bytes)
    if not parallel.is_first():
        return
    facts = model_card.Facts(
        name=Path(arguments.out).resolve().name,
        command=running.command_line("train", arguments),
        text=_about_text(arguments),
        files=text.training.files,
        held_out_files=text.validation.files,
        text_tokens=len(text.training.tokens),
        held_out_tokens=len(text.validation.tokens),
        validation_loss=loss,
        bits=bits,
        device=arguments.device,
    )
    card = model_card.model_card(facts, model, options, progress)
    write_atomically(Path(arguments.out) / running.CARD, card.encode())
    best = min(progress.validation, key=lambda step: progress.validation[step])
    if progress.validation[best] < 0.98 * progress.validation[progress.step]:
        parallel.say(
            f"validation was best at step {best:,} ({progress.validation[best]:.3f}): after it the "
            f"model learned its text by heart; more text helps, or --steps {best}"
        )
    parallel.say(
        f"{progress.step:,} steps, {progress.tokens:,} tokens: training loss {progress.loss:.3f}, "
        f"validation loss {loss:.3f} ({bits:.3f} bits per byte)\n"
        f"saved in {arguments.out}; try\n"
        f"    zeta-edu generate {shlex.quote(text.beginning)} --model "
        f"{shlex.quote(arguments.out)}"
    )


def _about_text(arguments: argparse.Namespace) -> str:
    if arguments.text is not None:
        return f"The text is what was found at `{arguments.text}`."
    about = model_card.DOCUMENTATION if arguments.documentation else model_card.STANDARD_LIBRARY
    return about.format(python=platform.python_version())
