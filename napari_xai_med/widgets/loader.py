"""Keeping the chosen classifier loaded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from qtpy.QtWidgets import QCheckBox, QComboBox

from napari_xai_med.job import Job
from napari_xai_med.models import load_model, trust_bundle
from napari_xai_med.models.classifier import Classifier
from napari_xai_med.widgets.pickers import ClassifierPicker


class Source(Protocol):
    """Controls that say which classifier is to be loaded."""

    classifier: ClassifierPicker
    trust: QCheckBox
    device: QComboBox


class Loader:
    """Loads the classifier that is chosen, and keeps it until another one is.

    Parameters
    ----------
    inputs : Source
    """

    def __init__(self, inputs: Source) -> None:
        self._inputs = inputs
        self._loaded: tuple[tuple[str, bool, str], Classifier] | None = None

    def forget(self) -> None:
        """Give the classifier's memory back."""
        self._loaded = None

    @property
    def key(self) -> tuple[str, bool, str]:
        """What tells the chosen classifier from others: its source, whether it is trusted, and its device."""
        return (self._inputs.classifier.source(), self._inputs.trust.isChecked(), self._inputs.device.currentData())

    @property
    def known(self) -> Classifier | None:
        """The chosen classifier, if it is loaded."""
        return self._loaded[1] if self._loaded is not None and self._loaded[0] == self.key else None

    def chosen(self) -> Callable[[Job], Classifier]:
        """What loads the classifier that is chosen now, or has it already; for another thread."""
        key = self.key

        def load(job: Job) -> Classifier:
            model, trust, device = key
            job.step(0.0, "Loading the classifier")
            if self._loaded is None or self._loaded[0] != key:
                if trust:
                    trust_bundle(model)
                self._loaded = (key, load_model(model, trust=trust, device=device))
            return self._loaded[1]

        return load
