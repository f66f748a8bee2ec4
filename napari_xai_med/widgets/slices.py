"""The widget that goes from a volume to the slices that matter, and to what a 2D classifier sees there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import napari
import numpy as np
from napari.layers import Image as ImageLayer
from napari.utils.notifications import show_info, show_warning
from qtpy.QtWidgets import QLabel, QPushButton

from napari_xai_med.attribution import Attribution
from napari_xai_med.basis import basis
from napari_xai_med.errors import InputError
from napari_xai_med.image import Image
from napari_xai_med.io.slices import save_slices
from napari_xai_med.job import Job
from napari_xai_med.layers import LayerView
from napari_xai_med.models.classifier import Classifier
from napari_xai_med.request import ExplainRequest
from napari_xai_med.segmenting import Regions
from napari_xai_med.slice_pipeline import METHOD, ExplainedSlices, SliceChoice, Slices, explain_slices, find_slices
from napari_xai_med.widgets.asked import Asked, Read, unchanged
from napari_xai_med.widgets.controls import row
from napari_xai_med.widgets.inputs import Chosen
from napari_xai_med.widgets.loader import Loader
from napari_xai_med.widgets.probabilities import ProbabilityBars
from napari_xai_med.widgets.question import QuestionForm
from napari_xai_med.widgets.questioning import QuestioningWidget
from napari_xai_med.widgets.slice_choice import SliceChoiceForm
from napari_xai_med.widgets.slice_list import SliceList
from napari_xai_med.widgets.slice_maps import SliceMaps


@dataclass(frozen=True)
class _Asked:
    """What the controls say."""

    chosen: Chosen
    choice: SliceChoice
    volume: Asked | None
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
    regions: Regions | None = None
    mask: Image | None = None
    layers: Mapping[int, ImageLayer] = field(default_factory=dict)


class SlicesWidget(QuestioningWidget):
    """Choose slices of a volume and explain them. Research use only. Not for diagnosis."""

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__(napari_viewer, QuestionForm(napari_viewer, each_class=False))
        self.form = SliceChoiceForm(napari_viewer, self.inputs.device)
        self._volume_loader = Loader(self.form)
        self.choose_button, self.explain_button = QPushButton("Choose slices"), QPushButton("Explain slices")
        self.choose_button.setToolTip("Only find the slices; a click on one shows it.")
        self.explain_button.setToolTip("Find the slices and explain what the classifier sees in each of them.")
        self.list, self.bars = SliceList(), ProbabilityBars()
        self._shown: _Shown | None = None
        self.classifier.choose("chest_ct_2d")
        self.question.method.setCurrentIndex(self.question.method.findData(METHOD))
        self._show_column(
            self.inputs,
            QLabel("<b>Which slices</b>"),
            self.form,
            QLabel("<b>What is asked about each</b>"),
            self.question,
            self.list,
            self.bars,
            self.notices,
            self.save_button,
            below=(row(self.choose_button, self.explain_button, self.cancel_button), self.progress, self.progress_text),
        )
        self._connect()

    def _connect(self) -> None:
        self.choose_button.clicked.connect(self.choose)
        self.explain_button.clicked.connect(self.explain)
        self.list.chosen.connect(self.go_to)
        self.form.changed.connect(self._forget)
        self.form.classifier.changed.connect(self._volume_loader.forget)
        self.form.classifier.to_pack.connect(lambda: self.open_beside("Pack a classifier"))
        self.inputs.changed.connect(self._forget)
        self._connect_asking(self.choose_button, self.explain_button)

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
            self._scroll_to(self.list)
            self.notices.tell(slices.notices)

        self.task.start(work, done)

    def explain(self) -> None:
        """Find the slices, explain each of them, and show all heatmaps."""
        asked = self._asked()
        if asked is None:
            return
        try:
            question = _of_one_class(self._question())
        except InputError as error:
            show_warning(str(error))
            return
        load, maps = self._volume_loader.chosen(), SliceMaps(self.heatmaps, asked.volume)

        def compute(classifier: Classifier, job: Job) -> tuple[Read, Image | None, ExplainedSlices]:
            read, (image, mask) = question.read(), asked.images()
            volume = _loaded(asked, load, job)
            tell = job.partial
            telling = job if tell is None else replace(job, partial=lambda found: tell((read, mask, found)))
            found = explain_slices(image, asked.choice, volume, (classifier, read.request), telling, mask, read.regions)
            return read, mask, found

        def show_estimate(result: tuple[Read, Image | None, ExplainedSlices]) -> None:
            self._show_explained(asked, maps, *result, final=False)

        def show(result: tuple[Read, Image | None, ExplainedSlices]) -> None:
            self._show_explained(asked, maps, *result, final=True)

        self._ask(compute, show, show_estimate, maps.stop)

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
        self._select(index)

    def _select(self, index: int) -> None:
        assert self._shown is not None
        for other, layer in self._shown.layers.items():
            layer.colorbar.visible = other == index
            if other == index and layer in self.viewer.layers:
                self.viewer.layers.selection.active = layer

    def can_save(self) -> bool:
        """Whether slices were explained; see `SavingWidget`."""
        return self._shown is not None and self._shown.explained is not None

    def save(self, folder: str) -> None:
        """Write heatmaps, figures and records of what is listed, and their summary."""
        if self._shown is None or self._shown.explained is None:
            return
        shown, explained = self._shown, self._shown.explained

        def work(job: Job) -> Any:
            job.step(0.0, "Writing the files")
            image = unchanged(shown.asked.chosen.image(), explained.attributions[0])
            return save_slices(image, explained, folder, shown.mask, shown.regions)

        self.task.start(work, lambda files: show_info(f"Saved {files[-1].name} and {len(files) - 1} files beside it."))

    # What the controls say

    def _asked(self) -> _Asked | None:
        """What is to be chosen; None, and a warning, where something is missing."""
        try:
            chosen, volume = self.inputs.chosen(), None
            if self.form.by_heatmap:
                volume = _of_one_class(self.form.question.asked(chosen))
                # The preprocessing that can be changed is that of the 2D classifier.
                volume = replace(volume, request=replace(volume.request, slice=None, preprocessing=None))
            return _Asked(chosen, self.form.choice(), volume, self.form.mask.view(chosen.view.volume))
        except InputError as error:
            show_warning(str(error))
            return None

    # What is shown

    def _show_explained(
        self, asked: _Asked, maps: SliceMaps, read: Read, mask: Image | None, found: ExplainedSlices, *, final: bool
    ) -> None:
        """Show what is known by now, and of a new list the first slice; the user may look at others meanwhile."""
        changed, slices = maps.show(read, found), found.slices
        self._so_far = basis(found.attributions[-1:])
        if not (changed or final):
            return
        place = self.list.currentIndex().row() if self._shown is not None and self._shown.asked is asked else -1
        # What is finished can be saved, also where the rest is stopped.
        done = found.finished()
        finished = () if done is None else done.attributions
        shown = _Shown(asked, slices.plane, done, read.regions, mask, maps.layers)
        self._show(shown, slices, finished)
        self.list.show_current(max(place, 0), tell=place < 0)
        self._select(slices.indices[max(place, 0)])
        if place < 0:
            self._scroll_to(self.list)
        if final:
            volume = () if slices.heatmap is None else slices.heatmap.notices
            self.notices.tell((*slices.notices, *volume, *found.slice_notices))

    def _show(self, shown: _Shown, slices: Slices, attributions: tuple[Attribution, ...]) -> None:
        self._shown = shown
        self.bars.show_nothing()
        self.list.show_slices(slices, attributions)
        self._show_running(self.task.running)

    def _classifier_changed(self) -> None:
        super()._classifier_changed()
        self._forget()

    def _forget(self) -> None:
        self._shown = None
        self.bars.show_nothing()
        self.list.show_slices(None)
        self.notices.write(())
        self._show_running(self.task.running)


def _of_one_class(asked: Asked) -> Asked:
    """With the class in its request."""
    assert isinstance(asked.targets, tuple)
    return replace(asked, request=replace(asked.request, target=asked.targets[0]))


def _loaded(asked: _Asked, load: Callable[[Job], Classifier], job: Job) -> tuple[Classifier, ExplainRequest] | None:
    """The 3D classifier and what is asked of it, if the rule looks at its heatmap."""
    return None if asked.volume is None else (load(job), asked.volume.request)
