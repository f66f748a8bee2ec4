"""How many images are computed at once."""

from __future__ import annotations

from math import prod

from napari_xai_med.explainers.base import Question
from napari_xai_med.models.devices import free_bytes
from napari_xai_med.options import option

_SHARE = 0.5
"""Of the free memory that a batch may take."""
_MOST = 64
_MOST_ON_CPU = 8
"""A processor is not faster with more, which do not fit its caches."""
_UNKNOWN = 100
"""How many times its input a network computes whose layers can't be seen."""

FEWER = "The memory was not enough for {} images at once; they were computed in batches of {}."


def batch_option() -> int:
    """The option of how many images are computed at once."""
    size: int = option(
        0, "Images computed at once; as many as fit the memory, and fewer if they don't, if 0.", limits=(0, 10_000)
    )
    return size


def batch_size(question: Question, chosen: int, *, gradients: bool) -> int:
    """How many images to compute at once.

    Parameters
    ----------
    question : Question
    chosen : int
        What the user chose; 0 to let free memory and the sizes of input and feature maps decide.
    gradients : bool
        Whether all feature maps are kept for a backward pass, or each is forgotten after its last use.
    """
    if chosen:
        return chosen
    shape = tuple(question.inputs.shape[1:])
    sizes = [layer.channels * prod(layer.shape) for layer in question.classifier.layers(shape)]
    numbers = _UNKNOWN * prod(shape)
    if sizes:
        # Each map with its gradient; without gradients what goes in, what comes out and what a residual link keeps.
        numbers = 2 * sum(sizes) if gradients else 3 * max(*sizes, prod(shape))
    device = question.classifier.device
    fitting = int(_SHARE * free_bytes(device) / (4 * numbers))
    return max(1, min(fitting, _MOST_ON_CPU if device.type == "cpu" else _MOST))
