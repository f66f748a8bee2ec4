from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from explained_networks import SMALL, real_case, small_case
from exported_networks import export, load, small
from helpers import classifier_of, maps_of
from torch import Tensor, nn

from napari_xai_med import explain
from napari_xai_med.explainers.base import make_explainer
from napari_xai_med.explainers.cam_ablation import AblationCAM
from napari_xai_med.explainers.cam_score import ScoreCAM
from napari_xai_med.explainers.placing import on_input
from napari_xai_med.grid import resample_linear
from napari_xai_med.models.receptive_field import Layer, ReceptiveField
from napari_xai_med.models.sliding_window import Aggregate, SlidingWindow
from napari_xai_med.models.target import Quantity, Target

# Channels to ask about: the last two have 2048 and 1280.
FEW = {"resnet 3d": 4, "densenet 3d": 0, "senet 2d": 4, "efficientnet 2d": 4}


def close(ours: np.ndarray, theirs: Any, tolerance: float = 1e-5) -> None:
    expected = np.asarray(theirs)
    assert np.abs(expected).max() > 0
    np.testing.assert_allclose(ours, expected, atol=tolerance * np.abs(expected).max(), rtol=tolerance)


@pytest.mark.parametrize(
    ("field", "cells", "shape"),
    [
        (ReceptiveField((4.0, 3.0), (1.5, -2.0), (7.0, 5.0)), (5, 6), (20, 17)),
        (ReceptiveField((32.0, 8.0, 1.0), (15.5, 0.0, 0.0), (9.0, 9.0, 1.0)), (2, 3, 9), (50, 23, 9)),
        (ReceptiveField((0.5, 2.0), (0.0, 3.0), (1.0, 1.0)), (31, 1), (16, 8)),
        (ReceptiveField((-2.0, 1.7, 5.0), (9.0, 0.3, 100.0), (1.0, 1.0, 1.0)), (5, 4, 3), (10, 9, 8)),
    ],
)
def test_many_maps_are_placed_as_one_by_one(
    field: ReceptiveField, cells: tuple[int, ...], shape: tuple[int, ...]
) -> None:
    maps = torch.from_numpy(np.random.default_rng(0).normal(size=(7, *cells)).astype(np.float32))
    placed = on_input(maps, field, shape)
    for one, ours in zip(maps, placed, strict=True):
        expected = resample_linear(one.numpy(), np.linalg.inv(field.to_input()), shape)
        np.testing.assert_allclose(ours, expected, atol=1e-5)


def features_of(network: nn.Module, layer: Layer, x: Tensor) -> Tensor:
    """The feature maps of the last use of a layer, (K, *layer), for one image."""
    caught: list[Tensor] = []
    with network.get_submodule(layer.name).register_forward_hook(lambda _m, _i, out: caught.append(out.clone())):
        network(x)
    return caught[-1][0].detach()


def most_active(features: Tensor, count: int) -> list[int]:
    sizes = features.abs().flatten(1).sum(1).numpy()
    return sorted(np.argsort(-sizes, kind="stable")[: count or None].tolist())


def scorecam(network: nn.Module, layer: Layer, x: Tensor, target: int, count: int, weighting: str) -> Any:
    """Algorithm 1 of the paper, one mask after the other."""
    features, scores = features_of(network, layer, x), []
    chosen = most_active(features, count)
    to_layer = np.linalg.inv(layer.receptive_field.to_input())
    with torch.no_grad():
        for k in chosen:
            mask = resample_linear(features[k].numpy(), to_layer, tuple(x.shape[2:]))
            mask = (mask - mask.min()) / (mask.max() - mask.min())
            scores.append(float(network(x * torch.from_numpy(mask))[0, target]))
        increases = np.array(scores) - float(network(torch.zeros_like(x))[0, target])
    weights = increases if weighting == "increase" else np.exp(increases) / np.exp(increases).sum()
    return np.maximum(np.tensordot(weights, features[chosen].numpy(), 1), 0)


