from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import InputXGradient as CaptumInputXGradient
from captum.attr import NoiseTunnel
from captum.attr import Saliency as CaptumSaliency
from helpers import classifier_of, maps_of
from plain_networks import HEADS, case, close
from torch import Tensor, nn

from napari_xai_med.errors import Cancelled, ModelError
from napari_xai_med.explainers.base import Explainer, Question, explainers
from napari_xai_med.explainers.deeplift import DeepLIFT, DeepLIFTSHAP
from napari_xai_med.explainers.gradient import InputXGradient, Saliency
from napari_xai_med.explainers.guided import Deconvolution, GuidedBackpropagation, GuidedGradCAM
from napari_xai_med.explainers.input_gradients import InputGradients
from napari_xai_med.explainers.integrated import IntegratedGradients
from napari_xai_med.explainers.noise import noisy, value_range
from napari_xai_med.explainers.occlusion import Occlusion
from napari_xai_med.explainers.shap_gradients import GradientSHAP
from napari_xai_med.job import Job
from napari_xai_med.models.head import Head
from napari_xai_med.models.target import Quantity, Target

NOISE: dict[str, Any] = {"noise_samples": 5, "noise_std": 0.1, "seed": 3}
ALL: tuple[Explainer, ...] = (
    Saliency(),
    Saliency(absolute=False, noise_tunnel="smoothgrad", **NOISE),
    InputXGradient(noise_tunnel="vargrad", **NOISE),
    IntegratedGradients(steps=5, baseline="blurred"),
    IntegratedGradients(steps=3, noise_tunnel="smoothgrad_sq", **NOISE),
    GradientSHAP(noise_samples=7, noise_std=0.1),
    DeepLIFT(baseline="mean"),
    DeepLIFT(noise_tunnel="smoothgrad", **NOISE),
    DeepLIFTSHAP(),
    GuidedBackpropagation(),
    Deconvolution(noise_tunnel="smoothgrad", **NOISE),
    GuidedGradCAM(),
    Occlusion(window=4.0, stride=3.0),
)
NAMES = [f"{type(each).__name__} {getattr(each, 'noise_tunnel', '')}" for each in ALL]


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("dims", [2, 3])
def test_equals_captum(dims: int, head: Head) -> None:
    classifier, network, inputs = case(dims, head)
    x, target = inputs[:1], 1
    expected: list[tuple[Explainer, Tensor]] = [
        (Saliency(), CaptumSaliency(network).attribute(x, target).amax(1)),
        (Saliency(absolute=False), CaptumSaliency(network).attribute(x, target, abs=False).sum(1)),
        (InputXGradient(), CaptumInputXGradient(network).attribute(x, target).sum(1)),
    ]
    for explainer, theirs in expected:
        (ours,), _ = maps_of(explainer, classifier, x, [(0, target)])
        close(ours.values, theirs[0])
        assert np.array_equal(ours.to_input, np.eye(dims + 1))


class Fed(NoiseTunnel):
    """captum's noise tunnel with noise of ours."""

    def _add_noise_to_input(self, input: Tensor, stdev: float, nt_samples_partition: int) -> Tensor:  # noqa: ARG002
        samples = [noisy(input[0], NOISE["noise_std"], NOISE["seed"], k) for k in range(NOISE["noise_samples"])]
        return torch.stack(samples)


@pytest.mark.parametrize("tunnel", ["smoothgrad", "smoothgrad_sq", "vargrad"])
@pytest.mark.parametrize("dims", [2, 3])
def test_the_noise_tunnel_equals_captum(dims: int, tunnel: str) -> None:
    classifier, network, inputs = case(dims, Head.SOFTMAX)
    x = inputs[:1]
    for explainer, captum, options in (
        (InputXGradient(noise_tunnel=tunnel, **NOISE), CaptumInputXGradient(network), {}),
        (Saliency(absolute=False, noise_tunnel=tunnel, **NOISE), CaptumSaliency(network), {"abs": False}),
    ):
        options |= {"nt_type": tunnel, "nt_samples": NOISE["noise_samples"], "target": 2}
        theirs = Fed(captum).attribute(x, **options)
        (ours,), _ = maps_of(explainer, classifier, x, [(0, 2)])
        close(ours.values, theirs[0].sum(0))
        assert ours.facts["noise_std"] == pytest.approx(NOISE["noise_std"] * value_range(x))
        assert explainer.signed == (tunnel == "smoothgrad")


