"""Sentences that the user should read."""

from __future__ import annotations

from collections.abc import Sequence

from napari.utils.notifications import show_warning
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QLabel


class Notices(QLabel):
    """Notifications are cut short and go away; the sentences stay here as long as the answer that they belong to."""

    def __init__(self) -> None:
        super().__init__()
        self.setWordWrap(True)
        self.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.write(())

    def write(self, sentences: Sequence[str]) -> None:
        """Show sentences in place of those before, each once."""
        self.setText("\n\n".join(dict.fromkeys(sentences)))
        self.setVisible(bool(sentences))

    def tell(self, sentences: Sequence[str]) -> None:
        """Show sentences, and notify of them."""
        self.write(sentences)
        for sentence in dict.fromkeys(sentences):
            show_warning(sentence)
