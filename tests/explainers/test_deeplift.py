from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import DeepLift, DeepLiftShap
from exported_networks import export, load, small
from helpers import classifier_of, maps_of
from monai.networks.nets import DenseNet, EfficientNetBN, ResNet, SENet
from plain_networks import HEADS, SPACING, case, close
from torch import Tensor, nn
from torch.nn import functional

from napari_xai_med.errors import ModelError
from napari_xai_med.explainers.base import Question
from napari_xai_med.explainers.deeplift import DeepLIFT, DeepLIFTSHAP
from napari_xai_med.models.head import Head
from napari_xai_med.models.target import Quantity, Target

# captum says that it sets hooks, and PyTorch that a hook is on an output.
pytestmark = [pytest.mark.filterwarnings("ignore:Setting"), pytest.mark.filterwarnings("ignore:Full backward hook")]


@pytest.mark.parametrize("activation", [nn.ELU, nn.LeakyReLU, nn.Sigmoid, nn.Softplus, nn.ReLU])
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("dims", [2, 3])
def test_deeplift_equals_captum(dims: int, head: Head, activation: type[nn.Module]) -> None:
    classifier, network, inputs = case(dims, head, activation=activation)
    x = inputs[:1]
    for baseline in ("zero", "blurred"):
        explainer = DeepLIFT(baseline=baseline, blur=2.0)
        reference = explainer.baselines(Question(classifier, x, (), SPACING[dims]))[:, 0]
        for target in range(2):
            theirs = DeepLift(network).attribute(x.clone(), reference, target)
            (ours,), _ = maps_of(explainer, classifier, x, [(0, target)], spacing=SPACING[dims])
            close(ours.values, theirs[0].sum(0))
            assert ours.facts["completeness_error"] < 1e-9


@pytest.mark.parametrize("dims", [2, 3])
def test_deeplift_shap_equals_captum(dims: int) -> None:
    """One image at once against one baseline at once, since captum takes the first row's slope for all rows."""
    classifier, network, inputs = case(dims, Head.SOFTMAX)
    x, background = inputs[:1], inputs[1:]
    theirs = DeepLiftShap(network).attribute(x.clone(), background, 2)
    (ours,), _ = maps_of(DeepLIFTSHAP(), classifier, x, [(0, 2)], others=background)
    close(ours.values, theirs[0].sum(0))
    assert ours.facts["gradients"] == 2
    difference = float((network(x)[0] - network(background).mean(0))[2].detach())
    assert ours.facts["answer_difference"] == pytest.approx(difference)
    assert ours.facts["completeness_error"] < 1e-9


def test_pooling_behind_an_activation_has_its_rule() -> None:
    """What gets smaller than the baseline, here 1 everywhere, is due to what was the largest there: the first of them.

    By hand; captum leaves this rule out behind a ReLU and names the largest one in the image, the third.
    """
    x = torch.tensor([-0.9, -0.5, -0.2, -0.4]).reshape(1, 1, 1, 4)
    convolution, linear = nn.Conv2d(1, 1, 1), nn.Linear(1, 2, bias=False)
    for values, number in ((convolution.weight, 1.0), (convolution.bias, 1.0), (linear.weight, 1.0)):
        values.data.fill_(number)
    network = nn.Sequential(convolution, nn.ReLU(), nn.MaxPool2d((1, 4)), nn.Flatten(), linear)
    (raw,), _ = maps_of(DeepLIFT(), classifier_of(network, 2), x, [(0, 1)])
    np.testing.assert_allclose(raw.values, [[-0.2, 0, 0, 0]], atol=1e-7)


