"""Networks of Keras answer as in Keras, and are explained as Keras' own gradients say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import classifier_of, maps_of, write_bundle
from keras_networks import (
    SUFFIXES,
    asked,
    check,
    images,
    in_keras,
    keras,
    keras_gradcam,
    layers,
    randomised,
    saved,
    separable,
    zunair,
)

from napari_xai_med import Image, explain, load_model, predict
from napari_xai_med.errors import ModelError
from napari_xai_med.explainers.base import make_explainer
from napari_xai_med.models.formats.base import Gives
from napari_xai_med.models.formats.keras import Keras
from napari_xai_med.models.head import Head
from napari_xai_med.models.keras_files.network import ConvertedKeras, WrappedKeras, load_keras


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(("make", "ending"), [(zunair, "sigmoid"), (separable, "softmax")])
def test_a_network_answers_as_in_keras(make: Callable[[], Any], ending: str, suffix: str, tmp_path: Path) -> None:
    model = make()
    network = load_keras(saved(model, tmp_path / f"m{suffix}"))
    x = images(model)
    logits = asked(network, x)
    ours = logits.sigmoid() if ending == "sigmoid" else logits.softmax(1)
    np.testing.assert_allclose(ours, in_keras(model, x), atol=1e-5)
    assert isinstance(network, ConvertedKeras)
    assert network.ending == ending
    assert network.facts.input_shape == (x.shape[-1], *x.shape[1:-1])
    assert [(o.numbers, o.ending) for o in network.facts.outputs] == [(logits.shape[1], ending)]
    assert network.facts.writer == f"Keras {keras.__version__}"


@pytest.mark.parametrize(("make", "classes", "index"), [(zunair, 2, 1), (separable, 3, 2)])
def test_gradcam_is_that_of_keras_own_gradients(
    make: Callable[[], Any], classes: int, index: int, tmp_path: Path
) -> None:
    model = make()
    x = images(model, 1)
    network = load_keras(saved(model, tmp_path / "m.keras"))
    head = Head.ONE_LOGIT if classes == 2 else Head.SOFTMAX
    classifier = classifier_of(network, x.ndim - 2, classes, channels=x.shape[-1], head=head)
    convolutions = [each.name for each in model.layers if "conv" in each.name]
    inputs = torch.from_numpy(x).movedim(-1, 1)
    strongest = []
    for layer in convolutions:
        (raw,), _ = maps_of(make_explainer("gradcam", {"layers": layer}), classifier, inputs, [(0, index)])
        expected = keras_gradcam(model, layer, x, 0 if classes == 2 else index)
        np.testing.assert_allclose(raw.values, expected, atol=1e-5 * max(float(expected.max()), 1e-6))
        strongest.append(expected.max())
        assert raw.facts["geometry_followed"]
    assert sum(value > 0 for value in strongest) > 1
    (raw,), _ = maps_of(make_explainer("gradcam", {}), classifier, inputs, [(0, index)])
    assert raw.facts["layer"] == convolutions[-1]


def test_cells_lie_where_asymmetric_padding_puts_them(tmp_path: Path) -> None:
    chain = [keras.Input((10, 11, 1)), layers.Conv2D(2, 3, strides=2, padding="same", name="a")]
    model = keras.Sequential([*chain, layers.MaxPooling2D(2, padding="same", name="b"), layers.Flatten()])
    network = load_keras(saved(randomised(model), tmp_path / "m.keras"))
    fields = {layer.name: layer.receptive_field for layer in classifier_of(network, 2).layers((1, 10, 11))}
    # Ten positions in steps of two: one zero behind; eleven: one on both sides.
    assert fields["a"].start == (1.0, 0.0)
    assert fields["b"].start == (2.0, 1.0)
    assert fields["b"].jump == (4.0, 4.0)
    assert all(field.followed for field in fields.values())


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_branches_shared_layers_and_inner_networks(suffix: str, tmp_path: Path) -> None:
    inner_inputs = keras.Input((None, None, 4))
    inner = keras.Model(
        inner_inputs, layers.BatchNormalization(name="n")(layers.Conv2D(4, 3, padding="same")(inner_inputs)), name="in"
    )
    chain = keras.Sequential([layers.Conv2D(4, 1, name="c"), layers.BatchNormalization(), layers.ReLU()], name="seq")
    inputs = keras.Input((13, 12, 3))
    shared = layers.Conv2D(4, 3, padding="same", name="shared")
    x = layers.Conv2D(4, 1, name="block1_conv")(inputs)
    a, b = shared(x), shared(shared(x))
    merged = [layers.Add()([a, b]), layers.Subtract()([a, b]), layers.Multiply()([a, b]), layers.Average()([a, b, x])]
    merged += [layers.Maximum()([a, x]), layers.Minimum()([a, x]), inner(x), chain(b)]
    x = layers.Concatenate()(merged)
    x = layers.Concatenate(axis=1)([x, x])
    gate = layers.Reshape((1, 1, 32))(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, layers.Dense(3)(layers.GlobalMaxPooling2D()(layers.Multiply()([x, gate]))))
    inner.trainable = False
    network = check(randomised(model), tmp_path / f"m{suffix}")
    names = {layer.name for layer in classifier_of(network, 2, 3, channels=3).layers((3, 13, 12))}
    assert {"block1_conv", "shared", "in.n", "seq.c"} <= names


def test_a_network_within_a_network_as_the_last_layer(tmp_path: Path) -> None:
    head = keras.Sequential([layers.Flatten(), layers.Dense(2), layers.Activation("softmax")], name="head")
    model = randomised(keras.Sequential([keras.Input((6, 6, 1)), layers.Conv2D(2, 3), head]))
    network = load_keras(saved(model, tmp_path / "m.keras"))
    x = images(model)
    assert network.ending == "softmax"
    np.testing.assert_allclose(asked(network, x).softmax(1), in_keras(model, x), atol=1e-5)


def test_several_outputs_by_name_each_before_its_ending(tmp_path: Path) -> None:
    inputs = keras.Input((8, 8, 1))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, activation="relu")(inputs))
    malignant = layers.Dense(1, activation="sigmoid", name="malignant")(x)
    kind = layers.Dense(3, activation="softmax", name="kind")(x)
    size = layers.Dense(1, activation="softplus", name="size")(layers.Concatenate()([x, kind]))
    model = randomised(keras.Model(inputs, [malignant, kind, size]))
    network = load_keras(saved(model, tmp_path / "m.h5"))
    x = images(model)
    answer = network(torch.from_numpy(x).movedim(-1, 1))
    first, second, third = (np.asarray(each.detach()) for each in model(x))
    np.testing.assert_allclose(answer["malignant"].sigmoid(), first, atol=1e-5)
    # Another layer takes these probabilities, so that they stay.
    np.testing.assert_allclose(answer["kind"], second, atol=1e-5)
    np.testing.assert_allclose(answer["size"], third, atol=1e-5)
    assert [o.ending for o in network.facts.outputs] == ["sigmoid", "softmax", "softplus"]
    assert network.endings == {"malignant": "sigmoid", "kind": "", "size": ""}
    image = Image.from_array(x[0, ..., 0])
    steps = classifier_of(network, 2, 3, output="kind")
    prediction = predict(image, steps)
    np.testing.assert_allclose(prediction.probabilities, second[0], atol=1e-5)
    assert prediction.ending == "softmax"
    steps = classifier_of(network, 2, 2, output="malignant", head=Head.ONE_LOGIT)
    assert predict(image, steps).ending == "sigmoid"


def test_what_has_no_counterpart_is_run_by_keras_itself(tmp_path: Path) -> None:
    chain = [keras.Input((8, 8, 2)), layers.Conv2D(4, 3), layers.Conv2DTranspose(3, 2)]
    tail = [layers.GlobalAveragePooling2D(), layers.Dense(2, activation="softmax")]
    model = randomised(keras.Sequential([*chain, *tail]))
    network = load_keras(saved(model, tmp_path / "m.keras"))
    assert isinstance(network, WrappedKeras)
    assert network.facts.limit == "Conv2DTranspose has no counterpart"
    x = images(model, 1)
    np.testing.assert_allclose(asked(network, x).softmax(1), in_keras(model, x), atol=1e-5)
    inputs = torch.from_numpy(x).movedim(-1, 1).requires_grad_()
    network(inputs)[0, 0].backward()
    assert inputs.grad is not None
    assert inputs.grad.abs().max() > 0
    assert Keras().gives_of(network) == {Gives.GRADIENTS}


def ends(last: bool, tail: list[Any]) -> Any:
    """Convolutions whose last gives three channels, and what is behind them."""
    place = "channels_last" if last else "channels_first"
    chain = [keras.Input((6, 5, 1) if last else (1, 6, 5)), layers.Conv2D(3, 3, data_format=place)]
    return randomised(keras.Sequential([*chain, *tail]))


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("last", "tail", "ending"),
    [
        pytest.param(True, lambda: [layers.Softmax()], "softmax", id="classes"),
        pytest.param(True, lambda: [layers.Activation("softmax")], "softmax", id="function"),
        pytest.param(True, lambda: [layers.Softmax(axis=1)], "linear", id="rows"),
        pytest.param(True, lambda: [layers.Softmax(axis=[1, 2])], "linear", id="image"),
        pytest.param(False, lambda: [layers.Softmax(axis=1)], "softmax", id="classes first"),
        pytest.param(False, lambda: [layers.Softmax()], "linear", id="columns"),
        pytest.param(False, lambda: [layers.Activation("softmax")], "linear", id="function over columns"),
        pytest.param(True, lambda: [layers.Softmax(), layers.Flatten()], "linear", id="flattened"),
        pytest.param(True, lambda: [layers.Activation("sigmoid"), layers.Flatten()], "sigmoid", id="each"),
        pytest.param(
            True,
            lambda: [layers.GlobalMaxPooling2D(keepdims=True), layers.Softmax(), layers.Flatten()],
            "softmax",
            id="flattened row",
        ),
        pytest.param(
            True,
            lambda: [layers.GlobalMaxPooling2D(), layers.Activation("sigmoid"), layers.Softmax()],
            "softmax",
            id="behind a sigmoid",
        ),
    ],
)
def test_only_an_ending_over_classes_is_taken_off(
    last: bool, tail: Callable[[], list[Any]], ending: str, suffix: str, tmp_path: Path
) -> None:
    model = ends(last, tail())
    network = load_keras(saved(model, tmp_path / f"m{suffix}"))
    x = images(model, 1)
    expected = torch.from_numpy(in_keras(model, x))
    expected = expected.movedim(-1, 1) if last and expected.ndim > 2 else expected
    assert [each.ending for each in network.facts.outputs] == [ending]
    assert network.ending == ending.replace("linear", "")
    logits = network(torch.from_numpy(x).movedim(-1, 1) if last else torch.from_numpy(x))
    answer = {"softmax": logits.softmax(1), "sigmoid": logits.sigmoid(), "linear": logits}[ending]
    torch.testing.assert_close(answer, expected, atol=1e-5, rtol=0)
    if expected.ndim == 2 and ending == "softmax":
        # Nor is anything below it taken off while the network runs.
        prediction = predict(Image.from_array(x[0, ..., 0]), classifier_of(network, 2, 3))
        np.testing.assert_allclose(prediction.probabilities, expected[0], atol=1e-5)


PREPROCESSING = {"_target_": "Compose", "transforms": [{"_target_": "ScaleIntensityd", "keys": "image"}]}


@pytest.mark.parametrize("suffix", Keras.suffixes)
def test_a_bundle_with_a_keras_file(suffix: str, tmp_path: Path) -> None:
    model = zunair()
    bundle = write_bundle(tmp_path / "b", {"preprocessing": PREPROCESSING}, ("sick",), spatial_shape=[40, 38, 32])
    model.save(tmp_path / "m.h5")
    (tmp_path / "m.h5").rename(bundle / "models" / f"model{suffix}")
    classifier = load_model(bundle, device="cpu")
    image = Image.from_array(np.random.default_rng(0).uniform(size=(40, 38, 32)))
    scaled = (image.data - image.data.min()) / (image.data.max() - image.data.min())
    prediction = predict(image, classifier)
    expected = in_keras(model, scaled.astype(np.float32)[0][None, ..., None])[0, 0]
    assert prediction.probabilities[1] == pytest.approx(expected, abs=1e-5)
    assert prediction.ending == "sigmoid"
    assert classifier.gives == frozenset(Gives)
    attribution = explain(image, classifier)
    assert attribution.values.shape[-3:] == (40, 38, 32)


def test_a_softmax_along_another_axis_than_the_classes_is_kept(tmp_path: Path) -> None:
    inputs = keras.Input((8, 9, 1))
    rows = keras.Model(inputs, layers.Softmax(axis=1)(layers.Conv2D(3, 3, name="c")(inputs)))
    path = saved(randomised(rows), tmp_path / "m.keras")
    network, x = load_keras(path), images(rows)
    assert network.ending == ""
    np.testing.assert_allclose(asked(network, x), in_keras(rows, x), atol=1e-5)


def test_sigmoids_side_by_side_are_not_applied_again(tmp_path: Path) -> None:
    inputs = keras.Input((8, 10, 1))
    pooled = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(inputs))
    model = keras.Model(inputs, layers.Concatenate()([layers.Dense(1, "sigmoid")(pooled) for _ in range(3)]))
    x = images(model, 1)
    network = load_keras(saved(randomised(model), tmp_path / "m.keras"))
    found = predict(Image.from_array(x[0, ..., 0]), classifier_of(network, 2, 3, head=Head.MULTI_LABEL))
    np.testing.assert_allclose(found.probabilities, in_keras(model, x)[0], atol=1e-5)
    assert found.ending == "sigmoid"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_images_of_another_shape_than_the_file_says_are_refused(suffix: str, tmp_path: Path) -> None:
    """Also where every layer would take them."""
    inputs = keras.Input((16, 20, 1))
    hidden = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(inputs))
    network = load_keras(saved(keras.Model(inputs, layers.Dense(2)(hidden)), tmp_path / f"m{suffix}"))
    classifier = classifier_of(network, 2)
    assert len(predict(np.random.default_rng(0).random((16, 20)), classifier).logits) == 2
    for ask in (predict, explain):
        with pytest.raises(ModelError, match=r"images of 16 x 20 with 1 channel\(s\), not 20 x 16 with 1; add Resize"):
            ask(np.random.default_rng(0).random((20, 16)), classifier)
