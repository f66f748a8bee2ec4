from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers import MeanOf, classifier_of, ones
from monai.transforms import ScaleIntensityRanged
from torch import nn

from napari_xai_med import Image, explain, load_model, predict, read_image
from napari_xai_med.models.classifier import Classifier
from napari_xai_med.samples import sample_files

CT = np.random.default_rng(0).uniform(-1000, 400, (6, 7, 8))


def with_one_low(values: np.ndarray) -> np.ndarray:
    large = np.tile(values, (1, 2, 2))
    large[0, 0, 0] = -1024
    return large


def classifier(own: dict[str, Any] | None = None, **image: Any) -> Classifier:
    facts = {"network_data_format": {"inputs": {"image": image}}, "napari_xai_med": own or {}}
    steps = [ScaleIntensityRanged(keys="image", a_min=-1000, a_max=400, b_min=0, b_max=1, clip=False)]
    return classifier_of(MeanOf(ones(nn.Conv3d(1, 1, 1))), 3, facts=facts, steps=steps)


@pytest.mark.parametrize(
    ("array", "facts", "sentence"),
    [
        (CT, {"format": "hounsfield", "value_range": [0, 1]}, ""),
        ((CT + 1000) / 1400, {"format": "hounsfield"}, "has hardly a value below -30"),
        ((CT + 1000) / 1400, {"format": "Hounsfield"}, "has hardly a value below -30"),
        # A single voxel among many, and rounding below zero, make no Hounsfield units.
        (with_one_low((CT + 1000) / 1400), {"format": "hounsfield"}, "has hardly a value below -30"),
        ((CT + 1000) / 1400 - 1e-9, {"format": "hounsfield"}, "has hardly a value below -30"),
        # Soft tissue and a little fat.
        (np.clip(CT, -100, 80), {"format": "hounsfield"}, ""),
        (CT, {"modality": "MR", "format": "magnitude"}, r"like CT in Hounsfield units, but test takes MR"),
        (CT * 0.5, {"modality": "MR"}, ""),
        (CT, {"modality": "n/a"}, ""),
        (CT, {"modality": "CT"}, ""),
        (CT * 3, {"value_range": [0, 1]}, "is meant for 0 to 1"),
        (np.full((6, 7, 8), -1000.0), {}, "sees the value 0 everywhere"),
        (CT, {"own": {"spacing": [0.5, 2]}}, ""),
        # A file keeps its spacing in single precision.
        (CT, {"own": {"spacing": [1 + 1e-7, 1 + 2e-7]}}, ""),
        (CT, {"own": {"spacing": [2, 8]}}, "has 1 to 1 mm between voxels"),
    ],
)
def test_what_does_not_fit_is_said_with_the_answer(array: Any, facts: dict[str, Any], sentence: str) -> None:
    chosen = classifier(**facts)
    for result in (predict(array, chosen), explain(array, chosen, target=1)):
        if sentence:
            assert sentence in " ".join(result.notices)
        else:
            assert result.notices == ()


@pytest.mark.parametrize(
    ("missing", "sentence"),
    [
        ((), ""),
        ((1,), "sees the value 0 everywhere in channel 2 (T2) of image: do not trust"),
        ((0, 2), "0 everywhere in channel 1 (T1) and 0 everywhere in channel 3 (unnamed) of image"),
        ((0, 1, 2), "The network sees the value 0 everywhere in image"),
    ],
)
def test_an_empty_channel_is_named(missing: tuple[int, ...], sentence: str) -> None:
    facts = {"network_data_format": {"inputs": {"image": {"channel_def": {"0": "T1", "1": "T2"}}}}}
    values = np.random.default_rng(0).random((3, 6, 7, 8))
    values[list(missing)] = 0
    chosen = classifier_of(MeanOf(ones(nn.Conv3d(3, 1, 1))), 3, channels=3, facts=facts)
    notices = predict(Image.from_array(values, channel_axis=0), chosen).notices
    assert sentence in " ".join(notices)
    assert bool(notices) is bool(sentence)


@pytest.mark.parametrize(("plane", "sentence"), [("axial", ""), ("coronal", "has 2 to 5 mm between voxels")])
def test_a_slice_is_asked_for_the_spacing_of_its_own_axes(plane: str, sentence: str) -> None:
    network = MeanOf(ones(nn.Conv2d(1, 1, 1)))
    chosen = classifier_of(network, 2, facts={"napari_xai_med": {"spacing": [1, 3]}})
    # Slices 5 mm apart, with pixels of 2 mm.
    notices = predict(Image.from_array(CT, (5, 2, 2)), chosen, plane=plane, slice=3).notices
    assert sentence in " ".join(notices)
    assert bool(notices) is bool(sentence)


@pytest.mark.parametrize("sample", ["chest_ct_lesion", "chest_ct_normal"])
def test_samples_raise_no_doubt(sample: str) -> None:
    assert predict(read_image(sample_files(sample)[0]), load_model("chest_ct_3d")).notices == ()


def test_pictures_have_no_spacing_to_doubt() -> None:
    network = MeanOf(ones(nn.Conv2d(1, 1, 1)))
    chosen = classifier_of(network, 2, facts={"napari_xai_med": {"spacing": [5, 6]}})
    assert predict(Image.from_array(CT[0]), chosen).notices == ()
