"""What metrics against a mask cost on a large volume, beside reading the map and the mask once.

``python benchmarks/metrics.py``
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import numpy as np
from measure import table
from scipy.ndimage import gaussian_filter, zoom

from napari_xai_med.image import Image
from napari_xai_med.job import Job
from napari_xai_med.metrics.base import Need, make_metric, metrics
from napari_xai_med.metrics.case import Case

SHAPE = (300, 512, 512)
SPACING = (1.0, 0.7, 0.7)


def made(*, sparse: bool) -> Case:
    """A smooth map, as methods make them, and a mask of six lesions, a thousandth of the volume.

    Parameters
    ----------
    sparse : bool
        Whether nine in ten voxels are 0, as in Grad-CAM, or none.
    """
    random = np.random.default_rng(0)
    coarse = gaussian_filter(random.normal(size=(30, 32, 32)), 2.0).astype(np.float32)
    values = zoom(coarse, [n / m for n, m in zip(SHAPE, coarse.shape, strict=True)], order=1)
    values -= np.float32(np.quantile(coarse, 0.9) if sparse else coarse.min() - 1e-3)
    mask = np.zeros(SHAPE, bool)
    for corner in random.integers(20, 250, (6, 3)):
        mask[tuple(slice(start, start + 24) for start in corner)] = True
    case = Case(values, Image.from_array(np.zeros((1, 1, 1)), SPACING).grid, {"lesions": mask})
    # The part of the map that counts is found once for all metrics.
    assert case.evidence.shape == SHAPE
    return case


def read(case: Case) -> tuple[float, int]:
    """Every voxel of both, once."""
    return float(case.evidence.sum()), int(np.count_nonzero(case.masks["lesions"]))


def processor_seconds(call: Callable[[], Any]) -> float:
    """Time that a call takes of the processor; a long one is not lengthened by what else the machine does."""
    start = time.process_time()
    call()
    return time.process_time() - start


def main() -> None:
    """Print times, and how often both could be read in them."""
    # The columns of pictures say nothing about volumes.
    names = [name for name, kind in metrics().items() if kind.needs <= {Need.MASK} and name != "column_macro"]
    found: dict[str, list[float]] = {}
    for sparse in (True, False):
        case = made(sparse=sparse)
        # The median of many, since it is short.
        found.setdefault("reading", []).append(median(processor_seconds(partial(read, case)) for _ in range(15)))
        for name in names:
            seconds = processor_seconds(partial(make_metric(name, {}).measure, case, Job()))
            found.setdefault(name, []).append(seconds)
    rows = {}
    for name, times in found.items():
        ratios = [f"{of / reading:.0f}" for of, reading in zip(times, found["reading"], strict=True)]
        rows[name] = [f"{times[0]:.2f}", ratios[0], f"{times[1]:.2f}", ratios[1]]
    columns = ["metric", "9 in 10 voxels are 0: s", "times reading", "no voxel is 0: s", "times reading"]
    table(f"Metrics of a map of {' x '.join(map(str, SHAPE))} voxels", columns, rows)


if __name__ == "__main__":
    main()
