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


def classifier(own: dict[str, Any] | None = None, **image: Any) -> Classifier:
    facts = {"network_data_format": {"inputs": {"image": image}}, "napari_xai_med": own or {}}
    steps = [ScaleIntensityRanged(keys="image", a_min=-1000, a_max=400, b_min=0, b_max=1, clip=False)]
    return classifier_of(MeanOf(ones(nn.Conv3d(1, 1, 1))), 3, facts=facts, steps=steps)


@pytest.mark.parametrize(
    ("array", "facts", "sentence"),
    [
        (CT, {"format": "hounsfield", "value_range": [0, 1]}, ""),
        ((CT + 1000) / 1400, {"format": "hounsfield"}, "has no negative value"),
        ((CT + 1000) / 1400, {"format": "Hounsfield"}, "has no negative value"),
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


@pytest.mark.parametrize("sample", ["chest_ct_lesion", "chest_ct_normal"])
def test_samples_raise_no_doubt(sample: str) -> None:
    assert predict(read_image(sample_files(sample)[0]), load_model("chest_ct_3d")).notices == ()


def test_pictures_have_no_spacing_to_doubt() -> None:
    network = MeanOf(ones(nn.Conv2d(1, 1, 1)))
    chosen = classifier_of(network, 2, facts={"napari_xai_med": {"spacing": [5, 6]}})
    assert predict(Image.from_array(CT[0]), chosen).notices == ()
