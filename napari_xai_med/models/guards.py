"""Doubts about an input: a plain warning instead of a confident wrong answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from napari_xai_med.image import Image
from napari_xai_med.models.classifier import Classifier, NetworkInput
from napari_xai_med.models.metadata import limits_in
from napari_xai_med.preprocessing.base import plain_name

_TOLERANCE = 0.05
"""Share of the stated range by which an image's spacing or an input's values may leave it."""

_LIKE_AIR = -900
"""Hounsfield units that hardly another modality's values reach; air is at -1000."""

_UP_TO_FAT = -30
"""Hounsfield units that fat, lung and air lie below, of which even a part of a body nearly always holds some."""

_FEW = 1e-3
"""Share of the voxels that resampling or a stray value may bring below a limit."""


def doubts(classifier: Classifier, image: Image, network_input: NetworkInput) -> tuple[str, ...]:
    """What does not fit between an image and what the bundle says that its network takes.

    Parameters
    ----------
    classifier : Classifier
        Its facts may state ``modality``, ``format`` ("hounsfield"), ``value_range`` of the network's input and,
        under the key ``napari_xai_med``, ``spacing``: the smallest and largest millimetres between voxels of images.
    image : Image
    network_input : NetworkInput
        Made from the image.

    Returns
    -------
    tuple of str
        A sentence for each doubt.
    """
    stated = stated_input(classifier)
    own = classifier.facts.get("napari_xai_med") or {}
    sentences = (
        *classifier.network_facts.notices,
        _about_units(classifier, image, str(stated.get("format")).lower(), str(stated.get("modality") or "n/a")),
        _about_spacing(classifier, image, limits_in(own, "spacing")),
        _about_channels(image, network_input, stated.get("channel_def")),
        _about_values(classifier, image, network_input, input_range(classifier)),
    )
    return tuple(sentence for sentence in sentences if sentence)


def stated_input(classifier: Classifier) -> dict[str, Any]:
    """What the bundle's metadata says about the network's input."""
    inputs = (classifier.facts.get("network_data_format") or {}).get("inputs") or {}
    stated: dict[str, Any] = inputs.get("image") or next(iter(inputs.values()), None) or {}
    return stated


def input_range(classifier: Classifier) -> list[float] | None:
    """The range of the network's input; None if there is none, or what is stated is that of the raw image."""
    limits = limits_in(stated_input(classifier), "value_range")
    targets = (step.config().get("_target_") for step in classifier.steps or ())
    # About zero after this step, so that a range without negative values is of what is before it.
    centred = any(plain_name(str(target)) == "NormalizeIntensity" for target in targets)
    return None if limits is not None and limits[0] >= 0 and centred else limits


def _about_units(classifier: Classifier, image: Image, units: str, modality: str) -> str:
    low = float(image.data.min())
    if units == "hounsfield" and float((image.data < _UP_TO_FAT).mean()) < _FEW:
        return (
            f"{image.name} has hardly a value below {_UP_TO_FAT}, but {classifier.name} takes CT in Hounsfield units, "
            "where air is -1000 and fat about -100: do not trust the answer."
        )
    if modality.upper() not in ("N/A", "CT") and units != "hounsfield" and low <= _LIKE_AIR:
        return (
            f"{image.name} has values down to {low:g}, like CT in Hounsfield units, but {classifier.name} takes "
            f"{modality}: do not trust the answer."
        )
    return ""


def _about_spacing(classifier: Classifier, image: Image, limits: list[float] | None) -> str:
    if limits is None or image.is_bare:
        return ""
    low, high = min(image.grid.spacing), max(image.grid.spacing)
    if low >= limits[0] * (1 - _TOLERANCE) and high <= limits[1] * (1 + _TOLERANCE):
        return ""
    return (
        f"{image.name} has {low:.2g} to {high:.2g} mm between voxels, but {classifier.name} is meant for "
        f"{limits[0]:g} to {limits[1]:g} mm."
    )


def _about_channels(image: Image, network_input: NetworkInput, stated: Any) -> str:
    """A channel of one value, which is what a missing or empty image of several becomes."""
    names: Mapping[str, Any] = stated if isinstance(stated, Mapping) else {}
    channels = network_input.tensor[0].flatten(1)
    lows, highs = channels.amin(1).tolist(), channels.amax(1).tolist()
    if min(lows) == max(highs):
        return f"The network sees the value {lows[0]:g} everywhere in {image.name}: do not trust the answer."
    told = [
        f"{low:g} everywhere in channel {k + 1} ({names.get(str(k)) or 'unnamed'})"
        for k, (low, high) in enumerate(zip(lows, highs, strict=True))
        if low == high
    ]
    if not told:
        return ""
    return f"The network sees the value {' and '.join(told)} of {image.name}: do not trust the answer."


def _about_values(classifier: Classifier, image: Image, network_input: NetworkInput, limits: list[float] | None) -> str:
    low, high = float(network_input.tensor.min()), float(network_input.tensor.max())
    slack = _TOLERANCE * (limits[1] - limits[0]) if limits else 0.0
    if limits is None or (low >= limits[0] - slack and high <= limits[1] + slack):
        return ""
    return (
        f"The network sees values from {low:.3g} to {high:.3g} in {image.name}, but {classifier.name} is meant for "
        f"{limits[0]:g} to {limits[1]:g}: do not trust the answer."
    )
