"""The exercise of lesson 00, small enough to try out how exercises work."""

import torch

from zeta_edu.exercises.exercise import Arguments, Exercise, Mistake

LESSON = "00 start here"


def _tables() -> list[Arguments]:
    generator = torch.Generator().manual_seed(0)
    tables = [
        torch.tensor([[1.0, 0.0], [0.5, 0.25]]),
        torch.rand(3, 4, generator=generator),
        torch.rand(2, 3, 5, generator=generator),
    ]
    return [{"table": table} for table in tables]


ROW_SUMS = Exercise(
    name="start.row_sums",
    inputs=_tables,
    solution=lambda table: table.sum(dim=-1),
    mistakes=(
        Mistake(
            "These are the sums of the columns; a row runs along the last axis.",
            lambda table: table.sum(dim=-2),
        ),
        Mistake(
            "This is the sum of the whole table; each row has a sum of its own.",
            lambda table: table.sum(),
        ),
        Mistake(
            "These are the means of the rows; their sums are asked for.",
            lambda table: table.mean(dim=-1),
        ),
        Mistake(
            "The axis is counted from the front; with a leading axis it is no longer the row's.",
            lambda table: table.sum(dim=1),
        ),
        Mistake(
            "The summed axis is still there, with length 1; leave `keepdim` out.",
            lambda table: table.sum(dim=-1, keepdim=True),
        ),
    ),
    hints=(
        "A tensor has a method `sum`, and it takes the axis as `dim`.",
        "`dim=-1` is the last axis, whatever comes before it.",
    ),
    verified="right with and without a leading axis, the gradients too.",
)

EXERCISES = (ROW_SUMS,)
