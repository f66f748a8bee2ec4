"""The widget that says whether an explanation is right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import napari
from napari.layers import Image as ImageLayer
from napari.layers import Layer
from napari.utils.notifications import show_info, show_warning
from qtpy.QtWidgets import QCheckBox, QComboBox, QFormLayout, QGroupBox, QPushButton, QSpinBox, QVBoxLayout

from napari_xai_med.errors import InputError, XAIMedError
from napari_xai_med.evaluation import Evaluation, evaluate_case, panel
from napari_xai_med.io.evaluation import save_evaluation
from napari_xai_med.io.results import clean
from napari_xai_med.job import Job
from napari_xai_med.layers import METADATA_KEY
from napari_xai_med.layers_metrics import case_of_layers, overlay_to_layer, record_of_layer
from napari_xai_med.metrics.base import Metric
from napari_xai_med.metrics.case import Case, Sign
from napari_xai_med.metrics.thresholds import Thresholded
from napari_xai_med.models.classifier import Classifier
from napari_xai_med.options import with_options
from napari_xai_med.widgets.asking import SavingWidget
from napari_xai_med.widgets.comparison import compare
from napari_xai_med.widgets.controls import row
from napari_xai_med.widgets.elided import ElidedCombo
from napari_xai_med.widgets.inputs import Chosen, Inputs
from napari_xai_med.widgets.layer_checks import LayerChecks
from napari_xai_med.widgets.loader import Loader
from napari_xai_med.widgets.masks import labels_layers
from napari_xai_med.widgets.metric_choice import MetricChoice
from napari_xai_med.widgets.metric_results import MetricResults
from napari_xai_med.widgets.options import OptionsForm
from napari_xai_med.widgets.origin import layers_of
from napari_xai_med.widgets.pickers import ClassifierPicker

_MOST_SEED = 2**31 - 1


def heatmap_layers(viewer: napari.Viewer) -> list[ImageLayer]:
    """The heatmaps of this package, the newest first."""
    layers = [layer for layer in viewer.layers if isinstance(layer, ImageLayer)]
    return [layer for layer in reversed(layers) if {"look", "record"} <= layer.metadata.get(METADATA_KEY, {}).keys()]


@dataclass(frozen=True)
class _Judged:
    """What was measured last."""

    heatmap: ImageLayer
    image: ImageLayer
    case: Case
    evaluation: Evaluation


class _Second:
    """The controls that say which second classifier is to be loaded, on the device of the first."""

    def __init__(self, inputs: Inputs) -> None:
        self.classifier, self.trust, self.device = ClassifierPicker(), QCheckBox(inputs.trust.text()), inputs.device
        self.trust.setToolTip(inputs.trust.toolTip())


class CheckWidget(SavingWidget):
    """Is the explanation right? Research use only. Not for diagnosis."""

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__(napari_viewer)
        self.inputs.change_box.hide()
        self.heatmap, self.sign, self.seed = ElidedCombo(), QComboBox(), QSpinBox()
        self._heatmaps: list[ImageLayer] = []
        self.masks = LayerChecks(napari_viewer, lambda: labels_layers(napari_viewer))
        self.others = LayerChecks(napari_viewer, self._other_heatmaps)
        self.second_box, self.second = (
            QGroupBox("Second classifier (shuffled labels)"),
            _Second(self.inputs),
        )
        self._second_loader = Loader(self.second)
        self.metrics, self.threshold = MetricChoice(), OptionsForm()
        self.results: MetricResults | None = None
        self._judged: _Judged | None = None
        self._buttons()
        self._lay_out()
        self._connect()

    def _buttons(self) -> None:
        for sign in Sign:
            self.sign.addItem(str(sign), sign)
        self.sign.setToolTip("Which part of a signed map counts as evidence.")
        self.seed.setRange(0, _MOST_SEED)
        self.seed.setToolTip("Of everything that is drawn by chance.")
        self.masks.setToolTip("Where experts see something: where a Labels layer is not 0.")
        self.others.setToolTip("Other explanations of the same image, for agreement and comparison.")
        self.second_box.setToolTip(
            "One that was trained on shuffled labels, for the test of whether maps depend on these."
        )
        self.second_box.setCheckable(True)
        self.second_box.setChecked(False)
        self.check_button = QPushButton("Check this explanation")
        self.check_button.setToolTip("Measure the standard panel, with a verdict for each line.")
        self.measure_button = QPushButton("Measure what is chosen")
        self.overlay_button = QPushButton("Show overlap")
        self.overlay_button.setToolTip(
            "Yellow: both; green: the explanation only; red: the mask only; blue: a second mask."
        )
        self.compare_button = QPushButton("Compare side by side")
        self.compare_button.setToolTip("This explanation and the other chosen ones, with linked contrast.")

    def _lay_out(self) -> None:
        form = QFormLayout()
        form.addRow("Heatmap", self.heatmap)
        more = QFormLayout()
        more.addRow("Masks", self.masks)
        more.addRow("Others", self.others)
        more.addRow("Evidence", self.sign)
        more.addRow("Seed", self.seed)
        column = QVBoxLayout(self.second_box)
        for part in (self.second.classifier, self.second.trust):
            column.addWidget(part)
        chosen, overlap = QGroupBox("Chosen metrics"), QGroupBox("Overlap with the masks")
        column = QVBoxLayout(chosen)
        column.addWidget(self.metrics)
        column.addWidget(self.measure_button)
        self.threshold.show_options(Thresholded)
        column = QVBoxLayout(overlap)
        column.addWidget(self.threshold)
        column.addWidget(self.overlay_button)
        self._show_column(
            form,
            self.inputs,
            more,
            self.second_box,
            self.notices,
            self.compare_button,
            self.save_button,
            overlap,
            chosen,
            below=(row(self.check_button, self.cancel_button), self.progress, self.progress_text),
        )

    def _connect(self) -> None:
        self.check_button.clicked.connect(lambda _: self.check())
        self.measure_button.clicked.connect(lambda _: self.measure())
        self.overlay_button.clicked.connect(lambda _: self.show_overlap())
        self.compare_button.clicked.connect(lambda _: self.compare())
        self.heatmap.currentIndexChanged.connect(self._heatmap_changed)
        events = self.viewer.layers.events
        for event in (events.inserted, events.removed, events.reordered):
            event.connect(self._fill)
        events.removed.connect(self._let_go)
        for part in (self.second.classifier, self.second.trust):
            self.second_box.toggled.connect(part.setVisible)
            part.hide()
        self.second.classifier.to_pack.connect(lambda: self.open_beside("Pack a classifier"))
        self.second.classifier.changed.connect(self._second_changed)
        self._connect_asking(self.check_button, self.measure_button, self.overlay_button)
        self._fill()

    # What the user does

    def choose(self, layer: ImageLayer) -> None:
        """Choose a heatmap, with the image and the classifier that it came from."""
        self.heatmap.setCurrentIndex(self._heatmaps.index(layer))

    def check(self) -> None:
        """Measure the standard panel."""
        self._measure(lambda _: panel())

    def measure(self) -> None:
        """Measure the chosen metrics."""
        try:
            chosen = self.metrics.chosen()
        except InputError as error:
            show_warning(str(error))
            return
        if not chosen:
            show_warning("No metric is chosen; check some in the list.")
            return
        self._measure(lambda _: chosen)

    def show_overlap(self) -> None:
        """Show where the explanation and the masks agree, as a Labels layer."""

        def compute(case: Case, heatmap: ImageLayer, chosen: Chosen) -> Any:
            if not case.top > 0:
                raise InputError(f"{heatmap.name} has no {case.sign} values; choose other evidence.")
            cut = with_options(Thresholded, "The overlap", values).cut(case.evidence, case.top)
            return overlay_to_layer(case, cut, heatmap, chosen.view)

        try:
            values = self.threshold.values()
        except InputError as error:
            show_warning(str(error))
            return
        self._with_case(lambda case, heatmap, chosen, _: compute(case, heatmap, chosen), self._add_overlap)

    def compare(self) -> None:
        """Show this explanation and the other chosen ones side by side, in a window of their own."""
        try:
            heatmap, view = self._heatmap(), self.inputs.image.view()
            compare(view, [heatmap, *self.others.layers()], self.viewer.dims.point[-view.layer.ndim :])
        except XAIMedError as error:
            show_warning(str(error))

    def can_save(self) -> bool:
        """Whether something was measured; see `SavingWidget`."""
        return self._judged is not None

    def save(self, folder: str) -> None:
        """Write table, plots and record."""
        judged = self._judged
        if judged is None:
            return

        def work(job: Job) -> Any:
            job.step(0.0, "Writing the files")
            return save_evaluation(judged.case, judged.evaluation, folder, clean(judged.heatmap.name))

        self.task.start(work, lambda files: show_info(f"Saved {files[0].name} and what belongs to it."))

    # How it is done

    def _measure(self, wanted: Callable[[Case], Sequence[Metric]]) -> None:
        # Not the result itself, which would stay in memory as long as this is called.
        seen = False

        def compute(case: Case, heatmap: ImageLayer, chosen: Chosen, job: Job) -> _Judged:
            def judged(evaluation: Evaluation) -> _Judged:
                return _Judged(heatmap, chosen.view.layer, case, evaluation)

            tell = job.partial
            telling = job if tell is None else replace(job, partial=lambda found: tell(judged(found)))
            return judged(evaluate_case(case, wanted(case), telling))

        def show(judged: _Judged) -> None:
            nonlocal seen
            seen = True
            self._show(judged)

        def stopped() -> str:
            return "Stopped; what was measured so far stays." if seen else "Stopped; nothing was changed."

        self._with_case(compute, show, show, stopped)

    def _with_case(
        self,
        compute: Callable[[Case, ImageLayer, Chosen, Job], Any],
        show: Callable[[Any], None],
        show_partial: Callable[[Any], None] | None = None,
        stopped: Callable[[], str] | None = None,
    ) -> None:
        """Compute something of what is chosen in the background, then show it."""
        try:
            heatmap, chosen = self._heatmap(), self.inputs.chosen()
            plane = record_of_layer(heatmap).image.get("oblique")
            if plane is not None:
                chosen = replace(chosen, slice=None, oblique=(tuple(plane["point"]), tuple(plane["normal"])))
        except InputError as error:
            show_warning(str(error))
            return
        masks = {layer.name: layer for layer in self.masks.layers()}
        others = {layer.name: layer for layer in self.others.layers()}
        load = self._second_loader.chosen() if self.second_box.isChecked() else None
        sign, seed = self.sign.currentData(), self.seed.value()

        def work(classifier: Classifier, job: Job) -> Any:
            job.step(0.0, "Reading the layers")
            shuffled = None if load is None else load(job)
            image = chosen.image()
            case = case_of_layers(heatmap, chosen.view, image, classifier, masks, others, shuffled, sign, seed)
            return compute(case, heatmap, chosen, job)

        self._ask(work, show, show_partial, stopped)

    def _show(self, judged: _Judged) -> None:
        self._judged = judged
        self._let_go()
        if self.results is None:
            self.results = MetricResults(self.viewer)
        self.results.show_evaluation(judged.heatmap.name, judged.evaluation)
        dock = self.results.parent()
        if dock is None:
            # For the first time, or after the user closed it, which takes its widget out.
            self.viewer.window.add_dock_widget(self.results, name="Metrics", area="bottom")
        else:
            dock.show()
        self.notices.write(judged.evaluation.notices)
        self._show_running(self.task.running)

    def _let_go(self, *_: Any) -> None:
        """Keep no image and map in memory whose layers are gone; the numbers stay on screen."""
        judged, layers = self._judged, self.viewer.layers
        if judged is not None and not (judged.heatmap in layers and judged.image in layers):
            self._judged = None
            self._show_running(self.task.running)

    def _add_overlap(self, described: Any) -> None:
        # Their colours would mix with those of the overlap.
        for heatmap in heatmap_layers(self.viewer):
            heatmap.visible = False
        self.viewer.add_layer(Layer.create(*described))

    # What the controls say

    def _second_changed(self) -> None:
        self._second_loader.forget()
        self.second.trust.setChecked(False)

    def _heatmap(self) -> ImageLayer:
        index = self.heatmap.currentIndex()
        if not 0 <= index < len(self._heatmaps):
            raise InputError("There is no heatmap; explain an image first, with the widget Explain a classifier.")
        return self._heatmaps[index]

    def _other_heatmaps(self) -> list[ImageLayer]:
        index = self.heatmap.currentIndex()
        return [layer for k, layer in enumerate(self._heatmaps) if k != index]

    def _fill(self, *_: Any) -> None:
        before = self._heatmaps[self.heatmap.currentIndex()] if self.heatmap.currentIndex() >= 0 else None
        self._heatmaps = heatmap_layers(self.viewer)
        self.heatmap.blockSignals(True)
        self.heatmap.clear()
        self.heatmap.addItems([layer.name for layer in self._heatmaps])
        self.heatmap.setCurrentIndex(self._heatmaps.index(before) if before in self._heatmaps else 0)
        self.heatmap.setToolTip(self.heatmap.currentText())
        self.heatmap.blockSignals(False)
        self.others.fill()
        if self._heatmaps and self._heatmaps[self.heatmap.currentIndex()] != before:
            self._heatmap_changed()

    def _heatmap_changed(self, *_: Any) -> None:
        """Choose the image and the classifier that the heatmap came from, where they are there."""
        if not 0 <= self.heatmap.currentIndex() < len(self._heatmaps):
            return
        self.others.fill()
        record = record_of_layer(self._heatmap())
        made_of = layers_of(self._heatmap(), self.inputs.image.layers())
        if made_of:
            self.inputs.image.choose(*made_of[0])
            if all(axes for _, axes in made_of):
                self.inputs.channels.choose(made_of[1:])
        if record.model["source"]:
            self.inputs.classifier.choose(record.model["source"])
