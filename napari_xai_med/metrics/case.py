"""What metrics look at: a map on a grid, masks, and how the map came about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_xai_med.attribution import Attribution
from napari_xai_med.explanation import explain_request
from napari_xai_med.grid import Grid, resample_linear
from napari_xai_med.image import Image
from napari_xai_med.job import Job
from napari_xai_med.metrics.thinning import every_nth
from napari_xai_med.models.classifier import Classifier, NetworkInput
from napari_xai_med.request import ExplainRequest
from napari_xai_med.section import Section, as_asked
from napari_xai_med.segmenting import Regions

Map = NDArray[np.float32]
Mask = NDArray[np.bool_]

_MANY = 2**22
"""Voxels of a coarse case at most."""


class Sign(StrEnum):
    """Which part of a map counts as evidence."""

    POSITIVE = "positive"
    """What supports the class."""
    NEGATIVE = "negative"
    """What speaks against it, as positive numbers."""
    ABSOLUTE = "absolute"
    """Both."""

    def of(self, values: Map) -> Map:
        """That part of a map: nowhere below zero."""
        if self is Sign.ABSOLUTE:
            return np.abs(values)
        return np.maximum(values if self is Sign.POSITIVE else -values, np.float32(0))


@dataclass(frozen=True, eq=False)
class Asked:
    """How an explanation came about, so that others can be made the same way.

    Parameters
    ----------
    image : Image
        The whole, of which a 2D classifier sees one slice.
    classifier : Classifier
        With its own preprocessing; `known` has the one that the request names.
    request : ExplainRequest
        With the class by name.
    regions : Regions
        Label maps in memory that the request means.
    """

    image: Image
    classifier: Classifier
    request: ExplainRequest
    regions: Regions = field(default_factory=Regions)

    @cached_property
    def known(self) -> Classifier:
        """The classifier with the preprocessing that was used."""
        return as_asked(self.classifier, self.request)

    @cached_property
    def section(self) -> Section:
        """What of the image the classifier sees."""
        return Section.choose(self.image, self.known, self.request)

    @cached_property
    def network_input(self) -> NetworkInput:
        """What the network sees of it."""
        return self.known.prepare(self.section.image)

    @property
    def spacing(self) -> tuple[float, ...]:
        """Millimetres between voxels of the network's input."""
        matrix = self.section.image.grid.affine @ self.network_input.to_image
        return tuple(float(step) for step in np.linalg.norm(matrix[:-1, :-1], axis=0))

    def on_input(self, values: Map) -> Map:
        """A map of the explanation's own grid on the grid of the network's input.

        Parameters
        ----------
        values : ndarray of float32
            Of the image's shape, or of that of the slab that holds the slice.
        """
        flat = values
        if self.section.turn is not None and self.section.axis is not None:
            flat = np.squeeze(self.section.turn.array(values), self.section.axis)
        return resample_linear(flat, self.network_input.to_image, tuple(self.network_input.tensor.shape[2:]))

    def again(
        self, job: Job, *, image: Image | None = None, classifier: Classifier | None = None, **changes: Any
    ) -> Map:
        """The map of another image or classifier, or of a request that differs.

        Parameters
        ----------
        job : Job
        image, classifier
            In place of the own ones.
        **changes
            Of the request, such as ``target`` or ``options``.

        Returns
        -------
        ndarray of float32
        """
        return self.explained(job, image=image, classifier=classifier, **changes).values

    def explained(
        self, job: Job, *, image: Image | None = None, classifier: Classifier | None = None, **changes: Any
    ) -> Attribution:
        """The same as `again` gives, with the prediction and the segments."""
        request = replace(self.request, **changes)
        return explain_request(
            image or self.image, classifier or self.classifier, request, replace(job, partial=None), self.regions
        )


@dataclass(frozen=True, eq=False)
class Case:
    """One map that is judged.

    Parameters
    ----------
    values : ndarray of float32, shape `grid.shape`
        The map, with the method's own values.
    grid : Grid
        The image's, or the slab of it that holds the explained slice.
    masks : mapping of str to ndarray of bool, shape `grid.shape`
        Where experts see something, by name.
    intensities : ndarray of float32, shape ``(C, *grid.shape)``, optional
        The image under the map.
    asked : Asked, optional
        How the map came about; without it nothing can be asked of the classifier.
    others : mapping of str to ndarray of float32, shape `grid.shape`
        Other explanations of the same, by name.
    second : Classifier, optional
        Trained on shuffled labels, for the test of whether explanations depend on what was learnt.
    is_bare : bool
        Whether the spacing is not known, so that there are no millimetres.
    sign : Sign
        Which part of the map counts as evidence.
    seed : int
        Of everything that is drawn by chance.
    """

    values: Map
    grid: Grid
    masks: Mapping[str, Mask] = field(default_factory=dict)
    intensities: Map | None = None
    asked: Asked | None = None
    others: Mapping[str, Map] = field(default_factory=dict)
    second: Classifier | None = None
    is_bare: bool = False
    sign: Sign = Sign.POSITIVE
    seed: int = 0

    @cached_property
    def evidence(self) -> Map:
        """The part of the map that counts: nowhere below zero."""
        return self.sign.of(self.values)

    @cached_property
    def controls(self) -> Mapping[str, Map]:
        """Maps that know nothing of the classifier, by name; see `controls_of`."""
        # Imported here: it needs this file.
        from napari_xai_med.metrics.controls import controls_of

        return controls_of(self)

    @cached_property
    def coarse(self) -> Case:
        """The map with its masks and image at every n-th voxel along each axis, where millions are enough."""
        every = every_nth(self.values.shape, _MANY)
        if every[0].step == 1:
            return self
        scale = np.diag([*(float(each.step) for each in every), 1.0])
        return replace(
            self,
            values=self.values[every],
            grid=Grid(self.values[every].shape, self.grid.affine @ scale),
            masks={name: mask[every] for name, mask in self.masks.items()},
            intensities=None if self.intensities is None else self.intensities[(slice(None), *every)],
            asked=None,
            others={},
        )

    @cached_property
    def top(self) -> float:
        """The highest value of the evidence; 0 if there is none."""
        return float(self.evidence.max())

    @cached_property
    def not_finite(self) -> str:
        """Why nothing can be told of the map: how many of its voxels are not finite; empty if all are."""
        with np.errstate(invalid="ignore"):
            # The ends are finite if all are, and need no array of flags as large as the map.
            if np.isfinite(self.values.min()) and np.isfinite(self.values.max()):
                return ""
        count = self.values.size - int(np.count_nonzero(np.isfinite(self.values)))
        return f"{count} of {self.values.size} voxels of the map are not finite."

    @property
    def voxel_volume(self) -> float:
        """Cubic millimetres (square millimetres of a picture) of a voxel."""
        return float(np.prod(self.spacing))

    @property
    def spacing(self) -> tuple[float, ...]:
        """Millimetres between voxels along each axis, pixels where there are none."""
        return self.grid.spacing


def named(items: Mapping[str, Any] | Sequence[Any], what: str) -> dict[str, Any]:
    """Things by name; those without one are numbered."""
    if isinstance(items, Mapping):
        return dict(items)
    return {what if len(items) == 1 else f"{what} {k}": item for k, item in enumerate(items, 1)}
