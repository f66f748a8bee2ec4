from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import LayerGradientXActivation
from explained_networks import NETWORKS, real_case, small_case
from helpers import classifier_of, maps_of
from monai.visualize import GradCAMpp
from torch import Tensor, nn

from napari_xai_med.explainers.base import make_explainer
from napari_xai_med.explainers.cam import GradCAMPlusPlus, HiResCAM, XGradCAM


@pytest.fixture(params=NETWORKS)
def case(request: pytest.FixtureRequest) -> tuple[Any, Tensor]:
    return real_case(request.param)


def close(ours: np.ndarray, theirs: Any) -> None:
    expected = np.asarray(theirs)
    assert np.abs(expected).max() > 0
    np.testing.assert_allclose(ours, expected, atol=1e-5 * np.abs(expected).max(), rtol=1e-5)


def plain(network: nn.Module, name: str, x: Tensor, target: int) -> tuple[Any, Any]:
    """The feature maps of a layer's last use and their gradient, as arrays (K, *layer), with PyTorch's own hooks."""
    caught: list[Tensor] = []
    handle = network.get_submodule(name).register_forward_hook(lambda _m, _i, out: caught.append(out) or out.clone())
    score = network(x)[0, target]
    handle.remove()
    (gradient,) = torch.autograd.grad(score, caught[-1])
    return caught[-1][0].detach().numpy(), gradient[0].numpy()


def gradcampp(a: Any, g: Any) -> Any:
    axes = tuple(range(1, a.ndim))
    alpha = g**2 / (2 * g**2 + a.sum(axes, keepdims=True) * g**3)
    weights = np.nansum(alpha * np.maximum(g, 0), axes)
    return np.maximum(np.tensordot(weights, a, 1), 0)


def xgradcam(a: Any, g: Any) -> Any:
    axes = tuple(range(1, a.ndim))
    weights = np.nansum(a / a.sum(axes, keepdims=True) * g, axes)
    return np.maximum(np.tensordot(weights, a, 1), 0)


def gated(a: Any, g: Any) -> Any:
    axes = tuple(range(1, a.ndim))
    weights = ((a > 0) * (g > 0) * g).mean(axes)
    return np.maximum(np.tensordot(weights, a, 1), 0)


FORMULAS: dict[str, Callable[[Any, Any], Any]] = {
    "hirescam": lambda a, g: np.maximum((a * g).sum(0), 0),
    "layercam": lambda a, g: np.maximum((a * np.maximum(g, 0)).sum(0), 0),
    "gradcampp": gradcampp,
    "xgradcam": xgradcam,
    "gated_gradcam": gated,
}


@pytest.mark.parametrize("method", FORMULAS)
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_equals_the_paper_s_formula_with_plain_autograd(method: str, case: tuple[Any, Tensor]) -> None:
    classifier, inputs = case
    for target in range(3):
        (ours,), _ = maps_of(make_explainer(method, {}), classifier, inputs[:1], [(0, target)])
        expected = FORMULAS[method](*plain(classifier.network, ours.facts["layer"], inputs[:1], target))
        if expected.any():
            close(ours.values, expected)


