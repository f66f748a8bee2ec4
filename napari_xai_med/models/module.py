"""A classifier from a network that a script holds already."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, Any

import torch

from napari_xai_med.errors import ModelError
from napari_xai_med.models.classifier import Classifier
from napari_xai_med.models.head import Head
from napari_xai_med.models.run import untouched
from napari_xai_med.models.sliding_window import SlidingWindow

if TYPE_CHECKING:
    from torch import Tensor, nn


def classifier_from_module(
    network: nn.Module,
    class_names: Sequence[str] = (),
    *,
    input_shape: tuple[int, ...] = (),
    preprocessing: Callable[[Tensor], Tensor] | None = None,
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
        (C, *spatial) of an image as the network gets it.
    preprocessing : callable, optional
        A MONAI transform, or several in a `Compose`, of a channel-first image; nothing by default.
    head : Head or str, optional
        Of the names, ``"one_logit"`` for one, else ``"softmax"``, if None.
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
        If the network's first layers do not tell how many axes and channels it takes, or the sliding window
        can't be.
    """
    while isinstance(inner := getattr(network, "module", getattr(network, "_orig_mod", None)), torch.nn.Module):
        # What data parallelism and compilation wrap: hooks and layer names belong to it.
        network = inner
    names = tuple(class_names) or _numbered(network, input_shape, output)
    try:
        kind = Head(head) if head else (Head.ONE_LOGIT if len(names) == 1 else Head.SOFTMAX)
    except ValueError as error:
        raise ModelError(f"There is no head {head!r}; choose one of {', '.join(Head)}.") from error
    if kind is Head.ONE_LOGIT and len(names) == 1:
        names = (f"not {names[0]}", names[0])
    dims, channels = _input_of(network)
    if sliding_window is not None and not isinstance(sliding_window, SlidingWindow):
        sliding_window = SlidingWindow.from_dict(sliding_window)
    return Classifier(
        name=name or type(network).__name__,
        network=network,
        preprocessing=preprocessing or (lambda image: image),
        class_names=names,
        head=kind,
        spatial_dims=dims,
        channels=channels,
        sha256=_hash(network),
        source="",
        output=output,
        windows=sliding_window,
    )


def _input_of(network: nn.Module) -> tuple[int, int]:
    """Spatial axes and channels that the first convolution takes."""
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Conv3d):
            return (2 if isinstance(module, torch.nn.Conv2d) else 3), module.in_channels
    raise ModelError(f"{type(network).__name__} has no convolution; pack it as a bundle that says what it takes.")


def _numbered(network: nn.Module, input_shape: tuple[int, ...], output: str | int | None) -> tuple[str, ...]:
    """Names for as many classes as the network has outputs, which only running it tells."""
    parameter = next(network.parameters(), torch.empty(0))
    with untouched(network, prod(input_shape)), torch.no_grad():
        try:
            answer = network(parameter.new_zeros((1, *input_shape)))
            logits = (answer if output is None else answer[output]).flatten(1)
        except (RuntimeError, TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
            raise ModelError(
                f"{type(network).__name__} gives no row of numbers for an image of shape {input_shape}; "
                "wrap it with classifier_from_module, which takes class names, preprocessing and output."
            ) from error
    count = logits.shape[1]
    return ("class 1",) if count == 1 else tuple(f"class {k}" for k in range(count))


def _hash(network: nn.Module) -> str:
    digest = hashlib.sha256(repr(network).encode())
    for key, value in network.state_dict().items():
        digest.update(key.encode() + value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
