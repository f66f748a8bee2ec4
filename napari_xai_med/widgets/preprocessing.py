"""The steps of a preprocessing as a list that can be edited."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QComboBox, QHBoxLayout, QLabel, QListWidget, QPushButton, QVBoxLayout, QWidget

from napari_xai_med.errors import XAIMedError
from napari_xai_med.options import values_of, with_options
from napari_xai_med.preprocessing.base import AnyStep, Step, steps
from napari_xai_med.preprocessing.presets import PRESETS, preset
from napari_xai_med.widgets.options import OptionsForm

_ROWS_SHOWN = 5
_KEPT = "This step is kept as it is."


class PreprocessingForm(QWidget):
    """A list of steps, and the options of the one that is selected.

    Attributes
    ----------
    changed : Signal
        The user changed something.
    """

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self._steps: list[AnyStep] = []
        self._spatial_dims = 3
        self.presets, self.kinds, self.list = QComboBox(), QComboBox(), QListWidget()
        self.options, self.note = OptionsForm(), QLabel(_KEPT)
        self.add_button, self.remove_button = QPushButton("Add"), QPushButton("Remove")
        self.up_button, self.down_button = QPushButton("Up"), QPushButton("Down")
        for combo in (self.presets, self.kinds):
            combo.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.presets.addItem("Start from a preset…", "")
        for name, (title, _) in PRESETS.items():
            self.presets.addItem(title, name)
        for name, kind in steps().items():
            self.kinds.addItem(kind.title, name)
            self.kinds.setItemData(self.kinds.count() - 1, (kind.__doc__ or "").splitlines()[0], 3)
        self._lay_out()
        self.presets.activated.connect(self._take_preset)
        self.add_button.clicked.connect(self._add)
        self.remove_button.clicked.connect(self._remove)
        self.up_button.clicked.connect(lambda: self._move(-1))
        self.down_button.clicked.connect(lambda: self._move(1))
        self.list.currentRowChanged.connect(self._select)
        self.options.changed.connect(self._edited)
        self.show_steps((), 3)

    def _lay_out(self) -> None:
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        new, order = QHBoxLayout(), QHBoxLayout()
        for widget in (self.kinds, self.add_button):
            new.addWidget(widget)
        for widget in (self.remove_button, self.up_button, self.down_button):
            order.addWidget(widget)
        for part in (self.presets, self.list, order, new, self.options, self.note):
            column.addWidget(part) if isinstance(part, QWidget) else column.addLayout(part)
        self.list.setFixedHeight(self.list.sizeHintForRow(0) * _ROWS_SHOWN + 90)

    def show_steps(self, chosen: Sequence[AnyStep], spatial_dims: int) -> None:
        """Show steps, and offer presets for images of 2 or 3 axes."""
        self._steps = list(chosen)
        self.set_spatial_dims(spatial_dims)
        self.presets.setCurrentIndex(0)
        self._fill(0)

    def set_spatial_dims(self, spatial_dims: int) -> None:
        """Offer presets for images of 2 or 3 axes; the steps stay."""
        self._spatial_dims = spatial_dims

    def steps(self) -> tuple[AnyStep, ...]:
        """The steps as they are shown.

        Raises
        ------
        InputError
            If an option of the selected step can't be read.
        """
        self._take_options()
        return tuple(self._steps)

    def _fill(self, row: int) -> None:
        self.list.blockSignals(True)
        self.list.clear()
        self.list.addItems([_line(step) for step in self._steps])
        self.list.blockSignals(False)
        self.list.setCurrentRow(min(row, len(self._steps) - 1))
        self._select(self.list.currentRow())

    def _select(self, row: int) -> None:
        step = self._steps[row] if 0 <= row < len(self._steps) else None
        known = isinstance(step, Step)
        self.options.setVisible(known)
        self.note.setVisible(step is not None and not known)
        if isinstance(step, Step):
            self.options.show_options(type(step), values_of(step))
        self.remove_button.setEnabled(step is not None)
        self.up_button.setEnabled(row > 0)
        self.down_button.setEnabled(0 <= row < len(self._steps) - 1)

    def _edited(self) -> None:
        try:
            self._take_options()
        except XAIMedError:
            # Told when the steps are used; while somebody types, much is wrong for a moment.
            return
        row = self.list.currentRow()
        self.list.item(row).setText(_line(self._steps[row]))
        self.changed.emit()

    def _take_options(self) -> None:
        row = self.list.currentRow()
        if not 0 <= row < len(self._steps) or not isinstance(step := self._steps[row], Step):
            return
        self._steps[row] = with_options(type(step), step.title, self.options.values())

    def _take_preset(self, _: int) -> None:
        if name := self.presets.currentData():
            self._steps = list(preset(name, self._spatial_dims))
            self._fill(0)
            self.changed.emit()

    def _add(self) -> None:
        kind = steps()[self.kinds.currentData()]
        row = self.list.currentRow() + 1
        self._steps.insert(row, kind())
        self._fill(row)
        self.changed.emit()

    def _remove(self) -> None:
        row = self.list.currentRow()
        del self._steps[row]
        self._fill(max(0, row - 1))
        self.changed.emit()

    def _move(self, by: int) -> None:
        row = self.list.currentRow()
        self._steps.insert(row + by, self._steps.pop(row))
        self._fill(row + by)
        self.changed.emit()


def _line(step: AnyStep) -> str:
    """A step and its numbers in one line."""
    if not isinstance(step, Step):
        return step.title
    values = ", ".join(_short(value) for value in values_of(step).values() if not isinstance(value, bool))
    return f"{step.title}: {values}" if values else step.title


def _short(value: Any) -> str:
    if isinstance(value, tuple):
        return " × ".join(_short(entry) for entry in value)
    return str(value) if isinstance(value, str) else f"{value:g}"
