"""What a Keras file says about its network, in one form for every version of Keras; see `config`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from napari_xai_med.errors import ModelError
from napari_xai_med.models.formats.facts import ENDINGS

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
        """A layer by name; a `ModelError` if a file names one that it does not have."""
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise ModelError(f"The network {self.name} has no layer {name!r}, which its file refers to; save it again.")


def take_off_ending(model: Model, output: int = 0) -> tuple[str, bool]:
    """Make an output end before its sigmoid or softmax.

    Parameters
    ----------
    model : Model
        Changed in place.
    output : int
        Which of its outputs.

    Returns
    -------
    (str, bool)
        The function that the output ends in, and whether it was taken off: not if other layers use
        what comes out of it.
    """
    ref = model.outputs[output]
    layer, alone = model.layer(ref[0]), True
    while True:
        uses = [other for each in model.layers for call in each.calls for other in call] + model.outputs
        alone = alone and len(layer.calls) == 1 and uses.count(ref) == 1
        plain = layer.kind == "Activation" and layer.config.get("activation") == "linear"
        if not (layer.kind in _SHAPING or plain) or not layer.calls:
            break
        ref = layer.calls[0][0]
        layer = model.layer(ref[0])
    if layer.model is not None:
        return take_off_ending(layer.model, ref[2]) if alone else ("linear", False)
    ending = "softmax" if layer.kind == "Softmax" else layer.config.get("activation", "linear")
    # Along another axis it is none of the classes'.
    of_classes = layer.kind != "Softmax" or layer.config.get("axis", -1) in (-1, [-1])
    if ending not in ENDINGS or not alone or not of_classes:
        return str(ending), False
    if layer.kind == "Softmax":
        layer.kind, layer.config = "Activation", {"name": layer.name}
    layer.config["activation"] = "linear"
    return ending, True