def ablationcam(network: nn.Module, layer: Layer, x: Tensor, target: int, count: int) -> Any:
    """Equation 2 of the paper with the size of the score, one channel after the other."""
    features, scores = features_of(network, layer, x), []
    chosen = most_active(features, count)
    with torch.no_grad():
        for k in chosen:

            def ablate(_m: Any, _i: Any, out: Tensor, k: int = k) -> Tensor:
                return out * (torch.arange(out.shape[1]) != k).view(1, -1, *[1] * (out.ndim - 2))

            with network.get_submodule(layer.name).register_forward_hook(ablate):
                scores.append(float(network(x)[0, target]))
        score = float(network(x)[0, target])
    weights = (score - np.array(scores)) / abs(score)
    return np.maximum(np.tensordot(weights, features[chosen].numpy(), 1), 0)


@pytest.mark.parametrize("case", FEW)
def test_equal_plain_loops_over_channels_on_real_networks(case: str) -> None:
    classifier, inputs = real_case(case)
    known = {layer.name: layer for layer in classifier.layers(tuple(inputs.shape[1:]))}
    targets: list[tuple[int, int | None]] = [(0, 1), (1, 2), (1, 0)]
    for name, options in (("scorecam", {}), ("scorecam", {"weighting": "increase"}), ("ablationcam", {})):
        maps, _ = maps_of(make_explainer(name, {"channels": FEW[case], **options}), classifier, inputs, targets)
        for (row, target), raw in zip(targets, maps, strict=True):
            layer, count = known[raw.facts["layer"]], FEW[case]
            x = inputs[row : row + 1]
            assert raw.facts["channels"] == layer.channels
            assert raw.facts["channels_asked"] == (count or layer.channels)
            if name == "ablationcam":
                expected = ablationcam(classifier.network, layer, x, target, count)
            else:
                expected = scorecam(classifier.network, layer, x, target, count, options.get("weighting", "softmax"))
            np.testing.assert_allclose(raw.values, expected, atol=1e-5 * max(expected.max(), 1e-6), rtol=1e-4)


@pytest.mark.parametrize("case", SMALL)
def test_behind_a_mean_and_a_linear_layer_an_ablation_takes_the_channel_s_share_of_the_score(case: str) -> None:
    classifier, inputs = small_case("scorecam", case)
    network: Any = classifier.network.eval()
    features = network.features(inputs).detach()
    targets = [(0, 0), (1, 1), (2, 0)]
    maps, answer = maps_of(AblationCAM(layers=("features.5",)), classifier, inputs, targets)
    weight = network.head.weight.detach()
    weights = torch.cat([-weight, weight]) if len(weight) == 1 else weight
    for (row, target), raw in zip(targets, maps, strict=True):
        score = float(answer.scores[row, target])
        assert raw.facts["score"] == pytest.approx(score)
        shares = weights[target] * features[row].flatten(1).mean(1) / abs(score)
        expected = torch.einsum("k,k...->...", shares, features[row]).relu()
        np.testing.assert_allclose(raw.values, expected, atol=1e-5 * max(float(expected.max()), 1e-3), rtol=1e-4)


def test_a_score_of_nothing_divides_nothing() -> None:
    network = nn.Sequential(
        nn.Conv2d(1, 2, 1, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2, bias=False)
    )
    with torch.no_grad():
        network[0].weight.fill_(1)
        network[3].weight.copy_(torch.tensor([[1.0, -1.0], [1.0, 1.0]]))
    x = torch.rand(1, 1, 4, 5)
    (zero, one), answer = maps_of(AblationCAM(), classifier_of(network, 2), x, [(0, 0), (0, 1)])
    assert float(answer.logits[0, 0]) == pytest.approx(0)
    # Both channels are the image; their weights are plus and minus its mean.
    assert zero.facts["divided_by"] == 1
    assert zero.notices[0].startswith("The score without ablation is 0")
    np.testing.assert_allclose(zero.values, 0, atol=1e-6)
    # Each is half of the other score.
    assert one.notices == ()
    np.testing.assert_allclose(one.values, x[0, 0], rtol=1e-5)


