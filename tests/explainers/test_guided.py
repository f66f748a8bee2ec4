from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from captum.attr import Deconvolution as CaptumDeconvolution
from captum.attr import GuidedBackprop, GuidedGradCam, LayerGradCam
from exported_networks import export, load, small
from helpers import classifier_of, maps_of
from monai.networks.nets import ResNet
from plain_networks import HEADS, case, close
from torch import Tensor, nn
from torch.nn import functional

from napari_xai_med.errors import ModelError
from napari_xai_med.explainers.base import Explainer, explainers, reason_against
from napari_xai_med.explainers.cam import GradCAM
from napari_xai_med.explainers.guided import Deconvolution, GuidedBackpropagation, GuidedGradCAM
from napari_xai_med.grid import resample_linear
from napari_xai_med.models.formats.base import Gives
from napari_xai_med.models.head import Head

METHODS = [(GuidedBackpropagation, GuidedBackprop), (Deconvolution, CaptumDeconvolution)]
# captum says that it sets hooks, and PyTorch that a hook is on an output.
pytestmark = [pytest.mark.filterwarnings("ignore:Setting"), pytest.mark.filterwarnings("ignore:Full backward hook")]


@pytest.mark.parametrize(("ours", "theirs"), METHODS)
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("dims", [2, 3])
def test_equal_captum(dims: int, head: Head, ours: type[Explainer], theirs: type) -> None:
    classifier, network, inputs = case(dims, head)
    for target in range(2):
        expected = theirs(network).attribute(inputs[:1], target).sum(1)
        (raw,), _ = maps_of(ours(), classifier, inputs[:1], [(0, target)])
        close(raw.values, expected[0])


@pytest.mark.parametrize("dims", [2, 3])
def test_guided_gradcam_equals_captum_at_a_layer_of_the_inputs_size(dims: int) -> None:
    classifier, network, inputs = case(dims, Head.SOFTMAX)
    theirs = GuidedGradCam(network, network[0]).attribute(inputs[:1], 1).sum(1)
    (ours,), _ = maps_of(GuidedGradCAM(layers=("0",)), classifier, inputs[:1], [(0, 1)])
    close(ours.values, theirs[0])


def test_guided_gradcam_puts_each_cell_where_it_looks() -> None:
    classifier, network, inputs = case(3, Head.SOFTMAX)
    coarse = LayerGradCam(network, network[4]).attribute(inputs[:1], 2, relu_attributions=True)[0, 0]
    fine = GuidedBackprop(network).attribute(inputs[:1], 2)[0].sum(0)
    (ours,), _ = maps_of(GuidedGradCAM(layers=("4",)), classifier, inputs[:1], [(0, 2)])
    (layer,) = [each for each in classifier.layers(tuple(inputs.shape[1:])) if each.name == "4"]
    inverse = np.linalg.inv(layer.receptive_field.to_input())
    cam = resample_linear(coarse.detach().float().numpy(), inverse, tuple(inputs.shape[2:]))
    close(ours.values, fine * torch.from_numpy(cam))
    assert ours.facts["layer"] == "4"
    assert GuidedGradCAM().signed
    assert not GradCAM().signed


class Functional(nn.Module):
    """The same ReLU three times, as a function, as a method and in place, none of which captum sees."""

    def __init__(self, as_modules: bool) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv2d(1 if k == 0 else 3, 3, 3) for k in range(3))
        self.relus = nn.ModuleList(nn.ReLU() for _ in range(3)) if as_modules else ()

    def forward(self, x: Tensor) -> Tensor:
        relus = self.relus or (lambda y: functional.relu(y, True), torch.relu_, lambda y: y.relu())
        for convolution, relu in zip(self.convolutions, relus, strict=True):
            x = relu(convolution(x))
        return x.mean((2, 3))


@pytest.mark.parametrize(("ours", "theirs"), METHODS)
def test_functions_methods_and_in_place_relus_are_seen(ours: type[Explainer], theirs: type) -> None:
    modules, functions = Functional(True).double(), Functional(False).double()
    functions.load_state_dict(modules.state_dict())
    x = torch.randn(1, 1, 12, 10, dtype=torch.double)
    (raw,), _ = maps_of(ours(), classifier_of(functions, 2, 3), x, [(0, 1)])
    close(raw.values, theirs(modules).attribute(x, 1)[0, 0])
    assert not np.allclose(raw.values, theirs(functions).attribute(x.requires_grad_(), 1)[0, 0].detach())


@pytest.mark.parametrize("ours", [GuidedBackpropagation, Deconvolution])
def test_a_network_from_a_file_is_as_the_one_it_was_exported_from(ours: type[Explainer], tmp_path: Path) -> None:
    program = load(export(small(), tmp_path / "small.pt2", (1, 1, 16, 16, 16)))
    x = torch.randn(2, 1, 16, 16, 16)
    maps = [maps_of(ours(), classifier_of(network, 3), x, [(0, 1), (1, 0)])[0] for network in (small(), program.eval())]
    for one, other in zip(*maps, strict=True):
        assert one.values.any()
        np.testing.assert_allclose(one.values, other.values, atol=1e-5 * np.abs(one.values).max())


@pytest.mark.parametrize("kind", [GuidedBackpropagation, Deconvolution, GuidedGradCAM])
def test_networks_without_relu_are_a_sentence(kind: type[Explainer]) -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    title = Deconvolution.title if kind is Deconvolution else GuidedBackpropagation.title
    with pytest.raises(ModelError, match=rf"^test has no ReLU, which {title} needs; choose another method\.$"):
        maps_of(kind(), classifier_of(network, 2), torch.rand(1, 1, 8, 8), [(0, 1)])


def test_networks_whose_steps_can_not_be_seen_are_refused() -> None:
    classifier = classifier_of(ResNet("basic", [1] * 4, [4] * 4, 2, 1), 2, gives=frozenset({Gives.GRADIENTS}))
    for name in ("guided_backpropagation", "deconvolution", "guided_gradcam", "deeplift", "deeplift_shap"):
        assert "needs layers" in reason_against(explainers()[name], classifier)
    for name in ("saliency", "input_x_gradient", "integrated_gradients", "gradient_shap", "occlusion"):
        assert not reason_against(explainers()[name], classifier)


def test_each_says_that_it_is_no_evidence() -> None:
    for kind in (GuidedBackpropagation, Deconvolution, GuidedGradCAM):
        assert kind.caution.startswith(kind.title)
        assert kind.caution.endswith("do not take it as evidence.")
