"""Networks of Keras for tests, and how they are saved, asked and tampered with."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from napari_xai_med.errors import ModelError
from napari_xai_med.models.keras_files.build import import_keras
from napari_xai_med.models.keras_files.network import ConvertedKeras, KerasNetwork, load_keras

if find_spec("keras") is None or find_spec("h5py") is None:
    pytest.skip("keras or h5py is not installed: pip install '.[keras]'", allow_module_level=True)

keras = import_keras(Path("tests"))
layers = keras.layers
SUFFIXES = (".keras", ".h5")


def randomised(model: Any) -> Any:
    """The model with random weights and statistics, none of them zero or one."""
    random = np.random.default_rng(0)
    for weight in model.weights:
        spread = 1 / np.sqrt(max(np.prod(weight.shape[:-1]), 1)) if len(weight.shape) > 1 else 0.3
        values = random.normal(0, spread, weight.shape)
        weight.assign(np.abs(values) + 0.5 if "variance" in weight.path or "gamma" in weight.path else values)
    return model


def saved(model: Any, path: Path) -> Path:
    model.save(path)
    return path


def images(model: Any, count: int = 2) -> np.ndarray:
    shape = [n or 12 for n in model.inputs[0].shape[1:]]
    return np.random.default_rng(1).normal(size=(count, *shape)).astype(np.float32)


def in_keras(model: Any, x: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return np.asarray(model(torch.from_numpy(x), training=False))


def keras_gradient(model: Any, layer: str, x: np.ndarray, score: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """Feature maps of the first image, and the gradient of a score of the logits, through Keras' own layers."""
    value, kept = torch.from_numpy(x), torch.empty(0)
    hidden = [each for each in model.layers[:-1] if not isinstance(each, layers.InputLayer)]
    for each in hidden:
        value = each(value, training=False)
        if each.name == layer:
            kept = value.detach().requires_grad_()
            value = kept
    head = model.layers[-1]
    (gradient,) = torch.autograd.grad(score((value @ head.kernel.value + head.bias.value)[0]), kept)
    return kept.detach()[0], gradient[0]


def keras_gradcam(model: Any, layer: str, x: np.ndarray, index: int) -> np.ndarray:
    """Grad-CAM without the last activation."""
    kept, gradient = keras_gradient(model, layer, x, lambda logits: logits[index])
    weights = gradient.mean(tuple(range(gradient.ndim - 1)))
    return (kept * weights).sum(-1).relu().numpy()


def asked(network: KerasNetwork, x: np.ndarray, last: bool = True) -> Tensor:
    """What our network gives for an image in Keras' order of axes, in that order."""
    with torch.no_grad():
        result: Tensor = network(torch.from_numpy(x).movedim(-1, 1) if last else torch.from_numpy(x))
    return result.movedim(1, -1) if last and result.ndim > 2 else result


def zunair(size: tuple[int, int, int] = (40, 38, 32)) -> Any:
    """The 17 layers of https://keras.io/examples/vision/3D_image_classification (Zunair et al. 2020), but narrow."""
    inputs = keras.Input((*size, 1))
    x = inputs
    for filters in (8, 8, 12, 16):
        x = layers.Conv3D(filters, 3 if filters != 16 else 1, activation="relu")(x)
        x = layers.MaxPool3D(2 if filters != 16 else 1)(x)
        x = layers.BatchNormalization()(x)
    x = layers.GlobalAveragePooling3D()(x)
    x = layers.Dense(16, activation="relu")(x)
    x = layers.Dropout(0.3)(x)
    return randomised(keras.Model(inputs, layers.Dense(1, activation="sigmoid")(x), name="3dcnn"))


def separable(size: tuple[int, int] = (45, 39)) -> Any:
    """Like VGG, with separable convolutions, padding "same" and sizes that do not divide."""
    block: list[Any] = [keras.Input((*size, 3))]
    for filters in (6, 8, 10):
        block += [
            layers.SeparableConv2D(filters, 3, padding="same", activation="relu"),
            layers.SeparableConv2D(filters, 4, strides=2 if filters == 8 else 1, padding="same", activation="relu"),
            layers.BatchNormalization(),
            layers.MaxPooling2D(2, padding="same"),
        ]
    tail = [layers.Flatten(), layers.Dense(12, activation="relu"), layers.Dropout(0.5)]
    return randomised(keras.Sequential([*block, *tail, layers.Dense(3, activation="softmax")]))


def check(model: Any, path: Path, kind: type = ConvertedKeras) -> KerasNetwork:
    """Save a network that ends in no activation, and hold ours to it."""
    network = load_keras(saved(model, path))
    assert isinstance(network, kind), network.facts.limit
    x = images(model)
    expected = in_keras(model, x)
    np.testing.assert_allclose(asked(network, x), expected, atol=1e-5 * max(1, np.abs(expected).max()))
    return network


def small() -> Any:
    chain = [keras.Input((8, 8, 1)), layers.Conv2D(2, 3, name="c"), layers.GlobalAveragePooling2D(name="g")]
    return randomised(keras.Sequential([*chain, layers.Dense(2, name="d")]))


@contextmanager
def config_of(path: Path) -> Iterator[dict[str, Any]]:
    """The configuration in a file, written back after it was changed."""
    import h5py

    if path.suffix == ".h5":
        with h5py.File(path, "r+") as file:
            config = json.loads(file.attrs["model_config"])
            yield config
            file.attrs["model_config"] = json.dumps(config)
        return
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(parts["config.json"])
    yield config
    with zipfile.ZipFile(path, "w") as archive:
        for name, part in (parts | {"config.json": json.dumps(config).encode()}).items():
            archive.writestr(name, part)


def refused(path: Path, *words: str) -> None:
    with pytest.raises(ModelError) as caught:
        load_keras(path)
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert "\n" not in message
    assert message.endswith(".")