class Polynomial(nn.Module):
    """Logits of two classes, plus and minus the weighted sum of a power of the voxels."""

    def __init__(self, weights: Tensor, power: int) -> None:
        super().__init__()
        self.weights, self.power = nn.Parameter(weights), power

    def forward(self, x: Tensor) -> Tensor:
        logit = (x**self.power * self.weights).flatten(1).sum(1, keepdim=True)
        return torch.cat([-logit, logit], 1)


@pytest.mark.parametrize("absolute", [True, False])
def test_noise_says_nothing_about_a_linear_network(absolute: bool) -> None:
    weights, x = torch.randn(1, 6, 5, dtype=torch.double), torch.randn(1, 1, 6, 5, dtype=torch.double)
    classifier = classifier_of(Polynomial(weights, 1), 2)
    (mean,), _ = maps_of(Saliency(noise_tunnel="smoothgrad", absolute=absolute), classifier, x, [(0, 1)])
    close(mean.values, weights[0].abs() if absolute else weights[0])
    (variance,), _ = maps_of(Saliency(noise_tunnel="vargrad", absolute=absolute), classifier, x, [(0, 1)])
    assert not variance.values.any()


def test_noise_of_a_quadratic_network_is_known() -> None:
    """The gradient of w x^2 is 2 w x: with noise of deviation s its mean stays and its variance is (2 w s)^2."""
    count, std = 4000, 0.2
    weights, x = torch.ones(1, 6, 5, dtype=torch.double), torch.rand(1, 1, 6, 5, dtype=torch.double) + 1
    classifier = classifier_of(Polynomial(weights, 2), 2)
    options: dict[str, Any] = {"noise_samples": count, "noise_std": std, "batch_size": 500, "absolute": False}
    found = {
        tunnel: maps_of(Saliency(noise_tunnel=tunnel, **options), classifier, x, [(0, 1)])[0][0].values
        for tunnel in ("smoothgrad", "smoothgrad_sq", "vargrad")
    }
    spread = 2 * std * value_range(x)
    # Five standard errors of a mean and of a variance.
    np.testing.assert_allclose(found["smoothgrad"], 2 * x[0, 0], atol=5 * spread / count**0.5)
    np.testing.assert_allclose(found["vargrad"], spread**2, rtol=5 * (2 / count) ** 0.5)
    np.testing.assert_allclose(found["smoothgrad_sq"], found["smoothgrad"] ** 2 + found["vargrad"], rtol=1e-5)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("explainer", ALL, ids=NAMES)
def test_a_batch_of_mixed_classes_equals_single_images(explainer: Explainer, dims: int, head: Head) -> None:
    classifier, _, inputs = case(dims, head)
    targets: list[tuple[int, int | Target | None]] = [
        (0, 1),
        (2, 0),
        (0, 0),
        (1, None),
        (2, Target(1, quantity=Quantity.LOG_ODDS)),
    ]
    together, answer = maps_of(explainer, classifier, inputs, targets)
    assert answer.logits.shape[0] == 3
    for (row, target), ours in zip(targets, together, strict=True):
        (alone,), single = maps_of(explainer, classifier, inputs[row : row + 1], [(0, target)])
        top = np.abs(alone.values).max()
        assert top > 0
        np.testing.assert_allclose(ours.values, alone.values, atol=1e-5 * top, rtol=1e-5)
        torch.testing.assert_close(single.logits[0], answer.logits[row], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("explainer", [each for each in ALL if hasattr(each, "batch_size")])
def test_equal_seeds_give_equal_bits_with_any_batch_size(explainer: Any) -> None:
    # A network whose own sums do not depend on the size of the batch, and are not linear.
    classifier = classifier_of(nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), Polynomial(torch.ones(2, 9, 7), 3)), 2)
    x = torch.randn(2, 1, 9, 7)
    kind, values = type(explainer), dict(explainer.__dict__)
    values.pop("signed", None)
    found = [maps_of(kind(**values | {"batch_size": size}), classifier, x, [(1, 1), (0, 1)])[0] for size in (1, 3, 0)]
    for others in found[1:]:
        for one, other in zip(found[0], others, strict=True):
            assert one.values.any()
            np.testing.assert_array_equal(one.values, other.values)


