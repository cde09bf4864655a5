"""A model as a graph of torch's own operators, which runs without this package."""

from pathlib import Path

import torch

from zeta_edu.lm.model import TransformerLM
from zeta_edu.modes import evaluating


def export_model(
    model: TransformerLM, path: str | Path | None = None, longest: int = 2048
) -> torch.export.ExportedProgram:
    """Export the forward pass from ids (batch, n) to logits, for any batch and length.

    Args:
        model: exported in evaluation mode.
        path: a `.pt2` file to write, for `torch.export.load`; none when not given.
        longest: the most tokens that it is made for.

    Returns:
        The program; `program.module()` is called as the model is.

    Raises:
        ValueError: `longest` is below 3, or more than one window of the model's xPos.

    >>> model = TransformerLM(num_tokens=50, dim=16, depth=1, heads=2, dim_head=8)
    >>> export_model(model).module()(torch.tensor([[1, 2, 3]])).shape
    torch.Size([1, 3, 50])
    """
    window = int(16 * model.config["xpos_scale_base"]) if model.config["use_xpos"] else longest
    if not 3 <= longest <= window:
        raise ValueError(f"longest must lie between 3 and {window}, got {longest}")
    tokens = torch.zeros(2, min(longest, 8), dtype=torch.long, device=model.embedding.weight.device)
    sizes = {
        0: torch.export.Dim("batch", min=1, max=2**16),
        1: torch.export.Dim("length", min=1, max=longest),
    }
    with evaluating(model):
        program = torch.export.export(model, (tokens,), dynamic_shapes={"tokens": sizes})
    if path is not None:
        torch.export.save(program, path)
    return program
