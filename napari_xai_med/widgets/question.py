"""What the user asks: method, class, in which form, and the method's options."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import napari
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QCheckBox, QComboBox, QFormLayout, QLabel, QVBoxLayout, QWidget
from superqt import QCollapsible

from napari_xai_med.explainers.base import Explainer, explainers, reason_against
from napari_xai_med.models.classifier import Classifier
from napari_xai_med.models.precision import Precision
from napari_xai_med.models.target import Quantity
from napari_xai_med.request import ExplainRequest
from napari_xai_med.targets import MostProbable
from napari_xai_med.widgets.asked import Asked
from napari_xai_med.widgets.inputs import Chosen
from napari_xai_med.widgets.options import OptionsForm
from napari_xai_med.widgets.segments import SegmentsForm

MOST_PROBABLE = "most probable"
EACH_CLASS = "each class"
CAUTION = "⚠"

_EACH = object()
_MOST_CLASSES = 5
"""Maps of more classes than so many can be asked for one by one, or all together."""


class QuestionForm(QWidget):
    """Method, class, segments and options of an explanation.

    Parameters
    ----------
    viewer : napari.Viewer, optional
        Where segments may be drawn; nowhere by default.
    each_class : bool
        Whether one may ask about each class, or the most probable ones.

    Attributes
    ----------
    changed : Signal
        Something else is asked.
    """

    changed = Signal()

    def __init__(self, viewer: napari.Viewer | None = None, *, each_class: bool = True) -> None:
        super().__init__()
        self._each_class = each_class
        self.method, self.caution = _box(), QLabel()
        self.preset, self._preset_label = _box(), QLabel("Preset")
        self.segments = SegmentsForm(viewer)
        self.target, self.against, self.quantity, self.minus, self.precision = (_box() for _ in range(5))
        self.opposite = QCheckBox("What speaks against it")
        self.options = OptionsForm()
        self._lay_out()
        for name, method in explainers().items():
            self.method.addItem(f"{method.title} {CAUTION}" if method.caution else method.title, name)
            self.minus.addItem(method.title, name)
        for quantity in Quantity:
            self.quantity.addItem(quantity.replace("_", "-"), str(quantity))
        for precision in Precision:
            self.precision.addItem(precision, str(precision))
        self.method.currentIndexChanged.connect(self._show_method)
        self.minus.currentIndexChanged.connect(self._show_segments)
        self.preset.activated.connect(self._take_preset)
        self.options.changed.connect(lambda: self.preset.setCurrentIndex(0))
        for box in (self.method, self.target, self.against, self.quantity, self.minus, self.precision, self.preset):
            box.currentIndexChanged.connect(self._tell)
        self.opposite.toggled.connect(self._tell)
        for form in (self.options, self.segments):
            form.changed.connect(self._tell)
        self.method.setCurrentIndex(self.method.findData(ExplainRequest().method))
        self.show_classes(())
        self._show_method()

    def _lay_out(self) -> None:
        self.caution.setWordWrap(True)
        self.minus.addItem("nothing", "")
        self.against.setToolTip("What is explained is by how much the class's logit is larger than that of this one.")
        self.quantity.setToolTip("The gradient of a probability vanishes where the classifier is sure.")
        self.precision.setToolTip("Less than float32 is used only where it was measured to give the same map.")
        self.minus.setToolTip("Show the difference to the map of another method, made with the same options.")
        form = QFormLayout()
        for text, widget in (("Method", self.method), ("", self.caution), ("Class", self.target)):
            form.addRow(text, widget)
        inside, more = QWidget(), QFormLayout()
        inside.setLayout(more)
        for text, widget in (
            ("Rather than", self.against),
            ("As", self.quantity),
            ("", self.opposite),
            ("Minus", self.minus),
            ("Precision", self.precision),
        ):
            more.addRow(text, widget)
        folded = QCollapsible("More about the question")
        folded.setContent(inside)
        folded.collapse(animate=False)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addLayout(form)
        column.addWidget(folded)
        column.addWidget(self.segments)
        presets = QFormLayout()
        presets.addRow(self._preset_label, self.preset)
        column.addLayout(presets)
        column.addWidget(self.options)

    def asked(self, chosen: Chosen) -> Asked:
        """What is asked about the chosen section of an image.

        Raises
        ------
        InputError
            If an option does not hold what it should.
        """
        request = ExplainRequest(
            self.method.currentData(),
            self.options.values(),
            against=self.against.currentData(),
            quantity=self.quantity.currentData(),
            opposite=self.opposite.isChecked(),
            minus=self.minus.currentData(),
            precision=self.precision.currentData(),
            plane=chosen.plane,
            slice=chosen.slice,
            preprocessing=chosen.preprocessing,
            segments=self.segments.choice() if self._uses_segments else None,
        )
        target = self.target.currentData()
        targets = target if isinstance(target, MostProbable) else None if target is _EACH else (target,)
        return Asked(chosen, request, targets, self.segments.drawn())

    @property
    def _uses_segments(self) -> bool:
        known = explainers()
        names = (self.method.currentData(), self.minus.currentData())
        return any(name in known and known[name].uses_segments for name in names)

    def show_classes(self, names: Sequence[str]) -> None:
        """Offer classes; a choice stays where the names are the same."""
        if [self.against.itemText(k) for k in range(1, self.against.count())] == list(names) and self.target.count():
            return
        for box, first in ((self.target, MOST_PROBABLE), (self.against, "no other class")):
            box.clear()
            box.addItem(first, None)
            for index, name in enumerate(names):
                box.addItem(name, index)
        if self._each_class:
            for count in range(2, min(len(names), _MOST_CLASSES + 1)):
                self.target.addItem(f"{count} most probable", MostProbable(count))
            self.target.addItem(EACH_CLASS, _EACH)

    def show_usable_methods(self, classifier: Classifier | None) -> None:
        """Grey out the methods that need what a classifier can't give, with the reason; none before it is known."""
        self.segments.show_dims(None if classifier is None else classifier.spatial_dims)
        for box in (self.method, self.minus):
            for index in range(box.count()):
                method = explainers().get(box.itemData(index))
                reason = reason_against(method, classifier) if classifier is not None and method is not None else ""
                box.model().item(index).setEnabled(not reason)
                box.setItemData(index, reason or _told(method), Qt.ItemDataRole.ToolTipRole)

    def _show_method(self) -> None:
        method: Any = explainers()[self.method.currentData()]
        self.options.show_options(method)
        self.caution.setText(f"{CAUTION} {method.caution}")
        self.caution.setVisible(bool(method.caution))
        self.preset.clear()
        self.preset.addItems(["own options", *method.presets])
        for widget in (self.preset, self._preset_label):
            widget.setVisible(bool(method.presets))
        self._show_segments()

    def _show_segments(self, *_: Any) -> None:
        self.segments.setVisible(self._uses_segments)

    def _take_preset(self, index: int) -> None:
        method: Any = explainers()[self.method.currentData()]
        self.options.show_options(method, method.presets.get(self.preset.itemText(index), {}))
        self._tell()

    def _tell(self, *_: Any) -> None:
        self.changed.emit()


def _told(method: type[Explainer] | None) -> str | None:
    return None if method is None else (method.caution or method.paper)


def _box() -> QComboBox:
    box = QComboBox()
    box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    return box
