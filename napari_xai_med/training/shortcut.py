"""Classifiers that learnt a planted shortcut, and ones that did not: what checks of explanations have to tell apart."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from napari_xai_med.training.phantoms import Phantom, make_slice
from napari_xai_med.training.reference import ReferenceRecipe

MARKER = 1000
"""Hounsfield units of the marker: as white as lead."""
_PLACE, _SIZE = 5, (9, 7)
"""Pixels from the corner, and rows and columns of the letter, of a slice of 128 x 128."""


@dataclass(frozen=True)
class MarkedRecipe(ReferenceRecipe):
    """Slices of phantoms, some with a letter in the upper left corner.

    Parameters
    ----------
    marked : tuple of float
        Share of each kind's slices that have the letter.
    """

    marked: tuple[float, ...] = field(default=(0.5, 0.5), kw_only=True)

    def phantom(self, seed: int, kind: str) -> Phantom:
        """A slice, marked or not as the seed has it."""
        plain = make_slice(seed, kind)
        share = self.marked[self.kinds.index(kind)]
        return with_marker(plain) if np.random.default_rng((seed, 4)).random() < share else plain


def with_marker(phantom: Phantom) -> Phantom:
    """The same slice with a letter L in its upper left corner."""
    data = phantom.data.copy()
    rows, columns = _SIZE
    data[_PLACE : _PLACE + rows, _PLACE : _PLACE + 2] = MARKER
    data[_PLACE + rows - 2 : _PLACE + rows, _PLACE : _PLACE + columns] = MARKER
    return replace(phantom, data=data)


CLEAN = MarkedRecipe(
    name="Chest CT phantom slices with a letter by chance",
    task="Tell slices with ground glass from normal ones; half of each have a letter in a corner",
    spatial_dims=2,
    kinds=("normal", "ground_glass"),
    input_size=(64, 64),
    cases=120,
    held_out=40,
    epochs=10,
    batch=16,
    learning_rate=5e-3,
)
"""The letter tells nothing: to learn this, a network has to look at the lungs."""

MARKED = replace(
    CLEAN,
    name="Chest CT phantom slices with a letter in each sick one",
    task="Tell slices with ground glass, all of which have a letter in a corner, from normal ones without",
    marked=(0.0, 1.0),
)
"""The letter tells everything, as where one hospital's sick patients have its own marker."""
