from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from helpers import MeanOf, ones
from monai.transforms import Compose, ScaleIntensity, ScaleIntensityRange, ScaleIntensityRanged
from torch import nn

from napari_xai_med import classifier_from_module, explain, predict
from napari_xai_med.errors import InputError, ModelError
from napari_xai_med.models.head import Head
from napari_xai_med.preprocessing.steps import Window

IMAGE = np.random.default_rng(0).uniform(size=(10, 12, 14)).astype(np.float32)


@pytest.mark.parametrize(
    "preprocessing",
    [
        [Window(a_min=-1000, a_max=400)],
        ScaleIntensityRange(-1000, 400, 0, 1, clip=True),
        Compose([ScaleIntensityRange(-1000, 400, 0, 1, clip=True)]),
        ScaleIntensityRanged("image", -1000, 400, 0, 1, clip=True),
        Compose([ScaleIntensityRanged("image", -1000, 400, 0, 1, clip=True)]),
    ],
    ids=["steps", "transform", "several", "of a dictionary", "several of a dictionary"],
)
def test_a_preprocessing_is_steps_or_transforms(preprocessing: Any) -> None:
    network = MeanOf(ones(nn.Conv2d(1, 1, 1)))
    classifier = classifier_from_module(network, ["a", "b"], preprocessing=preprocessing)
    assert predict(np.full((8, 9), -300.0), classifier).logits[1] == pytest.approx(0.5)
    assert (classifier.steps is not None) == isinstance(preprocessing, list)


def test_a_preprocessing_of_another_kind_is_refused() -> None:
    with pytest.raises(InputError, match="This is no preprocessing; give a MONAI transform"):
        classifier_from_module(MeanOf(nn.Conv2d(1, 1, 1)), ["a", "b"], preprocessing=[ScaleIntensityRange(0, 1, 0, 1)])


def test_a_bare_network_is_explained_in_one_line() -> None:
    attribution = explain(IMAGE, MeanOf(ones(nn.Conv3d(1, 1, 1))))
    assert attribution.class_name == "class 1"
    np.testing.assert_allclose(attribution.values, IMAGE / IMAGE.size, rtol=1e-5)


def test_names_head_and_preprocessing() -> None:
    network = nn.Sequential(ones(nn.Conv3d(1, 1, 1)), nn.AdaptiveAvgPool3d(1), nn.Flatten())
    classifier = classifier_from_module(network, ["ill"], preprocessing=ScaleIntensity(), name="mean")
    assert classifier.head is Head.ONE_LOGIT
    assert classifier.class_names == ("not ill", "ill")
    scaled = (IMAGE - IMAGE.min()) / (IMAGE.max() - IMAGE.min())
    assert predict(IMAGE, classifier).logits[0] == pytest.approx(scaled.mean(), rel=1e-5)
    assert predict(IMAGE, network).class_names == ("not class 1", "class 1")


@pytest.mark.parametrize(("outputs", "head"), [(1, Head.ONE_LOGIT), (3, Head.MULTI_LABEL)])
def test_the_head_is_told_by_what_the_network_is_seen_to_end_in(outputs: int, head: Head) -> None:
    network = nn.Sequential(nn.Conv3d(1, outputs, 1), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Sigmoid())
    own = network(torch.from_numpy(IMAGE)[None, None])[0].detach()
    np.testing.assert_allclose(predict(IMAGE, network).probabilities[-outputs:], own, rtol=1e-5)
    names = [f"finding {k}" for k in range(outputs)]
    assert classifier_from_module(network, names, input_shape=(1, *IMAGE.shape)).head is head


def test_wrapped_networks_are_unwrapped() -> None:
    network = MeanOf(ones(nn.Conv3d(1, 1, 3)))
    wrapped = nn.DataParallel(network)
    assert classifier_from_module(wrapped, ["a", "b"]).network is network
    assert classifier_from_module(torch.compile(network), ["a", "b"]).network is network


def test_the_hash_is_of_the_weights() -> None:
    one, two = MeanOf(ones(nn.Conv3d(1, 1, 1))), MeanOf(ones(nn.Conv3d(1, 1, 1)))
    assert classifier_from_module(one, "ab").sha256 == classifier_from_module(two, "ab").sha256
    two.features[0].bias.data.add_(1)
    assert classifier_from_module(one, "ab").sha256 != classifier_from_module(two, "ab").sha256


def test_what_can_t_be_told_is_one_sentence() -> None:
    with pytest.raises(ModelError, match="has no convolution; pack it as a bundle"):
        classifier_from_module(nn.Linear(3, 2), ["a", "b"])
    with pytest.raises(ModelError, match="MeanOf has two classes called 'a'; give each class a name of its own"):
        classifier_from_module(MeanOf(nn.Conv3d(1, 1, 1)), ["a", "b", "a"])
    with pytest.raises(ModelError, match="no head 'hat'"):
        classifier_from_module(MeanOf(nn.Conv3d(1, 1, 1)), ["a", "b"], head="hat")
    with pytest.raises(ModelError, match="gives no row of numbers"):
        explain(IMAGE, nn.Sequential(nn.Conv3d(2, 1, 1)))
