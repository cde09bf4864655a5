"""What `zeta-edu train --task` does: trains a model on a task with known answers."""

import argparse
import shlex
from pathlib import Path

from zeta_edu.files import write_atomically, write_json
from zeta_edu.lm import model_card, parallel, running
from zeta_edu.lm.checkpoints import WEIGHTS, save_model
from zeta_edu.lm.model import TransformerLM
from zeta_edu.lm.options import Progress, TrainingOptions
from zeta_edu.lm.tasks import NUM_TOKENS, Task, find_task, train_task
from zeta_edu.lm.tokenizer import Tokenizer
from zeta_edu.lm.train_command import dtype, new_model
from zeta_edu.lm.training import Saving

_BEGUN = "task.json"
_EXAMPLES = 2048  # that the last accuracy is measured on


def run(arguments: argparse.Namespace) -> int:
    """Train a model on a task as the arguments say."""
    task = find_task(arguments.task)
    arguments.length = task.length
    options = running.training_options(arguments)
    running.check_keep(arguments)
    running.set_up(arguments)
    resume = False
    if parallel.is_first():
        resume = running.out_folder(arguments, _BEGUN, (WEIGHTS, running.CARD))
        write_json(Path(arguments.out) / _BEGUN, {"task": task.name})
    resume = any(parallel.gather(resume))
    model = new_model(arguments, NUM_TOKENS)
    model.tokenizer = Tokenizer.of_bytes()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    parallel.say(
        f"{task.description}\n{parameters:,} parameters, {options.steps:,} steps of "
        f"{options.batch_size} lines of {task.length + 1} tokens"
    )
    progress = _train(arguments, model, options, resume)
    save_model(model, arguments.out, dtype=dtype(arguments))
    _finish(arguments, task, model, options, progress)
    parallel.finish()
    return 0


def _train(
    arguments: argparse.Namespace, model: TransformerLM, options: TrainingOptions, resume: bool
) -> Progress:
    out = Path(arguments.out)

    def save(folder: str) -> None:
        save_model(model, out / folder, dtype=dtype(arguments))

    with running.reporting(arguments, save) as report:
        saving = Saving(out / running.STATE, resume)
        return train_task(model, arguments.task, options, saving=saving, report=report)


def _finish(
    arguments: argparse.Namespace,
    task: Task,
    model: TransformerLM,
    options: TrainingOptions,
    progress: Progress,
) -> None:
    accuracy = task.accuracy(model, _EXAMPLES)
    if not parallel.is_first():
        return
    name = Path(arguments.out).resolve().name
    line = Tokenizer.of_bytes().decode(task.examples(1, seed=1, step=0)[0][0])
    command = running.command_line("train", arguments)
    facts = model_card.TaskFacts(
        name=name,
        command=command,
        task=task.name,
        description=task.description,
        line=line,
        accuracy=accuracy,
        examples=_EXAMPLES,
        device=arguments.device,
    )
    card = model_card.task_card(facts, model, options, progress)
    write_atomically(Path(arguments.out) / running.CARD, card.encode())
    beginning = line.partition("=")[0] + "=" if "=" in line else line[: len(line) // 2 + 4]
    parallel.say(
        f"{progress.step:,} steps: loss {progress.loss:.3f}, accuracy {accuracy:.2%} on "
        f"{_EXAMPLES:,} new lines\nsaved in {arguments.out}; try\n"
        f"    zeta-edu generate {shlex.quote(beginning)} --model {shlex.quote(arguments.out)} "
        "--temperature 0 --max-tokens 16"
    )
