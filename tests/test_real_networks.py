"""Networks that other people trained, in the formats in which they came, answer as they did there."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from brain_network import BrainTumour
from conftest import ROOT
from helpers import write_bundle
from keras_networks import in_keras, keras, keras_gradcam
from luna_network import LunaNodule
from torch.nn import functional

from napari_xai_med import Classifier, Image, classifier_from_module, explain, load_model, predict, read_image
from napari_xai_med.io.nifti import save_nifti
from napari_xai_med.job import Job
from napari_xai_med.models.keras_files.network import load_keras
from napari_xai_med.models.pack import Packing, pack
from napari_xai_med.pipeline import network_view
from napari_xai_med.preprocessing.base import AnyStep, config_of, transform_of
from napari_xai_med.preprocessing.files import read_preprocessing
from napari_xai_med.request import ExplainRequest

Folder = Callable[[str], Path]
NAMES = ("no tumour", "tumour")


def steps(name: str, dims: int) -> tuple[AnyStep, ...]:
    """The preprocessing that docs/real_networks.md tells."""
    return read_preprocessing(str(ROOT / "docs" / "real_networks" / f"{name}.json"), dims)


def with_own_code(folder: Path, network: type, inference: dict[str, Any], weights: Path, **about: Any) -> Path:
    """A bundle of a state dict and a network that its author wrote."""
    target = {"_target_": f"own.{network.__name__}"}
    bundle = write_bundle(folder, {"network_def": target, **inference}, about.pop("names"), **about)
    source = ROOT / "tests" / f"{network.__module__}.py"
    (bundle / "own.py").write_text(source.read_text())
    shutil.copyfile(weights, bundle / "models" / "model.pt")
    return bundle


@pytest.fixture(scope="module")
def brain(shared_data: Folder, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Classifier]:
    weights = shared_data("weights_brain_tumor_2d")
    preprocessing = steps("brain_tumour", 2)

    def load(form: str) -> Classifier:
        folder = tmp_path_factory.mktemp("bundles") / "brain"
        if form == "keras":
            return pack(
                Packing(
                    weights=weights / "original_keras.h5",
                    class_names=NAMES,
                    head="one_logit",
                    preprocessing=preprocessing,
                ),
                folder,
            )
        inference = {"preprocessing": config_of(preprocessing)}
        about = {"names": NAMES, "head": "one_logit", "channels": 3, "image_channels": 0, "spatial_shape": [240, 240]}
        return load_model(
            with_own_code(folder, BrainTumour, inference, weights / "brain_tumor_cnn_23.pt", **about), trust=True
        )

    return load


@pytest.mark.slow
@pytest.mark.parametrize("form", ["state dict", "keras"])
def test_the_brain_tumour_network_gives_the_reference_predictions_on_all_images(
    form: str, brain: Callable[[str], Classifier], shared_data: Folder
) -> None:
    classifier = brain(form)
    table = shared_data("weights_brain_tumor_2d") / "reference_predictions.csv"
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert len(rows) == 253
    folder = shared_data("brain_mri_253")
    ours = [predict(folder / row["file"], classifier).probabilities[1] for row in rows]
    np.testing.assert_allclose(ours, [float(row["p_tumour"]) for row in rows], atol=1e-3)


def test_a_bundle_and_a_script_explain_the_brain_tumour_network_alike(
    brain: Callable[[str], Classifier], shared_data: Folder
) -> None:
    network = BrainTumour()
    network.load_state_dict(torch.load(shared_data("weights_brain_tumor_2d") / "brain_tumor_cnn_23.pt"))
    transform = transform_of(steps("brain_tumour", 2), "brain")
    script = classifier_from_module(network, NAMES, head="one_logit", preprocessing=transform)
    picture = read_image(shared_data("brain_mri_253") / "yes" / "Y1.jpg")
    state_dict, from_keras = brain("state dict"), brain("keras")
    assert state_dict.trusted
    assert not from_keras.trusted
    maps = [
        explain(picture, one, layers=layer, target="tumour")
        for one, layer in ((script, "act"), (state_dict, "act"), (from_keras, "activation"))
    ]
    for one in maps:
        assert one.values.shape == picture.grid.shape
        # 240 pixels, a border of 2 and a kernel of 7: 238.
        assert one.raw.shape == (238, 238)
        assert one.raw.max() > 0
        np.testing.assert_allclose(one.raw, maps[0].raw, atol=1e-5 * maps[0].raw.max())


@pytest.fixture(scope="module")
def luna(shared_data: Folder, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Classifier]:
    """The nodule network with one of its five heads, in one of its forms; its patches are scaled already."""
    weights = shared_data("weights_luna_nodule_3d")

    def load(form: str, output: str, head: str, names: tuple[str, ...]) -> Classifier:
        folder = tmp_path_factory.mktemp("bundles") / "luna"
        if form == "keras":
            packing = Packing(weights=weights / "original_keras12.h5", class_names=names, head=head, output=output)
            return pack(packing, folder)
        if form == "bundle":
            about = {"names": names, "head": head, "output": output, "spatial_shape": [64, 64, 64]}
            inference = {"preprocessing": config_of([])}
            bundle = with_own_code(folder, LunaNodule, inference, weights / "luna_v29.pt", **about)
            return load_model(bundle, trust=True)
        network = LunaNodule()
        network.load_state_dict(torch.load(weights / "luna_v29.pt"))
        return classifier_from_module(network, names, head=head, output=output)

    return load


@pytest.mark.parametrize(("patch", "malignant", "diameter"), [("positive", 0.98, 17.9), ("negative", -5.60, 0.0)])
@pytest.mark.parametrize("form", ["script", "bundle", "keras"])
def test_one_of_five_heads_is_chosen_by_name_and_gives_the_stated_logits(
    form: str, patch: str, malignant: float, diameter: float, luna: Callable[..., Classifier], shared_data: Folder
) -> None:
    image = Image.from_array(np.load(shared_data("luna_patches") / f"{patch}_patch.npy"))
    prediction = predict(image, luna(form, "o_mal", "one_logit", ("malignant",)))
    # As many digits as its README states.
    assert prediction.logits == pytest.approx([malignant], abs=0.006)
    found = predict(image, luna(form, "o_d", "regression", ("diameter",))).logits[0]
    assert max(found, 0) == pytest.approx(diameter, abs=0.06)
    kinds = predict(image, luna(form, "o_fp", "softmax", ("a", "b", "c")))
    assert kinds.logits.shape == (3,)
    assert sum(kinds.probabilities) == pytest.approx(1)


def test_the_nodule_network_answers_about_a_scan_in_hounsfield_units(shared_data: Folder, tmp_path: Path) -> None:
    """As its patches, whose axes lead to the head, the back and the left."""
    patch = np.load(shared_data("luna_patches") / "positive_patch.npy")
    image = Image.from_array(patch[::-1] * 1400 - 1000)
    save_nifti(tmp_path / "scan.nii.gz", image.data[0], image.grid)
    weights = shared_data("weights_luna_nodule_3d") / "original_keras12.h5"
    packing = Packing(
        weights=weights,
        class_names=("malignant",),
        output="o_mal",
        preprocessing=steps("lung_nodule", 3),
        modality="CT",
    )
    classifier = pack(packing, tmp_path / "bundle")
    assert predict(tmp_path / "scan.nii.gz", classifier).logits == pytest.approx([0.98], abs=0.006)


def test_all_forms_of_the_nodule_network_have_the_same_map(
    luna: Callable[..., Classifier], shared_data: Folder
) -> None:
    image = Image.from_array(np.load(shared_data("luna_patches") / "positive_patch.npy"))
    layers = {"script": "convs.4", "bundle": "convs.4", "keras": "convolution3d_10"}
    maps = [
        explain(image, luna(form, "o_mal", "one_logit", ("malignant",)), layers=layer, target="malignant").raw
        for form, layer in layers.items()
    ]
    assert maps[0].max() > 0
    for one in maps[1:]:
        np.testing.assert_allclose(one, maps[0], atol=1e-4 * maps[0].max())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "preprocessing", "layer", "place", "image", "slice"),
    [
        ("covid_ct_2d", "covid_ct", "conv2d_3", "ct_totalsegmentator", "aorta_case/ct_cropped.nii.gz", 52),
        ("covid_ct_2d", "covid_ct", "conv2d_1", "ct_totalsegmentator", "example_ct.nii.gz", 0),
        ("skullstrip_quality_3d", "skullstrip", "conv3d_2", "niivue_volumes", "MR_Gd.nii.gz", None),
    ],
)
def test_keras_files_are_answered_and_explained_on_real_images_as_by_keras(
    name: str,
    preprocessing: str,
    layer: str,
    place: str,
    image: str,
    slice: int | None,
    shared_data: Folder,
    tmp_path: Path,
) -> None:
    """Keras' own answer and gradients, on its torch backend, from the file as it is."""
    path, scan = shared_data("weights_extra_keras") / f"{name}.h5", read_image(shared_data(place) / image)
    chosen = steps(preprocessing, 3 if slice is None else 2)
    classifier = pack(Packing(weights=path, class_names=("yes",), preprocessing=chosen), tmp_path / "bundle")
    assert keras.backend.backend() == "torch"
    model = keras.models.load_model(path, compile=False)
    seen = network_view(scan, classifier, ExplainRequest(slice=slice), Job()).data
    x = np.moveaxis(seen if slice is None else seen[:, 0], 0, -1)[None].copy()
    assert x.std() > 0.1, "there is something to see"
    probability = in_keras(model, x)[0, 0]
    np.testing.assert_allclose(predict(scan, classifier, slice=slice).probabilities[1], probability, atol=1e-5)
    attribution = explain(scan, classifier, target="yes", layers=layer, slice=slice)
    expected = keras_gradcam(model, layer, x, 0)
    assert expected.max() > 0
    np.testing.assert_allclose(attribution.raw, expected, atol=1e-5 * expected.max())
    assert attribution.values.size == scan.data[0].size / (1 if slice is None else scan.grid.shape[2])


