"""Editors of options that are lists: layers of a network, and image files."""

from __future__ import annotations

from collections.abc import Iterable

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QAbstractItemView,
    QFileDialog,
    QHBoxLayout,
    QLineEdit,
    QListWidget,
    QListWidgetItem,
    QPushButton,
    QWidget,
)

from napari_xai_med.models.receptive_field import Layer

NONE = "none chosen: the default layer"
_ROWS = 6


class LayerList(QListWidget):
    """The layers of a network to choose from, the last ones first; none stands for the method's default."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.setMaximumHeight(_ROWS * self.fontMetrics().lineSpacing() + 2 * self.frameWidth())
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        # A click chooses a layer, and another one takes it out again.
        self.setSelectionMode(QAbstractItemView.SelectionMode.MultiSelection)
        self.itemSelectionChanged.connect(self.changed.emit)
        self.show_layers(())

    def show_layers(self, layers: tuple[Layer, ...]) -> None:
        """Offer the layers of a network, with the sizes of their outputs; those that were chosen stay so."""
        chosen = self.values()
        self.blockSignals(True)
        self.clear()
        self.addItem(QListWidgetItem(NONE))
        self.item(0).setFlags(Qt.ItemFlag.NoItemFlags)
        for layer in reversed(layers):
            if layer.is_convolution or max(layer.shape) > 1:
                shape = "×".join(map(str, layer.shape))
                self._add(layer.name, f"{layer.name} ({layer.kind}, {layer.channels} × {shape})")
        self.blockSignals(False)
        self.set_values(name for name in chosen if any(layer.name == name for layer in layers))

    def values(self) -> tuple[str, ...]:
        """The chosen layers, in the order of execution."""
        items = [self.item(k) for k in range(1, self.count())]
        return tuple(item.data(Qt.ItemDataRole.UserRole) for item in reversed(items) if item.isSelected())

    def set_values(self, names: Iterable[str]) -> None:
        """Choose these layers and no others; those that are not known yet are added."""
        wanted = tuple(names)
        known = {self.item(k).data(Qt.ItemDataRole.UserRole): self.item(k) for k in range(1, self.count())}
        for name in wanted:
            if name not in known:
                known[name] = self._add(name, name)
        for name, item in known.items():
            item.setSelected(name in wanted)

    def _add(self, name: str, text: str) -> QListWidgetItem:
        item = QListWidgetItem(text)
        item.setData(Qt.ItemDataRole.UserRole, name)
        item.setToolTip(text)
        self.addItem(item)
        return item


class FileList(QWidget):
    """Paths of image files, separated by commas, with a button that asks for them."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.line, button = QLineEdit(), QPushButton("Files…")
        button.clicked.connect(self._ask)
        self.line.textChanged.connect(lambda _: self.changed.emit())
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.line)
        row.addWidget(button)

    def values(self) -> tuple[str, ...]:
        """The paths."""
        return tuple(path.strip() for path in self.line.text().split(",") if path.strip())

    def set_values(self, paths: Iterable[str]) -> None:
        """Show these paths."""
        self.line.setText(", ".join(paths))

    def _ask(self) -> None:
        paths, _ = QFileDialog.getOpenFileNames(self, "Images to compare with")
        if paths:
            self.set_values(paths)
