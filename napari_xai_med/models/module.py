"""A classifier from a network that a script holds already."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from napari_xai_med.errors import InputError, ModelError
from napari_xai_med.job import Job
from napari_xai_med.models.classifier import Classifier
from napari_xai_med.models.head import Head
from napari_xai_med.models.run import ended
from napari_xai_med.models.sliding_window import SlidingWindow
from napari_xai_med.preprocessing.base import Step, applied

if TYPE_CHECKING:
    from torch import Tensor, nn


def classifier_from_module(
    network: nn.Module,
    class_names: Sequence[str] = (),
    *,
    input_shape: tuple[int, ...] = (),
    preprocessing: Callable[[Tensor], Tensor] | Sequence[Step] | None = None,
    head: Head | str | None = None,
    output: str | int | None = None,
    name: str = "",
    sliding_window: SlidingWindow | Mapping[str, Any] | None = None,
) -> Classifier:
    """A classifier from a PyTorch network, its class names and its preprocessing.

    Parameters
    ----------
    network : torch.nn.Module
        It takes (N, C, *spatial) and gives logits. It is used as it is, and left as it came.
    class_names : sequence of str
        In the order of the network's outputs; for one logit one name or two. Without names, `input_shape`
        is needed, and the classes are called by number.
    input_shape : tuple of int
        (C, *spatial) of an image as the network gets it. With it, the network is run once to see what it ends in.
    preprocessing : callable or sequence of Step, optional
        A MONAI transform, or several in a `Compose`, of a channel-first image or of a dictionary with the key
        "image"; or steps of `napari_xai_med.preprocessing`, which can be seen and changed. Nothing by default.
    head : Head or str, optional
        If None, ``"one_logit"`` for one name or output, ``"multi_label"`` for a network that is seen to end in
        sigmoid, else ``"softmax"``.
    output : str or int, optional
        Which of several outputs the logits are.
    name : str
        How to call it; the class's name by default.
    sliding_window : SlidingWindow or mapping, optional
        For a network that is meant for patches: how it looks at larger images by windows. `input_shape` is
        then that of a window.

    Returns
    -------
    Classifier

    Raises
    ------
    ModelError
        If the network's first layers do not tell how many axes and channels it takes, two classes have the same
        name, or the sliding window can't be.
    """
    network = _unwrapped(network)
    kind = _head(head)
    dims, channels = _input_of(network)
    if sliding_window is not None and not isinstance(sliding_window, SlidingWindow):
        sliding_window = SlidingWindow.from_dict(sliding_window)
    classifier = Classifier(
        name=name or type(network).__name__,
        network=network,
        preprocessing=lambda image: image,
        class_names=tuple(class_names),
        head=kind or Head.of(len(class_names)),
        spatial_dims=dims,
        channels=channels,
        sha256=_hash(network),
        source="",
        output=output,
        windows=sliding_window,
    )
    classifier = _behind(classifier, preprocessing)
    if not class_names or (kind is None and input_shape):
        classifier = _asked(classifier, input_shape, kind)
    names = classifier.class_names
    alone = classifier.head is Head.ONE_LOGIT and len(names) == 1
    return replace(classifier, class_names=(f"not {names[0]}", names[0])) if alone else classifier


def _unwrapped(network: nn.Module) -> nn.Module:
    """What data parallelism and compilation wrap: hooks and layer names belong to it."""
    while isinstance(inner := getattr(network, "module", getattr(network, "_orig_mod", None)), torch.nn.Module):
        network = inner
    return network


def _behind(classifier: Classifier, preprocessing: Any) -> Classifier:
    """The classifier behind a preprocessing."""
    from monai.transforms import Compose, MapTransform

    if preprocessing is None:
        return classifier
    if not callable(preprocessing):
        if not isinstance(preprocessing, Sequence) or not all(isinstance(step, Step) for step in preprocessing):
            raise InputError("This is no preprocessing; give a MONAI transform, a Compose of several, or steps.")
        return classifier.with_steps(preprocessing)
    parts = preprocessing.flatten().transforms if isinstance(preprocessing, Compose) else [preprocessing]
    of_dictionaries = any(isinstance(part, MapTransform) for part in parts)
    return replace(
        classifier, preprocessing=applied(preprocessing, classifier.name) if of_dictionaries else preprocessing
    )


def _head(head: Head | str | None) -> Head | None:
    try:
        return Head(head) if head else None
    except ValueError as error:
        raise ModelError(f"There is no head {head!r}; choose one of {', '.join(Head)}.") from error


def _input_of(network: nn.Module) -> tuple[int, int]:
    """Spatial axes and channels that the first convolution takes."""
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Conv3d):
            return (2 if isinstance(module, torch.nn.Conv2d) else 3), module.in_channels
    raise ModelError(f"{type(network).__name__} has no convolution; pack it as a bundle that says what it takes.")


def _asked(classifier: Classifier, input_shape: tuple[int, ...], head: Head | None) -> Classifier:
    """The classifier with names for its outputs if it has none, and the head that fits them; running it tells both."""
    parameter = next(classifier.network.parameters(), torch.empty(0))
    name = type(classifier.network).__name__
    with torch.no_grad():
        try:
            end = ended(classifier, parameter.new_zeros((1, *input_shape)), Job())
        except (ModelError, RuntimeError, AttributeError) as error:
            raise ModelError(
                f"{name} gives no row of numbers for an image of shape {input_shape}; "
                "wrap it with classifier_from_module, which takes class names, preprocessing and output."
            ) from error
    count = end.output.flatten(1).shape[1]
    numbered = ("class 1",) if count == 1 else tuple(f"class {k}" for k in range(count))
    return replace(classifier, class_names=classifier.class_names or numbered, head=head or Head.of(count, end.ending))


def _hash(network: nn.Module) -> str:
    digest = hashlib.sha256(repr(network).encode())
    for key, value in network.state_dict().items():
        digest.update(key.encode() + value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
