"""A question about an image in the viewer, and what answers it in another thread."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from napari_xai_med.attribution import Attribution
from napari_xai_med.errors import InputError
from napari_xai_med.explanation import explain_requests
from napari_xai_med.image import Image
from napari_xai_med.job import Job
from napari_xai_med.layers_segments import Drawn
from napari_xai_med.models.classifier import Classifier, Prediction
from napari_xai_med.pipeline import network_view, predict_request
from napari_xai_med.request import ExplainRequest
from napari_xai_med.segmenting import PlacedSegments, Regions, segments_request
from napari_xai_med.targets import MostProbable
from napari_xai_med.widgets.inputs import Chosen


@dataclass(frozen=True)
class Asked:
    """A question about an image.

    Parameters
    ----------
    chosen : Chosen
    request : ExplainRequest
    targets : tuple of str, int or None, or MostProbable, or None
        Classes; None stands for all of them.
    drawn : Drawn
        What the request's segments mean by ``"given"``.
    """

    chosen: Chosen
    request: ExplainRequest
    targets: tuple[str | int | None, ...] | MostProbable | None
    drawn: Drawn

    def seen_by(self, classifier: Classifier) -> Asked:
        """As a classifier is asked it: one of volumes looks at all of the image, also where a plane of it is shown.

        Raises
        ------
        InputError
            If it looks at slices, and none of the image's is on screen.
        """
        self.chosen.check(classifier)
        return self if classifier.spatial_dims == 2 else replace(self, chosen=replace(self.chosen, oblique=None))

    def read(self) -> Read:
        """With its images."""
        image, request, regions = self.chosen.image(), self.request, Regions()
        if request.segments is not None:
            segments, regions = self.drawn.read(self.chosen.view, request.segments)
            request = replace(request, segments=segments)
        return Read(self, image, request, regions)


@dataclass(frozen=True)
class Read:
    """A question whose image and drawn regions were read from their layers.

    Parameters
    ----------
    asked : Asked
    image : Image
    request : ExplainRequest
        Names files where what is drawn is what they hold.
    regions : Regions
    """

    asked: Asked
    image: Image
    request: ExplainRequest
    regions: Regions


@dataclass(frozen=True)
class Shown:
    """An attribution for a heatmap layer.

    Parameters
    ----------
    asked : Asked
    regions : Regions
        What was drawn in memory when it was asked.
    attribution : Attribution
    """

    asked: Asked
    regions: Regions
    attribution: Attribution


def unchanged(image: Image, attribution: Attribution) -> Image:
    """The image, if it is still the one that was explained.

    Raises
    ------
    InputError
        If not: what is written of it would not belong to its map.
    """
    if image.sha256 != attribution.record.image["sha256"]:
        raise InputError(f"{image.name} was changed or moved since; undo that, or explain it again.")
    return image


def notices(found: Sequence[Shown]) -> list[str]:
    """What all of them say."""
    return [notice for each in found for notice in each.attribution.notices]


Compute = Callable[[Read, Classifier, Job], Any]


def classify(read: Read, classifier: Classifier, job: Job) -> Prediction:
    """What the classifier says."""
    return predict_request(read.image, classifier, read.request, job)


def see(read: Read, classifier: Classifier, job: Job) -> Image:
    """What the network sees."""
    return network_view(read.image, classifier, read.request, job)


def segment(read: Read, classifier: Classifier, job: Job) -> PlacedSegments:
    """By which segments it would be explained."""
    return segments_request(read.image, classifier, read.request, job, read.regions)


def explain(read: Read, classifier: Classifier, job: Job) -> list[Shown]:
    """Its explanation, for each class; those so far are given to the job."""

    def shown(found: Sequence[Attribution]) -> list[Shown]:
        return [Shown(read.asked, read.regions, each) for each in found]

    tell = job.partial
    telling = job if tell is None else replace(job, partial=lambda found: tell(shown(found)))
    return shown(explain_requests(read.image, classifier, read.request, read.asked.targets, telling, read.regions))
