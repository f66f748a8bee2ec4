"""Files of Keras 1 and 2."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from brain_network import BrainTumour
from keras_networks import asked, images, in_keras, keras, layers, refused, saved, small
from luna_network import LunaNodule

from napari_xai_med.models.keras_files.network import ConvertedKeras, load_keras


def test_names_with_slashes_of_keras_2(tmp_path: Path) -> None:
    import h5py

    h5 = saved(small(), tmp_path / "m.h5")
    with h5py.File(h5, "r+") as file:
        text = file.attrs["model_config"].replace('"name": "c"', '"name": "conv1/c"')
        file.attrs["model_config"] = text
        file.move("model_weights/c", "model_weights/conv1/c")
    model = small()
    network = load_keras(h5)
    assert "conv1/c" in dict(network.named_modules())
    x = images(model)
    np.testing.assert_allclose(asked(network, x), in_keras(model, x), atol=1e-5)


KERAS_1 = {
    "class_name": "Sequential",
    "config": [
        {
            "class_name": "Convolution2D",
            "config": {
                "name": "convolution2d_1",
                "batch_input_shape": [None, 2, 9, 8],
                "nb_filter": 3,
                "nb_row": 3,
                "nb_col": 2,
                "border_mode": "same",
                "subsample": [2, 1],
                "dim_ordering": "th",
                "bias": True,
                "init": "glorot_uniform",
                "activation": "relu",
                "W_regularizer": None,
            },
        },
        {"class_name": "Dropout", "config": {"name": "dropout_1", "p": 0.5}},
        {"class_name": "Flatten", "config": {"name": "flatten_1"}},
        {"class_name": "Dense", "config": {"name": "dense_1", "output_dim": 2, "bias": True, "activation": "softmax"}},
    ],
}


@pytest.mark.parametrize("backend", ["", "theano"])
def test_a_file_of_keras_1_is_brought_up_to_date(backend: str, tmp_path: Path) -> None:
    import h5py

    random = np.random.default_rng(0)
    kernel, bias = random.normal(size=(3, 2, 3, 2)), random.normal(size=3)
    matrix, offset = random.normal(size=(120, 2)), random.normal(size=2)
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file.attrs["model_config"] = json.dumps(KERAS_1).encode()
        file.attrs["keras_version"] = b"1.2.0"
        if backend:
            file.attrs["backend"] = backend.encode()
        for layer, values in (("convolution2d_1", (kernel, bias)), ("dense_1", (matrix, offset))):
            group = file.create_group(f"model_weights/{layer}")
            names = [f"{layer}_W", f"{layer}_b"]
            group.attrs["weight_names"] = [name.encode() for name in names]
            for name, value in zip(names, values, strict=True):
                group[name] = value.astype(np.float32)
    network = load_keras(tmp_path / "m.h5")
    x = torch.from_numpy(random.normal(size=(2, 2, 9, 8)))
    # Nine rows in steps of two: one zero on both sides; two columns wide: one zero on the right.
    turned = torch.from_numpy(kernel).flip(2, 3) if backend else torch.from_numpy(kernel)
    padded = torch.nn.functional.pad(x, (0, 1, 1, 1))
    hidden = torch.nn.functional.conv2d(padded, turned, torch.from_numpy(bias), (2, 1)).relu().flatten(1)
    expected = hidden @ torch.from_numpy(matrix) + torch.from_numpy(offset)
    np.testing.assert_allclose(network(x.float()).detach(), expected, atol=1e-4)
    assert network.ending == "softmax"
    assert network.facts.writer == "Keras 1.2.0"
    assert bool(network.facts.notices) == (not backend)


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        ('"class_name": "Dropout"', '"class_name": "Highway"', "Highway"),
        ('"class_name": "Dropout"', '"class_name": "Lambda"', "holds code"),
        ('"class_name": "Dropout"', '"class_name": "Merge"', "Merge"),
        ('"border_mode": "same"', '"border_mode": "full"', "full"),
        # The batch's own statistics, even when the network is asked.
        (
            '"class_name": "Dropout", "config": {',
            '"class_name": "BatchNormalization", "config": {"mode": 2, ',
            "mode 2",
        ),
    ],
)
def test_what_keras_1_had_alone_is_refused_with_its_version_and_a_way_out(
    old: str, new: str, word: str, tmp_path: Path
) -> None:
    import h5py

    content = json.dumps(KERAS_1)
    assert old in content
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file.attrs["model_config"] = content.replace(old, new).encode()
        file.attrs["keras_version"] = b"1.2.0"
        file.create_group("model_weights")
    refused(tmp_path / "m.h5", word, "Keras 1.2.0", "rebuilt in PyTorch")


def test_a_hard_sigmoid_of_keras_2_is_another_function(tmp_path: Path) -> None:
    import h5py

    chain = [keras.Input((8, 8, 1)), layers.Conv2D(2, 3, activation="hard_sigmoid", name="gate"), layers.Flatten()]
    path = saved(keras.Sequential(chain), tmp_path / "m.h5")
    load_keras(path)
    with h5py.File(path, "r+") as file:
        file.attrs["keras_version"] = "2.6.0"
    refused(path, "hard_sigmoid", "'gate'")


def test_a_brain_tumour_network_of_keras_2_1(shared_data: Callable[[str], Path]) -> None:
    folder = shared_data("weights_brain_tumor_2d")
    network = load_keras(folder / "original_keras.h5")
    reference = BrainTumour().eval()
    reference.load_state_dict(torch.load(folder / "brain_tumor_cnn_23.pt", weights_only=True))
    x = torch.rand(2, 3, 240, 240, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        np.testing.assert_allclose(network(x).sigmoid(), reference(x), atol=1e-5)
    assert (network.facts.input_shape, network.ending) == ((3, 240, 240), "sigmoid")
    assert {"conv0", "activation"} <= set(dict(network.named_modules()))


def test_a_nodule_network_of_keras_1(shared_data: Callable[[str], Path]) -> None:
    folder, patches = shared_data("weights_luna_nodule_3d"), shared_data("luna_patches")
    network = load_keras(folder / "original_keras12.h5")
    reference = LunaNodule().eval()
    reference.load_state_dict(torch.load(folder / "luna_v29.pt", weights_only=True))
    assert tuple(network.endings) == LunaNodule.heads
    for name, malignant in (("positive", 0.98), ("negative", -5.60)):
        x = torch.from_numpy(np.load(patches / f"{name}_patch.npy")).float()[None, None]
        with torch.no_grad():
            answer, expected = network(x), reference(x)
        assert float(answer["o_mal"]) == pytest.approx(malignant, abs=0.01)
        # Diameters are behind a ReLU in the file.
        expected["o_d"] = expected["o_d"].relu()
        for head, logits in expected.items():
            np.testing.assert_allclose(answer[head], logits, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "shape", "ending", "classes"),
    [
        ("covid_ct_2d.h5", (3, 128, 128), "sigmoid", 1),
        ("skullstrip_quality_3d.h5", (1, 128, 128, 64), "sigmoid", 1),
        ("luna_nodule_clf_v1_3d.h5", (1, 64, 64, 64), "softplus", 1),
    ],
)
def test_other_people_s_files(
    name: str, shape: tuple[int, ...], ending: str, classes: int, shared_data: Callable[[str], Path]
) -> None:
    path = shared_data("weights_extra_keras") / name
    network = load_keras(path)
    assert isinstance(network, ConvertedKeras)
    assert network.facts.input_shape == shape
    assert [(o.ending, o.numbers) for o in network.facts.outputs] == [(ending, classes)]
    if not network.facts.writer.startswith("Keras 1."):
        model = keras.models.load_model(path, compile=False)
        x = np.random.default_rng(0).uniform(size=(1, *shape[1:], shape[0])).astype(np.float32)
        np.testing.assert_allclose(asked(network, x).sigmoid(), in_keras(model, x), atol=1e-5)
