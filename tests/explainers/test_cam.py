from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import LayerGradCam
from explained_networks import NETWORKS, real_case
from helpers import MeanOf, classifier_of, maps_of, ones
from monai.visualize import GradCAM as MonaiGradCAM
from torch import Tensor, nn

from napari_xai_med.errors import Cancelled, InputError, ModelError
from napari_xai_med.explainers.cam import GradCAM
from napari_xai_med.job import Job
from napari_xai_med.models.classifier import NetworkInput
from napari_xai_med.models.head import Head
from napari_xai_med.models.receptive_field import default_layer
from napari_xai_med.on_image import on_image


@pytest.fixture(params=NETWORKS)
def case(request: pytest.FixtureRequest) -> tuple[Any, Tensor]:
    return real_case(request.param)


def close(ours: np.ndarray, theirs: Tensor) -> None:
    expected = theirs.detach().numpy()
    assert expected.max() > 0
    np.testing.assert_allclose(ours, expected, atol=1e-5 * float(expected.max()), rtol=1e-5)


def test_equals_captum(case: tuple[Any, Tensor]) -> None:
    classifier, inputs = case
    name = default_layer(classifier.layers(tuple(inputs.shape[1:]))).name
    captum = LayerGradCam(classifier.network, classifier.network.get_submodule(name))
    for target in range(3):
        theirs = captum.attribute(inputs[:1], target, relu_attributions=True)[0, 0]
        if not theirs.any():
            continue
        (ours,), _ = maps_of(GradCAM(), classifier, inputs[:1], [(0, target)])
        close(ours.values, theirs)


# MONAI's hook warns of itself with torch 2.13.
@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
def test_equals_monai_before_its_normalisation(case: tuple[Any, Tensor]) -> None:
    classifier, inputs = case
    layers = classifier.layers(tuple(inputs.shape[1:]))
    # Not the default layer, so that another one is tried as well.
    name = [layer for layer in layers if layer.is_convolution and min(layer.shape) > 1][-2].name
    monai = MonaiGradCAM(classifier.network, name, postprocessing=lambda x: x)
    for target in range(3):
        theirs = monai.compute_map(inputs[:1].clone().requires_grad_(), target)[0, 0]
        if not theirs.any():
            continue
        (ours,), _ = maps_of(GradCAM(layers=(name,)), classifier, inputs[:1], [(0, target)])
        close(ours.values, theirs)


