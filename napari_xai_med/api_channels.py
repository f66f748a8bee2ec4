"""The verb of scripts about the channels of an image: `channel_contributions`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from napari_xai_med.api_inputs import AnyClassifier, AnyImage, AnyPreprocessing, classifier_of, entries_of, image_of
from napari_xai_med.channel_values import METHOD, ChannelContributions, contributions
from napari_xai_med.job import CancelToken, Job, Progress
from napari_xai_med.models.devices import AUTO
from napari_xai_med.request import ExplainRequest


def channel_contributions(
    image: AnyImage,
    classifier: AnyClassifier,
    *,
    targets: Sequence[str | int | None] | None = None,
    against: str | int | None = None,
    quantity: str = "logit",
    opposite: bool = False,
    names: Sequence[str] = (),
    plane: str = "axial",
    slice: int | None = None,
    progress: Progress | None = None,
    cancel: CancelToken | None = None,
    device: str = AUTO,
    preprocessing: AnyPreprocessing | None = None,
    **options: Any,
) -> ChannelContributions:
    """How much each channel contributes to each class: exact Shapley values. Research use only. Not for diagnosis.

    For images of several channels, such as T1, T2 and FLAIR. All 2^C coalitions of the C channels of the network's
    input are asked about; a channel that is not in a coalition is replaced by a baseline. The values of a class sum up
    to what the classifier says about the image above what it says about the baseline.

    Parameters
    ----------
    image, classifier, plane, slice, progress, cancel, device, preprocessing
        As for `napari_xai_med.predict`.
    targets : sequence of str, int or None, optional
        Classes, by name or index; None stands for the most probable one. All of them by default.
    against, quantity, opposite
        As for `napari_xai_med.explain`.
    names : sequence of str
        What to call the channels; by default as their files, or as the classifier's metadata calls them.
    **options
        ``baseline`` ("zero", "minimum", "mean", "blurred", "constant", "noise" or "image", behind the preprocessing),
        ``blur``, ``constant``, ``seed`` of the noise, ``baseline_image`` and ``batch_size``; see
        `napari_xai_med.channel_values.ChannelValues`.

    Returns
    -------
    ChannelContributions

    Raises
    ------
    InputError, ModelError, Cancelled
        As for `napari_xai_med.predict`; also for an unknown class or option, or fewer than 2 or more than 14 channels.
    """
    chosen = image_of(image)
    known = classifier_of(classifier, chosen, device)
    request = ExplainRequest(
        METHOD,
        options,
        against=against,
        quantity=quantity,
        opposite=opposite,
        plane=plane,
        slice=slice,
        preprocessing=entries_of(preprocessing, known),
    )
    return contributions(chosen, known, request, targets, Job(progress, cancel), names)
