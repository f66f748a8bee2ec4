"""The widget that looks inside a network: feature maps of its layers on the image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import napari
from napari.layers import Image as ImageLayer
from napari.layers import Layer as NapariLayer
from napari.utils.notifications import show_warning
from qtpy.QtWidgets import QComboBox, QFormLayout, QLabel, QProgressBar, QPushButton

from napari_xai_med.errors import InputError, UntrustedError, XAIMedError
from napari_xai_med.image import Image
from napari_xai_med.inside import maps_of_layer
from napari_xai_med.job import Job
from napari_xai_med.layers_inside import layer_on
from napari_xai_med.models.classifier import Classifier
from napari_xai_med.models.receptive_field import Layer
from napari_xai_med.pipeline import layers_for
from napari_xai_med.request import ExplainRequest
from napari_xai_med.widgets.controls import ControlsWidget, row
from napari_xai_med.widgets.inputs import Chosen, Inputs
from napari_xai_med.widgets.loader import Loader
from napari_xai_med.widgets.thumbnails import Thumbnails

DEFAULT = "the last convolution"


@dataclass(frozen=True)
class _Shown:
    """The feature maps that the thumbnails are of, and the layer that they lie on."""

    chosen: Chosen
    maps: Image


class InsideWidget(ControlsWidget):
    """Show what the channels of a network's layers make of an image. Research use only. Not for diagnosis."""

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__(napari_viewer)
        self.inputs = Inputs(napari_viewer)
        self.image, self.classifier = self.inputs.image, self.inputs.classifier
        self.loader = Loader(self.inputs)
        self.layer, self.thumbnails = QComboBox(), Thumbnails()
        self.layer.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.maps_button = QPushButton("Show feature maps")
        self.selected_button = QPushButton("Add selected")
        self.selected_button.setToolTip("Add each of the selected channels as a layer on the image.")
        self.all_button = QPushButton("Add all as one layer")
        self.all_button.setToolTip("Add all channels as one layer with a slider.")
        self.cancel_button = QPushButton("Cancel")
        self.progress, self.progress_text = QProgressBar(), QLabel()
        self.progress_text.setWordWrap(True)
        self._shown: _Shown | None = None
        self._lay_out()
        self._connect()
        self._show_layers(())
        self._show_running(False)

    def _lay_out(self) -> None:
        form = QFormLayout()
        form.addRow("Layer", self.layer)
        self._show_column(
            self.inputs,
            form,
            self.maps_button,
            self.thumbnails,
            row(self.selected_button, self.all_button),
            self.cancel_button,
            self.progress,
            self.progress_text,
        )

    def _connect(self) -> None:
        self.maps_button.clicked.connect(self.show_maps)
        self.layer.activated.connect(lambda _: self.show_maps())
        self.thumbnails.chosen.connect(lambda channel: self.add_channels([channel]))
        self.selected_button.clicked.connect(lambda _: self.add_channels(self.thumbnails.selected()))
        self.all_button.clicked.connect(lambda _: self.add_stack())
        self.cancel_button.clicked.connect(self.task.cancel)
        self.task.progressed.connect(self._show_progress)
        self.task.running_changed.connect(self._show_running)
        self.task.failed.connect(self._show_failure)
        self.classifier.changed.connect(self._classifier_changed)
        self.classifier.to_pack.connect(lambda: self.open_beside("Pack a classifier"))
        self.inputs.changed.connect(self._forget_maps)
        self.inputs.preprocessing_wanted.connect(self._fill_preprocessing)

    # What the user does

    def show_maps(self) -> None:
        """Compute the feature maps of the chosen layer, and show their thumbnails."""
        asked = self._asked()
        if asked is None:
            return
        chosen, request = asked
        load, name = self.loader.chosen(), self.layer.currentData() or ""

        def work(job: Job) -> tuple[Classifier, tuple[Layer, ...], str, Image]:
            image, classifier = chosen.image(), load(job)
            chosen.check(classifier)
            layers, default = layers_for(image, classifier, request)
            return classifier, layers, default, maps_of_layer(image, classifier, name, request, job.part(0.2, 1.0))

        def done(result: tuple[Classifier, tuple[Layer, ...], str, Image]) -> None:
            classifier, layers, default, maps = result
            self._show_classifier(classifier)
            self._show_layers(layers)
            self.layer.setCurrentIndex(self.layer.findData(name or default))
            self._show_maps(_Shown(chosen, maps))

        self.task.start(work, done)

    def add_channels(self, channels: Sequence[int]) -> None:
        """Add channels as layers exactly on the image; those that are there already are only selected."""
        if self._shown is None:
            return
        for channel in channels:
            name = f"{self._shown.maps.name}, channel {channel}"
            if name in self.viewer.layers:
                self.viewer.layers.selection.active = self.viewer.layers[name]
            else:
                self._add([channel], name)

    def add_stack(self) -> None:
        """Add all channels as one layer with a slider."""
        if self._shown is not None:
            self._add(range(len(self._shown.maps.data)), self._shown.maps.name)

    def _asked(self) -> tuple[Chosen, ExplainRequest] | None:
        """What the controls say; None, and a warning, where something is missing."""
        try:
            chosen = self.inputs.chosen()
        except InputError as error:
            show_warning(str(error))
            return None
        request = ExplainRequest(plane=chosen.plane, slice=chosen.slice, preprocessing=chosen.preprocessing)
        return chosen, request

    # What is shown

    def _add(self, channels: Sequence[int], name: str) -> ImageLayer:
        assert self._shown is not None
        data, options, kind = layer_on(self._shown.chosen.view, self._shown.maps, channels)
        look = {"name": name, "colormap": "magma", "opacity": 0.6, "blending": "translucent_no_depth"}
        layer = NapariLayer.create(data, options | look, kind)
        self.viewer.add_layer(layer)
        return layer

    def _show_maps(self, shown: _Shown) -> None:
        self._shown = shown
        self.thumbnails.show_maps(shown.maps)
        self._show_running(False)
        for notice in shown.maps.notices:
            show_warning(notice)

    def _show_classifier(self, classifier: Classifier) -> None:
        self.inputs.show_classifier(classifier)

    def _show_layers(self, layers: Sequence[Layer]) -> None:
        self.layer.clear()
        self.layer.addItem(DEFAULT, "")
        for layer in reversed(layers):
            shape = "×".join(map(str, layer.shape))
            self.layer.addItem(f"{layer.name} ({layer.kind}, {layer.channels} × {shape})", layer.name)

    def _fill_preprocessing(self) -> None:
        """Load the classifier to see its preprocessing."""
        if self.task.running:
            self.inputs.change_box.setChecked(False)
            return
        self.task.start(self.loader.chosen(), self._show_classifier)

    def _classifier_changed(self) -> None:
        self.loader.forget()
        self.inputs.forget_classifier()
        self._show_layers(())
        self._forget_maps()

    def _forget_maps(self) -> None:
        self._shown = None
        self.thumbnails.show_maps(None)
        self._show_running(self.task.running)

    def _show_failure(self, error: Exception) -> None:
        if isinstance(error, UntrustedError):
            self.inputs.trust.setFocus()
        if isinstance(error, XAIMedError):
            self.progress_text.setText(str(error))

    def _show_progress(self, done: float, text: str) -> None:
        self.progress.setValue(round(done * 100))
        self.progress_text.setText(text)

    def _show_running(self, running: bool) -> None:
        self.maps_button.setEnabled(not running)
        self.layer.setEnabled(not running)
        for button in (self.selected_button, self.all_button):
            button.setEnabled(self._shown is not None)
        self.cancel_button.setEnabled(running)
        self.progress.setVisible(running)
        if running:
            self.progress.setValue(0)
