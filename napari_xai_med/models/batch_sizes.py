"""How many images are computed at once: the fastest number that does not show in the answers.

The last bits of what a network says about an image depend on how many other images it gets with it: libraries choose
their algorithms by shape. Explanations with the same seed have to be the same bits, so that only those numbers of
images are used for which the answers are seen to be those of batches of `REFERENCE`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from napari_xai_med.models.devices import free_memory, is_out_of_memory

Answers = NDArray[np.float64]
Ask = Callable[[NDArray[np.intp]], Answers]
"""What is said about images that are named by number, shape (B, T)."""

REFERENCE = 8
"""Images at once whose answers count: about as fast as any on a processor."""

_SMALLER = (4, 2)
_LARGER = (16, 32, 64, 128, 256)
_WORTH_TRYING = 0.5
"""Seconds that one trial of a larger batch may take."""
_FASTER = {True: 1.02, False: 1.05}
"""How much faster a larger batch has to be, for its memory, and a smaller one: what else goes on hides differences."""
_LONG = 0.05
"""Seconds for which a batch is timed at least: quick ones several times, since what else goes on hides differences."""


@dataclass
class Sizes:
    """Batch sizes of one network, kind of input and device that give the same answers.

    Parameters
    ----------
    seconds : dict of int to float
        For one image in batches of each size.
    """

    seconds: dict[int, float] = field(default_factory=dict)

    def best(self, limit: int) -> int:
        """The fastest size up to a limit, 0 for none; the smallest if all are larger."""
        fitting = [size for size in self.seconds if not limit or size <= limit] or [min(self.seconds)]
        # Where the largest is small, what is done for each batch counts, and no trial is exact.
        return min(fitting, key=lambda size: self.seconds[size] * (1 if size >= REFERENCE else _FASTER[False]))

    def plan(self, count: int, limit: int) -> Iterator[tuple[int, int]]:
        """Cut a number of images into batches: how many images, and the size of the batch that they are filled to."""
        best = self.best(limit)
        while count >= best:
            yield best, best
            count -= best
        if count:
            yield count, min((size for size in self.seconds if count <= size <= best), default=best)


def find_sizes(ask: Ask, most: int) -> Sizes | None:
    """Try batch sizes with a few images.

    Parameters
    ----------
    ask : callable
        Of the first `REFERENCE` images, or as many as the memory holds, by number, each perhaps several times.
    most : int
        Images that the memory is thought to hold at once.

    Returns
    -------
    Sizes or None
        None where the memory is not enough to find out.
    """
    few = np.arange(min(REFERENCE, most))
    try:
        reference, each = _timed(ask, few)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        free_memory()
        return None
    sizes = Sizes({len(few): each})
    for size in (size for size in _SMALLER if size < len(few)):
        _try(sizes, ask, reference, size)
    for size in _LARGER:
        fastest = min(sizes.seconds.values())
        if not len(few) < size <= most or size * fastest > _WORTH_TRYING or not _try(sizes, ask, reference, size):
            break
        if sizes.seconds[size] * _FASTER[True] > fastest:
            del sizes.seconds[size]
            break
    return sizes


def _try(sizes: Sizes, ask: Ask, reference: Answers, size: int) -> bool:
    """Whether batches of a size give the same answers to all images; they are kept then."""
    images = np.resize(np.arange(len(reference)), max(size, len(reference)))
    try:
        first, *others = np.split(images, range(size, len(images), size))
        answers, each = _timed(ask, first)
        answers = np.concatenate([answers, *map(ask, others)])
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        free_memory()
        return False
    if not np.array_equal(answers, reference[images]):
        return False
    sizes.seconds[size] = each
    return True


def _timed(ask: Ask, images: NDArray[np.intp]) -> tuple[Answers, float]:
    """Answers, and seconds for each image."""
    # Once without counting: the first pass makes what later ones find ready.
    answers, shortest, spent = ask(images), float("inf"), 0.0
    while spent < _LONG:
        start = perf_counter()
        answers = ask(images)
        each = perf_counter() - start
        shortest, spent = min(shortest, each), spent + each
    return answers, shortest / len(images)
