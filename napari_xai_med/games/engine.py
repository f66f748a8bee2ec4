"""The game of an image's parts: classes' scores of the image with some of its parts replaced by a baseline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_xai_med.games.base import Coalitions, Float
from napari_xai_med.job import Job
from napari_xai_med.models.batch_sizes import REFERENCE, Sizes, find_sizes
from napari_xai_med.models.devices import free_memory, is_out_of_memory
from napari_xai_med.models.head import Answer
from napari_xai_med.models.target import AnyTarget

if TYPE_CHECKING:
    from napari_xai_med.models.classifier import Classifier

_ASKING = "Asking about masked images"
_INTEGERS = {torch.float32: torch.int32, torch.float64: torch.int64}
"""Whole numbers with as many bits."""


@dataclass
class Composer:
    """Images of which parts are replaced, made in batches on the network's device.

    Parameters
    ----------
    image, baseline : Tensor of float32 or float64, shape (C, *spatial)
    labels : Tensor of int32, shape (*spatial)
        0 for what always stays, then 1 to the number of parts.
    """

    image: Tensor
    baseline: Tensor
    labels: Tensor

    def __call__(self, coalitions: Tensor) -> Tensor:
        """Images of coalitions, (B, players) of bool on the same device: shape (B, C, *spatial).

        Voxels are chosen by their bits, in place. What `torch.where` gives are the same bits, but on processors it
        guesses at each voxel which of the two it will be, and takes up to three times as long and twice the memory.
        """
        shape, kind = self.image.shape, _INTEGERS[self.image.dtype]
        image, baseline, size = self.image.view(kind), self.baseline.view(kind), 8 * kind.itemsize
        result = image.new_empty((len(coalitions), *shape))
        shown = torch.cat([coalitions.new_ones((len(coalitions), 1)), coalitions], 1).to(kind)
        for rows, images in zip(shown.split(size), result.split(size), strict=True):
            bits = torch.arange(len(rows), dtype=kind, device=rows.device)
            # One look-up for all voxels of all images: each of a word's bits says whether one image shows the voxel.
            table = (rows << bits[:, None]).sum(0, dtype=kind)
            words = table.index_select(0, self.labels.flatten()).reshape(shape[1:]).expand(shape)
            torch.bitwise_left_shift(words, (size - 1 - bits).reshape(-1, *[1] * len(shape)), out=images)
            # Their memory is given back before more is needed.
            del words
            # All bits are now the first one's, which is the sign.
            images >>= size - 1
            images &= image ^ baseline
            images ^= baseline
        return result.view(self.image.dtype)


@dataclass
class ImageGame:
    """A `Game` whose players are parts of an image, such as segments or channels.

    Each distinct coalition is asked about once, in batches of the fastest size that does not show in the answers.

    Parameters
    ----------
    classifier : Classifier
    ask : callable
        Of images (B, C, *spatial) and a job; gives an `Answer`. The images are its own from then on.
    compose : callable
        Of coalitions, (B, players) of bool on the classifier's device; gives images, (B, *shape).
    shape : tuple of int
        (C, *spatial).
    players : int
    targets : sequence of Target
    job : Job
        Asked before each batch whether to go on.
    expected : int
        Distinct coalitions that will be asked about, for the progress.
    limit : int
        Images to compute at once at most; 0 to let the fastest number be found.
    most : int
        Images that the memory is thought to hold at once.
    tree : callable, optional
        Gives how players join, one by one or in groups, as SciPy's `linkage`; for methods that ask about groups.
    """

    classifier: Classifier
    ask: Callable[[Tensor, Job], Answer]
    compose: Callable[[Tensor], Tensor]
    shape: tuple[int, ...]
    players: int
    targets: Sequence[AnyTarget]
    job: Job = field(default_factory=Job)
    expected: int = 0
    limit: int = 0
    most: int = 64
    tree: Callable[[], Float] | None = None
    smaller: int = 0
    """Size of the batches that the memory was enough for, where larger ones were not; else 0."""

    def __post_init__(self) -> None:
        self._index: dict[bytes, int] = {}
        self._scores: list[Float] = []
        self._share = 0.0

    @property
    def evaluations(self) -> int:
        """Distinct coalitions that were asked about."""
        return len(self._index)

    @property
    def batch_size(self) -> int:
        """The size of most batches."""
        return self.smaller or (self._sizes.best(self.limit) if self._sizes else 0)

    def __call__(self, coalitions: Coalitions) -> Float:
        """Scores of coalitions; see `Game`."""
        coalitions = np.ascontiguousarray(coalitions, bool)
        keys = [row.tobytes() for row in np.packbits(coalitions, axis=1)]
        new = {key: k for k, key in enumerate(keys) if key not in self._index}
        if new:
            self._scores.append(self._evaluate(coalitions[list(new.values())]))
            for key in new:
                self._index[key] = len(self._index)
        known = self._all()
        return known[[self._index[key] for key in keys]]

    def _all(self) -> Float:
        if len(self._scores) > 1:
            self._scores = [np.concatenate(self._scores)]
        return self._scores[0] if self._scores else np.empty((0, len(self.targets)))

    @property
    def _key(self) -> tuple[object, ...]:
        classifier = self.classifier
        return (self.shape, str(classifier.device), classifier.precision, torch.get_num_threads())

    @property
    def _sizes(self) -> Sizes | None:
        return self.classifier.batch_sizes.get(self._key)

    def _evaluate(self, coalitions: Coalitions) -> Float:
        table = torch.from_numpy(coalitions).to(self.classifier.device)
        if self._sizes is None and not self.smaller:
            self._find_sizes()
        sizes = self._sizes or Sizes({1: 1.0})
        found, done = [], 0
        for count, size in sizes.plan(len(table), self.smaller or self.limit):
            rows = table[done : done + count]
            found += self._in_memory(rows, size)
            done += count
            if self.expected:
                self._share = min((self.evaluations + done) / self.expected, 1.0)
                self.job.step(self._share, _ASKING)
        return np.concatenate(found)

    def _find_sizes(self) -> None:
        """Try batches with images that all differ: equal ones may be the same in all batches by chance."""
        random = np.random.default_rng(0)
        some = torch.from_numpy(random.random((REFERENCE, self.players)) < 0.5).to(self.classifier.device)

        def ask(images: NDArray[np.intp]) -> Float:
            # All logits, since what is found holds for other targets too.
            answer = self.ask(self.compose(some[torch.from_numpy(images)]), self._within)
            return np.asarray(answer.logits.flatten(1).double().cpu().numpy())

        sizes = find_sizes(ask, self.most)
        if sizes is None:
            # Memory may be there again for the next game.
            self.smaller = 1
        else:
            self.classifier.batch_sizes[self._key] = sizes

    @property
    def _within(self) -> Job:
        """A part of the job that only asks whether to go on."""
        return self.job.part(self._share, self._share)

    def _in_memory(self, rows: Tensor, size: int) -> list[Float]:
        """Scores of some coalitions in a batch filled to a size, or in smaller ones where the memory is not enough."""
        size = min(size, self.smaller or size)
        found = []
        for part in rows.split(size):
            try:
                # Filled with copies of its first: other sizes may give other bits.
                filled = part if len(part) == size else torch.cat([part, part[:1].expand(size - len(part), -1)])
                found.append(self._ask(filled)[: len(part)])
            except (RuntimeError, MemoryError) as error:
                if size == 1 or not is_out_of_memory(error):
                    raise
                self.smaller = -(-size // 2)
                free_memory()
                return found + self._in_memory(rows[len(found) * size :], self.smaller)
        return found

    def _ask(self, rows: Tensor) -> Float:
        answer = self.ask(self.compose(rows), self._within)
        return torch.stack([target.of(answer) for target in self.targets], 1).double().cpu().numpy()
