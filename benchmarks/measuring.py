"""How everything here is timed and weighed: interleaved, on one pinned core, in processor time.

Processor time of one thread is what the work takes whatever else the machine does, and equals the
time on a clock when nothing else runs. Candidates take turns, in an order that is drawn anew each
round, so that a slow moment meets all of them; what is reported is the median of each.
"""

import gc
import os
import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

import torch
from torch.profiler import ProfilerActivity, profile

Work = Callable[[], object]


class Times(NamedTuple):
    """Seconds of processor time: the median, and the quartiles around it."""

    median: float
    low: float
    high: float

    def over(self, floor: "Times") -> str:
        """The ratio of medians, as the tables show it."""
        return f"{self.median / floor.median:.2f}"


def pin(threads: int = 1) -> str:
    """Bind the process to one core (of those it has) and torch to so many threads; say so."""
    torch.set_num_threads(threads)
    if threads == 1 and hasattr(os, "sched_setaffinity"):
        with suppress(OSError):
            os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
            return "one thread, pinned to one core"
    return f"{threads} thread{'s' if threads > 1 else ''}, not pinned"


def interleave(work: Mapping[str, Work], seconds: float = 8.0, least: int = 5) -> dict[str, Times]:
    """Time each piece of work in turn, for about so many seconds, at least so many times each."""
    order, taken = list(work), {name: [] for name in work}
    draw, began = random.Random(0), time.perf_counter()
    for once in work.values():  # what happens the first time only
        once()
    rounds = 0
    while rounds < least or time.perf_counter() - began < seconds:
        draw.shuffle(order)
        for name in order:
            start = time.process_time()
            work[name]()
            taken[name].append(time.process_time() - start)
        rounds += 1
    return {name: quartiles(times) for name, times in taken.items()}


def quartiles(times: Sequence[float]) -> Times:
    ordered = torch.tensor(sorted(times), dtype=torch.float64)
    low, median, high = ordered.quantile(torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64))
    return Times(float(median), float(low), float(high))


def peak_bytes(once: Work) -> int:
    """The most bytes of tensors that a piece of work holds at a time, beyond what was there.

    Counted from torch's own record of every allocation and release on the CPU. The work must leave
    nothing behind: what an earlier run left and this one releases would come off its peak.
    """
    once()  # tables and masks that are kept are there from now on
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        once()
    events = [e for e in recorded.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak
