"""Read the configuration in a Keras file, of version 1 to 3, into one form that holds plain settings only.

Nothing of the file is handed to Keras' own deserialisation: layers are known by name here, and all else is
refused. So no class, function or address that a file names is ever looked up.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from napari_xai_med.errors import ModelError
from napari_xai_med.models.keras_files.operations import KNOWN, is_operation, read_operation
from napari_xai_med.models.keras_files.spec import Layer, Model, Ref
from napari_xai_med.models.keras_files.upgrade import MERGES, RENAMED, upgraded


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


CONVERTED = _words(
    "InputLayer Conv2D Conv3D SeparableConv2D DepthwiseConv2D Dense BatchNormalization MaxPooling2D MaxPooling3D "
    "AveragePooling2D AveragePooling3D GlobalAveragePooling2D GlobalAveragePooling3D GlobalMaxPooling2D "
    "GlobalMaxPooling3D Flatten Reshape ZeroPadding2D ZeroPadding3D Cropping2D Cropping3D UpSampling2D UpSampling3D "
    "Identity Activation Softmax ReLU LeakyReLU ELU PReLU Rescaling Normalization GroupNormalization "
    "LayerNormalization UnitNormalization "
    "Add Subtract Multiply Average Maximum Minimum Concatenate"
)
"""Layers that become layers of PyTorch."""

INERT = _words(
    "Dropout SpatialDropout1D SpatialDropout2D SpatialDropout3D GaussianNoise GaussianDropout AlphaDropout "
    "ActivityRegularization RandomFlip RandomRotation RandomZoom RandomTranslation RandomContrast "
    "RandomBrightness"
)
"""Layers that do something in training only."""

WRAPPED = _words(
    "Conv1D Conv1DTranspose Conv2DTranspose Conv3DTranspose SeparableConv1D DepthwiseConv1D MaxPooling1D "
    "AveragePooling1D GlobalAveragePooling1D GlobalMaxPooling1D ZeroPadding1D Cropping1D UpSampling1D "
    "Permute RepeatVector Resizing CenterCrop LSTM GRU "
    "SimpleRNN Dot"
)
"""Layers that Keras has to run itself, and that can do nothing but compute."""

ACTIVATIONS = _words(
    "linear relu relu6 leaky_relu elu selu gelu silu swish mish tanh sigmoid hard_sigmoid softmax log_softmax "
    "softplus softsign exponential hard_silu hard_swish hard_tanh log_sigmoid celu"
)

MODELS = frozenset({"Functional", "Model", "Sequential"})

LARGEST_NUMBER = 1 << 24
"""Of a setting, such as units; far more than any network has, far less than what fills a memory."""

# What training needs, and what says nothing about the numbers that come out.
_IGNORED = _words(
    "dtype batch_input_shape input_shape batch_shape batch_size input_dtype input_dim input_length sparse ragged seed "
    "noise_shape activity_regularizer renorm renorm_clipping renorm_momentum virtual_batch_size fused adjustment "
    "synchronized optional quantization_config name trainable init mode W_regularizer b_regularizer W_constraint "
    "b_constraint U_regularizer zero_output_for_mask time_major implementation"
)
_IGNORED_ENDS = ("_initializer", "_regularizer", "_constraint")


def read_model(content: Any, where: str, version: str = "") -> Model:
    """The network that a configuration describes.

    Parameters
    ----------
    content : object
        Read from JSON.
    where : str
        The file, for sentences.
    version : str
        Of the Keras that wrote it.

    Raises
    ------
    ModelError
        If it holds code, layers that are unknown here, or is no configuration of a network.
    """
    _refuse_code(content, where)
    try:
        if content["class_name"] not in MODELS:
            raise ModelError(_foreign(where, content["class_name"], str(content["config"].get("name", ""))))
        model = _model(content, where)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise ModelError(
            f"{where} is not a Keras network that can be read here: its configuration is incomplete "
            f"({type(error).__name__}: {error}); save it again with model.save."
        ) from error
    if version.startswith(("1.", "2.")) and (name := _with_activation(model, "hard_sigmoid")):
        raise ModelError(
            f"{where} has a layer {name!r} with a hard_sigmoid, which Keras {version} computed otherwise than Keras 3; "
            "rebuild the network in PyTorch."
        )
    return model


def _with_activation(model: Model, activation: str) -> str:
    """The first layer that has an activation; empty if none has."""
    inner = (_with_activation(layer.model, activation) for layer in model.layers if layer.model is not None)
    own = (layer.name for layer in model.layers if activation in layer.config.values())
    return next((name for name in (*own, *inner) if name), "")


def _refuse_code(content: Any, where: str) -> None:
    """Refuse what holds code, wherever it stands."""
    waiting: list[tuple[Any, str]] = [(content, "")]
    while waiting:
        entry, name = waiting.pop()
        if isinstance(entry, dict):
            config = entry.get("config")
            own = entry.get("name") or (config.get("name") if isinstance(config, dict) else None)
            name = own if isinstance(own, str) else name
            kind = str(entry.get("class_name", ""))
            if "lambda" in kind.lower():
                raise ModelError(
                    f"{where} was refused because its layer {name!r} is a Lambda, which holds code; rebuild the "
                    "network with a layer of Keras in its place and save it again."
                )
            waiting += [(value, name) for value in entry.values()]
        elif isinstance(entry, list):
            waiting += [(value, name) for value in entry]


def _foreign(where: str, kind: str, name: str) -> str:
    called = f" in its layer {name!r}" if name else ""
    return (
        f"{where} was refused because it uses {kind!r}{called}, which is not a layer of Keras that is known here; "
        "rebuild the network in PyTorch, or with layers of Keras, and save it again."
    )


def _model(entry: dict[str, Any], where: str) -> Model:
    config = entry["config"]
    content = {"layers": config} if isinstance(config, list) else config
    name = str(content.get("name") or "sequential")
    if entry["class_name"] == "Sequential":
        return _sequential(name, content, where)
    layers = [_layer(each, where) for each in content["layers"]]
    for layer, each in zip(layers, content["layers"], strict=True):
        if not is_operation(each):
            layer.calls = [_call(node) for node in each.get("inbound_nodes") or ()]
    model = Model(name, False, layers, _refs(content["input_layers"]), _refs(content["output_layers"]))
    taken = [ref for layer in layers for call in layer.calls for ref in call]
    missing = {ref[0] for ref in (*taken, *model.inputs, *model.outputs)} - {layer.name for layer in layers}
    if missing:
        raise ValueError(f"it has no layer {min(missing)!r}")
    return model


def _sequential(name: str, content: dict[str, Any], where: str) -> Model:
    entries = content["layers"]
    layers = [_layer(each, where) for each in entries]
    if layers[0].kind != "InputLayer":
        first = entries[0]["config"]
        inner = layers[0].model
        shape = first.get("batch_input_shape") if isinstance(first, dict) else None
        shape = shape or content.get("build_input_shape")
        if shape is None and inner is not None:
            shape = [None, *inner.layer(inner.inputs[0][0]).config["shape"]]
        if not shape:
            raise ModelError(f"{where} does not say what shape its network takes; call it once and save it again.")
        layers.insert(0, Layer(f"{name}_input", "InputLayer", {"shape": _shape(shape), "name": f"{name}_input"}, []))
    for before, layer in pairwise(layers):
        layer.calls = [[(before.name, 0, 0)]]
    return Model(name, True, layers, [(layers[0].name, 0, 0)], [(layers[-1].name, 0, 0)])


def _layer(entry: dict[str, Any], where: str) -> Layer:
    kind = str(entry["class_name"])
    kind = RENAMED.get(kind, kind)
    config = entry["config"]
    if kind in MODELS:
        inner = _model({**entry, "class_name": kind}, where)
        name = str(entry.get("name") or inner.name)
        inner.name = name
        return Layer(name, kind, {"name": name, "trainable": _trainable(config)}, [], inner)
    name = str(entry.get("name") or (config.get("name", "") if isinstance(config, dict) else ""))
    if is_operation(entry):
        if kind not in KNOWN:
            raise ModelError(
                f"{where} was refused because {name!r} in it is the operation {kind!r}, which is not known here; put a "
                "layer of Keras in its place, or rebuild the network in PyTorch, and save it again."
            )
        return read_operation(entry, name)
    if kind == "Merge":
        kind = MERGES.get(str(config.get("mode")), kind)
    module = str(entry.get("module") or "keras.layers")
    registered = str(entry.get("registered_name") or kind)
    known = kind in CONVERTED | WRAPPED | INERT
    if not known or module.split(".")[0] != "keras" or registered.split(">")[-1] != kind or ">" in registered:
        raise ModelError(_foreign(where, registered if ">" in registered else str(entry["class_name"]), name))
    if kind == "InputLayer":
        shape = config.get("batch_shape") or config.get("batch_input_shape")
        return Layer(name, kind, {"shape": _shape(shape), "name": name}, [])
    if kind in INERT:
        return Layer(name, "Identity", {"name": name}, [])
    plain = _plain(upgraded(kind, config), where, name)
    return Layer(name, kind, {**plain, "name": name, "trainable": _trainable(config)}, [])


def _trainable(config: Any) -> bool:
    return bool(config.get("trainable", True)) if isinstance(config, dict) else True


def _shape(shape: Any) -> list[int | None]:
    sizes = [None if n is None else int(n) for n in shape[1:]]
    count = 1
    for n in sizes:
        if n is not None and n < 1:
            raise ValueError(f"shape {shape}")
        count *= n or 1
    if count > LARGEST_NUMBER * 64:
        raise ValueError(f"an input of shape {shape} fits no memory")
    return sizes


def _plain(config: dict[str, Any], where: str, name: str) -> dict[str, Any]:
    """The settings that say what a layer computes, as numbers and strings."""
    kept: dict[str, Any] = {}
    for key, value in config.items():
        if key == "dtype" and "quantized" in str(value).lower():
            raise ModelError(f"{where} has a quantized layer {name!r}; save the network before it was quantized.")
        if key in _IGNORED or key.endswith(_IGNORED_ENDS):
            continue
        if "activation" in key:
            value = _activation(value, where, name)
        elif isinstance(value, dict) and value.get("class_name") == "__numpy__":
            value = value["config"]["value"]
        for part in _parts(value):
            if isinstance(part, dict):
                raise ModelError(_foreign(where, str(part.get("class_name") or key), name))
            if isinstance(part, int | float) and not -LARGEST_NUMBER <= part <= LARGEST_NUMBER:
                raise ModelError(f"{where} has a layer {name!r} whose {key} is {part}, which fits no memory.")
        kept[key] = value
    return kept


def _parts(value: Any) -> Iterator[Any]:
    if isinstance(value, list):
        for part in value:
            yield from _parts(part)
    else:
        yield value


def _activation(value: Any, where: str, name: str) -> str:
    """The function's name; Keras 3 may store it with the place where it is found."""
    if isinstance(value, dict) and value.get("class_name") == "function":
        value = value.get("config")
    if value is None:
        return "linear"
    if isinstance(value, dict) or value not in ACTIVATIONS:
        kind = value.get("class_name") if isinstance(value, dict) else value
        raise ModelError(_foreign(where, str(kind), name))
    return {"swish": "silu", "hard_swish": "hard_silu"}.get(value, str(value))


