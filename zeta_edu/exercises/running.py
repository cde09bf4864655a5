"""Calls a learner's function so that nothing it does reaches further than this call.

The function runs in a thread of its own, which works alike on every system and needs no
pickling, so a function typed into a notebook cell will do. At the deadline an exception is
raised inside that thread, several times if the first is caught there. Python code stops at
once. A single long call into compiled code cannot be stopped: the thread is left behind, the
verdict says so, and the notebook goes on. Only compiled code that never lets Python run
(`10 ** 10 ** 10`) holds the kernel itself, as it would in any cell.
"""

import contextlib
import ctypes
import inspect
import io
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from zeta_edu.exercises.exercise import Arguments


@dataclass(frozen=True)
class Outcome:
    """What one call of a learner's function led to.

    Args:
        value: what it returned, when it returned.
        error: what it raised, when it raised.
        finished: whether it ended before the deadline.
        stopped: whether its thread has ended, by itself or at the deadline.
        edited: the name of an argument that it changed, or None.
        printed: how many characters it printed.
    """

    value: Any = None
    error: BaseException | None = None
    finished: bool = True
    stopped: bool = True
    edited: str | None = None
    printed: int = 0


class _OutOfTime(BaseException):
    """Raised inside the learner's code at the deadline; `except Exception` does not see it."""


class _Counter(io.TextIOBase):
    """A stream that counts what is written and keeps none of it."""

    characters = 0

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self.characters += len(text)
        return len(text)


class _Call(threading.Thread):
    """One call in a thread that can be told to stop."""

    def __init__(self, function: Callable[..., Any], arguments: list[Any]) -> None:
        super().__init__(daemon=True)
        self.function, self.arguments = function, arguments
        self.value: Any = None
        self.error: BaseException | None = None
        self.done = False
        self.turn = threading.Lock()

    def run(self) -> None:
        with contextlib.suppress(_OutOfTime):
            try:
                self.value = self.function(*self.arguments)
            except _OutOfTime:
                pass
            except BaseException as error:
                self.error = error
        # The deadline may strike between the learner's last line and this one.
        while not self.done:
            with contextlib.suppress(_OutOfTime):
                self._finish()

    def _finish(self) -> None:
        with self.turn:
            self.done = True
            _raise_in_thread(self, None)

    def stop(self, patience: float = 1.0) -> None:
        """Raise inside the thread until it ends or patience does."""
        deadline = time.monotonic() + patience
        while self.is_alive() and time.monotonic() < deadline:
            with self.turn:
                if not self.done:
                    _raise_in_thread(self, _OutOfTime)
            self.join(0.02)


def _raise_in_thread(thread: threading.Thread, kind: type[BaseException] | None) -> None:
    """Make `thread` raise `kind` at its next step of Python code; None takes it back."""
    exception = ctypes.py_object(kind) if kind is not None else None
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), exception)


def call_safely(function: Callable[..., Any], arguments: Arguments, seconds: float) -> Outcome:
    """Call a learner's function and report what happened; never raises, never hangs.

    Args:
        function: the learner's.
        arguments: what to call it with, by position; it is given copies.
        seconds: the deadline.

    Returns:
        The outcome. Standard output and standard error are counted, not shown; torch's random
        numbers start from seed 0 and are put back afterwards.
    """
    copies = [_copy(value) for value in arguments.values()]
    call = _Call(function, copies)
    counter = _Counter()
    with _quietly(counter), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        call.start()
        try:
            call.join(seconds)
        finally:
            finished = call.done
            call.stop()
    return Outcome(
        value=_settled(call.value),
        error=call.error,
        finished=finished,
        stopped=not call.is_alive(),
        edited=_first_edited(arguments, copies),
        printed=counter.characters,
    )


@contextlib.contextmanager
def _quietly(stream: _Counter) -> Iterator[None]:
    with (
        contextlib.redirect_stdout(stream),
        contextlib.redirect_stderr(stream),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        yield


def _settled(value: Any) -> Any:
    """Close a coroutine that nobody will await, so that Python does not warn about it later."""
    if inspect.iscoroutine(value):
        value.close()
    return value


def _copy(value: Any) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    return value.detach().clone().requires_grad_(value.requires_grad)


def _first_edited(arguments: Arguments, copies: list[Any]) -> str | None:
    for (name, before), after in zip(arguments.items(), copies, strict=True):
        if isinstance(before, torch.Tensor) and not _same_tensor(before, after):
            return name
    return None


def _same_tensor(one: torch.Tensor, other: torch.Tensor) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return torch.allclose(one.detach(), other.detach(), rtol=0, atol=0, equal_nan=True)
