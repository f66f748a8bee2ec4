"""The widget: classify the open image, explain the answer, look at the heatmap."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import napari
from napari.layers import Image as ImageLayer
from napari.layers import Layer
from napari.utils.notifications import show_info, show_warning
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QApplication, QCheckBox, QPushButton

from napari_xai_med.basis import basis
from napari_xai_med.errors import InputError
from napari_xai_med.image import Image
from napari_xai_med.layers import METADATA_KEY
from napari_xai_med.layers_images import image_to_layer
from napari_xai_med.layers_inside import layer_on
from napari_xai_med.models.classifier import Prediction
from napari_xai_med.widgets import asked
from napari_xai_med.widgets.controls import row
from napari_xai_med.widgets.heatmap import HeatmapControls
from napari_xai_med.widgets.heatmaps import Series
from napari_xai_med.widgets.live import Live
from napari_xai_med.widgets.probabilities import ProbabilityBars
from napari_xai_med.widgets.question import QuestionForm
from napari_xai_med.widgets.questioning import QuestioningWidget
from napari_xai_med.widgets.results import go_to_maximum


class ExplainWidget(QuestioningWidget):
    """Classify an image layer and explain the answer. Research use only. Not for diagnosis.

    Attributes
    ----------
    estimated : Signal(list)
        What is shown of an explanation that goes on: a list of `Shown`.
    """

    estimated = Signal(list)

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__(napari_viewer, QuestionForm(napari_viewer))
        self.bars, self.heatmap = ProbabilityBars(), HeatmapControls()
        self._buttons()
        self.live = Live(self.heatmaps, self._question, self.loader, self.task.turn, self)
        self._preview: ImageLayer | None = None
        self._lay_out()
        self._connect()

    def _question(self) -> asked.Asked:
        return self.question.asked(self.inputs.chosen(oblique=True))

    def _buttons(self) -> None:
        self.classify_button = QPushButton("Classify")
        self.explain_button = QPushButton("Explain")
        self.explain_button.setToolTip(
            "A classifier of slices is asked about the slice on screen, or in 3D about the plane that is shown of the "
            "image, if its depiction is plane."
        )
        self.live_box = QCheckBox("Live")
        self.live_box.setToolTip("Explain what is on screen whenever it changes, and the class under the cursor.")
        self.copy_button = QPushButton("Copy as Python")
        self.maximum_button = QPushButton("Go to maximum")
        self.maximum_button.setToolTip("Show the slice on which the heatmap speaks most for its class.")
        self.unload_button = QPushButton("Unload")
        self.unload_button.setToolTip("Give the classifier's memory back.")
        self.check_button = QPushButton("Check this explanation…")
        self.check_button.setToolTip("Is it right? Opens the widget that measures this.")
        self.input_button = QPushButton("Show what the network sees")

    def _lay_out(self) -> None:
        self._show_column(
            self.inputs,
            self.input_button,
            row(self.classify_button, self.unload_button),
            self.bars,
            self.notices,
            self.question,
            self.heatmap,
            row(self.maximum_button, self.check_button),
            row(self.save_button, self.copy_button),
            below=(row(self.explain_button, self.cancel_button, self.live_box), self.progress, self.progress_text),
        )

    def _connect(self) -> None:
        self.input_button.clicked.connect(self.show_input)
        self.classify_button.clicked.connect(self.classify)
        self.explain_button.clicked.connect(lambda _: self.run_explain())
        self.unload_button.clicked.connect(self._unload)
        self.maximum_button.clicked.connect(self._go_to_maximum)
        self.heatmap.bands_button.clicked.connect(self.add_bands)
        self.heatmap.best.mask_button.clicked.connect(self.add_best)
        self.copy_button.clicked.connect(self._copy_python)
        self.check_button.clicked.connect(self.open_check)
        self.method.currentIndexChanged.connect(self.progress_text.clear)
        self.inputs.changed.connect(self._forget_prediction)
        self.viewer.layers.selection.events.active.connect(self._selected)
        self._connect_asking(self.input_button, self.classify_button, self.explain_button, self.unload_button)
        self._connect_live()

    def _connect_live(self) -> None:
        self.live_box.toggled.connect(self.live.switch)
        for signal in (self.question.changed, self.inputs.changed, self.classifier.changed):
            signal.connect(self.live.look)
        self.question.segments.drawn_in.connect(self.live.drawn)
        self.bars.hovered.connect(self.live.explain_class)
        self.task.running_changed.connect(self.live.pause)
        self.live.loaded.connect(self._show_loaded)
        self.live.shown.connect(self._show_live)
        self.live.told.connect(self.progress_text.setText)

    def stop_work(self) -> None:
        """Ask whatever goes on to stop."""
        self.live_box.setChecked(False)
        super().stop_work()

    # What the user does

    def explain(self, layer: ImageLayer, model: str) -> None:
        """Choose a layer and a classifier, explain the most probable class and go to the map's maximum."""
        self.image.choose(layer)
        self.classifier.choose(model)
        self.run_explain(then=self._go_to_maximum)

    def classify(self) -> None:
        """Classify the chosen layer."""

        def show(_: asked.Asked, prediction: Prediction) -> None:
            self.bars.show_prediction(prediction)
            self.notices.tell(prediction.notices)

        self._answer(asked.classify, show)

    def show_input(self) -> None:
        """Show the network's input, behind the preprocessing, as a layer, in place of the one shown before."""

        def show(question: asked.Asked, seen: Image) -> None:
            if self._preview is not None and self._preview in self.viewer.layers:
                self.viewer.layers.remove(self._preview)
            chosen, channels = question.chosen, range(len(seen.data))
            # A plane is shown where it is seen in the volume, and not along axes of its own.
            described = image_to_layer(seen) if chosen.oblique is None else layer_on(chosen.view, seen, channels)
            self._preview = Layer.create(*described)
            # It is no image to be classified, and is not offered as one.
            self._preview.metadata.setdefault(METADATA_KEY, {})["preview"] = True
            if chosen.oblique is not None:
                self._preview.metadata[METADATA_KEY]["plane"] = True
            self.viewer.add_layer(self._preview)

        self._answer(asked.see, show)

    def run_explain(self, *, then: Callable[[], None] = lambda: None) -> None:
        """Explain the chosen class and show the heatmap, and what is known of it meanwhile."""
        series = Series(self.heatmaps)

        def show_estimate(found: list[asked.Shown]) -> None:
            series.show(found, final=False)
            self._show_series(series, found)
            self.estimated.emit(found)

        def show(_: asked.Asked, found: list[asked.Shown]) -> None:
            series.show(found, final=True)
            self._show_series(series, found)
            self.bars.show_prediction(found[0].attribution.prediction)
            self.notices.tell(asked.notices(found))
            then()

        self._answer(asked.explain, show, show_estimate, series.stop)

    # What is shown

    def _show_series(self, series: Series, found: list[asked.Shown]) -> None:
        self._so_far = basis([each.attribution for each in found])
        # Without those that the user removed meanwhile.
        left = [layer for layer in series.layers if layer in self.viewer.layers]
        self._show_layer(left[-1] if left else None)

    def _show_live(self, found: list[asked.Shown], final: bool) -> None:
        self._show_series(self.live.series, found)
        self.bars.show_prediction(found[0].attribution.prediction)
        # Once a slice: too often for notifications.
        self.notices.write(asked.notices(found))
        self.progress_text.setText(": ".join(text for text in ("Live" if final else "Refining", self._so_far) if text))

    def _show_layer(self, layer: ImageLayer | None) -> None:
        if layer != self.heatmap.layer:
            self.heatmap.set_layer(layer)
        self._show_running(self.task.running)

    def _classifier_changed(self) -> None:
        super()._classifier_changed()
        self._forget_prediction()

    def _show_failure(self, error: Exception) -> None:
        self._forget_prediction()
        super()._show_failure(error)

    def _forget_prediction(self) -> None:
        self.bars.show_nothing()
        self.notices.write(())

    def _unload(self) -> None:
        self.loader.forget()
        self._forget_prediction()

    def _show_running(self, running: bool) -> None:
        super()._show_running(running)
        for button in (self.maximum_button, self.check_button):
            button.setEnabled(self.heatmap.layer is not None)
        self.copy_button.setEnabled(self.can_save())

    def _selected(self) -> None:
        layer = self.viewer.layers.selection.active
        known = self.heatmaps.heatmap_of(layer)
        if known is not None or (isinstance(layer, ImageLayer) and "look" in layer.metadata.get(METADATA_KEY, {})):
            self._show_layer(layer if known is None else known)

    def _removed(self, event: Any) -> None:
        super()._removed(event)
        # Plugins get proxies of layers: equal to the layer, but not the same object.
        if event.value == self.heatmap.layer:
            self._show_layer(next(iter(self.heatmaps.results), None))

    def _go_to_maximum(self) -> None:
        if self.heatmap.layer is not None:
            go_to_maximum(self.viewer, self.heatmap.layer)

    def open_check(self) -> None:
        """Open the widget that checks explanations, with the current heatmap chosen."""
        if self.heatmap.layer is not None:
            self.open_beside("Check an explanation").choose(self.heatmap.layer)

    def add_bands(self) -> None:
        """Add the intensity bands of the current heatmap as a labels layer."""
        try:
            bands = self.heatmap.bands()
        except InputError as error:
            show_warning(str(error))
            return
        if bands is not None:
            self.viewer.add_layer(Layer.create(*bands))

    def add_best(self) -> None:
        """Add the best segments of the current heatmap as a labels layer."""
        if self.heatmap.layer is not None:
            self.heatmaps.add_best(self.heatmap.layer, *self.heatmap.best.wanted())

    # What leaves the viewer

    def can_save(self) -> bool:
        """Whether the current heatmap is one of this widget's; see `SavingWidget`."""
        return self.heatmap.layer in self.heatmaps.results

    def save(self, folder: str) -> None:
        """Write heatmap, figure and record of the current heatmap, in the orientation of the image's file."""
        layer = self.heatmap.layer
        if layer is not None and layer in self.heatmaps.results:
            work = self.heatmaps.saving(layer, folder)
            self.task.start(work, lambda files: show_info(f"Saved {files.heatmap.name} and what belongs to it."))

    def python(self) -> str:
        """The Python call that computes the current heatmap again."""
        assert self.heatmap.layer is not None
        return self.heatmaps.python(self.heatmap.layer)

    def _copy_python(self) -> None:
        QApplication.clipboard().setText(self.python())
        show_info("Copied the Python code that computes this heatmap.")