def test_hirescam_equals_captum(case: tuple[Any, Tensor]) -> None:
    classifier, inputs = case
    maps, _ = maps_of(HiResCAM(), classifier, inputs, [(row, target) for row in range(3) for target in range(3)])
    captum = LayerGradientXActivation(classifier.network, classifier.network.get_submodule(maps[0].facts["layer"]))
    theirs = [captum.attribute(inputs[k // 3 : k // 3 + 1], k % 3).sum(1).relu()[0].detach() for k in range(9)]
    close(np.stack([raw.values for raw in maps]), torch.stack(theirs))


class Steep(nn.Module):
    """A network's logits, all 0 and with a thousand times their gradient.

    MONAI adds 1e-7 to squares of gradients, which is not less than those are, and multiplies with exp(logit).
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(x)
        return 1000 * (logits - logits.detach())


# MONAI's hook warns of itself with torch 2.13.
@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
@pytest.mark.parametrize(
    ("case", "layer"), [("resnet 3d", "layer4"), ("densenet 3d", "class_layers.relu"), ("senet 2d", "layer4")]
)
def test_gradcampp_equals_monai(case: str, layer: str) -> None:
    classifier, inputs = real_case(case)
    steep = classifier_of(Steep(classifier.network), inputs.ndim - 2, 3)
    for target in range(3):
        (ours,), _ = maps_of(GradCAMPlusPlus(), steep, inputs[:1], [(0, target)])
        assert ours.facts["layer"] in (f"network.{layer}", "network.class_layers.relu")
        theirs = GradCAMpp(Steep(classifier.network).eval(), f"network.{layer}", postprocessing=lambda x: x)
        close(ours.values, theirs.compute_map(inputs[:1].clone().requires_grad_(), target)[0, 0].detach())


def test_gradcampp_s_alphas_are_ratios_of_the_derivatives_of_exp() -> None:
    """Equations 12 and 19 of the paper, with every derivative of Y = exp(S) by autograd; S is linear in the layer."""
    torch.manual_seed(0)
    maps, slopes = torch.rand(3, 2, 4, dtype=torch.double), torch.randn(3, 2, 4, dtype=torch.double) / 4

    def y(one: Tensor, k: int, i: int, j: int) -> Tensor:
        changed = maps.clone()
        changed[k, i, j] = one
        return (changed * slopes).sum().exp()

    weights = torch.zeros(3, dtype=torch.double)
    for k in range(3):
        for i in range(2):
            for j in range(4):
                derivatives = [y]
                for _ in range(3):
                    derivatives.append(torch.func.grad(derivatives[-1]))
                _, first, second, third = (each(maps[k, i, j], k, i, j) for each in derivatives)
                weights[k] += second / (2 * second + maps[k].sum() * third) * first.relu()
    expected = (weights[:, None, None] * maps).sum(0).relu() / (maps * slopes).sum().exp()
    ours = GradCAMPlusPlus().weigh(maps[None], slopes[None])[0]
    assert ours.max() > 0
    torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("case", ["2d softmax", "3d softmax", "2d one logit", "3d multi-label"])
def test_behind_a_mean_and_a_linear_layer_they_are_the_same(case: str) -> None:
    """The gradient is w / cells everywhere: Grad-CAM = HiResCAM = XGrad-CAM = relu(CAM) / cells."""
    classifier, inputs = small_case("gradcam", case)
    layer = {"layers": ("features.5",)}
    targets: list[tuple[int, int | None]] = [(0, 0), (1, 1), (2, None)]
    cams, _ = maps_of(make_explainer("cam", layer), classifier, inputs, targets)
    for name in ("gradcam", "hirescam", "xgradcam"):
        maps, _ = maps_of(make_explainer(name, layer), classifier, inputs, targets)
        assert any(raw.values.any() for raw in maps)
        for cam, raw in zip(cams, maps, strict=True):
            np.testing.assert_allclose(raw.values, cam.values.clip(0) / cam.values.size, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("method", [GradCAMPlusPlus, XGradCAM])
def test_layers_with_negative_values_are_told(method: Any) -> None:
    classifier, inputs = small_case("gradcam", "2d softmax")
    (default,), _ = maps_of(method(), classifier, inputs[:1], [(0, 1)])
    assert default.facts["layer"] == "features"
    assert default.notices == ()
    (other,), _ = maps_of(method(layers=("features.3",)), classifier, inputs[:1], [(0, 1)])
    (notice,) = other.notices
    assert notice.startswith(f"Layer features.3 also has negative values, for which {method.title} is not made; choose")


def test_channels_without_activation_do_not_count() -> None:
    """0 / 0 in the formulas: a channel that is 0 everywhere, and one without a gradient."""
    activations, gradients = torch.rand(1, 3, 4, 5), torch.rand(1, 3, 4, 5)
    activations[0, 0], gradients[0, 1] = 0, 0
    for method in (GradCAMPlusPlus(), XGradCAM()):
        alone = method.weigh(activations[:, 2:], gradients[:, 2:])
        torch.testing.assert_close(method.weigh(activations, gradients), alone)
