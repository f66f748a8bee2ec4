"""What the dock widgets share that explain: the question, the heatmap layers with their segments, and these alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import napari
from napari.utils.notifications import show_warning

from napari_xai_med.errors import InputError
from napari_xai_med.job import Job
from napari_xai_med.models.classifier import Classifier
from napari_xai_med.models.receptive_field import Layer
from napari_xai_med.pipeline import layers_for
from napari_xai_med.segmenting import PlacedSegments
from napari_xai_med.widgets.asked import Asked, Compute, Shown, segment
from napari_xai_med.widgets.asking import SavingWidget
from napari_xai_med.widgets.heatmaps import Heatmaps
from napari_xai_med.widgets.question import QuestionForm


class QuestioningWidget(SavingWidget):
    """A `SavingWidget` with a question whose answers are heatmap layers.

    Parameters
    ----------
    viewer : napari.Viewer
    question : QuestionForm
    """

    def __init__(self, viewer: napari.Viewer, question: QuestionForm) -> None:
        super().__init__(viewer)
        self.question, self.heatmaps = question, Heatmaps(viewer)
        self._so_far = ""
        # The controls that scripts and tests use most.
        self.method, self.target, self.options = question.method, question.target, question.options
        question.show_classes(self.classifier.class_names())
        question.segments.show_button.clicked.connect(self.show_segments)
        viewer.layers.events.removed.connect(self._removed)

    def show_segments(self) -> None:
        """Show the segments that an explanation of what is on screen would be made of."""

        def show(question: Asked, found: PlacedSegments) -> None:
            self.heatmaps.show_segments(question.chosen, found, question.drawn)
            self.notices.tell(found.notices)

        self._answer(segment, show)

    def _ask(self, *work: Any) -> None:
        self._so_far = ""
        super()._ask(*work)

    def _question(self) -> Asked:
        return self.question.asked(self.inputs.chosen())

    def _answer(
        self,
        compute: Compute,
        show: Callable[[Asked, Any], None],
        show_estimate: Callable[[list[Shown]], None] | None = None,
        stopped: Callable[[], str] | None = None,
    ) -> None:
        """Answer the question about what is on screen in the background, then show the answer."""
        try:
            question = self._question()
        except InputError as error:
            show_warning(str(error))
            return

        def work(classifier: Classifier, job: Job) -> tuple[Asked, Any, tuple[Layer, ...]]:
            read = question.seen_by(classifier).read()
            return read.asked, compute(read, classifier, job), layers_for(read.image, classifier, read.request)[0]

        def done(result: tuple[Asked, Any, tuple[Layer, ...]]) -> None:
            asked, answer, layers = result
            self.options.show_layers(layers)
            show(asked, answer)

        self._ask(work, done, show_estimate, stopped)

    def _show_loaded(self, classifier: Classifier) -> None:
        super()._show_loaded(classifier)
        self.question.show_usable_methods(classifier)
        self.question.show_classes(classifier.class_names)

    def _classifier_changed(self) -> None:
        super()._classifier_changed()
        self.question.show_usable_methods(None)
        self.question.show_classes(self.classifier.class_names())
        self.options.show_layers(())

    def _show_progress(self, done: float, text: str) -> None:
        super()._show_progress(done, f"{text}: {self._so_far}" if self._so_far else text)

    def _removed(self, event: Any) -> None:
        self.heatmaps.removed(event.value)
