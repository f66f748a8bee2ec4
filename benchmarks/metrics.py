"""What metrics against a mask cost on a large volume, beside reading the map and the mask once.

``python benchmarks/metrics.py``
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from measure import peak_megabytes, seconds, table
from scipy.ndimage import gaussian_filter, zoom

from napari_xai_med.image import Image
from napari_xai_med.job import Job
from napari_xai_med.metrics.base import Need, make_metric, metrics
from napari_xai_med.metrics.case import Case

SHAPE = (300, 512, 512)
SPACING = (1.0, 0.7, 0.7)
ROUNDS = 1


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


def memory_of(name: str) -> Callable[[], Any]:
    """What `peak_megabytes` measures."""
    return partial(make_metric(name, {}).measure, made(sparse=False), Job())


def main() -> None:
    """Print times as multiples of reading both once, and the memory on top of the map and the mask."""
    names = [name for name, kind in metrics().items() if kind.needs <= {Need.MASK}]
    found = {}
    for sparse in (True, False):
        case = made(sparse=sparse)
        calls: dict[str, Callable[[], Any]] = {"reading": partial(read, case)}
        calls |= {name: partial(make_metric(name, {}).measure, case, Job()) for name in names}
        found[sparse] = seconds(calls, ROUNDS)
    rows = {
        name: [
            *(f"{found[sparse][name]:.2f}" for sparse in (True, False)),
            *(f"{found[sparse][name] / found[sparse]['reading']:.0f}" for sparse in (True, False)),
            "0" if name == "reading" else f"{peak_megabytes(partial(memory_of, name)):.0f}",
        ]
        for name in ("reading", *names)
    }
    columns = ["metric", "s, 9 in 10 are 0", "s, none is 0", "times reading", "times reading", "MB more"]
    table(f"Metrics of a map of {' x '.join(map(str, SHAPE))} voxels", columns, rows)


if __name__ == "__main__":
    main()
