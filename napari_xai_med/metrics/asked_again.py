"""Explanations that are made once more, of images that were changed a little."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from napari_xai_med.grid import Float, Reorientation, resample_linear
from napari_xai_med.image import Image
from napari_xai_med.job import Job
from napari_xai_med.metrics.case import Asked, Case, Map, Mask
from napari_xai_med.models.classifier import Classifier
from napari_xai_med.pipeline import predict_request
from napari_xai_med.segments.choice import BODY, DRAWN

ANSWERS_ALIKE = 0.1
"""Change of the answer up to which the same explanation is to be expected."""

_DRAWN = "The segments or the mask were drawn, and do not move with the image."


def asked_of(case: Case) -> Asked:
    """How the explanation came about, of a case that says so."""
    assert case.asked is not None
    return case.asked


def noisy(image: Image, share: float, random: np.random.Generator, *, uniform: bool = False) -> Image:
    """An image with noise in all voxels and channels.

    Parameters
    ----------
    image : Image
    share : float
        Standard deviation, or half the width of uniform noise, as a share of the image's range of values.
    random : Generator
    uniform : bool
        Whether the noise is uniform, as in the box around the image that Yeh et al. 2019 look at.
    """
    data = image.data
    drawn = random.random(data.shape, np.float32) if uniform else random.standard_normal(data.shape, np.float32)
    if uniform:
        drawn = 2 * drawn - 1
    return replace(image, data=data + np.float32(share * float(np.ptp(data))) * drawn)


def smooth_map(asked: Asked, classifier: Classifier, copies: int, share: float, seed: int, job: Job) -> Map:
    """A classifier's map on the grid of the network's input: of the image, or the mean of those of noisy copies.

    Parameters
    ----------
    asked : Asked
    classifier : Classifier
    copies : int
        0 for the image itself.
    share : float
        See `noisy`.
    seed : int
        Each classifier gets the same copies.
    job : Job
    """
    # Whether less than float32 does for a network was measured for the own one only.
    if not copies:
        return asked.on_input(asked.again(job, classifier=classifier, precision="float32"))
    random = np.random.default_rng(seed)
    total: Map = np.zeros((), np.float32)
    for k in range(copies):
        part = job.part(k / copies, (k + 1) / copies)
        image = noisy(asked.image, share, random)
        total = total + asked.on_input(asked.again(part, image=image, classifier=classifier, precision="float32"))
    return np.asarray(total / copies, np.float32)


@dataclass(frozen=True, eq=False)
class Changed:
    """A changed image.

    Parameters
    ----------
    name : str
        What was changed.
    image : Image
        On the same grid.
    to_old : ndarray, shape (ndim + 1, ndim + 1), optional
        Index of a voxel to the index that its content had before; None if nothing moved.
    """

    name: str
    image: Image
    to_old: Float | None = None

    def back(self, values: Map) -> tuple[Map, Mask | None]:
        """A map of this image as one of the unchanged image, and where that is known; None for everywhere.

        Parameters
        ----------
        values : ndarray of float32
            On the image's grid, or on that of the slice that was explained.
        """
        if self.to_old is None:
            return values, None
        matrix, shape = np.linalg.inv(self.to_old), values.shape
        known = resample_linear(np.ones(shape, np.float32), matrix, shape, (matrix, shape))
        return resample_linear(values, matrix, shape), known > 0.5


def moved_by(name: str, image: Image, to_old: Float) -> Changed:
    """An image whose content moved; beyond its edges they go on."""
    data = np.stack([resample_linear(channel, to_old, image.grid.shape) for channel in image.data])
    return Changed(name, replace(image, data=data), to_old)


def why_not_moved(asked: Asked) -> str:
    """Why the image can't be moved, in one sentence; empty if it can."""
    choice = asked.request.segments
    drawn = choice is not None and (choice.method == DRAWN or choice.mask not in ("", BODY))
    return _DRAWN if drawn else ""


def seen_plane(asked: Asked) -> tuple[int, int]:
    """The image's axes of the slices that the classifier sees, or of a volume's slices from feet to head."""
    section, grid = asked.section, asked.image.grid
    if grid.ndim == 2:
        return 0, 1
    turn = section.turn or Reorientation.between(grid)
    across = turn.order[section.axis or 0]
    first, second = (axis for axis in range(3) if axis != across)
    return first, second


def shift_of(asked: Asked, millimetres: float, random: np.random.Generator) -> tuple[int, ...]:
    """Whole voxels along the axes of `seen_plane`, one at least, each way by chance."""
    steps = [0] * asked.image.ndim
    for axis in seen_plane(asked):
        voxels = max(1, round(millimetres / asked.image.grid.spacing[axis]))
        steps[axis] = voxels if random.random() < 0.5 else -voxels
    return tuple(steps)


def shifted(image: Image, steps: Sequence[int]) -> Changed:
    """An image whose content moved by whole voxels along each axis, so that none of it is blurred."""
    matrix = np.eye(image.ndim + 1)
    matrix[:-1, -1] = -np.array(steps)
    moved = [abs(step) * size for step, size in zip(steps, image.grid.spacing, strict=True) if step]
    unit = "pixels" if image.is_bare else "mm"
    return moved_by(f"shift by {' x '.join(f'{length:.3g}' for length in moved)} {unit}", image, matrix)


class Answered:
    """Explains changed images, with the change of what the classifier says about the class.

    Parameters
    ----------
    asked : Asked
    job : Job
        Of the prediction for the unchanged image.
    """

    def __init__(self, asked: Asked, job: Job) -> None:
        self.asked = asked
        prediction = predict_request(asked.image, asked.classifier, asked.request, job)
        target = asked.request.target
        self._index = prediction.top if target is None else asked.known.find_class(target)
        self._before = float(prediction.probabilities[self._index])

    def explain(self, changed: Changed, job: Job) -> tuple[Map, Mask | None, float]:
        """The map moved back, and where it is known, on the grid of the network's input; and the answer's change."""
        found = self.asked.explained(job, image=changed.image)
        values, known = changed.back(found.values)
        inside = None if known is None else self.asked.on_input(known.astype(np.float32)) > 0.999
        after = float(found.prediction.probabilities[self._index])
        return self.asked.on_input(values), inside, after - self._before
