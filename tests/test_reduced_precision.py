"""Networks that compute in less than float32, by themselves or on request."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from helpers import classifier_of, maps_of
from scipy.stats import spearmanr
from torch import Tensor, nn

from napari_xai_med import Image, explain
from napari_xai_med.explainers.cam import GradCAM
from napari_xai_med.models.precision import LEAST_CORRELATION, Precision


class Mixed(nn.Module):
    """A network that computes in bfloat16 by itself."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            answer: Tensor = self.inner(x)
        return answer


def small_network() -> nn.Module:
    torch.manual_seed(1)
    body = (nn.Conv3d(1, 8, 3, stride=2), nn.BatchNorm3d(8), nn.ReLU(True), nn.Conv3d(8, 16, 3, stride=2), nn.ReLU())
    network = nn.Sequential(*body, nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(16, 3))
    # Weights above 0: sums that cancel would be rounding errors in any precision.
    nn.init.uniform_(network[-1].weight)
    network.train()(torch.rand(4, 1, 40, 40, 33))
    return network.eval()


@pytest.mark.parametrize("form", ["mixed", "bfloat16", "asked"])
def test_a_network_in_reduced_precision_has_the_same_map(form: str) -> None:
    network, x = small_network(), torch.rand(1, 1, 40, 40, 33)
    (full,), _ = maps_of(GradCAM(layers=("3",)), classifier_of(network, 3, 3), x, [(0, 1)])
    layer, reduced = "3", copy.deepcopy(network)
    if form == "mixed":
        layer, reduced = f"inner.{layer}", Mixed(reduced)
    classifier = classifier_of(reduced.bfloat16() if form == "bfloat16" else reduced, 3, 3)
    if form == "asked":
        classifier = classifier.at(Precision.BFLOAT16)
    (raw,), answer = maps_of(GradCAM(layers=(layer,)), classifier, x, [(0, 1)])
    assert raw.values.dtype == np.float32
    assert answer.logits.dtype == torch.float32
    assert not np.array_equal(raw.values, full.values)
    assert spearmanr(raw.values.ravel(), full.values.ravel()).statistic > 0.98
    np.testing.assert_allclose(raw.values, full.values, atol=0.1 * full.values.max())


def picture() -> Image:
    return Image.from_array(np.random.default_rng(0).random((40, 40, 33)).astype(np.float32))


def test_reduced_precision_is_used_where_the_map_was_measured_to_be_the_same() -> None:
    torch.manual_seed(0)
    body = (nn.Conv3d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(4, 3))
    classifier, image = classifier_of(nn.Sequential(*body), 3, 3), picture()
    first, full = explain(image, classifier, precision="bfloat16"), explain(image, classifier)
    measured = first.record.method["precision"]
    assert measured["rank_correlation"] == pytest.approx(spearmanr(first.raw.ravel(), full.raw.ravel()).statistic)
    assert measured["rank_correlation"] >= LEAST_CORRELATION
    assert measured["used"] == "bfloat16"
    assert measured["times_as_fast"] > 0
    later = explain(image, classifier, precision="bfloat16")
    assert later.record.method["precision"] == {"used": "bfloat16"}
    assert later.record.result["sha256"] == first.record.result["sha256"] != full.record.result["sha256"]


class Rounds(nn.Module):
    """Tells apart what bfloat16 can't hold."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(1, 1, 1)
        nn.init.ones_(self.conv.weight)
        nn.init.constant_(self.conv.bias, 1000.0)

    def forward(self, x: Tensor) -> Tensor:
        mean = self.conv(x).mean((2, 3, 4))
        return torch.cat([-mean, mean], 1)


def test_float32_stays_where_reduced_precision_has_another_map() -> None:
    classifier, image = classifier_of(Rounds(), 3), picture()
    full = explain(image, classifier, target=1)
    for _ in range(2):
        asked = explain(image, classifier, target=1, precision="bfloat16")
        assert asked.record.method["precision"]["used"] == "float32"
        assert asked.record.result["sha256"] == full.record.result["sha256"]
        assert any("below 0.995; the map in float32 is shown" in notice for notice in asked.notices)


class Large(nn.Module):
    """Has values on the way that float16 can't hold, where the image is brighter than a limit."""

    def __init__(self, limit: float) -> None:
        super().__init__()
        self.conv, self.limit = nn.Conv3d(1, 2, 1), limit

    def forward(self, x: Tensor) -> Tensor:
        maps = self.conv(x)
        maps = maps * 1e6 / 1e6 if float(x.detach().max()) > self.limit else maps
        logits: Tensor = maps.mean((2, 3, 4))
        return logits


@pytest.mark.parametrize("limit", [0.0, 1.0])
def test_float32_stays_where_reduced_precision_has_no_map(limit: float) -> None:
    """At once, or for a later image only."""
    torch.manual_seed(0)
    classifier, image = classifier_of(Large(limit), 3), picture()
    first = explain(image, classifier, target=1, precision="float16")
    assert first.record.method["precision"]["used"] == ("float16" if limit else "float32")
    bright = Image.from_array(image.data[0] + 1)
    later = explain(bright, classifier, target=1, precision="float16")
    assert later.record.method["precision"] == {"used": "float32"}
    assert later.record.result["sha256"] == explain(bright, classifier, target=1).record.result["sha256"]
    (notice,) = [each for each in later.notices if "float16" in each]
    assert notice.startswith("In float16 there is no map (test gives values that are not finite for this image")
    assert notice.endswith("); that in float32 is shown.")