NETWORKS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "resnet 3d": (
        lambda: ResNet("basic", [1, 1, 1, 1], [8, 8, 16, 16], spatial_dims=3, n_input_channels=1, num_classes=3),
        (1, 48, 40, 48),
    ),
    "densenet 3d": (lambda: DenseNet(3, 1, 3, init_features=8, growth_rate=8, block_config=(2, 3, 2)), (1, 40, 40, 33)),
    "senet 2d": (
        lambda: SENet(2, 1, "se_resnet_bottleneck", (1, 2, 1, 1), groups=1, reduction=16, num_classes=3),
        (1, 96, 80),
    ),
    "efficientnet 2d": (
        lambda: EfficientNetBN("efficientnet-b0", False, spatial_dims=2, in_channels=1, num_classes=3),
        (1, 64, 64),
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_of_monai_add_up(name: str) -> None:
    """They use one ReLU many times, in place, pool with overlap, and multiply feature maps."""
    build, shape = NETWORKS[name]
    torch.manual_seed(3)
    network = build()
    for module in network.modules():
        if hasattr(module, "momentum"):
            # Statistics of what is seen: an EfficientNet with others hardly tells images apart.
            module.momentum = 1.0
    network.train()(torch.rand(4, *shape))
    classifier = classifier_of(network.double(), len(shape) - 1, 3)
    x = torch.rand(2, *shape, dtype=torch.double)
    for explainer in (DeepLIFT(), DeepLIFTSHAP(blur=3.0)):
        for raw in maps_of(explainer, classifier, x, [(0, 0), (1, 2)])[0]:
            assert raw.facts["answer_difference"] != 0
            assert raw.facts["completeness_error"] < 1e-9
            assert not raw.notices


@pytest.mark.parametrize("quantity", list(Quantity))
@pytest.mark.parametrize("head", [*HEADS, Head.MULTI_LABEL])
def test_probabilities_and_log_odds_add_up(head: Head, quantity: Quantity) -> None:
    classifier, _, inputs = case(2, head)
    targets: list[tuple[int, Any]] = [(0, Target(1, quantity=quantity)), (0, Target(0, None, quantity, opposite=True))]
    for raw in maps_of(DeepLIFT(), classifier, inputs * 3, targets)[0]:
        assert raw.facts["completeness_error"] < 1e-6


class Every(nn.Module):
    """All functions that have a rule, called in all ways, and all kinds of pooling."""

    def __init__(self, dims: int) -> None:
        super().__init__()
        self.dims, self.prelu = dims, nn.PReLU(2, 0.3)
        self.convolution = (nn.Conv2d, nn.Conv3d)[dims - 2](1, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        f, d = functional, self.dims
        y = self.convolution(x)
        y = f.silu(y, inplace=True) + f.gelu(y) + f.mish(y) + f.hardswish(y) + f.softplus(y) + f.softsign(y)
        y = f.hardtanh(y) + f.relu6(y) + y.sigmoid() + torch.tanh(y) + f.selu(y) + f.celu(y) + self.prelu(y)
        y = f.leaky_relu(y, 0.1, True).clamp(-3, 3) + f.elu_(y * 0.5) + f.logsigmoid(y) + f.hardsigmoid(y)
        y *= y.sigmoid()
        y = torch.matmul(y, y.transpose(-1, -2) * 0.1)
        largest = getattr(f, f"max_pool{d}d")(y, 3, 2, 1, ceil_mode=True)
        with_places = getattr(f, f"max_pool{d}d")(y, 2, return_indices=True)[0]
        parts = [largest, with_places, getattr(f, f"adaptive_max_pool{d}d")(y, 3)]
        return torch.stack([part.flatten(2).sum(2) for part in parts]).sum(0)


@pytest.mark.parametrize("dims", [2, 3])
def test_every_rule_adds_up(dims: int) -> None:
    torch.manual_seed(0)
    network, x = Every(dims).double(), torch.randn(2, 1, *[8] * dims, dtype=torch.double)
    for raw in maps_of(DeepLIFT(baseline="blurred", blur=1.0), classifier_of(network, dims), x, [(0, 0), (1, 1)])[0]:
        assert raw.facts["completeness_error"] < 1e-9


def test_a_network_from_a_file_is_as_the_one_it_was_exported_from(tmp_path: Path) -> None:
    """Its file fixes one image at once, so that image and baseline can't be in one batch."""
    program = load(export(small(), tmp_path / "small.pt2", (1, 1, 16, 16, 16)))
    assert program.batch == 1
    x = torch.randn(2, 1, 16, 16, 16)
    maps = [maps_of(DeepLIFT(), classifier_of(each, 3), x, [(0, 1), (1, 0)])[0] for each in (small(), program.eval())]
    for one, other in zip(*maps, strict=True):
        assert one.values.any()
        np.testing.assert_allclose(one.values, other.values, atol=1e-5 * np.abs(one.values).max())
        assert other.facts["completeness_error"] < 1e-3


def test_networks_of_onnx_and_keras_add_up(tmp_path: Path) -> None:
    """Their layers call functions, and operators that ONNX has in place of one function."""
    pytest.importorskip("onnxscript")
    from keras_networks import KerasNetwork, load_keras, saved, zunair

    from napari_xai_med.models.formats.onnx import Onnx

    torch.onnx.export(small(), (torch.rand(1, 1, 16, 16, 16),), tmp_path / "small.onnx", dynamo=True, verbose=False)
    onnx = Onnx().load(tmp_path / "small.onnx", nn.Identity)
    keras = load_keras(saved(zunair(), tmp_path / "small.keras"))
    assert isinstance(keras, KerasNetwork)
    for network, shape, head in (
        (onnx, (1, 16, 16, 16), Head.SOFTMAX),
        (keras, (1, 40, 38, 32), Head.ONE_LOGIT),
    ):
        (raw,), _ = maps_of(DeepLIFT(), classifier_of(network, 3, head=head), torch.rand(1, *shape), [(0, 1)])
        assert raw.values.any()
        assert raw.facts["completeness_error"] < 1e-3


class Choosing(nn.Module):
    """Takes another way for bright images."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.relu() if float(x.detach().mean()) > 0 else x.tanh()
        return x.mean((2, 3))


def test_networks_that_choose_steps_by_the_image_are_a_sentence() -> None:
    classifier = classifier_of(nn.Sequential(Choosing(), nn.Linear(1, 2)), 2)
    with pytest.raises(ModelError, match="computes other steps for the image than for the baseline; choose another"):
        maps_of(DeepLIFT(), classifier, torch.rand(1, 1, 4, 4), [(0, 1)])


def test_steps_without_a_rule_are_told() -> None:
    """A softmax over space is no function of single numbers."""

    class Attention(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            flat = x.flatten(1)
            return (flat.softmax(1) * flat).sum(1, keepdim=True) * torch.tensor([-1.0, 1.0])

    (raw,), _ = maps_of(DeepLIFT(), classifier_of(Attention(), 2), 9 * torch.rand(1, 1, 4, 4), [(0, 1)])
    assert raw.facts["completeness_error"] > 0.05
    assert "; the network has steps that DeepLIFT has no rule for." in raw.notices[0]
