"""A form for the options of a method, architecture or preprocessing step, made from its dataclass."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import Field
from types import MappingProxyType
from typing import Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QCheckBox, QComboBox, QDoubleSpinBox, QFormLayout, QLineEdit, QSpinBox, QWidget

from napari_xai_med.errors import InputError
from napari_xai_med.models.receptive_field import Layer
from napari_xai_med.options import FILES, LAYERS, option_fields, parse
from napari_xai_med.widgets.lists import FileList, LayerList

_LARGEST = 1_000_000


class OptionsForm(QWidget):
    """One row for each option.

    Attributes
    ----------
    changed : Signal
        The user changed a value.
    """

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self._form = QFormLayout(self)
        self._form.setContentsMargins(0, 0, 0, 0)
        self._fields: dict[str, QWidget] = {}
        self._layers: tuple[Layer, ...] = ()
        self._kind: type | None = None

    def show_options(
        self, kind: type, values: Mapping[str, Any] = MappingProxyType({}), without: Collection[str] = ()
    ) -> None:
        """Show the options of a dataclass but some, at their defaults but for the given values."""
        while self._form.rowCount():
            self._form.removeRow(0)
        self._kind, self._fields = kind, {}
        for item in option_fields(kind):
            if item.name in without:
                continue
            widget = _editor(item)
            widget.setToolTip(item.metadata["text"])
            self._fields[item.name] = widget
            self._form.addRow(item.name.replace("_", " ").capitalize(), widget)
        self.show_layers(self._layers)
        for name, value in values.items():
            if name not in without:
                self.set_value(name, value)
        for widget in self._fields.values():
            _changed(widget).connect(lambda *_: self.changed.emit())

    def show_layers(self, layers: tuple[Layer, ...]) -> None:
        """Offer the layers of a network, with the sizes of their outputs."""
        self._layers = layers
        for item in option_fields(self._kind) if self._kind else ():
            widget = self._fields.get(item.name)
            if isinstance(widget, LayerList):
                widget.show_layers(layers)

    def values(self) -> dict[str, Any]:
        """The options as they are set.

        Raises
        ------
        InputError
            If a line does not hold what it should.
        """
        defaults = {item.name: item.default for item in option_fields(self._kind)} if self._kind else {}
        return {name: _value(widget, name, defaults[name]) for name, widget in self._fields.items()}

    def set_value(self, name: str, value: Any) -> None:
        """Set one option."""
        widget = self._fields[name]
        if isinstance(widget, LayerList | FileList):
            widget.set_values(value)
        elif isinstance(widget, QComboBox):
            widget.setCurrentIndex(widget.findData(value))
        elif isinstance(widget, QCheckBox):
            widget.setChecked(value)
        elif isinstance(widget, QLineEdit):
            widget.setText(_text(value))
        else:
            widget.setValue(value)


def _editor(item: Field[Any]) -> QWidget:
    default, choices = item.default, item.metadata["choices"]
    if choices == LAYERS:
        return LayerList()
    if choices == FILES:
        return FileList()
    if choices:
        combo = QComboBox()
        combo.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        for choice in choices:
            combo.addItem(str(choice), choice)
        combo.setCurrentIndex(combo.findData(default))
        return combo
    if isinstance(default, bool):
        box = QCheckBox()
        box.setChecked(default)
        return box
    if isinstance(default, int | float):
        return _spin(default, *item.metadata["limits"])
    return QLineEdit(_text(default))


def _spin(default: float, low: float | None, high: float | None) -> QWidget:
    spin = QSpinBox() if isinstance(default, int) else QDoubleSpinBox()
    spin.setRange(-_LARGEST if low is None else low, _LARGEST if high is None else high)
    if isinstance(spin, QDoubleSpinBox):
        spin.setDecimals(4)
    spin.setValue(default)
    return spin


def _text(value: Any) -> str:
    return ", ".join(f"{number:g}" for number in value) if isinstance(value, tuple | list) else str(value)


def _changed(widget: QWidget) -> Any:
    if isinstance(widget, LayerList | FileList):
        return widget.changed
    if isinstance(widget, QComboBox):
        return widget.currentIndexChanged
    if isinstance(widget, QCheckBox):
        return widget.toggled
    return widget.textChanged if isinstance(widget, QLineEdit) else widget.valueChanged


def _value(widget: QWidget, name: str, default: Any) -> Any:
    if isinstance(widget, LayerList | FileList):
        return widget.values()
    if isinstance(widget, QComboBox):
        return widget.currentData()
    if isinstance(widget, QCheckBox):
        return widget.isChecked()
    if isinstance(widget, QLineEdit):
        try:
            return parse(widget.text(), default)
        except ValueError as error:
            raise InputError(f"{widget.text()!r} is no list of numbers; correct {name.replace('_', ' ')}.") from error
    return widget.value()