def _call(node: Any) -> list[Ref]:
    """The tensors that a layer is called with: Keras 3 stores arguments, older versions a list of tensors."""
    if isinstance(node, dict):
        _check_keywords(node.get("kwargs") or {})
        return list(_tensors(node["args"]))
    refs = []
    for entry in node:
        if len(entry) > 3:
            _check_keywords(entry[3])
        refs.append(_ref(entry))
    return refs


def _check_keywords(keywords: dict[str, Any]) -> None:
    # The mode of training is not the file's to choose: networks run in eval mode here.
    others = {key for key, value in keywords.items() if key not in ("training", "mask") and value is not None}
    if others:
        raise ValueError(f"a layer is called with {', '.join(sorted(others))}")


def _tensors(value: Any) -> Iterator[Ref]:
    if isinstance(value, list):
        for part in value:
            yield from _tensors(part)
    elif isinstance(value, dict) and value.get("class_name") == "__keras_tensor__":
        yield _ref(value["config"]["keras_history"])
    elif value is not None:
        raise ValueError("a layer is called with a constant")


def _refs(entries: list[Any]) -> list[Ref]:
    """Inputs or outputs of a model, of which Keras 3 stores a single one without a list around it."""
    return [_ref(entries)] if entries and isinstance(entries[0], str) else [_ref(entry) for entry in entries]


def _ref(entry: Any) -> Ref:
    return str(entry[0]), int(entry[1]), int(entry[2])
