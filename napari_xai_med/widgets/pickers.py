"""Choosing the image layer and the classifier."""

from __future__ import annotations

from typing import Any

import napari
import numpy as np
from napari.layers import Image as ImageLayer
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QComboBox, QFileDialog, QLabel

from napari_xai_med.errors import InputError, ModelError
from napari_xai_med.grid import Reorientation
from napari_xai_med.image import PLANES
from napari_xai_med.layers import METADATA_KEY, LayerView, possible_axes
from napari_xai_med.layers_plane import Plane, plane_in_world
from napari_xai_med.models import class_names_of
from napari_xai_med.samples import embedded_classifiers

_OPEN_FOLDER, _OPEN_ZIP, _PACK = "Open a bundle folder…", "Open a zipped bundle…", "Make a bundle of a file…"
_OTHERS = (_OPEN_FOLDER, _OPEN_ZIP, _PACK)


class ImagePicker(QComboBox):
    """The image layers of the viewer; heatmaps and what a network sees are not offered.

    Attributes
    ----------
    axes : QComboBox
        What the chosen layer's axes mean; visible where that is for the user to say.
    changed : Signal
        Another layer, or other axes.
    """

    changed = Signal()

    def __init__(self, viewer: napari.Viewer, *, follows_selection: bool = True) -> None:
        super().__init__()
        self.axes, self.axes_label = QComboBox(), QLabel("Axes")
        self.axes.setToolTip("T volumes, C channels, Z slices, Y rows, X columns; never guessed from a size.")
        self._viewer = viewer
        self._layers: list[ImageLayer] = []
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        layers = viewer.layers.events
        for event in (layers.inserted, layers.removed, layers.reordered):
            event.connect(self._fill)
        if follows_selection:
            viewer.layers.selection.events.active.connect(self._follow_selection)
        self.currentIndexChanged.connect(self._show_axes)
        self.axes.activated.connect(lambda _: self.changed.emit())
        self._fill()
        if follows_selection:
            self._follow_selection()

    def disconnect_viewer(self) -> None:
        """Listen to the viewer no more."""
        layers = self._viewer.layers.events
        for event in (layers.inserted, layers.removed, layers.reordered):
            event.disconnect(self._fill)

    def _fill(self, *_: Any) -> None:
        before = self.layer()
        self._layers = [
            layer
            for layer in self._viewer.layers
            if isinstance(layer, ImageLayer) and not {"look", "preview"} & layer.metadata.get(METADATA_KEY, {}).keys()
        ]
        self.blockSignals(True)
        self.clear()
        for layer in self._layers:
            self.addItem(layer.name)
        if before in self._layers:
            self.setCurrentIndex(self._layers.index(before))
        self.blockSignals(False)
        if self.layer() != before:
            self._show_axes()

    def _follow_selection(self, *_: Any) -> None:
        active = self._viewer.layers.selection.active
        if active in self._layers:
            self.choose(active)

    def choose(self, layer: ImageLayer, axes: str = "") -> None:
        """Choose a layer of the viewer, and what its axes mean where that is given and possible."""
        self.setCurrentIndex(self._layers.index(layer))
        if axes not in ("", self.axes.currentText()):
            self.axes.setCurrentText(axes)
            self.changed.emit()

    def layers(self) -> tuple[ImageLayer, ...]:
        """The layers to choose from."""
        return tuple(self._layers)

    def layer(self) -> ImageLayer | None:
        """The chosen layer."""
        return self._layers[self.currentIndex()] if 0 <= self.currentIndex() < len(self._layers) else None

    def _show_axes(self, *_: Any) -> None:
        layer = self.layer()
        self.axes.clear()
        if layer is not None and layer.ndim <= 5:
            self.axes.addItems(possible_axes(layer))
        for widget in (self.axes, self.axes_label):
            widget.setVisible(self.axes.count() > 1)
        self.changed.emit()

    def view(self) -> LayerView:
        """The chosen layer with its axes; of several volumes, the one on screen.

        Raises
        ------
        InputError
            If there is no image layer, or none of its volumes is on screen.
        """
        layer = self.layer()
        if layer is None:
            raise InputError("Open an image first: drop a file on the window, or take one from File > Open Sample.")
        axes = self.axes.currentText() or possible_axes(layer)[0]
        return LayerView(layer, axes, self._volume_on_screen(layer, axes.index("T")) if "T" in axes else 0)

    def _volume_on_screen(self, layer: ImageLayer, axis: int) -> int:
        # The only volume is meant wherever another layer's slider stands.
        index = self._index_on_screen(layer, axis) if layer.data.shape[axis] > 1 else 0
        if index is None:
            raise InputError(f"The volume on screen lies outside of {layer.name}; move the slider to one of its own.")
        return index

    def _index_on_screen(self, layer: ImageLayer, axis: int) -> int | None:
        """Index along an axis, or None where the slider stands outside of the layer, which others reach beyond."""
        point = np.array(self._viewer.dims.point)[-layer.ndim :]
        index = round(float(layer.world_to_data(point)[axis]))
        return index if 0 <= index < layer.data.shape[axis] else None

    def shown_slice(self, view: LayerView) -> tuple[str, int | None]:
        """Plane and number of the slice on screen, for classifiers that look at slices; see `_index_on_screen`."""
        if len(view.spatial) == 2:
            return PLANES[0], None
        dims = self._viewer.dims
        order = [axis - (dims.ndim - view.layer.ndim) for axis in dims.order]
        # The first spatial axis in this order is the one that the slider moves along, in 2D view.
        axis = next(a for a in order if a in view.spatial)
        index = self._index_on_screen(view.layer, axis)
        turn = Reorientation.between(view.whole_grid())
        shown = turn.order.index(view.spatial.index(axis))
        last = view.layer.data.shape[axis] - 1
        return PLANES[shown], last - index if index is not None and turn.flipped[shown] else index

    def shown_plane(self, view: LayerView) -> Plane | None:
        """The plane that the viewer shows of a volume in 3D, in the world of its image; None if it shows none."""
        layer, dims = view.layer, self._viewer.dims
        # napari tells it along the axes that are displayed.
        shown = [axis - (dims.ndim - layer.ndim) for axis in dims.displayed]
        if len(view.spatial) != 3 or sorted(shown) != view.spatial or layer.depiction != "plane":
            return None
        order = [shown.index(axis) for axis in view.spatial]
        return plane_in_world(view, *(np.array(each)[order] for each in (layer.plane.position, layer.plane.normal)))


