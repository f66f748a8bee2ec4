"""The widget that shows how much each channel of an image contributes to each class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import napari
from matplotlib.backends.backend_qtagg import FigureCanvasQTAgg
from matplotlib.figure import Figure
from napari.utils.notifications import show_info, show_warning
from napari.utils.theme import get_theme
from qtpy.QtWidgets import QComboBox, QFormLayout, QPushButton

from napari_xai_med.channel_values import METHOD, ChannelContributions, ChannelValues, contributions
from napari_xai_med.errors import InputError
from napari_xai_med.figures_channels import bars_height, channel_bars
from napari_xai_med.io.channels import save_channels
from napari_xai_med.job import Job
from napari_xai_med.models.classifier import Classifier
from napari_xai_med.models.target import Quantity
from napari_xai_med.request import ExplainRequest
from napari_xai_med.widgets.asking import SavingWidget
from napari_xai_med.widgets.controls import row
from napari_xai_med.widgets.inputs import Chosen
from napari_xai_med.widgets.options import OptionsForm
from napari_xai_med.widgets.question import MOST_PROBABLE

ALL_CLASSES = "all classes"
_ALL = object()


@dataclass(frozen=True)
class _Shown:
    """What the bars are about."""

    chosen: Chosen
    found: ChannelContributions


class ChannelBars(FigureCanvasQTAgg):
    """The bars in the viewer's colours, one class below the other."""

    def __init__(self, viewer: napari.Viewer) -> None:
        super().__init__(Figure())
        self._viewer = viewer
        self._found: ChannelContributions | None = None
        viewer.events.theme.connect(self._draw)
        self.show_bars(None)

    def show_bars(self, found: ChannelContributions | None) -> None:
        """Show contributions, or nothing."""
        self._found = found
        self.setVisible(found is not None)
        if found is not None:
            self.setFixedHeight(round(bars_height(found, 1) * self.figure.dpi))
            self._draw()

    def _draw(self, *_: Any) -> None:
        if self._found is not None:
            theme = get_theme(self._viewer.theme)
            channel_bars(self._found, self.figure, columns=1, paper=theme.background.as_hex(), ink=theme.text.as_hex())
            self.draw_idle()

    def wheelEvent(self, event: Any) -> None:
        """Let the controls scroll: there is nothing to zoom here."""
        event.ignore()


class ChannelValuesWidget(SavingWidget):
    """Shapley values of an image's channels. Research use only. Not for diagnosis."""

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__(napari_viewer)
        self.target, self.against, self.quantity = QComboBox(), QComboBox(), QComboBox()
        self.options, self.bars = OptionsForm(), ChannelBars(napari_viewer)
        self.options.show_options(ChannelValues)
        self.show_button = QPushButton("Show contributions")
        self.show_button.setToolTip("Ask about all combinations of channels, the others replaced by the baseline.")
        self._shown: _Shown | None = None
        for quantity in Quantity:
            self.quantity.addItem(quantity.replace("_", "-"), str(quantity))
        form = QFormLayout()
        for text, box in (("Class", self.target), ("Rather than", self.against), ("As", self.quantity)):
            box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
            form.addRow(text, box)
        self._show_column(
            self.inputs,
            form,
            self.options,
            self.notices,
            self.bars,
            self.save_button,
            below=(row(self.show_button, self.cancel_button), self.progress, self.progress_text),
        )
        self._show_classes(self.classifier.class_names())
        self.show_button.clicked.connect(self.show_contributions)
        self.inputs.changed.connect(self._forget)
        self._connect_asking(self.show_button)

    # What the user does

    def show_contributions(self) -> None:
        """Compute the contributions, and draw them."""
        try:
            chosen = self.inputs.chosen()
            request = self._request(chosen)
        except InputError as error:
            show_warning(str(error))
            return
        target = self.target.currentData()
        targets = None if target is _ALL else (target,)

        def compute(classifier: Classifier, job: Job) -> ChannelContributions:
            chosen.check(classifier)
            layers = [view.layer.name for view in chosen.views]
            return contributions(chosen.image(), classifier, request, targets, job, files=layers)

        def show(found: ChannelContributions) -> None:
            self._shown = _Shown(chosen, found)
            self.bars.show_bars(found)
            self.notices.tell(found.notices)
            self._show_running(self.task.running)
            self._scroll_to(self.bars)

        self._ask(compute, show)

    def can_save(self) -> bool:
        """Whether there are contributions; see `SavingWidget`."""
        return self._shown is not None

    def save(self, folder: str) -> None:
        """Write the bars, the table and the record."""
        if self._shown is None:
            return
        chosen, found = self._shown.chosen, self._shown.found

        def work(job: Job) -> Any:
            job.step(0.0, "Writing the files")
            return save_channels(chosen.image(), found, folder)

        self.task.start(work, lambda files: show_info(f"Saved {files[0].name}, its table and its record."))

    # What the controls say, and what is shown

    def _request(self, chosen: Chosen) -> ExplainRequest:
        return ExplainRequest(
            METHOD,
            self.options.values(),
            against=self.against.currentData(),
            quantity=self.quantity.currentData(),
            plane=chosen.plane,
            slice=chosen.slice,
            preprocessing=chosen.preprocessing,
        )

    def _show_loaded(self, classifier: Classifier) -> None:
        super()._show_loaded(classifier)
        self._show_classes(classifier.class_names)

    def _show_classes(self, names: Sequence[str]) -> None:
        """Offer classes; a choice stays where the names are the same."""
        if [self.against.itemText(k) for k in range(1, self.against.count())] == list(names) and self.target.count():
            return
        for box in (self.target, self.against):
            box.clear()
        self.target.addItem(ALL_CLASSES, _ALL)
        self.target.addItem(MOST_PROBABLE, None)
        self.against.addItem("no other class", None)
        for index, name in enumerate(names):
            self.target.addItem(name, index)
            self.against.addItem(name, index)

    def _classifier_changed(self) -> None:
        super()._classifier_changed()
        self._show_classes(self.classifier.class_names())
        self._forget()

    def _forget(self) -> None:
        self._shown = None
        self.bars.show_bars(None)
        self.notices.write(())
        self._show_running(self.task.running)
