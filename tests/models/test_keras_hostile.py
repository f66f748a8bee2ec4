"""Keras files that want to run code, lead elsewhere, fill the memory or are damaged."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import classifier_of
from keras_networks import SUFFIXES, config_of, keras, layers, refused, saved, small

from napari_xai_med import Image, predict
from napari_xai_med.errors import ModelError
from napari_xai_med.models.formats.keras import Keras
from napari_xai_med.models.keras_files.network import ConvertedKeras, load_keras


@pytest.fixture
def h5(tmp_path: Path) -> Path:
    return saved(small(), tmp_path / "m.h5")


@pytest.fixture
def zipped(tmp_path: Path) -> Path:
    return saved(small(), tmp_path / "m.keras")


LAMBDA = {"class_name": "Lambda", "module": "keras.layers", "config": {"name": "evil", "function": "x"}}
INNER = {"class_name": "Sequential", "module": "keras", "config": {"name": "inner", "layers": [LAMBDA]}}
WRAPPER = {"class_name": "TimeDistributed", "module": "keras.layers", "config": {"name": "t", "layer": LAMBDA}}


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("entry", [LAMBDA, INNER, WRAPPER], ids=["layer", "network", "wrapper"])
def test_lambdas_are_refused_by_name_wherever_they_are(entry: Any, suffix: str, tmp_path: Path) -> None:
    path = saved(small(), tmp_path / f"m{suffix}")
    with config_of(path) as config:
        config["config"]["layers"].insert(2, entry)
    refused(path, "Lambda", "'evil'", "holds code")


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"class_name": "MyLayer", "module": None, "registered_name": "MyLayer"}, "MyLayer"),
        ({"class_name": "Dense", "module": "my_package.layers"}, "Dense"),
        ({"class_name": "Dense", "module": "keras.layers", "registered_name": "mine>Dense"}, "mine>Dense"),
        ({"class_name": "TorchModuleWrapper", "module": "keras.layers"}, "TorchModuleWrapper"),
        ({"class_name": "TFSMLayer", "module": "keras.layers"}, "TFSMLayer"),
        ({"class_name": "function", "module": "os", "config": "system"}, "function"),
    ],
)
def test_foreign_classes_are_refused_by_name(change: dict[str, Any], word: str, zipped: Path) -> None:
    with config_of(zipped) as config:
        config["config"]["layers"][-1] |= change
    refused(zipped, word)


@pytest.mark.parametrize(
    ("key", "value", "word"),
    [
        ("activation", {"module": "os", "class_name": "function", "config": "system"}, "system"),
        ("activation", {"module": "os", "class_name": "__lambda__", "config": {"value": "x"}}, "Lambda"),
        ("activation", "os.system", "os.system"),
        ("units", {"class_name": "Popen", "module": "subprocess", "config": {}}, "Popen"),
        ("units", 10**12, "fits no memory"),
        ("units", 10**7, "do not fit"),
        ("units", -3, "can't build layer 'd'"),
        ("frobnicate", 7, "frobnicate"),
        ("dtype", {"class_name": "QuantizedDTypePolicy", "config": {"mode": "int8"}}, "quantized"),
    ],
)
def test_settings_that_are_no_plain_numbers_or_names_are_refused(key: str, value: Any, word: str, zipped: Path) -> None:
    with config_of(zipped) as config:
        config["config"]["layers"][-1]["config"][key] = value
    refused(zipped, word)


def test_what_training_needs_is_never_looked_up(zipped: Path) -> None:
    evil = {"class_name": "Popen", "module": "subprocess", "config": {"args": "true"}}
    with config_of(zipped) as config:
        config["compile_config"] = evil
        config["config"]["layers"][-1]["config"] |= {"kernel_initializer": evil, "kernel_regularizer": evil}
    assert isinstance(load_keras(zipped), ConvertedKeras)


@pytest.mark.parametrize("shape", [[None, 10**6, 10**6, 1], [None, 8, -8, 1], [None, 8, 1], [None, "8", None], None])
def test_impossible_inputs_are_refused(shape: Any, zipped: Path) -> None:
    with config_of(zipped) as config:
        config["config"]["layers"][0]["config"]["batch_shape"] = shape
    refused(zipped)


def test_a_graph_with_a_circle_is_refused(tmp_path: Path) -> None:
    inputs = keras.Input((8, 8, 1))
    path = saved(
        keras.Model(inputs, layers.Conv2D(1, 1, name="b")(layers.Conv2D(1, 1, name="a")(inputs))), tmp_path / "m.keras"
    )
    with config_of(path) as config:
        tensor = config["config"]["layers"][1]["inbound_nodes"][0]["args"][0]
        tensor["config"]["keras_history"] = ["b", 0, 0]
    refused(path, "no layer makes")


@pytest.mark.parametrize("key", ["input_layers", "output_layers", "inbound_nodes"])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_layer_that_is_not_there_is_named(key: str, suffix: str, tmp_path: Path) -> None:
    inputs = keras.Input((8, 8, 1))
    path = saved(keras.Model(inputs, layers.Conv2D(1, 1, name="a")(inputs)), tmp_path / f"m{suffix}")
    with config_of(path) as config:
        if key == "inbound_nodes":
            config["config"]["layers"][1][key][0]["args"][0]["config"]["keras_history"][0] = "gone"
        else:
            config["config"][key] = [["gone", 0, 0]]
    refused(path, "it has no layer 'gone'", "save it again")


@pytest.mark.parametrize("suffix", Keras.suffixes)
@pytest.mark.parametrize("part", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("kind", SUFFIXES)
def test_truncated_files_are_one_sentence(kind: str, part: float, suffix: str, tmp_path: Path) -> None:
    content = saved(small(), tmp_path / f"whole{kind}").read_bytes()
    path = tmp_path / f"m{suffix}"
    path.write_bytes(content[: int(len(content) * part)])
    refused(path, "not a Keras file")


def test_files_with_something_else_in_them_are_one_sentence(tmp_path: Path, h5: Path, zipped: Path) -> None:
    import h5py

    refused(tmp_path / "missing.h5", "can't be read")
    (tmp_path / "a.h5").write_text("model: none")
    refused(tmp_path / "a.h5", "not a Keras file")
    with zipfile.ZipFile(tmp_path / "b.keras", "w") as archive:
        archive.writestr("hello", "x")
    refused(tmp_path / "b.keras", "holds no config.json")
    with h5py.File(h5, "r+") as file:
        del file.attrs["model_config"]
    refused(h5, "weights without their network")
    with config_of(zipped) as config:
        config.clear()
    refused(zipped, "incomplete")
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file.attrs["model_config"] = "[" * 100_000
    refused(tmp_path / "c.h5")


def test_a_zip_that_leads_out_or_is_too_large_is_refused(zipped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from napari_xai_med.models import archives

    with monkeypatch.context() as patch:
        patch.setattr(archives, "LARGEST_ARCHIVE", 100)
        refused(zipped, "unpacks to more than")
    with zipfile.ZipFile(zipped, "a") as archive:
        archive.writestr("../out", "x")
    refused(zipped, "leads out of it")


def test_hdf5_that_leads_elsewhere_is_refused(tmp_path: Path) -> None:
    import h5py

    other = saved(small(), tmp_path / "other.h5")
    for k, link in enumerate([h5py.ExternalLink(str(other), "/model_weights"), h5py.SoftLink("/model_weights")]):
        path = saved(small(), tmp_path / f"{k}.h5")
        with h5py.File(path, "r+") as file:
            file["elsewhere"] = link
        refused(path, "leads to another file")
    path = saved(small(), tmp_path / "raw.h5")
    with h5py.File(path, "r+") as file:
        file.create_dataset("x", (4,), "f4", external=[(str(other), 0, 16)])
    refused(path, "leads to another file")
    path = saved(small(), tmp_path / "virtual.h5")
    with h5py.File(path, "r+") as file:
        layout = h5py.VirtualLayout((4,), "f4")
        layout[:] = h5py.VirtualSource(str(other), "x", (4,))
        file.create_virtual_dataset("x", layout)
    refused(path, "leads to another file")


def test_arrays_that_say_they_are_huge_are_refused_before_they_are_read(tmp_path: Path) -> None:
    import h5py

    for k, chunks in enumerate([(1 << 20,), None]):
        path = saved(small(), tmp_path / f"{k}.h5")
        with h5py.File(path, "r+") as file:
            own = file["model_weights"]["d"]
            name = own.attrs["weight_names"][0]
            del own[name]
            own.create_dataset(name, (1 << 40,), "f4", chunks=chunks)
        refused(path, "damaged")


def test_weights_that_do_not_fit_are_refused(h5: Path, zipped: Path) -> None:
    import h5py

    with h5py.File(h5, "r+") as file:
        own = file["model_weights"]["d"]
        name = own.attrs["weight_names"][0]
        del own[name]
        own.create_dataset(name, data=np.zeros((7, 7), np.float32))
    refused(h5, "do not fit", "'d'")
    with config_of(zipped) as config:
        config["config"]["layers"][1]["config"]["kernel_size"] = [2, 2]
    refused(zipped, "do not fit")


def test_weights_that_are_not_numbers_show_when_it_is_asked(tmp_path: Path) -> None:
    model = small()
    model.layers[0].kernel.assign(np.full((3, 3, 1, 2), np.nan))
    network = load_keras(saved(model, tmp_path / "m.keras"))
    with pytest.raises(ModelError, match="first in layer c"):
        predict(Image.from_array(np.random.default_rng(0).normal(size=(8, 8))), classifier_of(network, 2))


def test_keras_on_something_else_is_one_sentence(h5: Path) -> None:
    code = (
        "import sys, types; keras = types.ModuleType('keras'); sys.modules['keras'] = keras\n"
        "keras.__version__ = '3'; keras.device = None; keras.backend = types.SimpleNamespace(backend=lambda: 'jax')\n"
        "from pathlib import Path; from napari_xai_med.models.keras_files.network import load_keras\n"
        f"try: load_keras(Path({str(h5)!r}))\nexcept Exception as error: print(error)"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ), check=True
    )
    assert "KERAS_BACKEND=torch" in answer.stdout
    assert "jax" in answer.stdout


def test_the_user_s_settings_of_keras_are_left_alone(h5: Path) -> None:
    code = (
        "import os; from pathlib import Path; from napari_xai_med.models.keras_files.network import load_keras\n"
        f"load_keras(Path({str(h5)!r})); print(os.environ['KERAS_BACKEND'])"
    )
    env = {**os.environ, "KERAS_BACKEND": "tensorflow"}
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True)
    assert answer.stdout.split() == ["tensorflow"]
