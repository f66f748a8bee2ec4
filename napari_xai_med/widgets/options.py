"""A form for the options of an explanation method, made from its dataclass."""

from __future__ import annotations

from typing import Any

from qtpy.QtWidgets import QCheckBox, QComboBox, QDoubleSpinBox, QFormLayout, QLineEdit, QSpinBox, QWidget

from napari_xai_med.explainers.base import Explainer
from napari_xai_med.models.receptive_field import Layer

DEFAULT_LAYER = "last convolution"


class OptionsForm(QWidget):
    """One row for each option of a method."""

    def __init__(self) -> None:
        super().__init__()
        self._form = QFormLayout(self)
        self._form.setContentsMargins(0, 0, 0, 0)
        self._fields: dict[str, QWidget] = {}
        self._layers: tuple[Layer, ...] = ()
        self._method: type[Explainer] | None = None

    def show_method(self, method: type[Explainer]) -> None:
        """Show the options of a method, at their defaults."""
        while self._form.rowCount():
            self._form.removeRow(0)
        self._method, self._fields = method, {}
        for item in method.option_fields():
            widget = _editor(item.default, item.metadata["choices"])
            widget.setToolTip(item.metadata["text"])
            self._fields[item.name] = widget
            self._form.addRow(item.name.replace("_", " ").capitalize(), widget)
        self.show_layers(self._layers)

    def show_layers(self, layers: tuple[Layer, ...]) -> None:
        """Offer the layers of a network, with the sizes of their outputs."""
        self._layers = layers
        for item in self._method.option_fields() if self._method else ():
            if item.metadata["choices"] == "layers":
                _fill_layers(self._fields[item.name], layers)

    def values(self) -> dict[str, Any]:
        """The options as they are set."""
        return {name: _value(widget) for name, widget in self._fields.items()}

    def set_value(self, name: str, value: Any) -> None:
        """Set one option."""
        widget = self._fields[name]
        if isinstance(widget, QComboBox):
            widget.setCurrentIndex(widget.findData(value))
        elif isinstance(widget, QCheckBox):
            widget.setChecked(value)
        elif isinstance(widget, QLineEdit):
            widget.setText(value)
        else:
            widget.setValue(value)


def _editor(default: Any, choices: Any) -> QWidget:
    if choices:
        combo = QComboBox()
        combo.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        for choice in () if choices == "layers" else choices:
            combo.addItem(str(choice), choice)
        combo.setCurrentIndex(combo.findData(default))
        return combo
    if isinstance(default, bool):
        box = QCheckBox()
        box.setChecked(default)
        return box
    if isinstance(default, int | float):
        spin = QSpinBox() if isinstance(default, int) else QDoubleSpinBox()
        spin.setRange(0, 1_000_000)
        spin.setValue(default)
        return spin
    return QLineEdit(str(default))


def _fill_layers(combo: QComboBox, layers: tuple[Layer, ...]) -> None:
    chosen = combo.currentData()
    combo.clear()
    combo.addItem(DEFAULT_LAYER, "")
    for layer in reversed(layers):
        if layer.is_convolution or max(layer.shape) > 1:
            combo.addItem(
                f"{layer.name} ({layer.kind}, {layer.channels} × {'×'.join(map(str, layer.shape))})", layer.name
            )
    combo.setCurrentIndex(max(0, combo.findData(chosen)))


def _value(widget: QWidget) -> Any:
    if isinstance(widget, QComboBox):
        return widget.currentData()
    if isinstance(widget, QCheckBox):
        return widget.isChecked()
    return widget.text() if isinstance(widget, QLineEdit) else widget.value()
