"""Colours of explanations, the same in the viewer and in figures."""

from __future__ import annotations

import matplotlib
import numpy as np
from matplotlib.colors import LinearSegmentedColormap, to_rgba
from numpy.typing import NDArray

SUPPORTS, AGAINST = "#2ca02c", "#d62728"
"""Of what supports a class, and of what speaks against it."""
_DARK_GREEN, _DARK_RED = "#167016", "#a81212"
"""Of what says little: over light tissue a clear red would look pink."""

RED_GREEN = "red-green"
COLORMAPS = ("turbo", "inferno", "magma", "plasma", "viridis", "hot")
SIGNED_COLORMAPS = (RED_GREEN, "PRGn", "BrBG", "PiYG", "RdYlGn")
"""Names that matplotlib knows; green supports. The second and the third need no red to be told apart."""
DEFAULT_THRESHOLD = 20


def default_colormap(*, signed: bool) -> str:
    """What a map is shown in first."""
    return (SIGNED_COLORMAPS if signed else COLORMAPS)[0]


def colours_of(name: str, positions: NDArray[np.floating]) -> NDArray[np.float64]:
    """Red, green, blue and opacity, 0 to 1, of a colormap at positions from 0 to 1."""
    return np.asarray(matplotlib.colormaps[name](positions), np.float64)


def _red_green() -> LinearSegmentedColormap:
    """From red to green, and clear where nothing is said: matplotlib's own go over colours that hide an image."""
    stops = [(0.0, AGAINST, 1.0), (0.4, _DARK_RED, 0.8), (0.5, _DARK_RED, 0.0)]
    stops += [(0.5, _DARK_GREEN, 0.0), (0.6, _DARK_GREEN, 0.8), (1.0, SUPPORTS, 1.0)]
    return LinearSegmentedColormap.from_list(
        RED_GREEN, [(place, to_rgba(colour, opacity)) for place, colour, opacity in stops]
    )


matplotlib.colormaps.register(_red_green(), force=True)
