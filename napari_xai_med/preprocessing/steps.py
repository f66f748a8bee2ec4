"""The steps that can be chosen in the form, each one transform."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from napari_xai_med.options import option
from napari_xai_med.preprocessing.base import Step, register

_OWN = "napari_xai_med.preprocessing.transforms."

_LINEAR: Mapping[str, Mapping[str, str]] = {"mode": {"bilinear": "linear", "trilinear": "linear"}}
"""MONAI takes each of these words as linear along all axes, whatever their number."""


def _not_rising(low: float, high: float) -> str:
    return "" if low < high else f"can't go from {low:g} to {high:g}; give a smallest value below the largest"


def _flat(low: float, high: float) -> str:
    return "" if low != high else f"can't make {low:g} of all values; give two different ones"


def _no_size(size: tuple[int, ...]) -> str:
    if 1 <= len(size) <= 3 and all(n > 0 or n == -1 for n in size):
        return ""
    return f"can't make images of size {size}; give a number of voxels above 0 for each axis, or -1 to keep one"


@register
@dataclass(frozen=True)
class Orientation(Step):
    """Turn the axes to a fixed direction in the patient."""

    name: ClassVar[str] = "orientation"
    title: ClassVar[str] = "Orientation"
    target: ClassVar[str] = "Orientationd"
    # MONAI reads the image's own frame only if told that there are no other labels.
    fixed: ClassVar[Mapping[str, Any]] = {"labels": None}

    axcodes: str = option("RAS", "Direction of each axis: R or L, A or P, S or I, such as RAS or LPS.")

    def problem(self) -> str:
        """See `Step`."""
        axes = [pair for letter in self.axcodes for pair in ("RL", "AP", "SI") if letter in pair]
        if len(axes) == len(self.axcodes) == len(set(axes)) and len(axes) in (2, 3):
            return ""
        return f"can't turn axes to {self.axcodes!r}; give a letter of each of R or L, A or P, S or I, such as RAS"


@register
@dataclass(frozen=True)
class Spacing(Step):
    """Resample to a fixed distance between voxels."""

    name: ClassVar[str] = "spacing"
    title: ClassVar[str] = "Resample to spacing"
    target: ClassVar[str] = "Spacingd"
    alike: ClassVar[Mapping[str, Mapping[str, str]]] = _LINEAR

    pixdim: tuple[float, ...] = option((1.0, 1.0, 1.0), "Millimetres between voxels along each axis.", limits=(0, None))
    mode: str = option("linear", "Interpolation.", choices=("linear", "nearest"))

    def problem(self) -> str:
        """See `Step`."""
        good = self.pixdim and all(self.pixdim)
        return "" if good else f"can't have {self.pixdim} mm between voxels; give numbers above 0"


@register
@dataclass(frozen=True)
class Resize(Step):
    """Resample to a fixed number of voxels."""

    name: ClassVar[str] = "resize"
    title: ClassVar[str] = "Resize"
    target: ClassVar[str] = "Resized"
    ignored: ClassVar[Mapping[str, tuple[Any, ...]]] = {"align_corners": (None, False)}
    alike: ClassVar[Mapping[str, Mapping[str, str]]] = _LINEAR

    spatial_size: tuple[int, ...] = option((64, 64, 64), "Voxels along each axis; -1 keeps one as it is.")
    mode: str = option(
        "linear",
        "Interpolation; area takes the mean of what becomes one voxel.",
        # Neither cubic, which MONAI has for pictures only, nor PyTorch's own nearest, which shifts the image.
        choices=("linear", "nearest-exact", "area"),
    )
    anti_aliasing: bool = option(False, "Smooth before making the image smaller.")

    def problem(self) -> str:
        """See `Step`."""
        return _no_size(self.spatial_size)


@register
@dataclass(frozen=True)
class PadOrCrop(Step):
    """Pad or cut at the sides to a fixed number of voxels, without resampling."""

    name: ClassVar[str] = "pad_or_crop"
    title: ClassVar[str] = "Pad or crop"
    target: ClassVar[str] = "ResizeWithPadOrCropd"

    spatial_size: tuple[int, ...] = option((64, 64, 64), "Voxels along each axis; -1 keeps one as it is.")
    value: float = option(0.0, "What the padding is filled with.")

    def problem(self) -> str:
        """See `Step`."""
        return _no_size(self.spatial_size)


@register
@dataclass(frozen=True)
class CropToBody(Step):
    """Cut to the box around the body, head or brain."""

    name: ClassVar[str] = "crop_to_body"
    title: ClassVar[str] = "Crop to body"
    target: ClassVar[str] = f"{_OWN}CropToBodyd"

    threshold: float = option(-500.0, "What is brighter is body; about -500 in CT.")
    smoothing: int = option(2, "How often neighbours are averaged before.", limits=(0, None))
    opening: int = option(2, "Erosions and dilations, which remove thin things.", limits=(0, None))
    margin: int = option(0, "Voxels around the box.", limits=(0, None))
    excludes_end: bool = option(False, "Leave out the last row, column and slice of the box.")


@register
@dataclass(frozen=True)
class Window(Step):
    """Map a range of values, such as a CT window, linearly to another."""

    name: ClassVar[str] = "window"
    title: ClassVar[str] = "Window"
    target: ClassVar[str] = "ScaleIntensityRanged"

    a_min: float = option(-1000.0, "Smallest value of the window; in CT in Hounsfield units.")
    a_max: float = option(400.0, "Largest value of the window.")
    b_min: float = option(0.0, "What the smallest value becomes.")
    b_max: float = option(1.0, "What the largest value becomes.")
    clip: bool = option(True, "Cut off what lies outside of the window.")

    def problem(self) -> str:
        """See `Step`."""
        return _not_rising(self.a_min, self.a_max) or _flat(self.b_min, self.b_max)


@register
@dataclass(frozen=True)
class Percentiles(Step):
    """Map the range between two percentiles of the image's values linearly to another."""

    name: ClassVar[str] = "percentiles"
    title: ClassVar[str] = "Percentile window"
    target: ClassVar[str] = "ScaleIntensityRangePercentilesd"

    lower: float = option(1.0, "Percentile that becomes the smallest value.", limits=(0, 100))
    upper: float = option(99.0, "Percentile that becomes the largest value.", limits=(0, 100))
    b_min: float = option(0.0, "What the lower percentile becomes.")
    b_max: float = option(1.0, "What the upper percentile becomes.")
    clip: bool = option(True, "Cut off what lies outside of the percentiles.")

    def problem(self) -> str:
        """See `Step`."""
        return _not_rising(self.lower, self.upper) or _flat(self.b_min, self.b_max)


