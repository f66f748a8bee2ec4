"""Ask and explain a classifier of patches about a larger image: window by window, put together again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import reduce
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_xai_med.explainers.base import Explainer, Question, RawMap
from napari_xai_med.grid import resample_linear
from napari_xai_med.job import Job
from napari_xai_med.models.devices import in_batches
from napari_xai_med.models.head import Answer
from napari_xai_med.models.run import answering, forward
from napari_xai_med.models.sliding_window import Aggregate, SlidingWindow
from napari_xai_med.models.target import AnyTarget, Direction

if TYPE_CHECKING:
    from napari_xai_med.models.classifier import Classifier

Result = TypeVar("Result")

NEGLIGIBLE = 1e-6
"""Share of the largest weight up to which a window is not explained: float32 can hardly tell it from none."""

_ANSWERING = 0.3
"""Share of the time that the answers take; explaining runs each window again, and back."""

_MOST_TOLD = 10
"""Windows that a record lists, those with the largest weights; there may be thousands."""

_FEWER = "The memory was not enough for {} windows at once; they were computed in batches of {}."
_PADDED = "The network's input, {}, is smaller than its window, {}; it was padded with zeros."
_ONE = "One of {} windows decides: the map ends where that window ends."
_EQUALS = "{} of {} windows give the same largest answer; one of them is explained."


@dataclass(frozen=True)
class Windows:
    """The windows of one image; each is cut out only when its turn comes.

    Parameters
    ----------
    settings : SlidingWindow
    padded : Tensor, shape (C, *spatial)
        The network's input, with zeros around it where it is smaller than a window.
    shape : tuple of int
        Spatial shape of the network's input without these zeros.
    before : tuple of int
        How many zeros come first along each axis.
    starts : list of tuple of int
        First voxel of each window in `padded`.
    """

    settings: SlidingWindow
    padded: Tensor
    shape: tuple[int, ...]
    before: tuple[int, ...]
    starts: list[tuple[int, ...]]

    @classmethod
    def of(cls, image: Tensor, settings: SlidingWindow) -> Windows:
        """The windows of an image of shape (C, *spatial): those of MONAI's `sliding_window_inference`."""
        shape = tuple(image.shape[1:])
        missing = [max(size - n, 0) for size, n in zip(settings.roi_size, shape, strict=True)]
        before = tuple(n // 2 for n in missing)
        ends = [(first, n - first) for first, n in zip(before, missing, strict=True)]
        # PyTorch counts axes from the last one.
        padded = torch.nn.functional.pad(image, [n for pair in reversed(ends) for n in pair])
        return cls(settings, padded, shape, before, settings.starts(padded.shape[1:]))

    def place(self, index: int) -> tuple[slice, ...]:
        """Where a window lies in `padded`."""
        pairs = zip(self.starts[index], self.settings.roi_size, strict=True)
        return tuple(slice(start, start + size) for start, size in pairs)

    def each(
        self, indices: Sequence[int], compute: Callable[[list[int], Tensor, Job], Result], job: Job
    ) -> tuple[list[Result], tuple[str, ...]]:
        """Compute something for windows in batches, smaller ones when the memory is not enough.

        Parameters
        ----------
        indices : sequence of int
        compute : callable
            Of the indices of some windows, these windows, (N, C, *roi_size), and its part of the job.
        job : Job

        Returns
        -------
        (list, tuple of str)
            What `compute` returned, in order, and a notice if batches had to be smaller.
        """
        sizes: list[int] = []
        done = 0

        def one(part: Tensor) -> Result:
            nonlocal done
            chosen = part.tolist()
            after = done + len(chosen)
            told = f"windows {done + 1} to {after} of {len(indices)}"
            batch = torch.stack([self.padded[(slice(None), *self.place(k))] for k in chosen])
            result = compute(chosen, batch, _telling(job.part(done / len(indices), after / len(indices)), told))
            done = after
            return result

        # Only numbers are cut into batches here, so that no more than one batch of windows is in memory.
        results = in_batches(torch.tensor(indices), self.settings.batch_size, one, sizes.append)
        return results, tuple(_FEWER.format(self.settings.batch_size, size) for size in sizes[-1:])


@dataclass(frozen=True)
class Answers:
    """What a classifier says about all windows of one image.

    Parameters
    ----------
    windows : Windows
    logits : Tensor of float64, shape (number of windows, number of logits)
    ending : str
        See `Answer`.
    notices : tuple of str
    """

    windows: Windows
    logits: Tensor
    ending: str
    notices: tuple[str, ...]

    @classmethod
    def of(cls, classifier: Classifier, image: Tensor, settings: SlidingWindow, job: Job) -> Answers:
        """Ask a classifier about each window of an image of shape (C, *spatial)."""
        windows = Windows.of(image, settings)
        with torch.no_grad():
            answers, notices = windows.each(
                range(len(windows.starts)), lambda _, batch, part: forward(classifier, batch, part), job
            )
        logits = torch.cat([answer.logits.cpu().double() for answer in answers])
        if windows.padded.shape[1:] != windows.shape:
            sizes = (" x ".join(map(str, size)) for size in (windows.shape, settings.roi_size))
            notices = (_PADDED.format(*sizes), *notices)
        # What the last batch says is about all of them.
        notices = (*notices, *answers[-1].notices)
        return cls(windows, logits, answers[0].ending, notices)


def answer_of(classifier: Classifier, inputs: Tensor, job: Job) -> tuple[Answer, tuple[str, ...]]:
    """What a classifier says about images: in one pass, or put together from windows if it has a sliding window.

    Parameters
    ----------
    classifier : Classifier
    inputs : Tensor, shape (N, C, *spatial)
    job : Job

    Returns
    -------
    (Answer, tuple of str)
        And sentences that the user should read.
    """
    if classifier.windows is None:
        answer = forward(classifier, inputs, job)
        return answer, answer.notices
    rows = _ask(classifier, inputs, classifier.windows, job)
    return _combined(classifier, rows), tuple(sentence for row in rows for sentence in row.notices)


@contextmanager
def asking(classifier: Classifier) -> Iterator[Callable[[Tensor, Job], Answer]]:
    """Ask a classifier many times about whole images, for which its network is made ready only once.

    Gives a function of images, (N, C, *spatial), which belong to it from then on, and a job.
    """
    if classifier.windows is None:
        with answering(classifier) as ask:
            yield ask
    else:
        yield lambda inputs, job: answer_of(classifier, inputs, job)[0]


def attribute(explainer: Explainer, question: Question, job: Job) -> tuple[list[RawMap], Answer]:
    """Explain answers of a classifier; see `Explainer.attribute`, which knows nothing of windows.

    With a sliding window each window is explained by itself, if the method does not ask about whole images. Its map is
    weighted with the derivative of what is explained by the window's logits, and all of them are blended on the grid of
    the network's input.
    """
    classifier = question.classifier
    if classifier.windows is None or explainer.whole:
        return explainer.attribute(question, job)
    rows = _ask(classifier, question.inputs, classifier.windows, job.part(0.0, _ANSWERING))
    answer = _combined(classifier, rows)
    maps = []
    wanted = question.resolved(answer)
    for done, (row, target) in enumerate(wanted):
        length = (1 - _ANSWERING) / len(wanted)
        part = job.part(_ANSWERING + done * length, _ANSWERING + (done + 1) * length)
        maps.append(_assembled(explainer, question, rows[row], target, part))
    return maps, answer


def _ask(classifier: Classifier, inputs: Tensor, settings: SlidingWindow, job: Job) -> list[Answers]:
    n = len(inputs)
    return [Answers.of(classifier, image, settings, job.part(k / n, (k + 1) / n)) for k, image in enumerate(inputs)]


def _combined(classifier: Classifier, rows: list[Answers]) -> Answer:
    logits = torch.stack([row.windows.settings.aggregate.combine(row.logits) for row in rows])
    return classifier.head.answer(logits, len(classifier.class_names), rows[0].ending)


def _assembled(explainer: Explainer, question: Question, answers: Answers, target: AnyTarget, job: Job) -> RawMap:
    """One map on the grid of the network's input from those of the windows that take part."""
    classifier, windows = question.classifier, answers.windows
    slopes, whole = _slopes(classifier, answers, target)
    weights = slopes.abs().amax(1).numpy()
    chosen = np.flatnonzero(weights > NEGLIGIBLE * weights.max()).tolist()
    blend = Blend(windows.padded.shape[1:], importance(windows.settings.roi_size))
    others = None
    if question.others is not None:
        others = torch.stack([Windows.of(image, windows.settings).padded for image in question.others])
        # Each window has a part of the other images of its own.
        windows = replace(windows, settings=replace(windows.settings, batch_size=1))

    def explain(indices: list[int], batch: Tensor, part: Job) -> tuple[Mapping[str, Any], list[str]]:
        directions = tuple((row, Direction(slopes[k] / float(weights[k]), whole)) for row, k in enumerate(indices))
        seen = None if others is None else others[(slice(None), slice(None), *windows.place(indices[0]))]
        maps, _ = explainer.attribute(Question(classifier, batch, directions, question.spacing, seen), part)
        for index, raw in zip(indices, maps, strict=True):
            on_window = resample_linear(raw.values, np.linalg.inv(raw.to_input), windows.settings.roi_size)
            blend.add(on_window, windows.place(index), float(weights[index]))
        return maps[0].facts, [sentence for raw in maps for sentence in raw.notices]

    results, fewer = windows.each(chosen, explain, job)
    inside = tuple(slice(first, first + n) for first, n in zip(windows.before, windows.shape, strict=True))
    said = [sentence for _, notices in results for sentence in notices]
    decides = _about_maximum(windows, weights, answers.logits[:, int(slopes.abs().amax(0).argmax())])
    return RawMap(
        blend.values()[inside],
        np.eye(len(windows.shape) + 1),
        {**results[0][0], **_facts(answers, weights, chosen)},
        # A dict keeps each sentence once, in order.
        tuple(dict.fromkeys((*answers.notices, *fewer, *said, *decides))),
    )


class Blend:
    """The mean of overlapping maps: smooth from window to window, and without the windows that decide nothing.

    What windows with weights w and maps m say together is w m at each voxel. Where they overlap its mean is taken,
    weighted by g w with a bell g on each window. By w, a window that alone decides keeps its map as it is: with g
    alone its neighbours, which say nothing, would thin it everywhere but at its centre.

    Parameters
    ----------
    shape : sequence of int
        Of the result.
    bell : ndarray of float32
        The importance of each voxel of a window; see `importance`.
    """

    def __init__(self, shape: Sequence[int], bell: NDArray[np.float32]) -> None:
        self.bell = bell
        self.sums = np.zeros(tuple(shape), np.float32)
        self.total = np.zeros(tuple(shape), np.float32)

    def add(self, values: NDArray[np.float32], place: tuple[slice, ...], weight: float) -> None:
        """Add the map of a window that lies at a place and has a weight above 0."""
        share = self.bell * np.float32(weight)
        self.sums[place] += share * np.float32(weight) * values
        self.total[place] += share

    def values(self) -> NDArray[np.float32]:
        """The blended map; 0 where no window was added."""
        return np.divide(self.sums, self.total, out=np.zeros_like(self.sums), where=self.total > 0)


def importance(size: Sequence[int]) -> NDArray[np.float32]:
    """MONAI's Gaussian importance map of a window, made of one for each axis.

    MONAI lifts small values to 0.001. Along each axis by itself that leaves a smooth bell; in the map of all axes
    at once large corners would have that one value, and there the windows' edges would show.
    """
    from monai.data.utils import compute_importance_map

    axes = [compute_importance_map((n,), mode="gaussian").numpy() for n in size]
    bell: NDArray[np.float32] = reduce(np.multiply.outer, axes)
    return bell


def _facts(answers: Answers, weights: NDArray[np.float64], chosen: list[int]) -> Mapping[str, Any]:
    strongest = sorted(chosen, key=lambda index: -weights[index])[:_MOST_TOLD]
    before = np.array(answers.windows.before)
    return {
        "windows": len(weights),
        "windows_explained": len(chosen),
        "strongest_windows": [
            {
                "start": (np.array(answers.windows.starts[index]) - before).tolist(),
                "weight": float(weights[index]),
                "logits": answers.logits[index].tolist(),
            }
            for index in strongest
        ],
    }


def _slopes(classifier: Classifier, answers: Answers, target: AnyTarget) -> tuple[Tensor, float]:
    """Derivative of what is explained by the logits of each window, (number of windows, number of logits), and it."""
    logits = answers.logits.clone().requires_grad_()
    with torch.enable_grad():
        combined = answers.windows.settings.aggregate.combine(logits)[None]
        value = target.of(classifier.head.answer(combined, len(classifier.class_names), answers.ending))
        (slopes,) = torch.autograd.grad(value.sum(), logits)
    return slopes, float(value.detach())


def _about_maximum(windows: Windows, weights: NDArray[np.float64], logits: Tensor) -> tuple[str, ...]:
    count = len(logits)
    if windows.settings.aggregate is not Aggregate.MAX or count == 1 or np.count_nonzero(weights) > 1:
        return ()
    # The same window gives slightly different numbers in another batch.
    equals = int(torch.isclose(logits, logits.max(), rtol=1e-5).sum())
    more = (_EQUALS.format(equals, count),) if equals > 1 else ()
    return (_ONE.format(count), *more)


def _telling(job: Job, told: str) -> Job:
    """The same job, which also tells the user how many windows are done."""
    progress = job.progress
    if progress is None:
        return job
    return replace(job, progress=lambda share, text: progress(share, f"{text}: {told}"))
