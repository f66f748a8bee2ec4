"""An input that a network finds most typical of a class: a drawing by the network, and no patient."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_xai_med.errors import InputError, ModelError
from napari_xai_med.grid import Float, Grid
from napari_xai_med.image import Image
from napari_xai_med.job import Job
from napari_xai_med.maximisation import Maximisation
from napari_xai_med.models.classifier import Classifier
from napari_xai_med.models.formats.base import Gives
from napari_xai_med.models.guards import input_range, stated_input
from napari_xai_med.models.head import Answer
from napari_xai_med.models.run import forward
from napari_xai_med.models.target import Quantity, Target
from napari_xai_med.options import check_options
from napari_xai_med.pipeline import in_world
from napari_xai_med.request import ExplainRequest
from napari_xai_med.section import Section, as_asked, where_it_can

NO_PATIENT = "This is a drawing by the network of what it takes for {}, and no patient."

_NEAR = 0.1
"""Standard deviation of the noise that a drawing starts from, as a share of the input's range."""

_TINY = 1e-8
"""Keeps the gradient of a length finite where the length is zero."""


@dataclass(frozen=True)
class Drawing:
    """An input that a network finds most typical of a class. Research use only. Not for diagnosis.

    Parameters
    ----------
    image : Image
        On the grid of the network's input, in the world of the image if one was given; else with voxels of 1 mm.
        Its values are those that the network gets, behind the preprocessing.
    class_name : str
    score_before, score_after : float
        The class's logit for the start and for the drawing.
    probabilities : dict of str to float
        Of all classes, for the drawing.
    facts : dict
        What was done, as plain values.
    notices : tuple of str
        Sentences that the user should read.
    """

    image: Image
    class_name: str
    score_before: float
    score_after: float
    probabilities: dict[str, float]
    facts: dict[str, Any]
    notices: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """What everyone who sees it has to know."""
        return NO_PATIENT.format(self.class_name)


@dataclass(frozen=True)
class _Start:
    """The network's input that is changed, and where it lies: in an image's world, or nowhere in particular."""

    values: Tensor
    image: Image | None = None
    section: Section | None = None
    to_image: Float | None = None
    axes: str = "RAS"

    def drawn(self, values: NDArray[np.float32], name: str) -> Image:
        """What became of it, shape (C, *spatial)."""
        if self.image is not None and self.section is not None and self.to_image is not None:
            return in_world(self.image, self.section, values, self.to_image, name)
        if values.ndim == 3:
            return replace(Image.from_array(values, channel_axis=0), name=name)
        return Image(values, Grid(values.shape[1:], _affine(self.axes)), name)


def draw(
    classifier: Classifier,
    target: str | int,
    options: Maximisation,
    job: Job,
    *,
    shape: tuple[int, ...] = (),
    image: Image | None = None,
    request: ExplainRequest | None = None,
) -> Drawing:
    """Change an input until the network finds it most typical of a class; see `napari_xai_med.maximise`.

    The input x maximises ``score(x) - total_variation * TV(z) - norm_weight * mean(|z|^p)``, where ``z = (x - c) / w``
    with middle c and width w of the input's range where the classifier's metadata states one, else ``z = x``. TV is
    the mean over voxels of the length of the difference to the next voxels along all axes.

    Parameters
    ----------
    classifier : Classifier
    target : str or int
        The class.
    options : Maximisation
    job : Job
    shape : tuple of int
        (C, *spatial) of the network's input; that of the image or of the metadata by default.
    image : Image, optional
        To start from, and on whose place to draw.
    request : ExplainRequest, optional
        Names the slice, for a 2D classifier and a 3D image, and the preprocessing.

    Raises
    ------
    InputError
        If there is no such class, an option can't be, or nothing tells the input's shape.
    ModelError
        If the classifier gives no gradients, or one that is not finite.

    References
    ----------
    Erhan et al. 2009, Visualizing higher-layer features of a deep network, technical report 1341, Universite de
    Montreal. Simonyan et al. 2014, Deep inside convolutional networks, arXiv:1312.6034. Mahendran and Vedaldi 2016,
    Visualizing deep convolutional neural networks using natural pre-images, doi:10.1007/s11263-016-0911-8.
    """
    check_options(options, "A drawing")
    request = request or ExplainRequest()
    classifier = as_asked(classifier, request)
    if Gives.GRADIENTS not in classifier.gives:
        raise ModelError(f"The format of {classifier.name} gives no gradients; choose another classifier.")
    index = classifier.find_class(target)
    Target(index, quantity=Quantity(options.quantity)).check(classifier.head)
    # Also where the caller has switched gradients off.
    with torch.inference_mode(False), torch.enable_grad():
        start = _start(classifier, options, shape, image, request)
        found, notices = where_it_can(classifier, lambda chosen: _climb(chosen, index, options, start.values, job))
    values, first, answer = found
    job.step(1.0, "Done")
    name = classifier.class_names[index]
    return Drawing(
        image=start.drawn(values, f"{classifier.name}: drawing of {name}"),
        class_name=name,
        score_before=first,
        score_after=float(answer.scores[0, index]),
        probabilities=dict(zip(classifier.class_names, map(float, answer.probabilities[0]), strict=True)),
        facts={
            **asdict(options),
            "class": name,
            "value_range": input_range(classifier),
            "model": {"name": classifier.name, "source": classifier.source, "sha256": classifier.sha256},
            "image": "" if image is None else image.source or image.name,
        },
        notices=notices,
    )


