"""What `zeta-edu finetune` does: trains a LoRA adapter for a model on a text of one's own."""

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

import torch

from zeta_edu.adapters import add_lora
from zeta_edu.files import write_atomically
from zeta_edu.lm import corpus, data, model_card, parallel, running
from zeta_edu.lm.adapter_files import ADAPTER, save_lora
from zeta_edu.lm.checkpoints import load_pretrained
from zeta_edu.lm.corpus import Corpus
from zeta_edu.lm.evaluation import bits_per_byte, evaluate
from zeta_edu.lm.model import TransformerLM
from zeta_edu.lm.options import Progress, TrainingOptions
from zeta_edu.lm.tokenizer import Tokenizer
from zeta_edu.lm.training import train
from zeta_edu.lora import FinetuneModules


def run(arguments: argparse.Namespace) -> int:
    """Train an adapter as the arguments say."""
    options = running.training_options(arguments)
    running.set_up(arguments)
    model, tokenizer = load_pretrained(arguments.model)
    resume = _prepare(arguments, tokenizer)
    text = corpus.open_corpus(Path(arguments.out) / corpus.FOLDER)
    if text.origin != arguments.text:
        raise ValueError(f"this training was begun on {text.origin!r}, not {arguments.text!r}")
    model.to(arguments.device)
    before = _bits(model, text, options)
    add_lora(
        model,
        arguments.rank,
        arguments.alpha,
        _targets(arguments),
        dropout=arguments.dropout,
        small=arguments.small,
    )
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    parallel.say(
        f"{text.training.files} files to train on ({len(text.training.tokens):,} tokens), "
        f"{text.validation.files} to validate on ({len(text.validation.tokens):,})\n"
        f"{trainable:,} numbers to train beside the model's, {options.steps:,} steps of "
        f"{options.tokens_per_step:,} tokens"
    )
    progress = _train(arguments, model, options, text, resume)
    save_lora(model, Path(arguments.out) / ADAPTER, dtype=torch.float16)
    _finish(arguments, options, progress, text, before, _bits(model, text, options))
    parallel.finish()
    return 0


def _prepare(arguments: argparse.Namespace, tokenizer: Tokenizer) -> bool:
    """Write the text as the model's tokens, unless that was done; return whether to resume."""
    out, resume = Path(arguments.out), False
    facts = f"{corpus.FOLDER}/{corpus.FACTS}"
    if parallel.is_first():
        resume = running.out_folder(arguments, facts, (ADAPTER, running.CARD))
        if not (arguments.resume and (out / facts).exists()):
            documents = data.read_texts(arguments.text, leave_out=out)
            training, validation = data.split_documents(documents)
            folder = out / corpus.FOLDER
            corpus.write_corpus(folder, arguments.text, training, validation, tokenizer)
    return any(parallel.gather(resume))


def _targets(arguments: argparse.Namespace) -> Sequence[str]:
    return arguments.targets or (FinetuneModules.NAMES if arguments.small else ("q", "v"))


def _bits(model: TransformerLM, text: Corpus, options: TrainingOptions) -> float:
    """Return what a byte of the validation text costs the model, in bits."""
    tokens = text.validation.tokens
    loss = evaluate(model, tokens, options.length, windows=None)
    return bits_per_byte(loss, len(tokens), text.validation.bytes)


def _train(
    arguments: argparse.Namespace,
    model: TransformerLM,
    options: TrainingOptions,
    text: Corpus,
    resume: bool,
) -> Progress:
    adapter = {name: getattr(arguments, name) for name in ("rank", "alpha", "dropout", "small")}
    adapter["targets"] = _targets(arguments)
    with running.reporting(arguments) as report:
        return train(
            model,
            text.training.tokens,
            text.validation.tokens,
            options,
            state=Path(arguments.out) / running.STATE,
            resume=resume,
            identity={"adapter": adapter},
            report=report,
        )


def _finish(
    arguments: argparse.Namespace,
    options: TrainingOptions,
    progress: Progress,
    text: Corpus,
    before: float,
    after: float,
) -> None:
    """Write the card, and tell what was done."""
    if not parallel.is_first():
        return
    out = Path(arguments.out)
    size = (out / ADAPTER).stat().st_size
    facts = model_card.AdapterFacts(
        name=out.resolve().name,
        base=arguments.model,
        command=running.command_line("finetune", arguments),
        text=arguments.text,
        size=size,
        before=before,
        after=after,
    )
    card = model_card.adapter_card(facts, options, progress)
    write_atomically(out / running.CARD, card.encode())
    parallel.say(
        f"{progress.step:,} steps: {before:.3f} bits per byte of held-out text before, "
        f"{after:.3f} with the adapter\nsaved in {arguments.out}, {size / 1000:.1f} kB; try\n"
        f"    zeta-edu generate {shlex.quote(text.beginning)} --model "
        f"{shlex.quote(arguments.model)} --adapter {shlex.quote(arguments.out)}"
    )
