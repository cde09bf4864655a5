"""What a person sees of a training: a progress bar, and a log for a table or for TensorBoard."""

import csv
import sys
from io import StringIO
from pathlib import Path
from typing import Any, TextIO

from zeta_edu.files import write_atomically
from zeta_edu.lm.options import Progress

_COLUMNS = (
    "step",
    "tokens",
    "loss",
    "validation_loss",
    "accuracy",
    "learning_rate",
    "gradient_norm",
    "tokens_per_second",
)


class CsvLog:
    """A log with one row for every few steps; going on after a stop leaves no row twice.

    Args:
        path: the file; what it holds beyond the step that training goes on from is dropped.
        every: steps between rows; a validation always gets one.
    """

    def __init__(self, path: Path, every: int = 10) -> None:
        self.path = path
        self.every = every
        self._file: TextIO | None = None

    def __call__(self, progress: Progress) -> None:
        """Add a row, if one is due."""
        if self._file is None:
            self._file = self._open(progress.step)
        validated = [found.get(progress.step) for found in (progress.validation, progress.accuracy)]
        if progress.step % self.every and validated == [None, None]:
            return
        row = (
            progress.step,
            progress.tokens,
            f"{progress.loss:.9g}",
            *("" if number is None else f"{number:.9g}" for number in validated),
            f"{progress.learning_rate:.6g}",
            f"{progress.gradient_norm:.6g}",
            round(progress.tokens / progress.seconds),
        )
        csv.writer(self._file, lineterminator="\n").writerow(row)
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def _open(self, first_step: int) -> TextIO:
        rows = []
        if first_step > 1 and self.path.exists():
            with self.path.open(newline="") as file:
                rows = [row for row in csv.reader(file) if _step(row) < first_step]
        kept = StringIO()
        writer = csv.writer(kept, lineterminator="\n")
        writer.writerows([_COLUMNS, *(row for row in rows if len(row) == len(_COLUMNS))])
        # In one step: a kill in the midst of it would lose the rows.
        write_atomically(self.path, kept.getvalue().encode())
        return self.path.open("a", newline="")


class TensorBoardLog:
    """The same log as event files, for TensorBoard.

    Args:
        folder: of the event files; what they hold beyond the step that training goes on from is
            dropped by TensorBoard.
        every: steps between points; a validation always gets one.
    """

    def __init__(self, folder: Path, every: int = 10) -> None:
        self.folder = folder
        self.every = every
        self._writer: Any = None
        self._writer_class = _import_summary_writer()

    def __call__(self, progress: Progress) -> None:
        """Add a point to each curve, if one is due."""
        if self._writer is None:
            self._writer = self._writer_class(str(self.folder), purge_step=progress.step)
        curves = {"validation/loss": progress.validation, "validation/accuracy": progress.accuracy}
        points = {name: c[progress.step] for name, c in curves.items() if progress.step in c}
        if progress.step % self.every == 0 or points:
            points["training/loss"] = progress.loss
            points["training/learning rate"] = progress.learning_rate
            points["training/gradient norm"] = progress.gradient_norm
            points["training/tokens per second"] = progress.tokens / progress.seconds
        for name, number in points.items():
            self._writer.add_scalar(name, number, progress.step)

    def close(self) -> None:
        """Close the files."""
        if self._writer is not None:
            self._writer.close()


def _step(row: list[str]) -> float:
    """Return a row's step; a heading or a torn row counts as never reached."""
    return int(row[0]) if row and row[0].isdigit() else float("inf")


class ProgressBar:
    """A tqdm bar with loss, tokens per second and time left; lines where it is no terminal.

    Args:
        steps: of the whole training.
    """

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self._bar: Any = None
        self._lines = not sys.stderr.isatty()

    def __call__(self, progress: Progress) -> None:
        """Show a step."""
        if self._lines:
            if progress.step in progress.validation:
                print(self._line(progress), file=sys.stderr, flush=True)
            return
        if self._bar is None:
            self._bar = _import_tqdm()(
                total=self.steps, initial=progress.step - 1, unit="step", dynamic_ncols=True
            )
        self._bar.update()
        self._bar.set_postfix_str(self._description(progress), refresh=False)

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self._bar is not None:
            self._bar.close()

    def _line(self, progress: Progress) -> str:
        left = progress.seconds / progress.step * (self.steps - progress.step)
        where = f"step {progress.step} of {self.steps}"
        time_left = f"{left:.0f} s" if left < 100 else f"{left / 60:.0f} min"
        return f"{where}: {self._description(progress)}, {time_left} left"

    def _description(self, progress: Progress) -> str:
        text = f"loss {progress.loss:.3f}"
        if progress.validation:
            text += f", validation {list(progress.validation.values())[-1]:.3f}"
        if progress.accuracy:
            text += f", accuracy {list(progress.accuracy.values())[-1]:.1%}"
        return f"{text}, {progress.tokens / progress.seconds:.0f} tokens/s"


def _import_tqdm() -> Any:
    try:
        from tqdm import tqdm
    except ImportError:
        raise ImportError(
            "the tqdm package is missing; install it with: pip install 'zeta-edu[train]'"
        ) from None
    return tqdm


def _import_summary_writer() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ImportError(
            "the tensorboard package is missing; install it with: pip install 'zeta-edu[log]'"
        ) from None
    return SummaryWriter
