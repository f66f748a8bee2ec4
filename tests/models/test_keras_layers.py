"""Every layer computes what it computes in Keras."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from keras_networks import SUFFIXES, asked, check, images, in_keras, keras, layers, randomised, refused, saved

from napari_xai_med.models.keras_files.network import ConvertedKeras, WrappedKeras, load_keras

ops = keras.ops

ONE = {
    "conv": lambda: layers.Conv2D(4, (3, 2), dilation_rate=(1, 2), use_bias=False, activation="tanh"),
    "conv same": lambda: layers.Conv2D(4, 4, strides=3, padding="same", activation="elu"),
    "conv dilated same": lambda: layers.Conv2D(4, 4, dilation_rate=2, padding="same", activation="gelu"),
    "conv groups": lambda: layers.Conv2D(8, 3, groups=2, activation="silu"),
    "conv softmax": lambda: layers.Conv2D(4, 1, activation="softmax"),
    "separable": lambda: layers.SeparableConv2D(5, 3, depth_multiplier=2, padding="same", activation="selu"),
    "separable strides": lambda: layers.SeparableConv2D(5, 3, strides=2, use_bias=False),
    "depthwise": lambda: layers.DepthwiseConv2D(3, depth_multiplier=3, strides=2, padding="same", activation="relu6"),
    "dense in space": lambda: layers.Dense(5, activation="softplus"),
    "norm": lambda: layers.BatchNormalization(epsilon=0.01),
    "norm plain": lambda: layers.BatchNormalization(center=False, scale=False),
    "max": lambda: layers.MaxPooling2D(3, strides=2),
    "max same": lambda: layers.MaxPooling2D((4, 3), strides=(3, 1), padding="same"),
    "average": lambda: layers.AveragePooling2D((2, 3)),
    "average same": lambda: layers.AveragePooling2D(3, strides=1, padding="same"),
    "global average": lambda: layers.GlobalAveragePooling2D(),
    "global max kept": lambda: layers.GlobalMaxPooling2D(keepdims=True),
    "flatten": lambda: layers.Flatten(),
    "reshape": lambda: layers.Reshape((3, 52, 4)),
    "zeros": lambda: layers.ZeroPadding2D(((0, 1), (2, 3))),
    "cropping": lambda: layers.Cropping2D(((0, 1), (2, 3))),
    "nearest": lambda: layers.UpSampling2D((2, 3)),
    "bilinear": lambda: layers.UpSampling2D(2, interpolation="bilinear"),
    "dropout": lambda: layers.Dropout(0.5),
    "spatial dropout": lambda: layers.SpatialDropout2D(0.5),
    "noise": lambda: layers.GaussianNoise(1.0),
    "flips": lambda: layers.RandomFlip(),
    "rotation": lambda: layers.RandomRotation(0.1),
    "softmax": lambda: layers.Softmax(),
    "softmax in space": lambda: layers.Softmax(axis=2),
    "softmax of a list": lambda: layers.Softmax(axis=[1]),
    "standardised": lambda: layers.Normalization(),
    "standardised by given numbers": lambda: layers.Normalization(
        mean=[1.0, 2.0, 3.0, 4.0], variance=[1.0, 2.0, 4.0, 9.0]
    ),
    "standardised by one": lambda: layers.Normalization(axis=None, mean=120.0, variance=3600.0),
    "standardised back": lambda: layers.Normalization(invert=True),
    "group norm": lambda: layers.GroupNormalization(2),
    "group norm of each": lambda: layers.GroupNormalization(-1, epsilon=0.01, center=False),
    "layer norm": lambda: layers.LayerNormalization(),
    "layer norm plain": lambda: layers.LayerNormalization(center=False, scale=False),
    "unit norm": lambda: layers.UnitNormalization(),
    "unit norm in space": lambda: layers.UnitNormalization(axis=1),
    "relu": lambda: layers.ReLU(max_value=1.0, negative_slope=0.1, threshold=0.2),
    "relu plain": lambda: layers.ReLU(),
    "leaky": lambda: layers.LeakyReLU(0.1),
    "elu": lambda: layers.ELU(0.7),
    "prelu": lambda: layers.PReLU(shared_axes=[1, 2]),
    "prelu everywhere": lambda: layers.PReLU(),
    "rescaling": lambda: layers.Rescaling(1 / 127.5, -1.0),
    "rescaling channels": lambda: layers.Rescaling([1.0, 2.0, 3.0, 4.0], [0.1, 0.2, 0.3, 0.4]),
    **{
        f"activation {name}": partial(lambda name: layers.Activation(name), name)
        for name in (
            *("softsign", "exponential", "mish", "leaky_relu", "hard_sigmoid", "log_softmax", "swish", "sigmoid"),
            *("hard_silu", "hard_swish", "hard_tanh", "log_sigmoid", "celu"),
        )
    },
}


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("kind", ONE)
def test_a_layer_computes_what_keras_computes(kind: str, suffix: str, tmp_path: Path) -> None:
    # A convolution in front says how many channels there are; one behind takes whatever comes, so that no ending
    # is taken off.
    inputs = keras.Input((13, 12, 3))
    x = ONE[kind]()(layers.Conv2D(4, 1)(inputs))
    outputs = layers.Reshape((-1,))(x) if len(x.shape) == 2 else layers.Conv2D(2, 1)(x)
    check(randomised(keras.Model(inputs, outputs)), tmp_path / f"m{suffix}")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_normalization_keeps_what_it_was_adapted_to(suffix: str, tmp_path: Path) -> None:
    """Mean and variance of images are among the weights, not the settings."""
    seen = np.random.default_rng(0).normal([50.0, -3.0, 900.0], [4.0, 1.0, 30.0], (5, 6, 7, 3)).astype(np.float32)
    norm = layers.Normalization()
    norm.adapt(seen)
    model = keras.Sequential([keras.Input((6, 7, 3)), norm, layers.Conv2D(2, 3)])
    network = load_keras(saved(model, tmp_path / f"m{suffix}"))
    assert isinstance(network, ConvertedKeras)
    np.testing.assert_allclose(asked(network, seen), in_keras(model, seen), atol=1e-5)
    standardised = network.get_submodule(norm.name)(torch.from_numpy(seen).movedim(-1, 1))
    np.testing.assert_allclose(standardised.mean((0, 2, 3)), [0, 0, 0], atol=1e-4)
    np.testing.assert_allclose(standardised.var((0, 2, 3), correction=0), [1, 1, 1], atol=1e-4)


PER_CHANNEL = np.array([0.5, 1.0, 2.0, 3.0], np.float32)
OPERATIONS = {
    "sum": lambda x, y: x + y,
    "numbers": lambda x, y: 1 - (x * 2.0 + 1) / 3 + y,
    "power": lambda x, y: ops.abs(x) ** 1.5 + y**2,
    "numbers of channels": lambda x, y: (x - PER_CHANNEL) / PER_CHANNEL * y,
    "limits": lambda x, y: ops.maximum(ops.minimum(x, 0.4), -0.3) + ops.maximum(x, y),
    "roots": lambda x, y: ops.sqrt(ops.abs(x)) + ops.square(y) - ops.log(ops.exp(-x) + 1),
    "functions": lambda x, y: ops.relu(x) + ops.silu(y) + ops.sigmoid(x) + ops.tanh(y) + ops.hard_silu(x),
    "more functions": lambda x, y: ops.relu6(x) + ops.softplus(y) + ops.softsign(x) + ops.hard_sigmoid(y),
    "joined": lambda x, y: ops.concatenate([x, y], axis=-1),
    "joined rows": lambda x, y: ops.concatenate([x, y, x], axis=1),
    "softmax": lambda x, y: ops.softmax(x, axis=-1) * ops.softmax(y, axis=2),
    "mean": lambda x, y: ops.mean(x, axis=[1, 2]) + ops.max(y, axis=(1, 2)),
    "mean kept": lambda x, y: x - ops.mean(x, axis=[1, 2], keepdims=True) + ops.sum(y, axis=-1, keepdims=True),
    "rows": lambda x, y: ops.min(x + y, axis=1),
}


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("kind", OPERATIONS)
def test_an_operation_computes_what_keras_computes(kind: str, suffix: str, tmp_path: Path) -> None:
    inputs = keras.Input((7, 6, 3))
    x, y = (layers.Conv2D(4, 2, padding="same", name=name)(inputs) for name in "xy")
    result = OPERATIONS[kind](x, y)
    check(randomised(keras.Model(inputs, layers.Dense(2)(result))), tmp_path / f"m{suffix}")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_operation_without_counterpart_here_leaves_the_network_to_keras(suffix: str, tmp_path: Path) -> None:
    inputs = keras.Input((7, 6, 3))
    model = randomised(keras.Model(inputs, ops.mean(layers.Conv2D(4, 2)(inputs), axis=-1)))
    network = check(model, tmp_path / f"m{suffix}", WrappedKeras)
    assert network.facts.limit == "a reduction over images or channels"


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(("last", "ending"), [(ops.softmax, "softmax"), (ops.sigmoid, "sigmoid")])
def test_an_operation_may_be_an_ending(last: Any, ending: str, suffix: str, tmp_path: Path) -> None:
    inputs = keras.Input((7, 6, 3))
    model = randomised(keras.Model(inputs, last(ops.mean(layers.Conv2D(4, 2)(inputs), axis=[1, 2]))))
    network = load_keras(saved(model, tmp_path / f"m{suffix}"))
    x = images(model)
    logits = asked(network, x)
    assert network.ending == ending
    np.testing.assert_allclose(
        logits.softmax(1) if ending == "softmax" else logits.sigmoid(), in_keras(model, x), atol=1e-5
    )


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("use", "name"), [(lambda x: x[..., :1], "GetItem"), (lambda x: ops.transpose(x, (0, 2, 1, 3)), "Transpose")]
)
def test_other_operations_are_refused_by_name(use: Any, name: str, suffix: str, tmp_path: Path) -> None:
    inputs = keras.Input((7, 6, 3))
    path = saved(keras.Model(inputs, layers.Conv2D(2, 1)(use(inputs))), tmp_path / f"m{suffix}")
    refused(path, f"the operation {name!r}", "put a layer of Keras in its place")


VOLUME = {
    "conv": lambda: layers.Conv3D(4, (3, 2, 4), strides=2, padding="same", activation="relu"),
    "max same": lambda: layers.MaxPooling3D(3, strides=2, padding="same"),
    "average": lambda: layers.AveragePooling3D(2),
    "norm": lambda: layers.BatchNormalization(),
    "zeros": lambda: layers.ZeroPadding3D(((0, 1), (2, 3), (1, 0))),
    "cropping": lambda: layers.Cropping3D((1, 2, 1)),
    "nearest": lambda: layers.UpSampling3D((2, 1, 2)),
    "global max": lambda: layers.GlobalMaxPooling3D(),
    "flatten": lambda: layers.Flatten(),
    "spatial dropout": lambda: layers.SpatialDropout3D(0.5),
    "prelu": lambda: layers.PReLU(shared_axes=[1, 2, 3]),
}


@pytest.mark.parametrize("kind", VOLUME)
@pytest.mark.parametrize("place", ["channels_last", "channels_first"])
def test_a_layer_of_volumes_computes_what_keras_computes(kind: str, place: str, tmp_path: Path) -> None:
    last = place == "channels_last"
    before = keras.config.image_data_format()
    keras.config.set_image_data_format(place)
    try:
        inputs = keras.Input((9, 8, 7, 2) if last else (2, 9, 8, 7))
        layer = VOLUME[kind]()
        if not last and kind == "norm":
            layer = layers.BatchNormalization(axis=1)
        if not last and kind == "prelu":
            layer = layers.PReLU(shared_axes=[2, 3, 4])
        model = randomised(keras.Model(inputs, layer(layers.Conv3D(3, 1)(inputs))))
        path = saved(model, tmp_path / "m.h5")
    finally:
        keras.config.set_image_data_format(before)
    network = load_keras(path)
    assert isinstance(network, ConvertedKeras)
    assert network.facts.input_shape == (2, 9, 8, 7)
    x = images(model)
    np.testing.assert_allclose(asked(network, x, last), in_keras(model, x), atol=1e-5)


def test_average_pooling_counts_no_padding_as_in_tensorflow(tmp_path: Path) -> None:
    """Keras on PyTorch repeats the last voxel and counts it, where TensorFlow leaves it out."""
    model = keras.Sequential([keras.Input((5, 5, 1)), layers.AveragePooling2D(2, padding="same")])
    network = load_keras(saved(model, tmp_path / "m.keras"))
    image = np.arange(25, dtype=np.float32).reshape(1, 5, 5, 1)
    ours = asked(network, image)[0, ..., 0]
    parts = [slice(0, 2), slice(2, 4), slice(4, 5)]
    expected = [[image[0, rows, columns, 0].mean() for columns in parts] for rows in parts]
    np.testing.assert_allclose(ours, expected)
