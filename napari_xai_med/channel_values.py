"""How much each channel of an image, such as T1, T2 and FLAIR, contributes to what a classifier says: exactly.

The players of the game are the channels of the network's input. A channel that does not take part is replaced by a
baseline, and all coalitions are asked about, so that the Shapley values are no estimates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from napari_xai_med.errors import InputError
from napari_xai_med.explainers.base import Question
from napari_xai_med.explainers.baselines import OneBaseline
from napari_xai_med.explainers.batches import FEWER
from napari_xai_med.explainers.masked import Play, limit_option
from napari_xai_med.explanation import inputs_of
from napari_xai_med.games.base import Float
from napari_xai_med.games.exact import PLAYERS, exact_estimate
from napari_xai_med.grid import Grid
from napari_xai_med.image import Image
from napari_xai_med.io import read_image
from napari_xai_med.job import Job
from napari_xai_med.models.classifier import Classifier, NetworkInput, Prediction
from napari_xai_med.models.guards import doubts
from napari_xai_med.models.run import prediction_from
from napari_xai_med.models.target import AnyTarget, Target
from napari_xai_med.options import values_of, with_options
from napari_xai_med.record import Record, record_of
from napari_xai_med.request import ExplainRequest
from napari_xai_med.section import Section, as_asked, where_it_can
from napari_xai_med.targets import Targets, targets_of
from napari_xai_med.windows import asking

if TYPE_CHECKING:
    import pandas as pd

METHOD = "channels"
"""What stands for the method in a request and its record."""


@dataclass(frozen=True)
class ChannelValues(OneBaseline):
    """How the contributions of channels are found."""

    title: ClassVar[str] = "Contributions of channels"

    batch_size: int = limit_option()


@dataclass(frozen=True, eq=False)
class ChannelContributions:
    """What each channel contributes to each class. Research use only. Not for diagnosis.

    Parameters
    ----------
    channels : tuple of str
    classes : tuple of str
        What is explained, in words: a class, or its probability, or one class rather than another.
    values : ndarray of float64, shape (classes, channels)
        Shapley values; positive where the channel supports the class.
    of_baseline, of_image : ndarray of float64, shape (classes,)
        What the classifier says with no channel of the image, and with all of them.
    prediction : Prediction
    record : Record
    notices : tuple of str
        Sentences that the user should read.
    """

    channels: tuple[str, ...]
    classes: tuple[str, ...]
    values: Float
    of_baseline: Float
    of_image: Float
    prediction: Prediction
    record: Record
    notices: tuple[str, ...] = ()

    @property
    def residual(self) -> Float:
        """What the values of each class lack to what the image has above the baseline: rounding only."""
        return self.of_image - self.of_baseline - self.values.sum(1)

    @property
    def baseline(self) -> str:
        """What stands for a channel that is not there, in words."""
        options = self.record.request["options"]
        if options["baseline"] == "image":
            return Path(options["baseline_image"][0]).name
        return f"blurred by {options['blur']:g} mm" if options["baseline"] == "blurred" else str(options["baseline"])

    def table(self) -> pd.DataFrame:
        """A row for each class and channel, with what baseline and image give and what the values lack."""
        import pandas as pd

        rows = zip(self.classes, self.values, self.of_baseline, self.of_image, self.residual, strict=True)
        return pd.DataFrame(
            [
                {
                    "class": about,
                    "channel": channel,
                    "contribution": value,
                    "of_baseline": empty,
                    "of_image": full,
                    "additivity_residual": residual,
                }
                for about, values, empty, full, residual in rows
                for channel, value in zip(self.channels, values, strict=True)
            ]
        )


@dataclass(frozen=True)
class _Channels:
    """Images of which channels are replaced, of coalitions (B, C) of bool: shape (B, C, *spatial)."""

    image: Tensor
    baseline: Tensor

    def __call__(self, coalitions: Tensor) -> Tensor:
        seen = coalitions.reshape(*coalitions.shape, *(1,) * (self.image.ndim - 1))
        return torch.where(seen, self.image, self.baseline)


def contributions(
    image: Image,
    classifier: Classifier,
    request: ExplainRequest,
    targets: Targets,
    job: Job,
    names: Sequence[str] = (),
    files: Sequence[str] = (),
) -> ChannelContributions:
    """Exact Shapley values [1]_ of an image's channels; see `napari_xai_med.channel_contributions`.

    Parameters
    ----------
    image : Image
    classifier : Classifier
    request : ExplainRequest
        Of the method ``"channels"``; its own target does not count.
    targets : sequence of str, int or None, optional
        Classes; all of them by default.
    job : Job
    names : sequence of str
        Of the network's channels; those of the files, or else of the classifier's metadata, by default.
    files : sequence of str
        What the files or layers are called that the image was made of, if not as it says itself.

    Raises
    ------
    InputError
        If there are too few channels or too many, a class is unknown, or an option can't be.

    References
    ----------
    .. [1] L. S. Shapley, A value for n-person games, Contributions to the Theory of Games II, 1953.
    """
    how = with_options(ChannelValues, ChannelValues.title, request.options)
    known = as_asked(classifier, request)
    wanted = targets_of(known, request, targets)
    with torch.no_grad():
        named = (names, files or [image.name, *(Path(other).name.split(".")[0] for other in image.others)])
        found, notices = where_it_can(
            known, lambda chosen: _contributions(image, chosen, how, (request, wanted), named, job)
        )
    return replace(found, notices=(*found.notices, *notices))


def _contributions(
    image: Image,
    classifier: Classifier,
    how: ChannelValues,
    asked: tuple[ExplainRequest, list[Target]],
    names: tuple[Sequence[str], Sequence[str]],
    job: Job,
) -> ChannelContributions:
    start, (request, targets) = perf_counter(), asked
    job.step(0.0, "Preprocessing")
    section = Section.choose(image, classifier, request)
    network_input = classifier.prepare(section.image)
    channels = _names(classifier, network_input, *names)
    others = [read_image(path) for path in how.images]
    question = Question(
        classifier,
        network_input.tensor,
        tuple((0, target) for target in targets),
        Grid(network_input.tensor.shape[2:], section.image.grid.affine @ network_input.to_image).spacing,
        inputs_of(others, classifier, request, image, network_input),
    )
    with asking(classifier) as ask:
        answer = ask(network_input.tensor.to(classifier.device, copy=True), job.part(0.0, 0.02))
        wanted: list[AnyTarget] = [target for _, target in question.resolved(answer)]
        play = Play(question, 0, wanted, how.baselines(question)[0, 0], ask, job.part(0.02, 1.0))
        count = len(channels)
        compose = _Channels(play.image, play.baseline.to(play.image))
        game = play.game(compose, count, how.batch_size, expected=2**count)
        estimate = exact_estimate(game)
        ends = game(np.array([[False] * game.players, [True] * game.players]))
    resolved = [target.resolved(answer, 0) for target in targets]
    told = (*image.notices, *doubts(classifier, section.image, network_input), *answer.notices)
    prediction = prediction_from(classifier, network_input, answer, told)
    about = tuple(target.words(classifier.class_names) for target in resolved)
    method: dict[str, Any] = {
        "channels": list(channels),
        "classes": [classifier.class_names[target.index] for target in resolved if target.index is not None],
        "about": list(about),
        "values": estimate.values.tolist(),
        "of_baseline": ends[0].tolist(),
        "of_image": ends[1].tolist(),
        "additivity_residual": (ends[1] - ends[0] - estimate.values.sum(1)).tolist(),
        "evaluations": game.evaluations,
        "compared_with": [{"source": other.source, "sha256": other.sha256} for other in others],
    }
    # A widget tells the slice on screen in any case.
    index = None if section.axis is None else request.slice
    spelled = replace(request, target=None, options=values_of(how), slice=index)
    seconds = perf_counter() - start
    record = record_of(image, classifier, spelled, method, prediction, estimate.values, seconds)
    job.step(1.0, "Done")
    notices = (*prediction.notices, *((FEWER.format("many", game.smaller),) if game.smaller else ()))
    return ChannelContributions(channels, about, estimate.values, ends[0], ends[1], prediction, record, notices)


def _names(
    classifier: Classifier, network_input: NetworkInput, names: Sequence[str], files: Sequence[str]
) -> tuple[str, ...]:
    """A name for each channel of the network's input, no two alike."""
    count = network_input.tensor.shape[1]
    if count < 2:
        raise InputError(
            f"{classifier.name} gets a single channel, to which all of its answer belongs; choose a classifier of "
            "several channels."
        )
    if count > PLAYERS:
        raise InputError(
            f"{classifier.name} gets {count} channels, and the exact values of more than {PLAYERS} take too long; "
            "explain it by another method."
        )
    if names and len(names) != count:
        raise InputError(f"{len(names)} names are given for {count} channels; give one for each.")
    told = classifier.facts.get("network_data_format", {}).get("inputs", {}).get("image", {}).get("channel_def", {})
    numbers = [f"channel {k}" for k in range(1, count + 1)]
    found = next(
        [str(name) for name in each]
        for each in (names, files if all(files) else (), list(dict(told).values()), numbers)
        if len(each) == count
    )
    return tuple(f"{name} ({k})" if found.count(name) > 1 else name for k, name in enumerate(found, start=1))
