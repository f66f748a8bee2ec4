"""The widget that goes from a volume to the slices that matter, and to what a 2D classifier sees there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import napari
import numpy as np
from napari.layers import Image as ImageLayer
from napari.utils.notifications import show_info, show_warning
from qtpy.QtWidgets import QLabel, QPushButton

from napari_xai_med.attribution import Attribution
from napari_xai_med.errors import InputError
from napari_xai_med.explanation import explain_request
from napari_xai_med.grid import Grid
from napari_xai_med.image import Image
from napari_xai_med.io.slices import save_slices
from napari_xai_med.job import Job
from napari_xai_med.layers import LayerView
from napari_xai_med.models.classifier import Classifier
from napari_xai_med.oblique import oblique_section
from napari_xai_med.request import ExplainRequest
from napari_xai_med.slice_pipeline import METHOD, ExplainedSlices, SliceChoice, Slices, explain_slices, find_slices
from napari_xai_med.widgets.asking import AskingWidget
from napari_xai_med.widgets.controls import row
from napari_xai_med.widgets.inputs import Chosen
from napari_xai_med.widgets.loader import Loader
from napari_xai_med.widgets.oblique import add_oblique_heatmap, plane_on_screen
from napari_xai_med.widgets.probabilities import ProbabilityBars
from napari_xai_med.widgets.question import QuestionForm
from napari_xai_med.widgets.results import add_heatmap
from napari_xai_med.widgets.slice_choice import SliceChoiceForm
from napari_xai_med.widgets.slice_list import SliceList


@dataclass(frozen=True)
class _Asked:
    """What the controls say."""

    chosen: Chosen
    choice: SliceChoice
    volume: ExplainRequest | None
    mask: LayerView | None

    def images(self) -> tuple[Image, Image | None]:
        """The image, and the mask in its world."""
        return self.chosen.image(), None if self.mask is None else self.mask.image_over(self.chosen.view)


@dataclass(frozen=True)
class _Shown:
    """What the list is about, and what can be saved."""

    asked: _Asked
    plane: str
    explained: ExplainedSlices | None = None
    layers: Mapping[int, ImageLayer] = field(default_factory=dict)


class SlicesWidget(AskingWidget):
    """Choose slices of a volume and explain them. Research use only. Not for diagnosis."""

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__(napari_viewer)
        self.form = SliceChoiceForm(napari_viewer, self.inputs.device)
        self.question = QuestionForm(napari_viewer)
        self._volume_loader = Loader(self.form)
        self.choose_button, self.explain_button = QPushButton("Choose slices"), QPushButton("Explain slices")
        self.choose_button.setToolTip("Only find the slices; a click on one shows it.")
        self.explain_button.setToolTip("Find the slices and explain what the classifier sees in each of them.")
        self.plane_button = QPushButton("Explain the plane in 3D")
        self.plane_button.setToolTip("The oblique plane that the viewer shows of the image, with the depiction plane.")
        self.list, self.bars = SliceList(), ProbabilityBars()
        self._shown: _Shown | None = None
        self.classifier.choose("chest_ct_2d")
        self.question.method.setCurrentIndex(self.question.method.findData(METHOD))
        self.question.show_classes(self.classifier.class_names())
        self._show_column(
            self.inputs,
            QLabel("<b>Which slices</b>"),
            self.form,
            self.choose_button,
            QLabel("<b>What is asked about each</b>"),
            self.question,
            row(self.explain_button, self.cancel_button),
            self.plane_button,
            self.progress,
            self.progress_text,
            self.list,
            self.bars,
            self.notices,
            self.save_button,
        )
        self._connect()

    def _connect(self) -> None:
        self.choose_button.clicked.connect(self.choose)
        self.explain_button.clicked.connect(self.explain)
        self.plane_button.clicked.connect(self.explain_plane)
        self.list.chosen.connect(self.go_to)
        self.form.changed.connect(self._forget)
        self.form.classifier.changed.connect(self._volume_loader.forget)
        self.form.classifier.to_pack.connect(lambda: self.open_beside("Pack a classifier"))
        self.inputs.changed.connect(self._forget)
        self.classifier.changed.connect(self._classifier_changed)
        self._connect_asking(self.choose_button, self.explain_button, self.plane_button)

    # What the user does

    def choose(self) -> None:
        """Find the slices, and list them."""
        asked = self._asked()
        if asked is None:
            return
        load = self._volume_loader.chosen()

        def work(job: Job) -> Slices:
            image, mask = asked.images()
            return find_slices(image, asked.choice, _loaded(asked, load, job), job.part(0.2, 1.0), mask)

        def done(slices: Slices) -> None:
            self._show(_Shown(asked, slices.plane), slices, ())
            self._show_notices(slices.notices)

        self.task.start(work, done)

    def explain(self) -> None:
        """Find the slices, explain each of them, and show all heatmaps."""
        asked = self._asked()
        if asked is None:
            return
        try:
            request = self._about_slices(asked.chosen)
        except InputError as error:
            show_warning(str(error))
            return
        load, load_volume = self.loader.chosen(), self._volume_loader.chosen()

        def work(job: Job) -> tuple[Classifier, ExplainedSlices]:
            image, mask = asked.images()
            classifier = load(job)
            volume = _loaded(asked, load_volume, job)
            found = explain_slices(image, asked.choice, volume, (classifier, request), job.part(0.2, 1.0), mask)
            return classifier, found

        def done(result: tuple[Classifier, ExplainedSlices]) -> None:
            self._show_loaded(result[0])
            self._show_explained(asked, result[1])

        self.task.start(work, done)

    def explain_plane(self) -> None:
        """Explain what the classifier sees in the plane that the viewer shows in 3D."""
        try:
            chosen = self.inputs.chosen()
            request = replace(self._about_slices(chosen), slice=None)
            plane = plane_on_screen(self.viewer, chosen.view)
        except InputError as error:
            show_warning(str(error))
            return
        load = self.loader.chosen()

        def work(job: Job) -> tuple[Classifier, Attribution, Grid]:
            classifier = load(job)
            section, grid = oblique_section(chosen.image(), *plane)
            return classifier, explain_request(section, classifier, request, job.part(0.2, 1.0)), grid

        def done(result: tuple[Classifier, Attribution, Grid]) -> None:
            classifier, attribution, grid = result
            self._show_loaded(classifier)
            self._forget()
            add_oblique_heatmap(self.viewer, chosen.view, attribution, grid)
            self.bars.show_prediction(attribution.prediction)
            self._show_notices(attribution.notices)
            self._scroll_to(self.bars)

        self.task.start(work, done)

    def go_to(self, index: int) -> None:
        """Show a slice of the image that the list is about, in its plane where the viewer shows slices.

        Its heatmap is selected, and of all slices' colour bars only that one's is shown.
        """
        if self._shown is None or self._shown.asked.chosen.view.layer not in self.viewer.layers:
            return
        view, dims = self._shown.asked.chosen.view, self.viewer.dims
        axis, against = view.slice_axis(self._shown.plane)
        place = np.zeros(view.layer.ndim)
        place[axis] = view.layer.data.shape[axis] - 1 - index if against else index
        of_viewer = axis + dims.ndim - view.layer.ndim
        if dims.ndisplay == 2 and of_viewer in dims.displayed:
            others = [k for k in dims.order if k != of_viewer]
            dims.order = (*others[:-2], of_viewer, *others[-2:])
        dims.set_point(of_viewer, view.layer.data_to_world(place)[axis])
        for other, layer in self._shown.layers.items():
            layer.colorbar.visible = other == index
            if other == index and layer in self.viewer.layers:
                self.viewer.layers.selection.active = layer

    def can_save(self) -> bool:
        """Whether slices were explained; see `AskingWidget`."""
        return self._shown is not None and self._shown.explained is not None

    def save(self, folder: str) -> None:
        """Write heatmaps, figures and records of what is listed, and their summary."""
        if self._shown is None or self._shown.explained is None:
            return
        shown, explained = self._shown, self._shown.explained

        def work(job: Job) -> Any:
            job.step(0.0, "Writing the files")
            image, mask = shown.asked.images()
            return save_slices(image, explained, folder, mask)

        self.task.start(work, lambda files: show_info(f"Saved {files[-1].name} and {len(files) - 1} files beside it."))

    # What the controls say

    def _asked(self) -> _Asked | None:
        """What is to be chosen; None, and a warning, where something is missing."""
        try:
            chosen, volume = self.inputs.chosen(), None
            if self.form.by_heatmap:
                request, targets = self.form.question.request(chosen)
                # The preprocessing that can be changed is that of the 2D classifier.
                volume = replace(_of_one_class(request, targets), slice=None, preprocessing=None)
            return _Asked(chosen, self.form.choice(), volume, self.form.mask.view(chosen.view.volume))
        except InputError as error:
            show_warning(str(error))
            return None

    def _about_slices(self, chosen: Chosen) -> ExplainRequest:
        request, targets = self.question.request(chosen)
        return _of_one_class(request, targets)

    # What is shown

    def _show_explained(self, asked: _Asked, found: ExplainedSlices) -> None:
        heatmap, slices = found.slices.heatmap, found.slices
        if heatmap is not None:
            layer = add_heatmap(self.viewer, asked.chosen.view, heatmap)
            # It would hide the slices' own maps.
            layer.visible = layer.colorbar.visible = False
        layers = {}
        for index, attribution in zip(slices.indices, found.attributions, strict=True):
            layers[index] = add_heatmap(self.viewer, asked.chosen.view, attribution)
            layers[index].name = f"{layers[index].name}, {slices.plane} {index}"
        self._show(_Shown(asked, slices.plane, found, layers), slices, found.attributions)
        volume = () if heatmap is None else heatmap.notices
        others = (notice for each in found.attributions for notice in each.notices)
        self._show_notices((*slices.notices, *volume, *others))
        self.list.setCurrentItem(self.list.topLevelItem(0))

    def _show(self, shown: _Shown, slices: Slices, attributions: tuple[Attribution, ...]) -> None:
        self._shown = shown
        self.bars.show_nothing()
        self.list.show_slices(slices, attributions)
        self._show_running(self.task.running)
        self._scroll_to(self.list)

    def _show_loaded(self, classifier: Classifier) -> None:
        super()._show_loaded(classifier)
        self.question.show_usable_methods(classifier)
        self.question.show_classes(classifier.class_names)

    def _classifier_changed(self) -> None:
        self.loader.forget()
        self.inputs.forget_classifier()
        self.question.show_usable_methods(None)
        self.question.show_classes(self.classifier.class_names())
        self._forget()

    def _forget(self) -> None:
        self._shown = None
        self.bars.show_nothing()
        self.list.show_slices(None)
        self._show_notices(())
        self._show_running(self.task.running)


def _of_one_class(request: ExplainRequest, targets: tuple[str | int | None, ...] | None) -> ExplainRequest:
    if targets is None:
        raise InputError("Slices are explained for one class; choose it, or the most probable one.")
    return replace(request, target=targets[0])


def _loaded(asked: _Asked, load: Any, job: Job) -> tuple[Classifier, ExplainRequest] | None:
    """The 3D classifier and what is asked of it, if the rule looks at its heatmap."""
    return None if asked.volume is None else (load(job), asked.volume)
