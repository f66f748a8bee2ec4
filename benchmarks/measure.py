"""What the benchmarks share: times of several calls in one run, and the memory that a call needs at most."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Mapping
from multiprocessing import get_context
from statistics import median
from typing import Any

import torch

THREADS = 2


def seconds(calls: Mapping[str, Callable[[], Any]], rounds: int = 5) -> dict[str, float]:
    """Median time of each call. They take turns, so that whatever else the machine does slows all of them alike."""
    torch.set_num_threads(THREADS)
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            # The first turn makes what later ones find ready.
            if turn:
                times[name].append(time.perf_counter() - start)
    return {name: median(values) for name, values in times.items()}


def peak_megabytes(build: Callable[[], Callable[[], Any]]) -> float:
    """Memory that a call needs at most, above what was there before it, in a process of its own.

    Parameters
    ----------
    build : callable
        A function at the top of a module, or `functools.partial` of one, that makes what is needed and gives the call.
    """
    context = get_context("spawn")
    receiver, sender = context.Pipe(False)
    process = context.Process(target=_measure, args=(build, sender))
    process.start()
    # The child's end has to be closed here, so that its death is noticed.
    sender.close()
    value = float(receiver.recv())
    process.join()
    return value


def _measure(build: Callable[[], Callable[[], Any]], sender: Any) -> None:
    torch.set_num_threads(THREADS)
    call = build()
    # The peak up to here counts as there; a small first call would hide what the real one needs.
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    call()
    sender.send((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)


def table(title: str, columns: list[str], rows: Mapping[str, list[str]]) -> None:
    """Print a table in Markdown, as it stands in docs/benchmarks.md."""
    print(f"\n{title}\n")
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for name, values in rows.items():
        print(f"| {' | '.join((name, *values))} |", flush=True)
