"""What of an image a classifier looks at, and with which preprocessing and on which device it does so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from napari_xai_med.errors import InputError, ModelError
from napari_xai_med.grid import Grid, Reorientation
from napari_xai_med.image import PLANES, Image
from napari_xai_med.models.classifier import Classifier
from napari_xai_med.models.devices import free_memory, is_lacking, is_out_of_memory
from napari_xai_med.preprocessing.base import read_steps
from napari_xai_med.request import ExplainRequest

Number = TypeVar("Number", bound=np.number)


@dataclass(frozen=True)
class Section:
    """The part of an image that a classifier looks at: all of it, or one slice of a volume."""

    image: Image
    axis: int | None = None
    index: int = 0
    turn: Reorientation | None = None

    @classmethod
    def choose(cls, image: Image, classifier: Classifier, request: ExplainRequest) -> Section:
        """The slice that the request names where the classifier is 2D and the image 3D, else the whole."""
        if not (classifier.spatial_dims == 2 and image.ndim == 3):
            return cls(image)
        turn = Reorientation.between(image.grid)
        shown = image.reoriented(turn)
        axis = PLANES.index(request.plane)
        if request.slice is None:
            last = shown.grid.shape[axis] - 1
            raise InputError(
                f"{classifier.name} looks at 2D images and {image.name} is 3D; choose a slice from 0 to {last}."
            )
        return cls(shown.plane(axis, request.slice), axis, request.slice, turn)

    def lift(self, values: NDArray[Number], image: Image) -> tuple[NDArray[Number], Grid]:
        """Values on this section with their grid in the image: all of it, or a slab one voxel thick."""
        if self.axis is None or self.turn is None:
            return values, image.grid
        shown = self.turn.grid(image.grid)
        back = self.turn.inverse
        axis = self.turn.order[self.axis]
        index = shown.shape[self.axis] - 1 - self.index if self.turn.flipped[self.axis] else self.index
        lifted = cast("NDArray[Number]", back.array(np.expand_dims(values, self.axis)))
        return lifted, image.grid.slab(axis, index)


Result = TypeVar("Result")


def as_asked(classifier: Classifier, request: ExplainRequest) -> Classifier:
    """The classifier with the preprocessing that the request names, if it names one."""
    if request.preprocessing is None:
        return classifier
    return classifier.with_steps(read_steps(request.preprocessing))


_NO_MEMORY = "The memory of {} was not enough; this was computed on the processor."
_LACKING = "{} lacks something that {} needs; this was computed on the processor."


def where_it_can(classifier: Classifier, work: Callable[[Classifier], Result]) -> tuple[Result, tuple[str, ...]]:
    """Work with a classifier, on the processor if its device can't, and a notice of that."""
    device = classifier.device
    try:
        return work(classifier), ()
    except (RuntimeError, MemoryError, TypeError) as error:
        full = is_out_of_memory(error)
        if full and device.type == "cpu":
            raise ModelError(
                f"There is not enough memory to run {classifier.name}; close other programs or take a smaller image."
            ) from error
        if not full and not is_lacking(error, device):
            raise
    # Outside of the handler: the error holds on to what filled the memory.
    free_memory()
    result, _ = where_it_can(classifier.on("cpu"), work)
    return result, (_NO_MEMORY.format(device) if full else _LACKING.format(device, classifier.name),)