class ClassifierPicker(QComboBox):
    """The embedded classifiers, and bundle folders that the user opened.

    Attributes
    ----------
    changed : Signal
        Another classifier.
    to_pack : Signal
        The user wants to make a bundle of a network's file.
    """

    changed = Signal()
    to_pack = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        for name in embedded_classifiers():
            self.addItem(name, name)
        for text in _OTHERS:
            self.addItem(text, None)
        self._before = self.currentIndex()
        self.choose("chest_ct_3d")
        self.currentIndexChanged.connect(self._changed)

    def _changed(self, index: int) -> None:
        if self.itemData(index) is None:
            self.setCurrentIndex(self._before)
            self._open(self.itemText(index))
            return
        if index != self._before:
            self._before = index
            self.changed.emit()

    def _open(self, how: str) -> None:
        if how == _PACK:
            self.to_pack.emit()
            return
        if how == _OPEN_FOLDER:
            chosen = QFileDialog.getExistingDirectory(self, "A MONAI bundle folder")
        else:
            chosen = QFileDialog.getOpenFileName(self, "A zipped MONAI bundle", filter="Zip (*.zip)")[0]
        if chosen:
            self.choose(chosen)

    def choose(self, source: str) -> None:
        """Choose an embedded classifier by name, or a bundle folder."""
        if self.findData(source) < 0:
            self.insertItem(self.count() - len(_OTHERS), source.rstrip("/").rsplit("/", 1)[-1], source)
            self.setItemData(self.findData(source), source, 3)
        self.setCurrentIndex(self.findData(source))
        self._before = self.currentIndex()

    def source(self) -> str:
        """Name or folder of the chosen classifier."""
        return str(self.currentData())

    def class_names(self) -> tuple[str, ...]:
        """Names of its classes; none where its metadata can't be read, which loading it will tell."""
        try:
            return class_names_of(self.source())
        except ModelError:
            return ()
