"""napari layers to images, and maps to layers that lie exactly on them.

Nothing here imports napari: a layer is read through its public attributes, and new layers are described
by the (data, options, type) tuples that napari takes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from napari_xai_med.errors import InputError
from napari_xai_med.grid import RAS_TO_DISPLAY, Float, Grid, Reorientation
from napari_xai_med.image import PLANES, Image

LayerTuple = tuple[NDArray[Any], dict[str, Any], str]

METADATA_KEY = "napari_xai_med"
"""Where layers keep what this package knows of them."""

_AXES_BY_NDIM = {2: ("YX",), 3: ("ZYX", "CYX", "YXC"), 4: ("TZYX", "CZYX", "ZYXC"), 5: ("TCZYX",)}


def possible_axes(layer: Any) -> tuple[str, ...]:
    """What the layer's axes may mean, the likeliest first; more than one is for the user to choose.

    A size never decides: a volume of three slices is not a colour picture. Axis labels that say it do.
    """
    count = layer.ndim + bool(getattr(layer, "rgb", False))
    choices = _AXES_BY_NDIM.get(count)
    if choices is None:
        raise InputError(f"Layer {layer.name} has {count} axes; choose one with 2 to 5.")
    if getattr(layer, "rgb", False):
        return tuple(a for a in choices if a.endswith("C")) or ("YXC",)
    labels = "".join(_axis_letter(label) for label in layer.axis_labels)
    return (labels,) if labels in choices else choices


def _axis_letter(label: str) -> str:
    known = {"channel": "C", "channels": "C", "time": "T", "volume": "T"}
    return known.get(label.lower(), label.upper() if len(label) == 1 else "?")


@dataclass(frozen=True)
class LayerView:
    """An image layer read with stated axes: the image in it, and how a map gets back onto it.

    Parameters
    ----------
    layer : napari.layers.Image
        The source; it is read, never changed.
    axes : str
        A letter per array axis: T, C, Z, Y, X.
    volume : int
        Index along T, 0 without one.
    """

    layer: Any
    axes: str
    volume: int = 0

    @property
    def spatial(self) -> list[int]:
        """The layer's array axes that lie in space."""
        return [k for k, letter in enumerate(self.axes) if letter in "ZYX"]

    def image(self) -> Image:
        """The image in the layer, in the orientation of its file, with the place that the layer has now.

        Of its file, so that a network sees the same in the widget as in a script.
        """
        array = self.array(self.layer.data[0] if self.layer.multiscale else self.layer.data)
        told = _layer_metadata(self.layer)
        volume = self.volume if "T" in self.axes else None
        path = told.get("source") or getattr(self.layer.source, "path", None) or ""
        return Image(array, self.image_grid(), self.layer.name, str(path), volume, self.notices)

    def array(self, data: Any) -> NDArray[np.float32]:
        """Data with the layer's axes as the data of `image`: channels first, in the orientation of the file."""
        if "T" in self.axes:
            data = data[self.volume]
        rest = self.axes.replace("T", "")
        array = np.asarray(data, np.float32)
        array = np.moveaxis(array, rest.index("C"), 0) if "C" in rest else array[np.newaxis]
        return array if self.turn is None else cast("NDArray[np.float32]", self.turn.inverse.array(array))

    def image_grid(self) -> Grid:
        """The grid of `image`."""
        whole = self.whole_grid()
        if self.turn is None:
            return whole
        turned = self.turn.inverse.grid(whole)
        if not self._is_unmoved():
            return turned
        # To the last bit, so that a record of this image can be computed again from the file.
        return Grid(turned.shape, np.array(_layer_metadata(self.layer)["file_affine"]))

    def whole_grid(self) -> Grid:
        """The grid of all of the layer, along its own axes."""
        data = self.layer.data[0] if self.layer.multiscale else self.layer.data
        return self.grid(tuple(data.shape[k] for k in self.spatial))

    def image_over(self, other: LayerView) -> Image:
        """The image in this layer, such as a mask, at its place in the world of another layer's image.

        Where it is seen there: a layer that was drawn in the viewer knows only how the other one is shown, which for
        an oblique scan is not where it truly lies. A layer of a file lies where its file says.
        """
        image = self.image()
        if "affine" in _layer_metadata(self.layer) or image.ndim != len(other.spatial):
            return image
        to_other = np.linalg.inv(other._layer_to_world()) @ self._layer_to_world()
        return replace(image, grid=Grid(image.grid.shape, other.whole_grid().affine @ to_other))

    def slice_axis(self, plane: str) -> tuple[int, bool]:
        """Along which of the layer's axes the slices of a plane lie, and whether they are numbered against it."""
        turn = Reorientation.between(self.whole_grid())
        axis = PLANES.index(plane)
        return self.spatial[turn.order[axis]], turn.flipped[axis]

    @property
    def notices(self) -> tuple[str, ...]:
        """What the reader had to say about the file."""
        return tuple(_layer_metadata(self.layer).get("notices", ()))

    @property
    def turn(self) -> Reorientation | None:
        """What turned the file's volume into the layer's; None if the layer is not from our reader."""
        return _layer_metadata(self.layer).get("turn") if len(self.spatial) == 3 else None

    def _is_unmoved(self) -> bool:
        told = _layer_metadata(self.layer)
        return "file_affine" in told and np.allclose(self._layer_to_world(), told["display"], rtol=0, atol=1e-9)

    def as_python(self) -> str:
        """A Python expression that gives this image: from its file, or from the layer if it was moved in napari."""
        source = _layer_metadata(self.layer).get("source")
        if not source or (self.turn is not None and not self._is_unmoved()):
            layer = f"viewer.layers[{self.layer.name!r}]"
            return f"LayerView({layer}, {self.axes!r}, {self.volume}).image()"
        return f"read_image({source!r}{f', volume={self.volume}' if 'T' in self.axes else ''})"

    def labels(self, layer: Any) -> Image:
        """What is drawn in a Labels layer over this image.

        A layer that was read from a file by this package has its true place. Any other one lies where it is seen over
        the image, even if that is an oblique scan, which is shown along its own axes.

        Parameters
        ----------
        layer : napari.layers.Labels

        Returns
        -------
        Image
            With the numbers of the labels, on a grid that a NIfTI file can hold to the last bit.
        """
        if layer.ndim == self.layer.ndim:
            axes = self.axes[: layer.ndim]
        else:
            axes = next((each for each in possible_axes(layer) if "C" not in each), possible_axes(layer)[0])
        volume = min(self.volume, layer.data.shape[axes.index("T")] - 1) if "T" in axes else 0
        own = LayerView(layer, axes, volume)
        image = own.image()
        affine = image.grid.affine
        if "affine" not in _layer_metadata(layer):
            whole = self.whole_grid()
            if len(own.spatial) == whole.ndim:
                affine = whole.affine @ np.linalg.inv(self._layer_to_world()) @ own._layer_to_world()
        return replace(image, grid=Grid(image.grid.shape, affine.astype(np.float32)))

    def labels_as_python(self, layer: Any) -> str:
        """A Python expression that gives what `labels` does."""
        view = f"LayerView(viewer.layers[{self.layer.name!r}], {self.axes!r}, {self.volume})"
        return f"{view}.labels(viewer.layers[{layer.name!r}])"

    def grid(self, shape: tuple[int, ...]) -> Grid:
        """The grid of the layer's spatial axes, honouring what the user did to its transform."""
        world = self._layer_to_world()
        if len(shape) == 2:
            return Grid(shape, world)
        told = _layer_metadata(self.layer)
        if "affine" not in told:
            return Grid(shape, np.linalg.inv(RAS_TO_DISPLAY) @ world)
        moved = world @ np.linalg.inv(np.array(told["display"]))
        return Grid(shape, np.linalg.inv(RAS_TO_DISPLAY) @ moved @ RAS_TO_DISPLAY @ np.array(told["affine"]))

    def _layer_to_world(self) -> Float:
        """Index along the spatial axes to napari world, in millimetres where the layer has a unit."""
        spatial = [k for k in self.spatial if k < self.layer.ndim]
        corners = np.zeros((len(spatial) + 1, self.layer.ndim))
        corners[range(len(spatial)), spatial] = 1
        world = np.array([self.layer.data_to_world(c) for c in corners], float)[:, spatial]
        factors = [_millimetres(self.layer.units[k]) for k in spatial]
        matrix = np.eye(len(spatial) + 1)
        matrix[:-1, -1] = world[-1] * factors
        matrix[:-1, :-1] = ((world[:-1] - world[-1]) * factors).T
        return matrix

    def place(self, values: NDArray[np.float32], grid: Grid) -> tuple[NDArray[Any], dict[str, Any]]:
        """A map of `image` as the data and transform of a new layer.

        Parameters
        ----------
        values : ndarray, shape `grid.shape`
            On the whole image, or on a slice that keeps its axis with length 1.
        grid : Grid
            The image's, or the slab of it: the true place of `values`, kept in the new layer's metadata.

        Returns
        -------
        (ndarray, dict)
            Data with all axes of the source layer but colours; scale, rotate, shear, translate, affine,
            units, axis labels and metadata as napari takes them.
        """
        data: NDArray[Any] = values
        if self.turn is not None:
            data, grid = self.turn.array(values), self.turn.grid(grid)
        start = np.zeros(self.layer.ndim)
        for k, letter in enumerate(self.axes[: self.layer.ndim]):
            if letter == "T":
                data, start[k] = np.expand_dims(data, k), self.volume
            elif letter == "C":
                # Seen at every channel, without a copy for each.
                data = np.expand_dims(data, k)
                data = np.broadcast_to(data, (*data.shape[:k], self.layer.data.shape[k], *data.shape[k + 1 :]))
        start[self.spatial] = np.rint(self.whole_grid().to_index(grid.affine[:-1, -1]))
        return data, self._transform(start) | {"metadata": {METADATA_KEY: self._told(grid, start)}}

    def _told(self, grid: Grid, start: Float) -> dict[str, Any]:
        source = _layer_metadata(self.layer)
        told: dict[str, Any] = {key: source[key] for key in ("turn", "source", "notices") if key in source}
        if grid.ndim == 3:
            display = self._layer_to_world()
            display[:3, 3] += display[:3, :3] @ start[self.spatial]
            told |= {"affine": grid.affine.tolist(), "display": display.tolist()}
        return told

    def _transform(self, start: Float) -> dict[str, Any]:
        layer = self.layer
        moved = np.array(layer.data_to_world(start)) - np.array(layer.data_to_world(np.zeros(layer.ndim)))
        linear = np.asarray(layer.affine.linear_matrix, float)
        return {
            "scale": np.array(layer.scale),
            "rotate": np.array(layer.rotate),
            "shear": np.array(layer.shear),
            # The layer's affine comes after its translation, so the shift is undone through it.
            "translate": np.array(layer.translate) + np.linalg.solve(linear, moved),
            "affine": np.array(layer.affine.affine_matrix),
            "units": layer.units,
            "axis_labels": layer.axis_labels,
        }


def _layer_metadata(layer: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", layer.metadata.get(METADATA_KEY, {}))


def _millimetres(unit: Any) -> float:
    """How many millimetres one unit is; pixels count as millimetres, since nothing else is known."""
    from pint import DimensionalityError

    try:
        return float((1 * unit).to("millimeter").magnitude)
    except DimensionalityError:
        return 1.0
