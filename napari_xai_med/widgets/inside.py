"""The widget that looks inside a network: feature maps of its layers on the image, and drawings of its classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import napari
from napari.layers import Image as ImageLayer
from napari.layers import Layer as NapariLayer
from napari.utils.notifications import show_warning
from qtpy.QtWidgets import QComboBox, QFormLayout, QLabel, QPushButton

from napari_xai_med.activation_maximisation import Drawing, draw
from napari_xai_med.errors import InputError
from napari_xai_med.image import Image
from napari_xai_med.inside import maps_of_layer
from napari_xai_med.job import Job
from napari_xai_med.layers import METADATA_KEY, LayerTuple
from napari_xai_med.layers_images import image_to_layer
from napari_xai_med.layers_inside import layer_on
from napari_xai_med.maximisation import Maximisation
from napari_xai_med.models.classifier import Classifier
from napari_xai_med.models.receptive_field import Layer
from napari_xai_med.options import with_options
from napari_xai_med.pipeline import layers_for
from napari_xai_med.request import ExplainRequest
from napari_xai_med.widgets.asking import AskingWidget
from napari_xai_med.widgets.controls import row
from napari_xai_med.widgets.inputs import Chosen
from napari_xai_med.widgets.options import OptionsForm
from napari_xai_med.widgets.thumbnails import Thumbnails

DEFAULT = "the last convolution"

_CLASSES_TOLD = 5


@dataclass(frozen=True)
class _Shown:
    """The feature maps that the thumbnails are of, the layer that they lie on, and those added of single channels."""

    chosen: Chosen
    maps: Image
    added: dict[int, ImageLayer] = field(default_factory=dict)


class InsideWidget(AskingWidget):
    """Show what a network's layers make of an image, and draw its classes. Research use only. Not for diagnosis."""

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__(napari_viewer)
        self.layer, self.thumbnails = QComboBox(), Thumbnails()
        self.layer.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.maps_button = QPushButton("Show feature maps")
        self.selected_button = QPushButton("Add selected")
        self.selected_button.setToolTip("Add each of the selected channels as a layer on the image.")
        self.all_button = QPushButton("Add all as one layer")
        self.all_button.setToolTip("Add all channels as one layer with a slider.")
        self.target, self.options = QComboBox(), OptionsForm()
        self.options.show_options(Maximisation)
        self.draw_button = QPushButton("Draw a typical input")
        self.draw_button.setToolTip("Let the network draw what it takes for this class; an open image gives the place.")
        self.drawn = QLabel()
        self.drawn.setWordWrap(True)
        self._shown: _Shown | None = None
        self._lay_out()
        self._connect()
        self._show_layers(())
        self._show_classes(self.classifier.class_names())
        self._connect_asking(self.maps_button, self.layer, self.draw_button)

    def _lay_out(self) -> None:
        form = QFormLayout()
        form.addRow("Layer", self.layer)
        classes = QFormLayout()
        classes.addRow("Class", self.target)
        self._show_column(
            self.inputs,
            form,
            self.maps_button,
            self.thumbnails,
            row(self.selected_button, self.all_button),
            classes,
            self.options,
            self.draw_button,
            self.drawn,
            below=(self.cancel_button, self.progress, self.progress_text),
        )

    def _connect(self) -> None:
        self.maps_button.clicked.connect(self.show_maps)
        self.layer.activated.connect(lambda _: self.show_maps())
        self.thumbnails.chosen.connect(lambda channel: self.add_channels([channel]))
        self.selected_button.clicked.connect(lambda _: self.add_channels(self.thumbnails.selected()))
        self.all_button.clicked.connect(lambda _: self.add_stack())
        self.draw_button.clicked.connect(self.draw)
        self.inputs.changed.connect(self._forget_maps)

    # What the user does

    def show_maps(self) -> None:
        """Compute the feature maps of the chosen layer, and show their thumbnails."""
        asked = self._asked()
        if asked is None:
            return
        chosen, request = asked
        name = self.layer.currentData() or ""

        def compute(classifier: Classifier, job: Job) -> tuple[tuple[Layer, ...], str, Image]:
            chosen.check(classifier)
            image = chosen.image()
            layers, default = layers_for(image, classifier, request)
            return layers, default, maps_of_layer(image, classifier, name, request, job)

        def show(result: tuple[tuple[Layer, ...], str, Image]) -> None:
            layers, default, maps = result
            self._show_layers(layers)
            self.layer.setCurrentIndex(self.layer.findData(name or default))
            self._show_maps(_Shown(chosen, maps))

        self._ask(compute, show)

    def add_channels(self, channels: Sequence[int]) -> None:
        """Add channels as layers exactly on the image; those that are there already are only selected."""
        if self._shown is None:
            return
        for channel in channels:
            # By these maps and not by name: those of another slice have the same one.
            known = self._shown.added.get(channel)
            if known is not None and known in self.viewer.layers:
                self.viewer.layers.selection.active = known
            else:
                self._shown.added[channel] = self._add([channel], f"{self._shown.maps.name}, channel {channel}")

    def add_stack(self) -> None:
        """Add all channels as one layer with a slider."""
        if self._shown is not None:
            self._add(range(len(self._shown.maps.data)), self._shown.maps.name)

    def draw(self) -> None:
        """Let the network draw the chosen class, on the image's place if one is open."""
        asked = self._asked() if self.image.layer() is not None else None
        if asked is None and self.image.layer() is not None:
            return
        try:
            how = with_options(Maximisation, "A drawing", self.options.values())
        except InputError as error:
            show_warning(str(error))
            return
        target = self.target.currentText()

        def compute(classifier: Classifier, job: Job) -> Drawing:
            if asked is None:
                return draw(classifier, target, how, job)
            chosen, request = asked
            chosen.check(classifier)
            return draw(classifier, target, how, job, image=chosen.image(), request=request)

        self.drawn.clear()
        self._ask(compute, lambda found: self._show_drawing(None if asked is None else asked[0], found))

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
        described = layer_on(self._shown.chosen.view, self._shown.maps, channels)
        return self._add_layer(described, name=name, colormap="magma", opacity=0.6, blending="translucent_no_depth")

    def _add_layer(self, described: LayerTuple, **look: Any) -> ImageLayer:
        data, options, kind = described
        layer = NapariLayer.create(data, options | look, kind)
        # It is no image to be classified, and is not offered as one.
        layer.metadata.setdefault(METADATA_KEY, {})["preview"] = True
        self.viewer.add_layer(layer)
        return layer

    def _show_drawing(self, chosen: Chosen | None, drawing: Drawing) -> None:
        image = drawing.image
        described = image_to_layer(image) if chosen is None else layer_on(chosen.view, image, range(len(image.data)))
        self._add_layer(described, name=image.name, colormap="gray")
        ranked = sorted(drawing.probabilities.items(), key=lambda item: -item[1])
        lines = [
            drawing.sentence,
            f"Logit from {drawing.score_before:.2f} to {drawing.score_after:.2f}",
            *(f"{name}: {value:.4f}" for name, value in ranked[:_CLASSES_TOLD]),
            *drawing.notices,
        ]
        self.drawn.setText("\n".join(lines))

    def _show_maps(self, shown: _Shown) -> None:
        self._shown = shown
        self.thumbnails.show_maps(shown.maps)
        self._show_running(False)
        for notice in shown.maps.notices:
            show_warning(notice)

    def _show_loaded(self, classifier: Classifier) -> None:
        super()._show_loaded(classifier)
        self._show_classes(classifier.class_names)

    def _show_classes(self, names: Sequence[str]) -> None:
        if [self.target.itemText(k) for k in range(self.target.count())] != list(names):
            self.target.clear()
            self.target.addItems(names)

    def _show_layers(self, layers: Sequence[Layer]) -> None:
        self.layer.clear()
        self.layer.addItem(DEFAULT, "")
        for layer in reversed(layers):
            shape = "×".join(map(str, layer.shape))
            self.layer.addItem(f"{layer.name} ({layer.kind}, {layer.channels} × {shape})", layer.name)

    def _classifier_changed(self) -> None:
        super()._classifier_changed()
        self._show_layers(())
        self._show_classes(self.classifier.class_names())
        self.drawn.clear()
        self._forget_maps()

    def _forget_maps(self) -> None:
        self._shown = None
        self.thumbnails.show_maps(None)
        self._show_running(self.task.running)

    def _show_running(self, running: bool) -> None:
        super()._show_running(running)
        for button in (self.selected_button, self.all_button):
            button.setEnabled(self._shown is not None)