@pytest.mark.parametrize(
    "explainer",
    [
        IntegratedGradients(steps=1, baseline="mean"),
        GradientSHAP(noise_samples=1),
        Saliency(noise_tunnel="smoothgrad", noise_samples=1),
        DeepLIFT(),
    ],
)
def test_the_answer_is_about_the_image_also_where_a_single_other_point_is_asked(explainer: Any) -> None:
    classifier, network, x = case(2, Head.SOFTMAX)
    (raw,), answer = maps_of(explainer, classifier, x, [(1, 2)])
    torch.testing.assert_close(answer.logits.detach(), network(x).detach())
    if "answer_difference" in raw.facts:
        # The answers at the baselines that were drawn are known by what is left.
        before = float(network(x)[1, 2].detach()) - raw.facts["answer_difference"]
        baselines = explainer.references(Question(classifier, x, ()))[1]
        assert any(before == pytest.approx(float(value)) for value in network(baselines)[:, 2].detach())


def test_other_seeds_give_other_maps() -> None:
    classifier, _, x = case(2, Head.SOFTMAX)
    for kind in (Saliency, GradientSHAP):
        maps = [maps_of(kind(noise_tunnel="smoothgrad", seed=k), classifier, x, [(0, 1)])[0][0] for k in (0, 1)]
        assert not np.allclose(maps[0].values, maps[1].values)


class Counting(nn.Module):
    """Counts the images that it passes on."""

    def __init__(self, network: nn.Module, most: int = 1000) -> None:
        super().__init__()
        self.network, self.most = network, most
        self.images: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > self.most:
            raise torch.OutOfMemoryError("out of memory")
        self.images.append(len(x))
        out: Tensor = self.network(x)
        return out


@pytest.mark.parametrize(
    ("explainer", "images"),
    [
        # The image, and nothing else.
        (Saliency(), 1),
        (GuidedBackpropagation(), 1),
        # With the baseline beside it.
        (DeepLIFT(), 2),
        # The image once, then all points, and the baselines for the difference.
        (Saliency(noise_tunnel="vargrad", noise_samples=9), 1 + 9),
        (IntegratedGradients(steps=9), 1 + 9 + 1),
        (GradientSHAP(noise_samples=9), 1 + 9 + 4),
        (DeepLIFTSHAP(), 1 + 2 * 4),
    ],
)
def test_several_classes_cost_no_more_forward_passes(explainer: Explainer, images: int) -> None:
    classifier, network, x = case(2, Head.SOFTMAX)
    counting = Counting(network)
    classifier = classifier_of(counting, 2, 3, channels=2)
    classifier.layers(tuple(x.shape[1:]))
    counting.images.clear()
    maps_of(explainer, classifier, x[:1], [(0, 0), (0, 1), (0, 2)])
    assert sum(counting.images) == images


