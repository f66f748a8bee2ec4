"""By which segments to explain: made by a segmenter or drawn in a Labels layer, everywhere or inside of a mask."""

from __future__ import annotations

from typing import Any

import napari
from napari.layers import Labels
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QCheckBox, QComboBox, QFormLayout, QGroupBox, QPushButton, QVBoxLayout

from napari_xai_med.layers_segments import Drawn
from napari_xai_med.segments.base import segmenters
from napari_xai_med.segments.choice import BODY, DRAWN, GIVEN, SegmentChoice
from napari_xai_med.widgets.masks import labels_layers
from napari_xai_med.widgets.options import OptionsForm

_EDITED = ("data", "paint", "labels_update")
"""Events of Labels layers that tell of other labels."""


class SegmentsForm(QGroupBox):
    """The segmenter with its options, or a Labels layer, and the mask.

    Parameters
    ----------
    viewer : napari.Viewer, optional
        Whose Labels layers are offered, and where segments are shown.

    Attributes
    ----------
    changed : Signal
        Other segments are meant.
    drawn_in : Signal
        The user drew in a layer that is meant.
    """

    changed = Signal()
    drawn_in = Signal()

    def __init__(self, viewer: napari.Viewer | None) -> None:
        super().__init__("Segments")
        self._viewer = viewer
        self._watched: list[Labels] = []
        self.method, self.mask, self.options = QComboBox(), QComboBox(), OptionsForm()
        self.background = QCheckBox("The background is a segment")
        self.background.setToolTip("Whether what is not drawn in counts as one more segment, or is always seen.")
        self.show_button = QPushButton("Show segments")
        self.show_button.setToolTip("Add the segments as a Labels layer, without an explanation.")
        for box in (self.method, self.mask):
            box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        for name, kind in segmenters().items():
            self.method.addItem(kind.title, name)
        self.mask.addItem("whole image", "")
        self.mask.addItem("body (automatic)", BODY)
        self.mask.setToolTip("Where segments may be; the rest of the image is always seen.")
        self._made = {box: box.count() for box in (self.method, self.mask)}
        self._lay_out()
        self._connect()
        self.method.setCurrentIndex(self.method.findData(SegmentChoice().method))
        self._fill()
        self._show_method()

    def _lay_out(self) -> None:
        form = QFormLayout()
        form.addRow("Made by", self.method)
        form.addRow("Inside of", self.mask)
        column = QVBoxLayout(self)
        column.addLayout(form)
        for part in (self.background, self.options, self.show_button):
            column.addWidget(part)

    def _connect(self) -> None:
        if self._viewer is None:
            self.show_button.hide()
        else:
            layers = self._viewer.layers.events
            for event in (layers.inserted, layers.removed, layers.reordered):
                event.connect(self._fill)
        self.method.currentIndexChanged.connect(self._show_method)
        self.mask.currentIndexChanged.connect(self._tell)
        self.options.changed.connect(self._tell)
        self.background.toggled.connect(self._tell)

    def choice(self) -> SegmentChoice:
        """What the controls say.

        Raises
        ------
        InputError
            If an option does not hold what it should.
        """
        mask = self.mask.currentData()
        inside = mask if isinstance(mask, str) else GIVEN
        if self.drawn().labels is not None:
            return SegmentChoice(DRAWN, labels=GIVEN, background=self.background.isChecked(), mask=inside)
        return SegmentChoice(self.method.currentData(), self.options.values(), mask=inside)

    def drawn(self) -> Drawn:
        """The chosen Labels layers."""
        return Drawn(*(None if isinstance(box.currentData(), str) else box.currentData() for box in self._made))

    def show_dims(self, spatial_dims: int | None) -> None:
        """Grey out segmenters that are not for images of so many axes; none before it is known."""
        for index, kind in enumerate(segmenters().values()):
            fits = spatial_dims is None or spatial_dims in kind.dims
            self.method.model().item(index).setEnabled(fits)
            told = kind.paper if fits else f"{kind.title} is for images of {min(kind.dims)} axes."
            self.method.setItemData(index, told, Qt.ItemDataRole.ToolTipRole)

    def _fill(self, *_: Any) -> None:
        """Offer the Labels layers."""
        layers = [] if self._viewer is None else labels_layers(self._viewer)
        for layer in set(layers) - set(self._watched):
            for name in _EDITED:
                getattr(layer.events, name).connect(self._edited)
        self._watched = layers
        before = self.drawn()
        for box, chosen in zip(self._made, (before.labels, before.mask), strict=True):
            made = self._made[box]
            box.blockSignals(True)
            index = box.currentIndex()
            while box.count() > made:
                box.removeItem(made)
            for layer in layers:
                box.addItem(layer.name, layer)
            gone = chosen is not None and chosen not in layers
            kept = index if chosen is None else 0 if gone else made + layers.index(chosen)
            box.setCurrentIndex(kept)
            box.blockSignals(False)
            if gone:
                box.currentIndexChanged.emit(kept)

    def _edited(self, event: Any) -> None:
        drawn = self.drawn()
        if event.source in (drawn.labels, drawn.mask):
            self.drawn_in.emit()

    def _show_method(self, *_: Any) -> None:
        kind = segmenters().get(self.method.currentData()) if isinstance(self.method.currentData(), str) else None
        if kind is not None:
            self.options.show_options(kind)
        self.options.setVisible(kind is not None)
        self.background.setVisible(kind is None)
        self._tell()

    def _tell(self, *_: Any) -> None:
        self.changed.emit()