def test_one_logit_heads_explain_both_classes() -> None:
    """+z speaks for class 1 and -z for class 0: with one positive feature map, only one of them has a map."""
    network = nn.Sequential(ones(nn.Conv2d(1, 1, 1)), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    classifier = classifier_of(network, 2, head=Head.ONE_LOGIT)
    x = torch.rand(1, 1, 6, 6)
    (zero, one), answer = maps_of(GradCAM(), classifier, x, [(0, 0), (0, 1)])
    assert answer.logits.shape == (1, 1)
    assert not zero.values.any()
    np.testing.assert_allclose(one.values, x[0, 0] / 36, rtol=1e-6)


class Reuses(nn.Module):
    """Uses one convolution twice, changes its output in place and returns a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, padding=1)
        self.head = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        y = self.conv(x)
        y += 1
        y = torch.relu_(self.conv(y))
        return {"aux": y, "logits": self.head(y.mean((2, 3)))}


def test_reused_modules_in_place_changes_and_named_outputs() -> None:
    torch.manual_seed(0)
    network = Reuses()
    classifier = classifier_of(network, 2, channels=2, output="logits")
    x = torch.rand(1, 2, 8, 8)
    (ours,), _ = maps_of(GradCAM(layers=("conv",)), classifier, x, [(0, 1)])
    second = network.conv(network.conv(x) + 1).detach().requires_grad_()
    logits = network.head(torch.relu(second).mean((2, 3)))
    (gradient,) = torch.autograd.grad(logits[0, 1], second)
    expected = (gradient.mean((2, 3), keepdim=True) * second).sum(1).relu()[0]
    np.testing.assert_allclose(ours.values, expected.detach(), rtol=1e-5, atol=1e-7)


def test_weights_made_in_inference_mode_work() -> None:
    with torch.inference_mode():
        network = MeanOf(ones(nn.Conv2d(1, 1, 3)))
    (ours,), _ = maps_of(GradCAM(), classifier_of(network, 2), torch.rand(1, 1, 8, 8), [(0, 1)])
    assert ours.values.any()


def test_errors_are_sentences() -> None:
    network = MeanOf(ones(nn.Conv2d(1, 1, 3)))
    classifier = classifier_of(network, 2)
    x = torch.rand(1, 1, 8, 8)
    with pytest.raises(InputError, match=r"no feature maps at layer 'x'; its convolutions are features\.0"):
        maps_of(GradCAM(layers=("x",)), classifier, x, [(0, 1)])
    network.features[0].weight.data.fill_(float("nan"))
    with pytest.raises(ModelError, match=r"not finite for this image, first in layer features\.0"):
        maps_of(GradCAM(), classifier, x, [(0, 1)])


@pytest.mark.parametrize("layer", ["2", "3", "4"])
def test_layers_at_the_ending_or_behind_it_are_refused(layer: str) -> None:
    network = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Sigmoid(), nn.Identity(), nn.Dropout(), nn.Flatten()
    )
    classifier, x = classifier_of(network, 2, 3, head=Head.MULTI_LABEL), torch.rand(1, 1, 8, 8)
    with pytest.raises(ModelError, match=rf"Layer {layer} is the sigmoid that test ends in, or .* such as 0\."):
        maps_of(GradCAM(layers=(layer,)), classifier, x, [(0, 1)])
    _, before = maps_of(GradCAM(layers=("1",)), classifier, x, [(0, 1)])
    _, default = maps_of(GradCAM(), classifier, x, [(0, 1)])
    torch.testing.assert_close(before.logits, default.logits)


def test_a_sigmoid_on_the_way_is_a_layer_as_any_other() -> None:
    network = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Sigmoid(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3))
    (raw,), answer = maps_of(GradCAM(layers=("1",)), classifier_of(network, 2, 3), torch.rand(1, 1, 8, 8), [(0, 1)])
    assert raw.values.shape == (6, 6)
    assert answer.ending == ""


class InPlace(nn.Module):
    """Changes its input."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(torch.relu_(x.sub_(0.5))).mean((2, 3))
        return out


def test_networks_that_change_their_input_answer_alike_each_time() -> None:
    classifier, x = classifier_of(InPlace(), 2), torch.rand(1, 1, 8, 8)
    before = x.clone()
    (first,), one = maps_of(GradCAM(), classifier, x, [(0, 1)])
    (second,), two = maps_of(GradCAM(), classifier, x, [(0, 1)])
    assert torch.equal(x, before)
    assert torch.equal(one.logits, two.logits)
    np.testing.assert_array_equal(first.values, second.values)


def test_cancelling_stops_within_the_network_and_leaves_no_hook() -> None:
    class Token:
        asked = 0

        def is_set(self) -> bool:
            self.asked += 1
            return self.asked > 3

    network = MeanOf(*(ones(nn.Conv2d(1, 1, 1)) for _ in range(10)))
    with pytest.raises(Cancelled):
        maps_of(GradCAM(), classifier_of(network, 2), torch.rand(1, 1, 8, 8), [(0, 1)], Job(cancel=Token()))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())


@pytest.mark.parametrize(
    ("dims", "stride", "kernel", "padded"), list(product((2, 3), (2, 4, 8, 16, 32), (2, 3, 4, 5), (True, False)))
)
def test_an_impulse_comes_back_where_it_was(dims: int, stride: int, kernel: int, padded: bool) -> None:
    """Halving convolutions: the map of a bright spot has its centre there, to 0.1 voxel of the input."""
    kind = (nn.Conv2d, nn.Conv3d)[dims - 2]
    steps = stride.bit_length() - 1
    network = MeanOf(*(ones(kind(1, 1, kernel, 2, (kernel - 1) // 2 if padded else 0)) for _ in range(steps)))
    reach = classifier_of(network, dims).layers((1, *[600] * dims))[-1].receptive_field.size[0]
    size = int(reach) + 5 * stride
    classifier = classifier_of(network, dims)
    last = classifier.layers((1, *[size] * dims))[-1]
    field, cells = last.receptive_field, last.shape
    assert field.jump[0] == stride
    assert cells[0] >= 4
    centre = field.start[0] + stride * (cells[0] // 2)
    # What the cell in the middle sees, weighed evenly: no other cell sees more of it.
    x = torch.zeros((1, 1, *[size] * dims))
    low, high = centre - (field.size[0] - 1) / 2, centre + (field.size[0] - 1) / 2
    assert low.is_integer()
    assert low >= 0
    assert high < size
    x[(0, 0, *[slice(int(low), int(high) + 1)] * dims)] = 1
    (raw,), _ = maps_of(GradCAM(), classifier, x, [(0, 1)])
    values = on_image(raw, NetworkInput(x, np.eye(dims + 1)), (size,) * dims)
    for axis in range(dims):
        line = values.sum(tuple(k for k in range(dims) if k != axis))
        peak = np.flatnonzero(line > line.max() * (1 - 1e-6)).mean()
        # A centre between two voxels makes two that are equally high.
        assert peak == pytest.approx(centre, abs=0.1)
