"""Whether our training is at fault: the same tokens, steps and budget for a Llama of equal size.

    python -m benchmarks training_check --steps 500 --batch 8 --compile

trains a `TransformerLM` of the shape of `python-small` and transformers' Llama with as many
weights, from the same seeds, on the same batches, with the same optimizer, and prints what a byte
of held-out text costs each. Needs `pip install 'zeta-edu[dev]'`.
"""

import argparse
import platform

import torch
import transformers
from torch import Tensor, nn

from zeta_edu.lm import TrainingOptions, TransformerLM, bits_per_byte, load_pretrained
from zeta_edu.lm.corpus import Part
from zeta_edu.lm.data import encode_documents, python_source, split_documents
from zeta_edu.lm.evaluation import evaluate
from zeta_edu.lm.training import train

STD = 0.02


class Llama(nn.Module):
    """transformers' Llama behind the interface of `TransformerLM`: tied embeddings, same init."""

    def __init__(self, shape: dict[str, int]) -> None:
        super().__init__()
        config = transformers.LlamaConfig(
            vocab_size=shape["num_tokens"],
            hidden_size=shape["dim"],
            num_hidden_layers=shape["depth"],
            num_attention_heads=shape["heads"],
            num_key_value_heads=shape["kv_heads"],
            head_dim=shape["dim_head"],
            intermediate_size=shape["dim"] * shape["ff_mult"],
            initializer_range=STD,
            tie_word_embeddings=True,
            attention_bias=False,
            use_cache=False,
        )
        self.llama = transformers.LlamaForCausalLM(config)
        self.config = shape
        for name, parameter in self.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                nn.init.normal_(parameter, std=STD * (2 * shape["depth"]) ** -0.5)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.llama(input_ids=tokens).logits


def main(given: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--lr", type=float, nargs="+", default=[3e-3])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--bf16", action="store_true", help="slow where the processor lacks it")
    arguments = parser.parse_args(given)
    torch.set_num_threads(arguments.threads)
    torch.set_float32_matmul_precision("medium")
    pretrained, tokenizer = load_pretrained("python-small")
    shape = pretrained.config
    training, validation = (
        Part(
            encode_documents(part, tokenizer),
            len(part),
            sum(len(document.text.encode()) for document in part),
        )
        for part in split_documents(python_source())
    )
    print(
        f"Python {platform.python_version()}, torch {torch.__version__}, transformers "
        f"{transformers.__version__}, {arguments.threads} thread; {len(training.tokens):,} tokens "
        f"to train on, {arguments.steps} steps of {arguments.batch * arguments.length:,} tokens"
    )
    kinds = {"zeta_edu": lambda: TransformerLM(**shape), "Llama": lambda: Llama(shape)}
    for rate in arguments.lr:
        for name, make in kinds.items():
            torch.manual_seed(0)
            model = make()
            options = TrainingOptions(
                steps=arguments.steps,
                batch_size=arguments.batch,
                length=arguments.length,
                learning_rate=rate,
                warmup=min(200, arguments.steps // 10),
                bf16=arguments.bf16,
                compile=arguments.compile,
                evaluate_every=arguments.steps,
            )
            progress = train(model, training.tokens, validation.tokens, options)
            loss = evaluate(model, validation.tokens, arguments.length, windows=None)
            bits = bits_per_byte(loss, len(validation.tokens), validation.bytes)
            weights = sum(parameter.numel() for parameter in model.parameters())
            print(
                f"{name:10}{weights:12,} weights, peak rate {rate}: training loss "
                f"{progress.loss:.3f}, validation {bits:.4f} bits per byte, "
                f"{progress.tokens / progress.seconds:,.0f} tokens/s",
                flush=True,
            )