class Counted(nn.Module):
    """A network that counts the images that enter it, and runs out of memory at more than a number of them."""

    def __init__(self, network: nn.Module, most: int = 1000) -> None:
        super().__init__()
        self.network, self.most = network, most
        self.batches: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.batches.append(len(x))
        if len(x) > self.most:
            raise torch.OutOfMemoryError("out of memory")
        logits: Tensor = self.network(x)
        return logits


@pytest.mark.parametrize("size", [1, 3, 8])
def test_targets_of_one_image_share_the_masked_passes(size: int) -> None:
    classifier, inputs = small_case("scorecam", "2d softmax")
    network = Counted(classifier.network)
    counted = classifier_of(network, 2, 3, channels=2)
    counted.layers(tuple(inputs.shape[1:]))
    network.batches.clear()
    options = {"layers": ("network.features.3",), "batch_size": size, "weighting": "increase"}
    maps_of(make_explainer("scorecam", options), counted, inputs[:1], [(0, 0), (0, 1), (0, 2), (0, None)])
    # The image, the baseline, and six channels.
    assert network.batches == [1, 1, *[size] * (6 // size), *[6 % size][: 6 % size]]


@pytest.mark.parametrize("method", [ScoreCAM, AblationCAM])
def test_batches_are_halved_where_memory_is_not_enough(method: Any) -> None:
    classifier, inputs = small_case("scorecam", "3d softmax")
    plain, _ = maps_of(method(layers=("features.3",)), classifier, inputs[:1], [(0, 1)])
    network = Counted(Branched(classifier.network), most=2)
    classifier = classifier_of(network, 3, 3, channels=2)
    halved, _ = maps_of(method(layers=("network.network.features.3",), batch_size=5), classifier, inputs[:1], [(0, 1)])
    close(halved[0].values, plain[0].values, 1e-4)
    assert halved[0].notices == (
        f"The memory was not enough for 5 passes of {method.title} at once; they were computed in batches of 2.",
    )


class Branched(nn.Module):
    """A network whose number of images has to be the same from its beginning to its end."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(x)
        return torch.cat([logits, x.flatten(1)[:, :1]], 1)[:, :-1]


class Mixing(nn.Module):
    """A network that gives every image another one's answer if copies were made on the way."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(x)
        return logits if len(x) == len(logits) else logits.roll(1, 0)


@pytest.mark.parametrize("around", [Branched, Mixing])
def test_ablations_share_the_way_to_the_layer_only_where_that_changes_nothing(around: Any) -> None:
    inner, inputs = small_case("scorecam", "2d softmax")
    plain, _ = maps_of(AblationCAM(layers=("features.3",)), inner, inputs, [(0, 1), (2, 0)])
    images = []
    for network in (Counted(inner.network), Counted(around(inner.network))):
        prefix = "network." if network.network is inner.network else "network.network."
        classifier = classifier_of(network, 2, 3, channels=2)
        explainer = AblationCAM(layers=(f"{prefix}features.3",), batch_size=4)
        maps, _ = maps_of(explainer, classifier, inputs, [(0, 1), (2, 0)])
        for ours, expected in zip(maps, plain, strict=True):
            close(ours.values, expected.values, 1e-4)
        images.append(sum(network.batches))
    # Six channels of two images, and some tries: with whole passes these and the three images themselves.
    assert images[1] >= 3 + 2 * 6 > images[0] - 1


@pytest.mark.parametrize("method", ["scorecam", "ablationcam"])
@pytest.mark.parametrize("layer", ["conv", "relu", "features.0"])
def test_networks_from_files_that_take_one_image_are_explained_as_the_original(
    method: str, layer: str, tmp_path: Path
) -> None:
    """With modules that are used twice, and several images, which it takes one after the other."""
    network = small()
    program = load(export(network, tmp_path / "a.pt2", (1, 1, 16, 14, 12)))
    x = torch.rand(2, 1, 16, 14, 12)
    explainer = make_explainer(method, {"layers": layer, "batch_size": 3})
    (ours, theirs) = (maps_of(explainer, classifier_of(n, 3), x, [(0, 0), (1, 1)])[0] for n in (program, network))
    assert any(raw.values.any() for raw in theirs)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one.values, other.values, atol=1e-4 * max(float(other.values.max()), 1e-3))


def test_the_last_use_of_a_layer_is_ablated() -> None:
    network, x = small(), torch.rand(1, 1, 16, 14, 12)
    maps, _ = maps_of(AblationCAM(layers=("conv",)), classifier_of(network, 3), x, [(0, 0), (0, 1)])
    with torch.no_grad():
        start = network.features(x)
        features = network.conv(network.relu(network.conv(start) + start))
        kept = torch.ones(4, 4).fill_diagonal_(0).view(4, 4, 1, 1, 1) * features
        scores = network.fc(network.relu(kept).flatten(2).mean(2))
        whole = network(x)[0]
    for target, raw in enumerate(maps):
        weights = (whole[target] - scores[:, target]) / whole[target].abs()
        close(raw.values, torch.einsum("k,k...->...", weights, features[0]).relu(), 1e-4)


def test_the_most_active_channels_are_asked_about() -> None:
    classifier, inputs = small_case("scorecam", "3d softmax")
    network: Any = classifier.network.eval()
    layer = {each.name: each for each in classifier.layers(tuple(inputs.shape[1:]))}["features.3"]
    for row in range(3):
        features = features_of(network, layer, inputs[row : row + 1])
        assert ScoreCAM(channels=2).choose(features) == most_active(features, 2)
        assert AblationCAM().choose(features) == list(range(6))


def test_channels_without_contrast_make_no_mask() -> None:
    network = nn.Sequential(nn.Conv2d(1, 3, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with torch.no_grad():
        network[0].weight[1:] = 0
    x = torch.rand(1, 1, 6, 6)
    (raw,), _ = maps_of(ScoreCAM(), classifier_of(network, 2, 3), x, [(0, 0)])
    # The only channel that varies has all of the softmax.
    assert raw.facts["channels_asked"] == 1
    np.testing.assert_allclose(raw.values, network[0](x)[0, 0].detach().relu(), rtol=1e-5)
    (none,), _ = maps_of(ScoreCAM(), classifier_of(network, 2, 3), torch.ones(1, 1, 6, 6), [(0, 0)])
    assert not none.values.any()


@pytest.mark.parametrize(
    "target", [Target(1, quantity=Quantity.PROBABILITY), Target(2, against=0), Target(0, opposite=True)]
)
def test_scores_are_those_of_what_is_explained(target: Target) -> None:
    classifier, inputs = small_case("scorecam", "2d softmax")
    (raw,), answer = maps_of(AblationCAM(), classifier, inputs, [(1, target)])
    assert raw.facts["score"] == pytest.approx(float(target.of(answer)[1]))


def test_ablations_of_windows_are_shares_of_the_whole_image_s_score() -> None:
    """Behind a mean and a linear layer a window without a channel loses its share, also where its own score is 0."""
    torch.manual_seed(1)
    linear = nn.Linear(4, 2)
    network = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear)
    x = torch.rand(6, 12)
    halves = torch.stack([x[:, :6], x[:, 6:]])[:, None]
    with torch.no_grad():
        # The first window's score is next to nothing.
        linear.bias[1] -= network(halves)[0, 1] - 1e-4
        features, scores = network[0](halves), network(halves)[:, 1]
        shares = linear.weight[1] * features.mean((2, 3)) / scores.mean().abs() / 2
        expected = torch.cat(list(torch.einsum("wk,wkyx->wyx", shares, features).relu()), 1)
    windows = SlidingWindow((6, 6), Aggregate.MEAN, overlap=0.0)
    classifier = replace(classifier_of(network, 2), windows=windows)
    close(explain(x.numpy(), classifier, "ablationcam", target=1).values, expected, 1e-4)


def test_a_channel_that_is_no_mask_takes_no_other_one_s_place() -> None:
    activations = torch.stack([torch.full((3, 4), 9.0), torch.rand(3, 4), 2 * torch.rand(3, 4) + 2])
    assert ScoreCAM(channels=1).choose(activations) == [2]
    assert ScoreCAM(channels=2).choose(activations) == [1, 2]
    assert ScoreCAM().choose(activations[:1]) == []
