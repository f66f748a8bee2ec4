"""The form that says which slices of a volume are to be chosen, and by what."""

from __future__ import annotations

import napari
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QCheckBox, QComboBox, QDoubleSpinBox, QFormLayout, QSpinBox, QVBoxLayout, QWidget
from superqt import QCollapsible

from napari_xai_med.image import PLANES
from napari_xai_med.slice_pipeline import SliceChoice
from napari_xai_med.slices import slice_rules
from napari_xai_med.widgets.masks import MaskPicker
from napari_xai_med.widgets.options import OptionsForm
from napari_xai_med.widgets.pickers import ClassifierPicker
from napari_xai_med.widgets.question import QuestionForm

_LARGEST = 100_000


class SliceChoiceForm(QWidget):
    """Rule, mask, plane, count and distance; and the 3D classifier, if the rule looks at its heatmap.

    Attributes
    ----------
    changed : Signal
        Other slices would be chosen now.
    """

    changed = Signal()

    def __init__(self, viewer: napari.Viewer, device: QComboBox) -> None:
        super().__init__()
        self.rule, self.options, self.mask = QComboBox(), OptionsForm(), MaskPicker(viewer)
        self.plane, self.count, self.distance = QComboBox(), QSpinBox(), QDoubleSpinBox()
        self.classifier, self.trust, self.device = ClassifierPicker(), QCheckBox("Trust this bundle"), device
        self.question = QuestionForm(each_class=False)
        self.question.segments.show_dims(3)
        self._volume = QWidget()
        self.plane.addItems(PLANES)
        for name, rule in slice_rules().items():
            self.rule.addItem(rule.title, name)
        self.count.setRange(1, _LARGEST)
        self.count.setValue(SliceChoice.count)
        self.distance.setRange(0, _LARGEST)
        self.distance.setValue(SliceChoice.minimum_distance)
        self.distance.setSuffix(" mm")
        self.mask.setToolTip("Where the rule looks, or what it measures.")
        self._lay_out()
        self.rule.currentIndexChanged.connect(self._show_rule)
        self.classifier.changed.connect(self._show_classes)
        self._show_rule()
        self._show_classes()
        for signal in (
            self.rule.currentIndexChanged,
            self.options.changed,
            self.mask.currentIndexChanged,
            self.plane.currentIndexChanged,
            self.count.valueChanged,
            self.distance.valueChanged,
            self.classifier.changed,
        ):
            signal.connect(lambda *_: self.changed.emit())

    def _lay_out(self) -> None:
        form, volume, how = QFormLayout(), QFormLayout(self._volume), QCollapsible("How its heatmap is made")
        how.setContent(self.question)
        how.collapse(animate=False)
        volume.setContentsMargins(0, 0, 0, 0)
        volume.addRow("3D classifier", self.classifier)
        volume.addRow(self.trust)
        volume.addRow(how)
        rows = (("Rule", self.rule), ("Mask", self.mask), ("Plane", self.plane), ("Slices", self.count))
        for text, widget in (*rows, ("Apart at least", self.distance)):
            form.addRow(text, widget)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addLayout(form)
        column.addWidget(self.options)
        column.addWidget(self._volume)

    @property
    def by_heatmap(self) -> bool:
        """Whether the rule looks at the heatmap of the 3D classifier."""
        return slice_rules()[self.rule.currentData()].needs == "map"

    def choice(self) -> SliceChoice:
        """What the controls say.

        Raises
        ------
        InputError
            If an option does not hold what it should.
        """
        return SliceChoice(
            self.rule.currentData(),
            self.options.values(),
            self.plane.currentText(),
            self.count.value(),
            self.distance.value(),
            self.mask.path(),
        )

    def _show_rule(self) -> None:
        self.options.show_options(slice_rules()[self.rule.currentData()])
        self._volume.setVisible(self.by_heatmap)

    def _show_classes(self) -> None:
        self.trust.setChecked(False)
        self.question.show_classes(self.classifier.class_names())
