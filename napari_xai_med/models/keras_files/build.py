"""Build a network with Keras 3 on PyTorch, from a checked description, and put its weights in."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from napari_xai_med.errors import ModelError, one_line
from napari_xai_med.models.keras_files import files, operations
from napari_xai_med.models.keras_files.spec import Layer, Model, Ref

FAILURES = (
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    RuntimeError,
    OSError,
    NotImplementedError,
    OverflowError,
    AssertionError,
)
"""What Keras and h5py raise for what they can't take."""


@dataclass
class Built:
    """A network of Keras.

    Parameters
    ----------
    model : keras.Model
    layers : dict of str to keras.layers.Layer
        By name.
    shapes : dict of Ref to tuple
        Of every tensor, in Keras' order of axes.
    inner : dict of str to Built
        Networks within the network.
    """

    model: Any
    layers: dict[str, Any] = field(default_factory=dict)
    shapes: dict[Ref, tuple[int | None, ...]] = field(default_factory=dict)
    inner: dict[str, Built] = field(default_factory=dict)


def import_keras(path: Path) -> Any:
    """The package keras, running on PyTorch.

    Raises
    ------
    ModelError
        If it is missing, or runs on something else already.
    """
    started, before = "keras" in sys.modules, os.environ.get("KERAS_BACKEND")
    if not started:
        os.environ["KERAS_BACKEND"] = "torch"
    try:
        import keras
    except ImportError as error:
        raise ModelError(f"{path.name} needs the packages keras and h5py: pip install keras h5py.") from error
    finally:
        # It is read once, when keras is imported: other programs that we start keep what the user chose.
        if not started and before is None:
            os.environ.pop("KERAS_BACKEND", None)
        elif before is not None:
            os.environ["KERAS_BACKEND"] = before
    if not hasattr(keras, "device") or keras.backend.backend() != "torch":
        found = keras.backend.backend() if hasattr(keras, "device") else f"version {keras.__version__}"
        raise ModelError(
            f"{path.name} needs Keras 3 on PyTorch, but this program has imported keras with {found} already; set the "
            "environment variable KERAS_BACKEND=torch and start again."
        )
    return keras


def measure(spec: Model, content: files.Content, path: Path) -> Built:
    """The network without data: a description may ask for more memory than there is.

    Raises
    ------
    ModelError
        If Keras can't build it, or it needs more weights than the file holds.
    """
    keras = import_keras(path)
    with keras.device("meta"):
        built = _build(keras, spec, path)
    wanted = sum(prod(weight.shape) for weight in built.model.weights)
    if wanted > _stored(content.weights):
        raise ModelError(f"The weights in {path} do not fit the network: it needs {wanted} numbers; save it again.")
    return built


def build(spec: Model, content: files.Content, path: Path) -> Built:
    """The network with its weights, on the CPU; `measure` has been asked before.

    Raises
    ------
    ModelError
        If the weights do not fit.
    """
    keras = import_keras(path)
    with keras.device("cpu"):
        built = _build(keras, spec, path)
        try:
            if content.old:
                _fill_by_name(built, spec, content, path)
            else:
                built.model.load_weights(str(content.weights))
        except FAILURES as error:
            raise ModelError(f"The weights in {path} do not fit the network: {one_line(error)}.") from error
    for weight in built.model.parameters():
        weight.requires_grad_(False)
    return built


def _stored(weights: Path) -> int:
    """How many numbers a file holds."""
    import h5py

    sizes: list[int] = []
    with h5py.File(weights, "r") as file:
        file.visititems(lambda _, item: sizes.append(item.size) if isinstance(item, h5py.Dataset) else None)
    return sum(sizes)


def _build(keras: Any, spec: Model, path: Path) -> Built:
    layers: dict[str, Any] = {}
    built = Built(None, layers)
    for layer in spec.layers:
        if layer.model is not None:
            built.inner[layer.name] = inner = _build(keras, layer.model, path)
            inner.model.trainable = layer.config["trainable"]
            layers[layer.name] = inner.model
        elif layer.kind.startswith(operations.PREFIX):
            layers[layer.name] = operations.in_keras(keras, layer)
        elif layer.kind != "InputLayer":
            layers[layer.name] = _made(keras, layer, path)
    tensors = dict(_called(keras, spec, layers, path))
    built.shapes = {ref: tuple(tensor.shape) for ref, tensor in tensors.items()}
    try:
        if spec.sequential:
            start = tensors[spec.inputs[0]]
            built.model = keras.Sequential([start, *layers.values()], name=_name(spec.name))
        else:
            ends = ([tensors[ref] for ref in refs] for refs in (spec.inputs, spec.outputs))
            built.model = keras.Model(*(one[0] if len(one) == 1 else one for one in ends), name=_name(spec.name))
    except FAILURES as error:
        raise ModelError(f"Keras can't build the network in {path}: {one_line(error)}.") from error
    return built


def _name(name: str) -> str:
    """A name that Keras 3 and PyTorch allow; Keras 2 had networks with slashes in them."""
    return name.replace("/", "_").replace(".", "_")


