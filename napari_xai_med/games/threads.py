"""How many threads the algebra of small matrices takes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from threadpoolctl import ThreadpoolController


@cache
def _controller() -> ThreadpoolController:
    # That of NumPy and SciPy alone: PyTorch brings its own.
    controller: ThreadpoolController = ThreadpoolController().select(internal_api="openblas")
    return controller


@contextmanager
def one_thread() -> Iterator[None]:
    """Let NumPy and SciPy compute in one thread.

    Matrices of some hundred rows gain nothing by more, and threads that wait for each other while the network computes
    were seen to take 50 times as long. Sums then also come in the same order on every machine.
    """
    with _controller().limit(limits=1):
        yield
