"""Maps of an oblique section as layers on the plane through the volume that they belong to; without napari."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_xai_med.grid import Float, Grid
from napari_xai_med.layers import METADATA_KEY, LayerView
from napari_xai_med.layers_inside import place_on, turn_on
from napari_xai_med.oblique import oblique_plane

Plane = tuple[tuple[float, ...], tuple[float, ...]]
"""A point and the normal of a plane; see `napari_xai_med.oblique_section`."""


def plane_in_world(view: LayerView, position: Float, normal: Float) -> Plane:
    """The plane of a volume's layer in the world of `view.image()`.

    Parameters
    ----------
    view : LayerView
    position, normal : ndarray, shape (3,)
        Along its spatial axes, in voxels of the resolution that is shown, as napari has them.
    """
    grid, step = view.whole_grid(), _step(view.layer, view.spatial)
    # A normal belongs to the plane and not to the voxels: it goes through the inverse, transposed.
    across = np.linalg.inv(grid.affine[:3, :3]).T @ (normal / step)
    return tuple(grid.to_world(position * step).tolist()), tuple(across.tolist())


def plane_in_voxels(view: LayerView, plane: Plane, shown_in: Any) -> tuple[Float, Float]:
    """Position and normal as `plane_in_world` takes them, in a layer that shows the same voxels as that of the view."""
    grid, step = view.whole_grid(), _step(shown_in, view.spatial)
    point, normal = (np.asarray(each, float) for each in plane)
    return grid.to_index(point) / step, grid.affine[:3, :3].T @ normal * step


def _step(layer: Any, spatial: Sequence[int]) -> Any:
    """How many of the finest voxels one is long that is shown, along each spatial axis."""
    return layer.downsample_factors[layer.data_level][list(spatial)] if layer.multiscale else 1.0


@dataclass(frozen=True, kw_only=True)
class PlaneView(LayerView):
    """A volume's layer and a plane through it, on which maps of a section lie.

    Parameters
    ----------
    layer, axes, volume
        As for `LayerView`.
    point, normal : tuple of float
        In the world of `image`; see `napari_xai_med.oblique_section`.
    """

    point: tuple[float, ...]
    normal: tuple[float, ...]

    def place(self, values: NDArray[np.float32], grid: Grid) -> tuple[NDArray[Any], dict[str, Any]]:
        """A map of the section as the data and transform of a new layer: a slab one voxel thick.

        Parameters
        ----------
        values : ndarray, shape (rows, columns)
            On the section.
        grid : Grid
            The section's own, which does not tell where it lies.
        """
        plane = oblique_plane(self.image_grid(), self.point, self.normal).grid
        turn = turn_on(self, plane)
        data, place = place_on(self, values.reshape(1, 1, *grid.shape), plane)
        lies = turn.grid(plane).affine
        shown = self._layer_to_world() @ np.linalg.inv(self.whole_grid().affine) @ lies
        ndim = self.layer.ndim
        place |= {
            # All of it is in the affine.
            "scale": np.ones(ndim),
            "translate": np.zeros(ndim),
            "rotate": np.eye(ndim),
            "shear": np.zeros(ndim * (ndim - 1) // 2),
            "metadata": {
                METADATA_KEY: {"turn": turn, "affine": lies.tolist(), "display": shown.tolist(), "plane": True}
            },
        }
        return data[0], place
