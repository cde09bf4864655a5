"""What `zeta-edu generate` does."""

import argparse

import torch

from zeta_edu.checks import positive_integer
from zeta_edu.lm.checkpoints import load_pretrained


def run(arguments: argparse.Namespace) -> int:
    """Print the prompt and, as it comes, its continuation."""
    if arguments.threads is not None:
        torch.set_num_threads(positive_integer("--threads", arguments.threads))
    model, _ = load_pretrained(arguments.model)
    # A shell makes it hard to type a new line.
    prompt = arguments.prompt.replace("\\n", "\n")
    pieces = model.stream(
        prompt,
        arguments.max_tokens,
        temperature=arguments.temperature,
        top_k=arguments.top_k,
        top_p=arguments.top_p,
        seed=arguments.seed,
        stop=arguments.stop,
    )
    print(prompt, end="", flush=True)
    for piece in pieces:
        print(piece, end="", flush=True)
    print()
    return 0
