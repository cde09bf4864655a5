"""What `zeta-edu generate` does."""

import argparse

from zeta_edu.adapters import merge_lora
from zeta_edu.lm.adapter_files import load_lora
from zeta_edu.lm.checkpoints import load_pretrained
from zeta_edu.lm.running import compiler_explained, set_threads


def run(arguments: argparse.Namespace) -> int:
    """Print the prompt and, as it comes, its continuation."""
    if arguments.threads is not None:
        set_threads(arguments.threads)
    model, _ = load_pretrained(arguments.model)
    if arguments.adapter is not None:
        merge_lora(load_lora(model, arguments.adapter))
    # A shell makes it hard to type a new line.
    prompt = arguments.prompt.replace("\\n", "\n")
    pieces = model.stream(
        prompt,
        arguments.max_tokens,
        temperature=arguments.temperature,
        top_k=arguments.top_k,
        top_p=arguments.top_p,
        seed=arguments.seed,
        repetition_penalty=arguments.repetition_penalty,
        stop=arguments.stop,
        compile=arguments.compile,
    )
    print(prompt, end="", flush=True)
    with compiler_explained():
        for piece in pieces:
            print(piece, end="", flush=True)
    print()
    return 0
