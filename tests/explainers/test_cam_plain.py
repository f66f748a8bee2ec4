from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from explained_networks import real_case, small_case
from helpers import classifier_of, maps_of
from monai import visualize
from torch import Tensor, nn

from napari_xai_med.errors import ModelError
from napari_xai_med.explainers.cam_plain import CAM, EigenCAM
from napari_xai_med.models.target import Quantity, Target

HEADS = {
    "resnet 3d": ("layer4", "fc"),
    "densenet 3d": ("class_layers.relu", "class_layers.out"),
    "senet 2d": ("layer4", "last_linear"),
    "efficientnet 2d": ("_swish", "_fc"),
}


@pytest.mark.parametrize("case", HEADS)
def test_cam_equals_monai_but_for_the_bias(case: str) -> None:
    classifier, inputs = real_case(case)
    layer, head = HEADS[case]
    monai = visualize.CAM(classifier.network, layer, head, postprocessing=lambda x: x)
    bias = classifier.network.get_submodule(head).bias
    maps, answer = maps_of(CAM(), classifier, inputs, [(row, target) for row in range(3) for target in range(3)])
    for k, raw in enumerate(maps):
        row, target = divmod(k, 3)
        assert raw.facts["layer"] == layer
        theirs = monai.compute_map(inputs[row : row + 1], [target])[0, 0].detach().numpy()
        np.testing.assert_allclose(raw.values + float(bias[target]), theirs, atol=1e-6, rtol=1e-5)
        # The mean over space is the logit, less the bias.
        assert raw.values.mean() + float(bias[target]) == pytest.approx(float(answer.logits[row, target]), abs=1e-5)


@pytest.mark.parametrize("case", ["2d multi-label", "3d one logit"])
def test_cam_has_the_weights_of_the_linear_layer(case: str) -> None:
    classifier, inputs = small_case("cam", case)
    network: Any = classifier.network
    features = network.eval().features(inputs).detach()
    (zero, one), _ = maps_of(CAM(), classifier, inputs, [(1, 0), (2, 1)])
    weight = network.head.weight.detach()
    weights = torch.cat([-weight, weight]) if len(weight) == 1 else weight
    for raw, row, target in ((zero, 1, 0), (one, 2, 1)):
        assert raw.values.min() < 0
        expected = torch.einsum("k,k...->...", weights[target], features[row])
        np.testing.assert_allclose(raw.values, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("target", [Target(1, against=2), Target(0, quantity=Quantity.LOG_ODDS)])
def test_cam_of_a_function_of_the_logits_has_the_weights_of_its_gradient(target: Target) -> None:
    classifier, inputs = small_case("cam", "2d softmax")
    (raw,), answer = maps_of(CAM(), classifier, inputs, [(0, target)])
    each, _ = maps_of(CAM(), classifier, inputs, [(0, k) for k in range(3)])
    scores = answer.logits[0].detach()
    slopes = torch.tensor([0.0, 1, -1])
    if target.against is None:
        slopes = torch.cat([torch.ones(1), -scores[1:].softmax(0)])
    expected = sum(float(slope) * one.values for slope, one in zip(slopes, each, strict=True))
    np.testing.assert_allclose(raw.values, expected, atol=1e-5, rtol=1e-4)


class Ends(nn.Module):
    """Feature maps, and what follows."""

    def __init__(self, *after: nn.Module) -> None:
        super().__init__()
        self.features = nn.Conv2d(1, 4, 3)
        self.after = nn.Sequential(*after)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.after(self.features(x) + 1)
        return logits


NOT_POOLED = {
    "largest": [nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(4, 2)],
    "hidden layer": [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)],
    "smooth hidden layer": [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2)],
    "four cells": [nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 2)],
    "no mean": [nn.Flatten(), nn.Linear(4 * 36, 2)],
}


@pytest.mark.parametrize("after", NOT_POOLED)
def test_cam_is_refused_where_the_head_is_another(after: str) -> None:
    torch.manual_seed(0)
    classifier = classifier_of(Ends(*NOT_POOLED[after]), 2)
    sentence = r"CAM needs a network that .* which test does not do behind layer features; choose Grad-CAM or HiResCAM"
    with pytest.raises(ModelError, match=sentence):
        maps_of(CAM(layers=("features",)), classifier, torch.rand(2, 1, 8, 8), [(0, 1)])


def test_cam_is_refused_behind_an_activation_that_passes_all_of_this_image() -> None:
    """All of these feature maps are positive, so that their gradients are the same at all cells, but not others'."""
    network = Ends(nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    network.features.bias.data.fill_(10)
    classifier, x = classifier_of(network, 2), torch.rand(1, 1, 8, 8)
    with pytest.raises(ModelError, match="behind layer features; choose Grad-CAM"):
        maps_of(CAM(layers=("features",)), classifier, x, [(0, 1)])
    (raw,), _ = maps_of(CAM(), classifier, x, [(0, 1)])
    assert raw.facts["layer"] == "after.0"


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_cam_is_allowed_whatever_the_scale(scale: float) -> None:
    torch.manual_seed(0)
    network = Ends(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    network.after[2].weight.data *= scale
    (raw,), _ = maps_of(CAM(), classifier_of(network, 2), torch.rand(1, 1, 8, 8), [(0, 1)])
    assert raw.values.any()


@pytest.mark.parametrize(
    ("case", "name", "fewer_cells"),
    [
        ("resnet 3d", "layer4", False),
        ("densenet 3d", "features.denseblock1", False),
        ("senet 2d", "layer4", True),
        ("efficientnet 2d", "_conv_head", True),
    ],
)
def test_eigencam_is_the_projection_on_the_first_singular_vector(case: str, name: str, fewer_cells: bool) -> None:
    classifier, inputs = real_case(case)
    (raw, other), _ = maps_of(EigenCAM(layers=(name,)), classifier, inputs, [(1, 0), (1, 2)])
    np.testing.assert_array_equal(raw.values, other.values)
    caught: list[Tensor] = []
    with classifier.network.get_submodule(name).register_forward_hook(lambda _m, _i, out: caught.append(out.clone())):
        classifier.network.eval()(inputs[1:2])
    cells = caught[-1][0].detach().flatten(1).T
    # It computes another way then.
    assert (cells.shape[0] < cells.shape[1]) is fewer_cells
    _, sizes, vectors = torch.linalg.svd(cells, full_matrices=False)
    projection = cells @ vectors[0]
    projection = (projection * projection.sum().sign()).relu().reshape(raw.values.shape)
    np.testing.assert_allclose(raw.values, projection, atol=1e-5 * float(projection.max()))
    assert raw.facts["share_of_squares"] == pytest.approx(float(sizes[0] ** 2 / (sizes**2).sum()))


def test_eigencam_of_nothing_is_nothing() -> None:
    network = nn.Sequential(nn.Conv2d(1, 3, 1, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    (raw,), _ = maps_of(EigenCAM(), classifier_of(network, 2, 3), torch.zeros(1, 1, 5, 5), [(0, 1)])
    assert not raw.values.any()
