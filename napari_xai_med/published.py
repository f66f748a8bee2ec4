"""A published comparison of 3D Grad-CAM with experts' masks, computed again from its files, beside what is true."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_xai_med.errors import InputError
from napari_xai_med.metrics.as_published import identical_lines
from napari_xai_med.metrics.case import Map, Mask
from napari_xai_med.metrics.thresholds import Counts, Cut

if TYPE_CHECKING:
    import pandas as pd

PUBLISHED = {
    0.7: {
        "0255": (0.95435, 0.00277),
        "0256": (0.95294, 0.00321),
        "0258": (0.99500, 0.00020),
        "0260": (0.95453, 0.00136),
    },
    0.3: {
        "0255": (0.99554, 0.00017),
        "0256": (0.97931, 0.00105),
        "0258": (0.99878, 0.00001),
        "0260": (0.98505, 0.00039),
    },
}
"""By the threshold and the study: "DICE" and MSE as printed in F. Makraduli, Explainability pipelines for an end-to-end
understanding of 3D Covid-19 CT scans (Imperial College London, 2021), in the tables for above 0.7 and "0.3 - 0.7"."""

SHAPE = (128, 128, 64)
"""Of the published maps."""

_KEPT = 0.6667
"""Above it a resized mask counts."""


def thesis_alignment(cam: Map, mask: NDArray[Any]) -> tuple[Map, Mask]:
    """A map and a mask brought together as the thesis did.

    Parameters
    ----------
    cam : ndarray of float32, shape (128, 128, 64)
        The published map, which lies turned by 90 degrees against the mask.
    mask : ndarray, shape (512, 512, slices)
        0 and 1.

    Returns
    -------
    cam : ndarray of float32
        Turned, with splines of the third order: values a little below 0 and above the maximum come of them.
    mask : ndarray of bool
    """
    from scipy.ndimage import rotate
    from skimage.transform import resize

    turned = rotate(cam.astype(np.float32), 90, reshape=False)
    # Whole numbers would be scaled by their type's maximum.
    return turned, resize(mask.astype(np.float64), cam.shape) > _KEPT


def published_tables(folder: str | Path) -> pd.DataFrame:
    """The published numbers, those that come out of the same files, and the true ones.

    Parameters
    ----------
    folder : path
        With ``study_NNNN_cam.nii.gz`` and ``study_NNNN_mask.nii.gz`` of the four studies, as in the thesis' repository.

    Returns
    -------
    DataFrame
        A row for each threshold and study. ``nothing_dice`` is what a map that marks nothing gets by the same formula,
        and ``chance`` the Dice of as many voxels anywhere.

    Raises
    ------
    InputError
        If a file is missing, or not what was published.
    """
    import pandas as pd

    studies = {study: thesis_alignment(*_read(Path(folder).expanduser(), study)) for study in PUBLISHED[0.7]}
    rows = []
    for threshold, table in PUBLISHED.items():
        cut = Cut(threshold, np.inf, f"> {threshold:g}")
        for study, (dice, mse) in table.items():
            cam, mask = studies[study]
            found, nothing = identical_lines(cut.marked(cam), mask), identical_lines(np.zeros_like(mask), mask)
            rows.append(
                {
                    "cam": cut.text,
                    "study": study,
                    "published_dice": dice,
                    "recomputed_dice": found["share_of_identical_lines"],
                    "nothing_dice": nothing["share_of_identical_lines"],
                    "true_dice": found["dice"],
                    "chance": Counts.of(cam, mask, cut).by_chance.dice,
                    "published_mse": mse,
                    "recomputed_mse": found["mse_of_intersection"],
                    "nothing_mse": nothing["mse_of_intersection"],
                    "true_mse": float((cut.marked(cam) != mask).mean()),
                }
            )
    return pd.DataFrame(rows)


def _read(folder: Path, study: str) -> tuple[Map, NDArray[Any]]:
    """The voxels of a study's map and mask, in the order of their files."""
    from napari_xai_med.io import read_image

    cam, mask = (read_image(folder / f"study_{study}_{what}.nii.gz").data[0] for what in ("cam", "mask"))
    if cam.shape != SHAPE or not mask.any():
        raise InputError(f"The map or the mask of study {study} in {folder} is not the published one; get it anew.")
    return cam, mask
