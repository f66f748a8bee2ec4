"""What is asked about: image, classifier, device and preprocessing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import napari
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QCheckBox, QComboBox, QFormLayout, QGroupBox, QLabel, QVBoxLayout, QWidget

from napari_xai_med.channels import stack_channels
from napari_xai_med.errors import InputError
from napari_xai_med.image import PLANES, Image
from napari_xai_med.layers import LayerView
from napari_xai_med.layers_plane import Plane, PlaneView
from napari_xai_med.models.classifier import Classifier
from napari_xai_med.models.devices import AUTO, devices, pick
from napari_xai_med.oblique import oblique_section
from napari_xai_med.widgets.channels import ChannelPickers
from napari_xai_med.widgets.pickers import ClassifierPicker, ImagePicker
from napari_xai_med.widgets.preprocessing import PreprocessingForm

_IS_CODE = "The preprocessing of {} is code, which can't be shown; what is chosen here stands in for it."


@dataclass(frozen=True)
class Chosen:
    """What the controls say.

    Parameters
    ----------
    views : tuple of LayerView
        The image layer, and those of further channels.
    plane : str
    slice : int or None
        Of the slice on screen; None for a 2D image, a plane in 3D, and where the slider stands outside of the layer.
    preprocessing : tuple of mapping or None
        In place of the classifier's own, as `ExplainRequest` takes it.
    oblique : (tuple of float, tuple of float), optional
        Point and normal of the plane in 3D that a classifier of slices is asked about; see `oblique_section`.
    """

    views: tuple[LayerView, ...]
    plane: str
    slice: int | None
    preprocessing: tuple[Mapping[str, Any], ...] | None
    oblique: Plane | None = None

    @property
    def view(self) -> LayerView:
        """The layer that a map lies on."""
        first = self.views[0]
        if self.oblique is None:
            return first
        point, normal = self.oblique
        return PlaneView(first.layer, first.axes, first.volume, point=point, normal=normal)

    def image(self) -> Image:
        """The image, or the oblique section of it, with all channels."""
        image = stack_channels([view.image() for view in self.views])
        return image if self.oblique is None else oblique_section(image, *self.oblique)[0]

    def check(self, classifier: Classifier) -> None:
        """Refuse a classifier of slices where none of the image's slices is on screen."""
        flat = self.slice is not None or self.oblique is not None
        if classifier.spatial_dims == 2 and len(self.view.spatial) == 3 and not flat:
            name = self.view.layer.name
            raise InputError(f"The slice on screen lies outside of {name}; move the slider to one of its own.")

    def as_python(self) -> str:
        """A Python expression that gives this image."""
        images = [view.as_python() for view in self.views]
        image = images[0] if len(images) == 1 else f"[{', '.join(images)}]"
        if self.oblique is None:
            return image
        whole = image if len(images) == 1 else f"stack_channels({image})"
        point, normal = self.oblique
        return f"oblique_section({whole}, {list(point)}, {list(normal)})[0]"


class Inputs(QWidget):
    """The upper part of the widget.

    Attributes
    ----------
    changed : Signal
        Another image or preprocessing.
    preprocessing_wanted : Signal
        The user wants to change the preprocessing, and the classifier's own is not known yet.
    """

    changed = Signal()
    preprocessing_wanted = Signal()

    def __init__(self, viewer: napari.Viewer) -> None:
        super().__init__()
        self.image, self.channels = ImagePicker(viewer), ChannelPickers(viewer)
        self.classifier, self.device = ClassifierPicker(), QComboBox()
        self.device.addItem(f"automatic ({pick()})", AUTO)
        for name in devices():
            self.device.addItem(name, name)
        self.trust = QCheckBox("Trust this bundle")
        self.trust.setToolTip(
            "Allow the bundle, as it is now, to run its author's code, today and in future; only if you trust its "
            "author. 'napari-xai-med trust' lists the trusted bundles and takes trust back."
        )
        self.preprocessing, self._note = PreprocessingForm(), QLabel()
        self._note.setWordWrap(True)
        self.change_box = QGroupBox("Change the preprocessing")
        self.change_box.setCheckable(True)
        self.change_box.setToolTip("What the network gets instead of what its bundle says; records tell of it.")
        self._own: tuple[Any, ...] | None = None
        self._filled = False
        self._lay_out()
        self.forget_classifier()
        self.image.changed.connect(self.changed)
        self.channels.changed.connect(self.changed)
        self.preprocessing.changed.connect(self.changed)
        self.change_box.toggled.connect(self._show_preprocessing)

    def _lay_out(self) -> None:
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        form = QFormLayout()
        form.addRow("Image", self.image)
        form.addRow(self.image.axes_label, self.image.axes)
        form.addRow(self.channels)
        form.addRow("Classifier", self.classifier)
        form.addRow(self.trust)
        form.addRow("Device", self.device)
        column.addLayout(form)
        inside = QVBoxLayout(self.change_box)
        inside.addWidget(self._note)
        inside.addWidget(self.preprocessing)
        column.addWidget(self.change_box)

    def chosen(self, *, oblique: bool = False) -> Chosen:
        """What the controls say.

        Parameters
        ----------
        oblique : bool
            Whether the plane that the viewer shows of the image in 3D stands for a slice, if it shows one.

        Raises
        ------
        InputError
            If there is no image, or an option can't be read.
        """
        views = (self.image.view(), *self.channels.views())
        plane, index = self.image.shown_slice(views[0])
        chosen = Chosen(views, plane, index, self._changed_preprocessing())
        across = self.image.shown_plane(views[0]) if oblique else None
        return chosen if across is None else replace(chosen, plane=PLANES[0], slice=None, oblique=across)

    def _changed_preprocessing(self) -> tuple[Mapping[str, Any], ...] | None:
        if not (self.change_box.isChecked() and self._filled):
            return None
        steps = self.preprocessing.steps()
        return None if steps == self._own else tuple(step.config() for step in steps)

    def forget_classifier(self) -> None:
        """Another classifier is chosen, which has a preprocessing of its own."""
        self._own, self._filled = None, False
        self.trust.setChecked(False)
        self.change_box.setChecked(False)
        self._show_preprocessing(False)

    def show_classifier(self, classifier: Classifier) -> None:
        """Show the preprocessing of a classifier that was loaded, unless the user changed it already."""
        if self._filled:
            return
        self._own, self._filled = classifier.steps, True
        self._note.setText("" if classifier.steps is not None else _IS_CODE.format(classifier.name))
        self._note.setVisible(classifier.steps is None)
        self.preprocessing.show_steps(classifier.steps or (), classifier.spatial_dims)

    def _show_preprocessing(self, wanted: bool) -> None:
        for widget in (self.preprocessing, self._note):
            widget.setVisible(wanted and (widget is self.preprocessing or bool(self._note.text())))
        if wanted and not self._filled:
            self.preprocessing_wanted.emit()
        self.changed.emit()