@register
@dataclass(frozen=True)
class MinMax(Step):
    """Map the image's smallest and largest value to fixed ones."""

    name: ClassVar[str] = "minmax"
    title: ClassVar[str] = "Min-max"
    target: ClassVar[str] = "ScaleIntensityd"

    minv: float = option(0.0, "What the smallest value becomes.")
    maxv: float = option(1.0, "What the largest value becomes.")
    channel_wise: bool = option(False, "Each channel by itself.")

    def problem(self) -> str:
        """See `Step`."""
        return _flat(self.minv, self.maxv)


@register
@dataclass(frozen=True)
class ZScore(Step):
    """Subtract the image's mean and divide by its standard deviation."""

    name: ClassVar[str] = "zscore"
    title: ClassVar[str] = "Z-score"
    target: ClassVar[str] = "NormalizeIntensityd"

    nonzero: bool = option(False, "Of the values that are not 0 only, as is usual for brains without skull.")
    channel_wise: bool = option(False, "Each channel by itself.")


@register
@dataclass(frozen=True)
class Standardise(Step):
    """Subtract fixed numbers and divide by fixed ones, those of the training images."""

    name: ClassVar[str] = "standardise"
    title: ClassVar[str] = "Standardise"
    target: ClassVar[str] = "NormalizeIntensityd"
    fixed: ClassVar[Mapping[str, Any]] = {"channel_wise": True}

    subtrahend: tuple[float, ...] = option((0.485, 0.456, 0.406), "Mean of each channel; these are ImageNet's.")
    divisor: tuple[float, ...] = option((0.229, 0.224, 0.225), "Standard deviation of each channel.")

    def problem(self) -> str:
        """See `Step`."""
        if not all(self.divisor):
            return f"can't divide by {self.divisor}; give numbers that are not 0"
        if len(self.subtrahend) != len(self.divisor):
            return f"has {len(self.subtrahend)} means and {len(self.divisor)} deviations; give one of each a channel"
        return ""


@register
@dataclass(frozen=True)
class Equalise(Step):
    """Histogram equalisation: every value as often as any other."""

    name: ClassVar[str] = "equalise"
    title: ClassVar[str] = "Histogram equalisation"
    target: ClassVar[str] = "HistogramNormalized"

    num_bins: int = option(256, "Number of grey values that are told apart.", limits=(2, None))
    min: float = option(0.0, "Smallest value afterwards.")
    max: float = option(1.0, "Largest value afterwards.")

    def problem(self) -> str:
        """See `Step`."""
        return _not_rising(self.min, self.max)


@register
@dataclass(frozen=True)
class ToColours(Step):
    """Three channels: grey is repeated, for networks that were made for photographs."""

    name: ClassVar[str] = "to_rgb"
    title: ClassVar[str] = "To RGB"
    target: ClassVar[str] = f"{_OWN}ToColoursd"


@register
@dataclass(frozen=True)
class ToGrey(Step):
    """Colours to one channel."""

    name: ClassVar[str] = "to_grey"
    title: ClassVar[str] = "To grey"
    target: ClassVar[str] = f"{_OWN}ToGreyd"


@register
@dataclass(frozen=True)
class ReverseChannels(Step):
    """Turn the order of channels around."""

    name: ClassVar[str] = "reverse_channels"
    title: ClassVar[str] = "RGB to BGR"
    target: ClassVar[str] = f"{_OWN}ReverseChannelsd"


@register
@dataclass(frozen=True)
class RoundToBytes(Step):
    """Round to whole numbers from 0 to 255, as OpenCV and PIL do when they resize a picture."""

    name: ClassVar[str] = "round_to_bytes"
    title: ClassVar[str] = "Round to 0..255"
    target: ClassVar[str] = f"{_OWN}RoundToBytesd"


@register
@dataclass(frozen=True)
class Flip(Step):
    """Mirror along axes."""

    name: ClassVar[str] = "flip"
    title: ClassVar[str] = "Flip"
    target: ClassVar[str] = "Flipd"

    spatial_axis: tuple[int, ...] = option((0,), "Which axes, counted from 0.", limits=(0, 2))

    def problem(self) -> str:
        """See `Step`."""
        several = len(set(self.spatial_axis)) < len(self.spatial_axis)
        return f"can't mirror along {self.spatial_axis}; name each axis once" if several else ""