def _made(keras: Any, layer: Layer, path: Path) -> Any:
    kind = getattr(keras.layers, layer.kind)
    config = {key: value for key, value in layer.config.items() if key not in ("name", "trainable")}
    known = set(inspect.signature(kind.__init__).parameters)
    # What is switched off need not be known.
    foreign = [key for key in config if key not in known and config[key] not in (None, False)]
    if foreign:
        raise ModelError(
            f"Layer {layer.name!r} in {path} has a setting {foreign[0]!r} that Keras {keras.__version__} does not know "
            f"for {layer.kind}; save the network with a newer Keras."
        )
    # What weights start from is not used, and drawing it takes time.
    config = {key: value for key, value in config.items() if key in known} | {
        key: "zeros" for key in known if key.endswith("_initializer")
    }
    try:
        return kind(**config, name=_name(layer.name), trainable=layer.config.get("trainable", True), dtype="float32")
    except FAILURES as error:
        raise ModelError(f"Keras can't build layer {layer.name!r} in {path}: {one_line(error)}.") from error


def order_of_calls(spec: Model) -> Iterator[tuple[Layer, int]]:
    """Each layer and the number of its call, so that what a call takes is there before it.

    Raises
    ------
    ValueError
        If a call waits for a tensor that never comes.
    """
    waiting = [(layer, number) for layer in spec.layers for number in range(len(layer.calls))]
    there = {ref[:2] for ref in spec.inputs}
    while waiting:
        # In the file's order, one at a time: Keras sorts layers by when they were called.
        ready = next(((each, k) for each, k in waiting if all(ref[:2] in there for ref in each.calls[k])), None)
        if ready is None:
            raise ValueError(f"layer {waiting[0][0].name!r} takes a tensor that no layer makes")
        yield ready
        there.add((ready[0].name, ready[1]))
        waiting.remove(ready)


def _called(keras: Any, spec: Model, layers: dict[str, Any], path: Path) -> Iterator[tuple[Ref, Any]]:
    """Every tensor in the graph."""
    tensors: dict[Ref, Any] = {}
    for ref in spec.inputs:
        config = spec.layer(ref[0]).config
        tensors[ref] = keras.Input(tuple(config["shape"]), name=_name(ref[0]), dtype="float32")
    name = ""
    try:
        for layer, number in order_of_calls(spec):
            name = layer.name
            taken = [tensors[ref] for ref in layer.calls[number]]
            made = layers[name](taken[0] if len(taken) == 1 else taken)
            for position, tensor in enumerate(made if isinstance(made, list | tuple) else [made]):
                tensors[(name, number, position)] = tensor
    except FAILURES as error:
        raise ModelError(f"Keras can't build layer {name!r} in {path}: {one_line(error)}.") from error
    yield from tensors.items()


def _fill_by_name(built: Built, spec: Model, content: files.Content, path: Path) -> None:
    import h5py

    with h5py.File(content.weights, "r") as file:
        group = file.get("model_weights", file)
        for layer in spec.layers:
            weights = getattr(built.layers.get(layer.name), "weights", [])
            if not weights:
                continue
            if layer.name not in group:
                raise ModelError(f"The weights in {path} do not fit the network: layer {layer.name!r} has none.")
            own = group[layer.name]
            names = [n.decode() if isinstance(n, bytes) else str(n) for n in _names(own.attrs)]
            owner = built.layers[layer.name]
            ordered = [*owner.trainable_weights, *owner.non_trainable_weights]
            if layer.model is not None:
                ordered = _matched(ordered, names)
            if len(names) != len(ordered):
                raise ValueError(f"layer {layer.name!r} needs {len(ordered)} arrays and has {len(names)}")
            for weight, name in zip(ordered, names, strict=True):
                _fill(weight, own[name], layer, content)
            if layer.kind == "Normalization":
                # What it computes with is made of its weights.
                owner.finalize_state()


def _names(attributes: Any) -> list[Any]:
    """The names of weights, which HDF5 has no room for in one attribute if there are many."""
    if "weight_names" in attributes:
        return list(attributes["weight_names"])
    names: list[Any] = []
    part = 0
    while f"weight_names{part}" in attributes:
        names += list(attributes[f"weight_names{part}"])
        part += 1
    return names


def _matched(weights: list[Any], names: list[str]) -> list[Any]:
    """The weights of a network within the network in the order of the file's names, if those tell it.

    Which layers were frozen changes the order in which Keras stores them.
    """
    by_end = {_end(weight.path): weight for weight in weights}
    ends = [_end(name) for name in names]
    if len(by_end) == len(weights) == len(set(ends)) and set(ends) == set(by_end):
        return [by_end[end] for end in ends]
    return weights


def _end(name: str) -> tuple[str, ...]:
    return tuple(name.split(":")[0].split("/")[-2:])


def _fill(weight: Any, array: Any, layer: Layer, content: files.Content) -> None:
    shape = tuple(weight.shape)
    spatial = len(shape) - 2
    convolution = layer.kind.startswith("Conv") and spatial >= 2
    # Keras 1 stored kernels of channels_first networks as Theano has them: outputs, inputs, space.
    turned = convolution and content.version.startswith("1.") and layer.config.get("data_format") == "channels_first"
    if tuple(array.shape) != ((shape[-1], shape[-2], *shape[:-2]) if turned else shape):
        raise ValueError(f"layer {layer.name!r} needs an array of shape {shape} and has {tuple(array.shape)}")
    values = np.asarray(array, np.float32)
    if turned:
        values = np.moveaxis(values, (1, 0), (-2, -1))
    if convolution and content.backend == "theano":
        # Theano turns kernels round, all others do not.
        values = np.flip(values, tuple(range(spatial))).copy()
    # A single number would become a list of one.
    weight.assign(np.ascontiguousarray(values).reshape(shape))
