"""How many threads the algebra of small matrices takes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from threading import Lock
from typing import Any

from threadpoolctl import ThreadpoolController


@cache
def _controller() -> ThreadpoolController:
    # That of NumPy and SciPy alone: PyTorch brings its own.
    controller: ThreadpoolController = ThreadpoolController().select(internal_api="openblas")
    return controller


class _Shared:
    """One limit for all that compute at once: the last one takes it away."""

    def __init__(self) -> None:
        self._lock, self._users = Lock(), 0
        self._limit: Any = None

    def enter(self) -> None:
        with self._lock:
            if not self._users:
                self._limit = _controller().limit(limits=1)
            self._users += 1

    def leave(self) -> None:
        with self._lock:
            self._users -= 1
            if not self._users:
                self._limit.restore_original_limits()


_shared = _Shared()


@contextmanager
def one_thread() -> Iterator[None]:
    """Let NumPy and SciPy compute in one thread.

    Matrices of some hundred rows gain nothing by more, and threads that wait for each other while the network computes
    were seen to take 50 times as long. Sums then also come in the same order on every machine.
    """
    _shared.enter()
    try:
        yield
    finally:
        _shared.leave()
