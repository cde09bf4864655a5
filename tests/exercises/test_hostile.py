"""Whatever a learner's function does, the verdict is a sentence and the notebook goes on."""

import contextlib
import sys
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from zeta_edu.exercises import check
from zeta_edu.exercises.attention import SCALE, SOFTMAX
from zeta_edu.exercises.judging import judge
from zeta_edu.exercises.running import call_safely

HASTY = replace(SCALE, seconds=0.3)


def right(queries, keys):
    return SCALE.solution(queries, keys)


def test_an_endless_loop_is_stopped():
    def answer(queries, keys):
        while True:
            queries = queries + 1

    verdict = judge(HASTY, answer)
    assert verdict.message == "It did not finish within 0.3 seconds; look for a loop."


def test_an_endless_loop_that_catches_every_exception_is_stopped():
    def answer(queries, keys):
        while True:
            with contextlib.suppress(Exception):
                queries = queries + 1

    assert judge(HASTY, answer).message.endswith("look for a loop.")


def test_code_that_cannot_be_stopped_is_left_behind_and_said_so():
    def answer(queries, keys):
        time.sleep(2.5)

    started = time.monotonic()
    verdict = judge(HASTY, answer)
    assert time.monotonic() - started < 2.4
    assert verdict.message.endswith("restart the kernel to end it.")


def test_a_stopped_loop_leaves_no_thread_behind():
    def answer(queries, keys):
        while True:
            pass

    before = threading.active_count()
    judge(HASTY, answer)
    assert threading.active_count() == before


def test_a_slow_answer_within_the_time_allowed_is_done():
    def answer(queries, keys):
        time.sleep(0.01)
        return right(queries, keys)

    assert judge(HASTY, answer).status == "done"


def test_an_exception_is_told_with_its_line():
    def answer(queries, keys):
        scale = 2
        return queries @ keys * scale

    verdict = judge(SCALE, answer)
    assert verdict.message.startswith("It raises RuntimeError in its line 3: ")


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), RecursionError("deep")])
def test_every_kind_of_exception_is_told(error):
    def answer(queries, keys):
        raise error

    assert judge(SCALE, answer).message.startswith(f"It raises {type(error).__name__}")


def test_an_exception_of_a_kind_of_its_own_is_told():
    class Odd(BaseException):
        def __str__(self):
            raise ValueError

    def answer(queries, keys):
        raise Odd

    assert judge(SCALE, answer).message == "It raises Odd in its line 2."


def test_a_very_long_exception_message_is_cut():
    def answer(queries, keys):
        raise ValueError("x" * 100_000)

    assert len(judge(SCALE, answer).message) < 200


def test_endless_recursion_is_told():
    def answer(queries, keys):
        return answer(queries, keys)

    assert judge(SCALE, answer).message.startswith("It raises RecursionError")


def test_a_wrong_number_of_parameters_is_told():
    def answer(queries):
        return queries

    assert "takes 1 positional argument" in judge(SCALE, answer).message


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "It returns None; a `return` is missing."),
        ([[1.0]], "It returns a value of type list; a tensor is expected."),
        (np.zeros((1, 2)), "It returns a value of type ndarray; a tensor is expected."),
        (torch.zeros(3), "It returns the shape (3,); expected is (1, 2)."),
        (
            torch.zeros(1, 2).double(),
            "It returns torch.float64; expected is torch.float32, as in its arguments.",
        ),
        (torch.zeros(1, 2), "Its numbers are not the expected ones."),
        (
            torch.full((1, 2), torch.nan),
            "Its result has NaN, which is what 0/0 and inf − inf give.",
        ),
        (
            torch.zeros(1, 2, device="meta"),
            "It returns a tensor that cannot be compared with the expected one.",
        ),
    ],
)
def test_a_wrong_result_is_told(value, message):
    assert judge(SCALE, lambda queries, keys: value).message == message


def test_a_generator_and_a_coroutine_are_told_by_their_types():
    def generating(queries, keys):
        yield right(queries, keys)

    async def waiting(queries, keys):
        return right(queries, keys)

    assert judge(SCALE, generating).message.startswith("It returns a value of type generator")
    assert judge(SCALE, waiting).message.startswith("It returns a value of type coroutine")


def test_editing_an_argument_is_told_even_when_the_result_is_right():
    def answer(queries, keys):
        scores = right(queries, keys)
        keys.zero_()
        return scores

    message = judge(SCALE, answer).message
    assert message == "It changes its argument keys; work on a new tensor instead."


def test_the_callers_tensors_are_never_edited():
    def answer(scores):
        return scores.mul_(0)

    given = {"scores": torch.ones(2, 2)}
    assert call_safely(answer, given, 1.0).edited == "scores"
    assert torch.equal(given["scores"], torch.ones(2, 2))


def test_a_right_answer_without_gradient_is_not_yet_done():
    def answer(queries, keys):
        return right(queries, keys).detach()

    verdict = judge(SCALE, answer)
    assert verdict.status == "not yet"
    assert "no gradient reaches queries" in verdict.message


def test_a_right_answer_with_a_gradient_to_one_argument_only_names_the_other():
    def answer(queries, keys):
        return right(queries, keys.detach())

    assert "no gradient reaches keys" in judge(SCALE, answer).message


def test_a_wrong_gradient_is_told():
    def answer(queries, keys):
        scores = right(queries, keys)
        return 2 * scores - scores.detach()

    assert judge(SCALE, answer).message.endswith("the gradient for queries is not.")


def test_a_megabyte_printed_is_one_line(capfd):
    def answer(queries, keys):
        print("x" * 1_000_000)
        sys.stderr.write("y" * 1_000_000)
        return queries

    check("attention.scale", answer)
    printed = capfd.readouterr()
    assert len(printed.out) < 1000
    assert "2,000,001 characters" not in printed.err == ""
    assert "is left out here" in printed.out


def test_a_right_answer_that_prints_is_done_and_its_printing_mentioned():
    def answer(queries, keys):
        print("hello")
        return right(queries, keys)

    verdict = judge(SCALE, answer)
    assert verdict.status == "done"
    assert verdict.details == (
        "What it printed (24 characters) is left out here; call it to see that.",
    )


def test_random_numbers_of_the_notebook_are_left_as_they_were():
    def answer(scores):
        return scores + torch.randn_like(scores)

    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    judge(SOFTMAX, answer)
    assert torch.equal(torch.rand(4), expected)


@pytest.mark.parametrize("function", [3, None, torch.zeros(1), "attention"])
def test_something_that_is_no_function_is_told(function):
    assert judge(SCALE, function).message.startswith("check takes the function itself, and came a")


def test_streams_are_given_back():
    before = sys.stdout, sys.stderr
    judge(HASTY, lambda queries, keys: print("hello"))
    assert (sys.stdout, sys.stderr) == before
