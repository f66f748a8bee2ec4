"""Parts of the network's input that are taken away together, and what maps say about each."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_xai_med.games.base import Coalitions, Float
from napari_xai_med.games.engine import Composer
from napari_xai_med.metrics.case import Map
from napari_xai_med.metrics.probing import Make, Probe
from napari_xai_med.options import option
from napari_xai_med.segments.base import Labels, make_segmenter


def parts_option() -> int:
    """The option of how many parts there are."""
    number: int = option(
        256, "About how many boxes, equal in millimetres, the network's input is cut into.", limits=(2, 10_000)
    )
    return number


def parts_of(probe: Probe, method: str, number: int) -> Labels:
    """Labels of the parts that a segmenter cuts the network's input into: 1 to their number, and 0 for what stays."""
    segmenter = make_segmenter(method, {"number": number})
    question = probe.play.question
    return segmenter.segments(question.inputs[0].cpu().numpy().astype(np.float32), question.spacing).labels


def sums_of(values: NDArray[np.floating], labels: Labels) -> Float:
    """Sums of a map over each part, shape (number of parts,)."""
    sums: Float = np.bincount(labels.ravel(), values.ravel(), minlength=int(labels.max()) + 1)[1:].astype(float)
    return sums


def all_sums(maps: Mapping[str, Map], labels: Labels) -> Float:
    """Those of several maps, shape (number of maps, number of parts)."""
    return np.stack([sums_of(values, labels) for values in maps.values()])


def falls(probe: Probe, labels: Labels, gone: Coalitions, baseline: Tensor, start: float, stop: float) -> Float:
    """How far the score falls when a baseline stands in place of parts.

    Parameters
    ----------
    probe : Probe
    labels : ndarray of int32, shape (*spatial)
    gone : ndarray of bool, shape (K, number of parts)
    baseline : Tensor, shape (C, *spatial)
    start, stop : float
        Which share of the work this is.

    Returns
    -------
    ndarray of float64, shape (K,)
    """
    image = probe.image
    compose = Composer(image, baseline.to(image), torch.from_numpy(labels).to(image.device))
    # Each once, and the image itself first.
    rows, places = np.unique(np.concatenate([np.zeros_like(gone[:1]), gone]), axis=0, return_inverse=True)
    table = torch.from_numpy(~rows).to(image.device)
    make: Make = lambda numbers: compose(table[numbers])  # noqa: E731  # a name for what it gives
    scores = probe.scores(make, len(rows), start, stop)[places.ravel()]
    result: Float = scores[0] - scores[1:]
    return result
