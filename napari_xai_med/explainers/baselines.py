"""Images without what is to be explained, with which methods compare: baselines and sets of them.

All of them are in the network's input, behind the preprocessing: a zero is the mean of an image that was z-scored,
and something else behind a window of Hounsfield units.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from napari_xai_med.errors import InputError
from napari_xai_med.explainers.base import Explainer, Question
from napari_xai_med.explainers.noise import generator
from napari_xai_med.options import FILES, option

SEED = "Seed of all that is drawn."
BLUR = "Standard deviation of the Gaussian of the blurred baseline, in millimetres; in pixels for pictures."


def _zero(image: Tensor, width: Sequence[float]) -> Tensor:  # noqa: ARG001  # others need it
    return torch.zeros_like(image)


def _minimum(image: Tensor, width: Sequence[float]) -> Tensor:
    return image.flatten(1).amin(1).reshape(-1, *(1 for _ in width)).expand_as(image)


def _mean(image: Tensor, width: Sequence[float]) -> Tensor:
    return image.flatten(1).mean(1).reshape(-1, *(1 for _ in width)).expand_as(image)


def _blurred(image: Tensor, width: Sequence[float]) -> Tensor:
    # SciPy's, since MONAI's GaussianFilter takes what is outside for zeros and darkens the border.
    blurred = gaussian_filter(image.cpu().numpy(), (0, *width), mode="nearest")
    return torch.from_numpy(blurred).to(image)


_SIMPLE: dict[str, Callable[[Tensor, Sequence[float]], Tensor]] = {
    "zero": _zero,
    "minimum": _minimum,
    "mean": _mean,
    "blurred": _blurred,
}
BASELINES = (*_SIMPLE, "constant", "noise", "image")


def spacing_of(question: Question) -> tuple[float, ...]:
    """Millimetres between voxels along each spatial axis; 1 where nothing is known of them."""
    return question.spacing or (1.0,) * (question.inputs.ndim - 2)


def simple_baselines(question: Question, names: Sequence[str], width: float) -> Tensor:
    """Baselines that are made of the image itself.

    Parameters
    ----------
    question : Question
    names : sequence of {"zero", "minimum", "mean", "blurred"}
        Zero; each channel's minimum or mean everywhere; the image behind a Gaussian.
    width : float
        Standard deviation of the Gaussian in millimetres.

    Returns
    -------
    Tensor, shape (N, len(names), C, *spatial)
        For each row of the inputs; on the classifier's device.
    """
    widths = [width / step for step in spacing_of(question)]
    rows = [_joined([_SIMPLE[name](image, widths) for name in names]) for image in question.inputs]
    return _joined(rows).to(question.classifier.device)


def _joined(images: Sequence[Tensor]) -> Tensor:
    """All of them along a new first axis; one alone is not copied, since one number everywhere takes no memory."""
    return images[0][None] if len(images) == 1 else torch.stack(list(images))


@dataclass(frozen=True)
class OneBaseline:
    """Options of what compares with one image."""

    title: ClassVar[str]

    baseline: str = option(
        "zero",
        "What the image is compared with, behind the preprocessing: zero, each channel's minimum or mean, the image "
        "blurred, a constant, noise with each channel's mean and standard deviation, or another image.",
        choices=BASELINES,
    )
    blur: float = option(8.0, BLUR, limits=(0.0, None))
    constant: float = option(0.0, "The value of the constant baseline, behind the preprocessing.")
    seed: int = option(0, SEED, limits=(0, None))
    baseline_image: tuple[str, ...] = option((), "The image that the baseline image means.", choices=FILES)

    @property
    def images(self) -> tuple[str, ...]:
        """The baseline, if it is an image."""
        return self.baseline_image if self.baseline == "image" else ()

    def baselines(self, question: Question) -> Tensor:
        """The baseline of each row, shape (N, 1, C, *spatial).

        Raises
        ------
        InputError
            If an image is wanted and not exactly one is chosen.
        """
        if self.baseline != "image" and self.baseline_image:
            raise InputError(
                f"{self.title} has a baseline_image, but its baseline is {self.baseline}; choose the baseline image, "
                "or leave the file out."
            )
        inputs = question.inputs
        if self.baseline in _SIMPLE:
            return simple_baselines(question, (self.baseline,), self.blur)
        if self.baseline in ("constant", "noise"):
            rows = [self._constant(image) if self.baseline == "constant" else self._noise(image) for image in inputs]
            return torch.stack(rows)[:, None].to(question.classifier.device)
        if question.others is None or len(question.others) != 1:
            raise InputError(f"{self.title} compares with one image; choose a baseline_image, or another baseline.")
        return _for_all(question, question.others)

    def _constant(self, image: Tensor) -> Tensor:
        return torch.full_like(image, self.constant)

    def _noise(self, image: Tensor) -> Tensor:
        # Normal, and not uniform over the channel's range: one hot voxel, such as metal, sets the range of a whole
        # image, but hardly its mean and standard deviation.
        values = image.flatten(1)
        noise = torch.randn(values.shape, generator=generator(self.seed), dtype=image.dtype).to(image.device)
        noise = values.mean(1, keepdim=True) + noise * values.std(1, correction=0, keepdim=True)
        return noise.reshape(image.shape)


@dataclass(frozen=True)
class WithBaseline(OneBaseline, Explainer):
    """A method that compares with one image."""


@dataclass(frozen=True)
class WithBackground(Explainer):
    """A method that compares with a set of images."""

    background: tuple[str, ...] = option(
        (),
        "Images that the image is compared with; if none, the baselines zero, minimum, mean and blurred.",
        choices=FILES,
    )
    blur: float = option(8.0, BLUR, limits=(0.0, None))

    @property
    def images(self) -> tuple[str, ...]:
        """The background."""
        return self.background

    def backgrounds(self, question: Question) -> Tensor:
        """The background of each row, shape (N, K, C, *spatial)."""
        if question.others is None:
            return simple_baselines(question, tuple(_SIMPLE), self.blur)
        return _for_all(question, question.others)


def _for_all(question: Question, others: Tensor) -> Tensor:
    """Images, (K, C, *spatial), as those of every row."""
    same = others.to(question.inputs.dtype).to(question.classifier.device)
    return same.expand(len(question.inputs), *same.shape)
