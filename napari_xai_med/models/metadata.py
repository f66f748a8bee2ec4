"""What a bundle's metadata.json says about its classifier, every value checked."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from napari_xai_med.errors import ModelError
from napari_xai_med.models.head import Head
from napari_xai_med.models.sliding_window import SlidingWindow
from napari_xai_med.preprocessing.base import KEY

_MOST_CLASSES = 100_000
_COUNT = 'a whole number above 0 or "*" for any'


@dataclass(frozen=True)
class Metadata:
    """What is known of a classifier beside its network and preprocessing.

    Parameters
    ----------
    name : str
    class_names : tuple of str
    head : Head
    spatial_dims : int
        2 or 3.
    channels : int
        Of the image; 0 for any.
    output : str or int, optional
        Which of several outputs the logits are.
    windows : SlidingWindow, optional
    """

    name: str
    class_names: tuple[str, ...]
    head: Head
    spatial_dims: int
    channels: int
    output: str | int | None
    windows: SlidingWindow | None


class _Reader:
    """Takes values of the right kind out of nested dicts, with their place for sentences."""

    def __init__(self, name: str) -> None:
        self._name = name

    def wrong(self, place: str, wanted: str) -> ModelError:
        return ModelError(f"{self._name} can't be used as its metadata.json says: {place} has to be {wanted}.")

    def group(self, content: dict[str, Any], key: str, place: str = "") -> dict[str, Any]:
        return self.value(content, key, lambda v: isinstance(v, dict), "an object", {}, place)

    def value(
        self, content: dict[str, Any], key: str, fits: Callable[[Any], bool], wanted: str, default: Any, place: str = ""
    ) -> Any:
        """A value; the default if it is not there or null."""
        found = content.get(key)
        if found is None:
            return default
        if not fits(found):
            raise self.wrong(f"{place}{key}", wanted)
        return found


def read_metadata(content: dict[str, Any], name: str) -> Metadata:
    """Read a metadata.json.

    Parameters
    ----------
    content : dict
    name : str
        Of the bundle, for sentences.

    Raises
    ------
    ModelError
        If something is missing, or of a kind that it can't be.
    """
    reader = _Reader(name)
    formats = reader.group(content, "network_data_format")
    own = reader.group(content, "napari_xai_med")
    image = _chosen(reader, reader.group(formats, "inputs", "network_data_format."), KEY)
    if image is None:
        raise ModelError(f"{name} does not say what its network takes; add network_data_format to metadata.json.")
    class_names, head = names_and_head(content, name)
    any_number = image.get("num_channels") == "*"
    channels = 0 if any_number else reader.value(image, "num_channels", _is_count, _COUNT, 1, "inputs.image.")
    return Metadata(
        name=str(reader.value(content, "name", _is_text, "a text", "") or name),
        class_names=class_names,
        head=head,
        spatial_dims=_spatial_dims(reader, image, own),
        channels=reader.value(
            own, "image_channels", lambda v: _is_count(v) or v == 0, "a whole number", channels, "napari_xai_med."
        ),
        output=reader.value(own, "output", lambda v: _is_text(v) or _is_int(v), "a text or a number", None),
        windows=_windows(own, name),
    )


def names_and_head(content: dict[str, Any], name: str) -> tuple[tuple[str, ...], Head]:
    """The class names, and what the outputs mean; without a statement one output is one logit, more exclude each other.

    Raises
    ------
    ModelError
        If there are no class names, or there is no such head.
    """
    reader = _Reader(name)
    formats = reader.group(content, "network_data_format")
    output = _chosen(reader, reader.group(formats, "outputs", "network_data_format."), "pred") or {}
    stated = reader.group(output, "channel_def", "outputs.pred.")
    if not stated:
        raise ModelError(f"{name} has no class names; add outputs.pred.channel_def to metadata.json.")
    numbers = [str(key) for key in stated]
    plain = len(numbers) <= _MOST_CLASSES and all(n.isdecimal() and len(n) < 8 for n in numbers)
    if not plain or any(isinstance(value, dict | list) for value in stated.values()):
        raise reader.wrong("outputs.pred.channel_def", "a class name for each number of an output")
    names = tuple(str(stated[key]) for key in sorted(stated, key=int))
    told = reader.value(reader.group(content, "napari_xai_med"), "head", _is_text, "a text", None, "napari_xai_med.")
    if told is None:
        head = Head.ONE_LOGIT if len(names) == 1 else Head.SOFTMAX
    elif told in list(Head):
        head = Head(told)
    else:
        raise ModelError(f"There is no head {told!r}; choose one of {', '.join(Head)}.")
    return ((f"not {names[0]}", names[0]) if len(names) == 1 and head is Head.ONE_LOGIT else names), head


def _chosen(reader: _Reader, group: dict[str, Any], key: str) -> dict[str, Any] | None:
    """The entry of this name, else the first; None if there is none."""
    if key not in group:
        key = next(iter(group), key)
    return reader.group(group, key) if group else None


def _spatial_dims(reader: _Reader, image: dict[str, Any], own: dict[str, Any]) -> int:
    # MONAI's bundles also have texts such as "16*n" as lengths.
    shape = reader.value(image, "spatial_shape", lambda v: isinstance(v, list), "a list", [], "inputs.image.")
    stated = reader.value(own, "spatial_dims", lambda v: v in (2, 3), "2 or 3", None, "napari_xai_med.")
    dims = int(stated or len(shape) or 3)
    if dims not in (2, 3):
        raise reader.wrong("inputs.image.spatial_shape", "a list of 2 or 3 lengths")
    return dims


def limits_in(group: dict[str, Any], key: str) -> list[float] | None:
    """The smallest and largest number that an image is compared with; None for what is no range.

    Published bundles write all sorts of things where they do not know it, and are used without the comparison.
    """
    found = group.get(key)
    return found if _is_range(found) else None


def _windows(own: dict[str, Any], name: str) -> SlidingWindow | None:
    stated = own.get("sliding_window")
    try:
        return None if stated is None else SlidingWindow.from_dict(stated)
    except ModelError as error:
        raise ModelError(f"{name} can't be used as its metadata.json says: {error}") from error


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return _is_int(value) and 0 < value < 2**31


def _is_range(value: Any) -> bool:
    numbers = isinstance(value, list) and all(_is_int(n) or isinstance(n, float) for n in value)
    return numbers and len(value) == 2 and all(map(math.isfinite, value)) and value[0] <= value[1]
