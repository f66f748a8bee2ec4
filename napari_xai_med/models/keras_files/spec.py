"""What a Keras file says about its network, in one form for every version of Keras; see `config`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_xai_med.models.formats.facts import ENDINGS
from napari_xai_med.models.graphs.cut import axis_before

if TYPE_CHECKING:
    from napari_xai_med.models.keras_files.build import Built

Ref = tuple[str, int, int]
"""A tensor: layer's name, which of the layer's calls, which of that call's results."""

_SHAPING = ("Flatten", "Reshape", "Identity")


@dataclass
class Layer:
    """A layer with plain settings, and the tensors that each of its calls gets."""

    name: str
    kind: str
    config: dict[str, Any]
    calls: list[list[Ref]]
    model: Model | None = None


@dataclass
class Model:
    """A graph of layers."""

    name: str
    sequential: bool
    layers: list[Layer]
    inputs: list[Ref]
    outputs: list[Ref]

    def layer(self, name: str) -> Layer:
        """A layer by name."""
        return next(layer for layer in self.layers if layer.name == name)


def take_off_ending(model: Model, built: Built, last: bool, output: int = 0) -> tuple[str, bool]:
    """Make an output end before its sigmoid or softmax.

    Parameters
    ----------
    model : Model
        Changed in place.
    built : Built
        Knows the shapes of its tensors.
    last : bool
        Whether the channels are last.
    output : int
        Which of its outputs.

    Returns
    -------
    (str, bool)
        The function that the output ends in, "linear" for a softmax along another axis than that of the
        classes, and whether it was taken off: not if other layers use what comes out of it.
    """
    rank = len(built.shapes[model.outputs[output]])
    return _take_off(model, built, output, rank - 1 if last or rank == 2 else 1)


def _take_off(model: Model, built: Built, output: int, axis: int | None) -> tuple[str, bool]:
    ref = model.outputs[output]
    layer, alone = model.layer(ref[0]), True
    while True:
        uses = [other for each in model.layers for call in each.calls for other in call] + model.outputs
        alone = alone and len(layer.calls) == 1 and uses.count(ref) == 1
        plain = layer.kind == "Activation" and layer.config.get("activation") == "linear"
        if not (layer.kind in _SHAPING or plain) or not layer.calls:
            break
        before = layer.calls[0][0]
        axis = None if axis is None else axis_before(built.shapes[before], built.shapes[ref], axis)
        ref = before
        layer = model.layer(ref[0])
    if layer.model is not None:
        return _take_off(layer.model, built.inner[layer.name], ref[2], axis) if alone else ("linear", False)
    alone_is = {kind: ending for ending in ENDINGS for kind in (ending.capitalize(), f"ops.{ending.capitalize()}")}
    ending = alone_is.get(layer.kind, str(layer.config.get("activation", "linear")))
    if ending == "softmax" and _axis_of(layer) % len(built.shapes[ref]) != axis:
        return "linear", False
    if ending not in ENDINGS or not alone:
        return ending, False
    if layer.kind in alone_is:
        layer.kind, layer.config = "Activation", {"name": layer.name}
    layer.config["activation"] = "linear"
    return ending, True


def _axis_of(layer: Layer) -> int:
    """The axis of a softmax; one over several axes is as good as one over that of the images."""
    given = layer.config.get("axis", -1) if layer.kind.endswith("Softmax") else -1
    axes = given if isinstance(given, list) else [given]
    return int(axes[0]) if len(axes) == 1 else 0
