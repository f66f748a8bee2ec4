"""Operations of Keras 3 in a network, such as ``x + y`` and ``ops.mean(x, axis=[1, 2])``.

Keras stores them beside the layers, by the name of a class. Those that are known here are read as layers of the kind
"ops.NAME" whose setting "arguments" holds what is no tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from napari_xai_med.models.keras_files.modules import ACTIVATIONS
from napari_xai_med.models.keras_files.spec import Layer, Ref

PREFIX = "ops."

_Function = Callable[..., Any]

COMBINING: dict[str, tuple[str, _Function]] = {
    "Add": ("add", torch.add),
    "Subtract": ("subtract", torch.subtract),
    "Multiply": ("multiply", torch.multiply),
    "TrueDivide": ("true_divide", torch.true_divide),
    "Divide": ("divide", torch.true_divide),
    "Maximum": ("maximum", torch.maximum),
    "Minimum": ("minimum", torch.minimum),
    "Power": ("power", torch.pow),
}
"""Operations on two tensors, or on one and a number or a number for each channel: names of Keras, and PyTorch's."""

SINGLE: dict[str, tuple[str, _Function]] = {
    "Absolute": ("absolute", torch.abs),
    "Negative": ("negative", torch.neg),
    "Sqrt": ("sqrt", torch.sqrt),
    "Square": ("square", torch.square),
    "Exp": ("exp", torch.exp),
    "Log": ("log", torch.log),
    **{
        "".join(word.capitalize() for word in name.split("_")): (name, ACTIVATIONS[name]())
        for name in ("relu", "relu6", "silu", "sigmoid", "tanh", "softplus", "softsign", "hard_sigmoid", "hard_silu")
    },
}
"""Operations on each number of a tensor."""

REDUCING: dict[str, tuple[str, _Function]] = {
    "Mean": ("mean", torch.mean),
    "Sum": ("sum", torch.sum),
    "Max": ("max", torch.amax),
    "Min": ("min", torch.amin),
}
"""Operations over axes."""

ALONG: dict[str, tuple[str, _Function]] = {
    "Concatenate": ("concatenate", torch.cat),
    "Softmax": ("softmax", torch.softmax),
}
"""Operations along one axis."""

KNOWN = {**COMBINING, **SINGLE, **REDUCING, **ALONG}

_SETTINGS = {"axis": int | list | None, "keepdims": bool}


def is_operation(entry: dict[str, Any]) -> bool:
    """Whether an entry of a configuration is an operation, and no layer."""
    if entry.get("module") is not None:
        module = str(entry["module"]).split(".")
        return module[:2] == ["keras", "ops"] or module[:3] == ["keras", "src", "ops"]
    # HDF5 does not say where a class is found, but every layer and network says whether it is trained.
    config, nodes = entry.get("config"), entry.get("inbound_nodes")
    plain = isinstance(config, dict) and not {"trainable", "dtype", "layers"} & config.keys()
    return plain and bool(nodes) and isinstance(nodes, list) and isinstance(nodes[0], dict)


def read_operation(entry: dict[str, Any], name: str) -> Layer:
    """The layer that an entry of a known operation stands for, with its call.

    Raises
    ------
    ValueError
        If it is used otherwise than is known here.
    """
    kind, config = str(entry["class_name"]), entry["config"]
    settings = {key: config[key] for key in _SETTINGS if key in config}
    foreign = {key for key, value in config.items() if key not in (*settings, "name") and value not in (None, False)}
    if foreign or any(not isinstance(value, _SETTINGS[key]) for key, value in settings.items()):
        raise ValueError(f"operation {name!r} has settings that are not known")
    nodes = entry.get("inbound_nodes") or []
    if len(nodes) != 1 or any(value is not None for value in (nodes[0].get("kwargs") or {}).values()):
        raise ValueError(f"operation {name!r} is called in a way that is not known")
    args = nodes[0]["args"]
    given = [_argument(each) for each in (args[0] if kind == "Concatenate" else args)]
    refs = [each for each in given if isinstance(each, tuple)]
    wanted = {**dict.fromkeys(COMBINING, 2), "Concatenate": len(given)}.get(kind, 1)
    if len(given) != wanted or not refs:
        raise ValueError(f"operation {name!r} takes {len(given)} values")
    arguments = [None if isinstance(each, tuple) else each for each in given]
    return Layer(name, PREFIX + kind, {"name": name, "arguments": arguments, **settings}, [refs])


def _argument(value: Any) -> Ref | float | list[float]:
    """A tensor, a number, or a list of numbers."""
    if isinstance(value, dict) and value.get("class_name") == "__keras_tensor__":
        ref = value["config"]["keras_history"]
        return str(ref[0]), int(ref[1]), int(ref[2])
    if isinstance(value, dict) and value.get("class_name") == "__numpy__":
        value = value["config"]["value"]
    numbers = value if isinstance(value, list) else [value]
    if not numbers or any(isinstance(n, bool) or not isinstance(n, int | float) for n in numbers):
        raise ValueError("an operation takes a constant that is no number, nor a list of numbers")
    return value if not isinstance(value, list) else [float(n) for n in value]


def in_keras(keras: Any, layer: Layer) -> Callable[[Any], Any]:
    """What Keras computes, of the tensors that the operation takes: one, or a list."""
    kind = layer.kind.removeprefix(PREFIX)
    function = getattr(keras.ops, KNOWN[kind][0])
    settings = {key: layer.config[key] for key in _SETTINGS if key in layer.config}

    def run(tensors: Any) -> Any:
        waiting = iter(tensors if isinstance(tensors, list) else [tensors])
        given = [next(waiting) if each is None else _constant(each) for each in layer.config["arguments"]]
        return function(given, **settings) if kind == "Concatenate" else function(*given, **settings)

    return run


def _constant(value: Any) -> Any:
    return torch.tensor(value, dtype=torch.float32) if isinstance(value, list) else value


class Operation(nn.Module):
    """An operation on tensors, and on constants among them.

    Parameters
    ----------
    function : callable
    arguments : sequence
        None where a tensor stands; a number, or a tensor that is broadcast.
    """

    def __init__(self, function: _Function, arguments: Sequence[Any]) -> None:
        super().__init__()
        self.function, self._names = function, []
        for k, value in enumerate(arguments):
            # A number is a tensor as well: not all of PyTorch's functions take plain numbers.
            constant = None if value is None else torch.as_tensor(value, dtype=torch.float32)
            self.register_buffer(f"constant_{k}", constant)
            self._names.append(f"constant_{k}")

    def forward(self, *tensors: Tensor) -> Tensor:
        """Compute."""
        waiting = iter(tensors)
        constants = (getattr(self, name) for name in self._names)
        result: Tensor = self.function(*(next(waiting) if each is None else each for each in constants))
        return result