@pytest.mark.parametrize(
    "explainer", [IntegratedGradients(batch_size=8), Occlusion(window=4.0, stride=3.0, batch_size=8)]
)
def test_batches_get_smaller_when_the_memory_is_not_enough(explainer: Any) -> None:
    _, network, x = case(2, Head.SOFTMAX)
    (expected,), _ = maps_of(explainer, classifier_of(network, 2, 3, channels=2), x[:1], [(0, 1)])
    counting = Counting(network, most=3)
    (ours,), _ = maps_of(explainer, classifier_of(counting, 2, 3, channels=2), x[:1], [(0, 1)])
    np.testing.assert_allclose(ours.values, expected.values, rtol=1e-5, atol=1e-7)
    assert max(counting.images) == 2
    assert ours.facts["batch_size"] == 2
    assert ours.notices[0] == "The memory was not enough for 8 images at once; they were computed in batches of 2."


class Root(nn.Module):
    """A square root, whose slope at 0 is infinite."""

    def forward(self, x: Tensor) -> Tensor:
        return (x.relu() * 0).sqrt()


@pytest.mark.parametrize("explainer", [Saliency(), IntegratedGradients(steps=3), GuidedBackpropagation()])
def test_gradients_that_are_not_finite_are_a_sentence_with_the_layer(explainer: Explainer) -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), Root(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network[0].bias.data.fill_(9)
    with pytest.raises(ModelError, match="gradient of test is not finite for this image, first at layer 0; choose a"):
        maps_of(explainer, classifier_of(network, 2), torch.rand(1, 1, 8, 8), [(0, 1)])


class Cut(nn.Module):
    """Forgets where its input came from."""

    def forward(self, x: Tensor) -> Tensor:
        return x.detach().mean((2, 3))


@pytest.mark.parametrize("explainer", [Saliency(), IntegratedGradients(steps=3), DeepLIFT()])
def test_networks_without_gradient_are_refused(explainer: Explainer) -> None:
    classifier = classifier_of(nn.Sequential(nn.Conv2d(1, 2, 3), Cut()), 2)
    with pytest.raises(ModelError, match="No gradient leads from the answer to the image; choose a method without"):
        maps_of(explainer, classifier, torch.rand(1, 1, 8, 8), [(0, 1)])


@pytest.mark.parametrize("explainer", ALL, ids=NAMES)
def test_the_network_is_left_as_it_came(explainer: Explainer) -> None:
    classifier, _, inputs = case(2, Head.SOFTMAX)
    network, before = classifier.network.train(), inputs.clone()
    state = {k: v.clone() for k, v in network.state_dict().items()}
    random = torch.get_rng_state()
    maps_of(explainer, classifier, inputs, [(0, 1)])
    assert torch.equal(inputs, before)
    assert not inputs.requires_grad
    assert all(m.training for m in network.modules())
    assert all(torch.equal(state[k], v) for k, v in network.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in network.parameters())
    assert torch.equal(torch.get_rng_state(), random)
    assert not any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in network.modules())


@pytest.mark.parametrize("explainer", ALL, ids=NAMES)
def test_cancelling_stops_and_progress_only_rises(explainer: Explainer) -> None:
    classifier, _, inputs = case(2, Head.SOFTMAX)
    shares: list[float] = []
    maps_of(explainer, classifier, inputs, [(0, 1), (1, 0)], Job(progress=lambda share, _: shares.append(share)))
    assert shares == sorted(shares)
    assert shares[-1] <= 1

    class Token:
        asked = 0

        def is_set(self) -> bool:
            self.asked += 1
            return self.asked > len(shares) // 2

    with pytest.raises(Cancelled):
        maps_of(explainer, classifier, inputs, [(0, 1), (1, 0)], Job(cancel=Token()))


def test_the_sign_of_a_map_follows_from_its_options() -> None:
    signed: Callable[..., bool] = lambda kind, **options: kind(**options).signed  # noqa: E731
    assert not signed(Saliency)
    assert signed(Saliency, absolute=False)
    for kind in [kind for kind in explainers().values() if issubclass(kind, InputGradients)]:
        assert not signed(kind, noise_tunnel="vargrad")
        assert signed(kind, noise_tunnel="smoothgrad") == (kind is not Saliency)
