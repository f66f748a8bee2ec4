"""Texts that are too long for the window."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QComboBox, QStyle, QStyleOptionComboBox, QStylePainter

_LEAST = 10
"""Letters that there is room for at least."""


class ElidedCombo(QComboBox):
    """A choice whose text loses its middle where there is no room: names begin alike and end differently.

    The whole text is its tool tip.
    """

    def __init__(self) -> None:
        super().__init__()
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.setMinimumContentsLength(_LEAST)
        self.view().setTextElideMode(Qt.TextElideMode.ElideMiddle)
        self.currentTextChanged.connect(self.setToolTip)

    def shown(self, width: int) -> str:
        """The text as it is shown in so many pixels."""
        return self.fontMetrics().elidedText(self.currentText(), Qt.TextElideMode.ElideMiddle, width)

    def paintEvent(self, _event: Any) -> None:
        """As Qt paints it but for the text, which Qt would cut."""
        painter, style = QStylePainter(self), QStyleOptionComboBox()
        self.initStyleOption(style)
        painter.drawComplexControl(QStyle.ComplexControl.CC_ComboBox, style)
        room = self.style().subControlRect(
            QStyle.ComplexControl.CC_ComboBox, style, QStyle.SubControl.SC_ComboBoxEditField, self
        )
        style.currentText = self.shown(room.width())
        painter.drawControl(QStyle.ControlElement.CE_ComboBoxLabel, style)