def _climb(
    classifier: Classifier, index: int, options: Maximisation, start: Tensor, job: Job
) -> tuple[NDArray[np.float32], float, Answer]:
    """The input behind the last step, its class's score before the first one, and the answer about it."""
    limits = input_range(classifier)
    middle, width = _scale(limits)
    bound = 0.5 if options.clamp and limits else torch.inf
    free = ((start.to(classifier.device) - middle) / width).clamp(-bound, bound).requires_grad_()
    optimiser = torch.optim.Adam([free], options.learning_rate)
    aim, first = Target(index, quantity=Quantity(options.quantity)), 0.0
    for k in range(options.steps):
        job.step(k / options.steps, f"Drawing, step {k + 1} of {options.steps}")
        answer = forward(classifier, free * width + middle, Job(cancel=job.cancel))
        (free.grad,) = torch.autograd.grad(cost(free, options) - aim.of(answer)[0], free)
        if not bool(free.grad.isfinite().all()):
            raise ModelError(f"The gradient of {classifier.name} is not finite at step {k + 1}; start in another way.")
        first = float(answer.scores[0, index].detach()) if k == 0 else first
        optimiser.step()
        with torch.no_grad():
            free.clamp_(-bound, bound)
    values = free.detach() * width + middle
    with torch.no_grad():
        answer = forward(classifier, values, Job(cancel=job.cancel))
    return values[0].float().cpu().numpy(), first, answer


def cost(values: Tensor, options: Maximisation) -> Tensor:
    """What keeps a drawing smooth and small, of values of shape (1, C, *spatial) in units of the input's range."""
    squares = torch.zeros_like(values)
    for axis in range(2, values.ndim):
        # The last voxel has no next one.
        squares = squares + values.diff(dim=axis, append=values.narrow(axis, -1, 1)).square()
    variation = (squares + _TINY).sqrt().mean()
    return options.total_variation * variation + options.norm_weight * values.abs().pow(options.norm_power).mean()


def _start(
    classifier: Classifier, options: Maximisation, shape: tuple[int, ...], image: Image | None, request: ExplainRequest
) -> _Start:
    if options.start == "image" and image is None:
        raise InputError("Give an image to start from, or start from noise or zero.")
    found = _Start(torch.empty(0))
    if image is not None and not shape:
        section = Section.choose(image, classifier, request)
        seen = classifier.prepare(section.image)
        found, shape = _Start(seen.tensor, image, section, seen.to_image), tuple(seen.tensor.shape[1:])
    if classifier.windows is not None and shape[1:] != tuple(classifier.windows.roi_size):
        # What it draws is one window.
        channels = shape[0] if shape else _channels(classifier)
        found, shape = _Start(torch.empty(0)), (channels, *classifier.windows.roi_size)
    shape = shape or _stated_shape(classifier)
    if len(shape) != classifier.spatial_dims + 1 or min(shape) < 1:
        raise InputError(
            f"{classifier.name} can't draw in the shape {shape}; give channels and {classifier.spatial_dims} sizes."
        )
    if options.start == "image":
        if not found.values.numel():
            raise InputError(f"The image does not become an input of the shape {shape}; start from noise or zero.")
        return found
    middle, width = _scale(input_range(classifier))
    values = torch.full((1, *shape), middle)
    if options.start == "noise":
        values += _NEAR * width * torch.randn(values.shape, generator=torch.Generator().manual_seed(options.seed))
    return replace(found, values=values, axes=_axes(classifier))


def _axes(classifier: Classifier) -> str:
    """Where the axes of the network's input run to: by its preprocessing, else as in most NIfTI files."""
    stated = [step.config().get("axcodes") for step in classifier.steps or ()]
    return next((codes for codes in reversed(stated) if isinstance(codes, str)), "RAS")


def _affine(axes: str) -> Float:
    """Voxels of 1 mm whose axes run to these sides of the patient."""
    affine = np.zeros((4, 4))
    affine[3, 3] = 1
    for k, letter in enumerate(axes):
        affine["RL AP SI".index(letter) // 3, k] = 1 if letter in "RAS" else -1
    return affine


def _scale(limits: list[float] | None) -> tuple[float, float]:
    """Middle and width of the input's range; 0 and 1 where it is not known, or a single number."""
    if limits is None or limits[0] == limits[1]:
        return 0.0, 1.0
    return (limits[0] + limits[1]) / 2, limits[1] - limits[0]


def _channels(classifier: Classifier) -> int:
    stated = stated_input(classifier).get("num_channels")
    return stated if isinstance(stated, int) else classifier.channels or 1


def _stated_shape(classifier: Classifier) -> tuple[int, ...]:
    """(C, *spatial) of the network's input, by its metadata or its file."""
    stated = stated_input(classifier).get("spatial_shape")
    sizes = stated if isinstance(stated, list) else classifier.network_facts.input_shape[1:]
    if len(sizes) != classifier.spatial_dims or not all(isinstance(n, int) and n > 0 for n in sizes):
        raise InputError(f"{classifier.name} does not say how large its input is; give a shape, or an image.")
    return (_channels(classifier), *sizes)
