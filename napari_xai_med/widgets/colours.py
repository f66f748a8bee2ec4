"""Colormaps of heatmap layers."""

from __future__ import annotations

import numpy as np
from napari.utils.colormaps import Colormap

from napari_xai_med.colours import colours_of


def thresholded(name: str, percent: int, *, signed: bool) -> Colormap:
    """A colormap that is transparent below a share of the maximum; the other colours stay where they are."""
    position = np.linspace(0, 1, 256)
    colours = colours_of(name, position)
    strength = np.abs(2 * position - 1) if signed else position
    colours[(strength < percent / 100) | (strength == 0), 3] = 0
    return Colormap(colours, name=f"{name} from {percent} %")
