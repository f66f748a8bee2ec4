"""What the benchmarks share: times of several calls in one run, and the memory that a call needs at most."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import torch

THREADS = 2


def seconds(
    calls: Mapping[str, Callable[[], Any]],
    rounds: int = 5,
    clock: Callable[[], float] = time.perf_counter,
    threads: int = THREADS,
) -> dict[str, float]:
    """Median time of each call.

    They take turns, in another order each time: what else the machine does slows all of them alike, and so does what
    the one before left in the memory.
    """
    torch.set_num_threads(threads)
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds + 1):
        for name in random.Random(turn).sample(list(calls), len(calls)):
            start = clock()
            calls[name]()
            # The first turn makes what later ones find ready.
            if turn:
                times[name].append(clock() - start)
    return {name: median(values) for name, values in times.items()}


def peak_megabytes(build: Callable[[], Callable[[], Any]]) -> float:
    """Memory that a call needs at most, above what was there before it, in a process of its own; on Linux.

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
    # Linux then counts the peak anew; what was freed before does not hide what the call needs.
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    call()
    sender.send((_status("VmHWM") - before) / 1024)


def _status(field: str) -> int:
    """A line of this process' status in kilobytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def table(title: str, columns: list[str], rows: Mapping[str, list[str]]) -> None:
    """Print a table in Markdown, as it stands in docs/benchmarks.md."""
    print(f"\n{title}\n")
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for name, values in rows.items():
        print(f"| {' | '.join((name, *values))} |", flush=True)
