"""What tests of metrics against masks share."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_xai_med.image import Image
from napari_xai_med.job import Job
from napari_xai_med.metrics.base import make_metric
from napari_xai_med.metrics.case import Case, Sign
from napari_xai_med.metrics.outcome import EXPLANATION, Outcome, Score

SPACING = {2: (0.3, 2.0), 3: (0.7, 0.9, 6.5)}


def case_on(values: NDArray[Any], mask: NDArray[Any], sign: Sign = Sign.POSITIVE, **more: Any) -> Case:
    """A map and the mask "m" on voxels that are longer than wide."""
    grid = Image.from_array(np.zeros(mask.shape), SPACING[mask.ndim]).grid
    return Case(values.astype(np.float32), grid, {"m": mask.astype(bool)}, sign=sign, **more)


def outcome_of(name: str, made: Case, **options: Any) -> Outcome:
    return make_metric(name, options).measure(made, Job())


def scores_of(name: str, made: Case, subject: str = EXPLANATION, **options: Any) -> dict[str, Score]:
    """The first score of each name."""
    found: dict[str, Score] = {}
    for score in outcome_of(name, made, **options).scores:
        if score.subject == subject:
            found.setdefault(score.name, score)
    return found


def values_of(name: str, made: Case, subject: str = EXPLANATION, **options: Any) -> dict[str, float]:
    return {key: score.value for key, score in scores_of(name, made, subject, **options).items()}


def random_pair(seed: int, shape: tuple[int, ...], decimals: int | None = None) -> tuple[NDArray[Any], NDArray[Any]]:
    """A map with values of both signs that is higher in a mask of a fifth of the image; ties if it is rounded."""
    random = np.random.default_rng(seed)
    mask = random.random(shape) < 0.2
    values = (random.normal(size=shape) + 0.7 * mask).astype(np.float32)
    return values if decimals is None else values.round(decimals), mask