def by_hand(path: Path, x: torch.Tensor) -> torch.Tensor:
    """What the nodule scorer of Keras 1 gives, written from its weights and its layers' names alone."""
    import h5py

    with h5py.File(path) as file:
        arrays = {
            name: [torch.from_numpy(group[each][()]) for each in group.attrs["weight_names"]]
            for name, group in file["model_weights"].items()
        }

    def normalised(y: torch.Tensor, number: int) -> torch.Tensor:
        gamma, beta, mean, variance = arrays[f"batchnormalization_{number}"]
        return functional.batch_norm(y, mean, variance, gamma, beta, eps=1e-3)

    pooled, y = x, x
    for number in range(1, 6):
        y = normalised(functional.conv3d(y, *arrays[f"convolution3d_{number}"], padding=1), number)
        y = functional.max_pool3d(functional.leaky_relu(y, 0.03), 2)
        if number < 5:
            pooled = functional.avg_pool3d(pooled, 2)
            y = torch.cat([y, pooled], 1)
    kernel, bias = arrays["out_nodule_score"]
    return functional.softplus(normalised(y.amax((2, 3, 4)), 6) @ kernel + bias)


def test_the_nodule_scorer_of_keras_1_answers_as_its_weights_say(shared_data: Folder) -> None:
    path = shared_data("weights_extra_keras") / "luna_nodule_clf_v1_3d.h5"
    network, scores = load_keras(path), {}
    for patch in ("positive", "negative"):
        x = torch.from_numpy(np.load(shared_data("luna_patches") / f"{patch}_patch.npy")).float()[None, None]
        scores[patch] = float(network(x))
        assert scores[patch] == pytest.approx(float(by_hand(path, x)), abs=1e-5)
    assert scores["positive"] > scores["negative"] + 0.1
    (notice,) = network.facts.notices
    assert "does not say whether Theano trained it" in notice


def test_every_keras_file_is_one_of_those_above(shared_data: Folder) -> None:
    known = {"covid_ct_2d", "skullstrip_quality_3d", "luna_nodule_clf_v1_3d"}
    assert {path.stem for path in shared_data("weights_extra_keras").glob("*.h5")} == known
