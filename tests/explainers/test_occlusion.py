from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import Occlusion as CaptumOcclusion
from helpers import classifier_of, maps_of
from plain_networks import HEADS, SPACING, case, close
from torch import nn

from napari_xai_med.errors import InputError
from napari_xai_med.explainers.base import Question
from napari_xai_med.explainers.occlusion import Occlusion
from napari_xai_med.models.head import Head


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize(
    ("dims", "window", "stride", "voxels", "steps"),
    [
        # What the lengths are in voxels of 1 x 1 mm and of 2.5 x 0.7 x 1.2 mm; at least one.
        (2, 4.0, 3.0, (4, 4), (3, 3)),
        (2, 5.0, 5.0, (5, 5), (5, 5)),
        (2, 0.3, 0.3, (1, 1), (1, 1)),
        (3, 5.0, 3.6, (2, 7, 4), (1, 5, 3)),
        (3, 8.0, 4.0, (3, 11, 7), (2, 6, 3)),
        (3, 100.0, 50.0, (9, 12, 7), (20, 71, 42)),
    ],
)
@pytest.mark.parametrize("baseline", ["zero", "blurred"])
def test_equals_captum(
    dims: int,
    window: float,
    stride: float,
    voxels: tuple[int, ...],
    steps: tuple[int, ...],
    baseline: str,
    head: Head,
) -> None:
    classifier, network, inputs = case(dims, head)
    x, spacing = inputs[:1], SPACING[dims]
    explainer = Occlusion(window=window, stride=stride, baseline=baseline, blur=2.0)
    reference = explainer.baselines(Question(classifier, x, (), spacing))[:, 0]
    theirs = CaptumOcclusion(network).attribute(x, (2, *voxels), (1, *steps), reference, 1, perturbations_per_eval=16)
    (ours,), _ = maps_of(explainer, classifier, x, [(0, 1)], spacing=spacing)
    close(ours.values, theirs[0, 0])
    assert ours.facts["window"] == list(voxels)
    assert ours.facts["stride"] == list(steps)
    assert ours.facts["window_mm"] == pytest.approx([n * step for n, step in zip(voxels, spacing, strict=True)])
    counts = [max(-(-(n - w) // s), 0) + 1 for n, w, s in zip(x.shape[2:], voxels, steps, strict=True)]
    assert ours.facts["passes"] == np.prod(counts)


class OneVoxel(nn.Module):
    """Logits are minus and plus one voxel."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert not torch.is_grad_enabled()
        return x[:, 0, 5, 6, None] * torch.tensor([-1.0, 1.0])


def test_only_windows_over_the_voxel_that_counts_say_something() -> None:
    x = torch.rand(1, 1, 12, 12) + 1
    (against, speaks), _ = maps_of(Occlusion(window=3.0, stride=3.0), classifier_of(OneVoxel(), 2), x, [(0, 0), (0, 1)])
    expected = np.zeros((12, 12), np.float32)
    # The window from 3 to 5 and 6 to 8.
    expected[3:6, 6:9] = x[0, 0, 5, 6]
    np.testing.assert_array_equal(speaks.values, expected)
    np.testing.assert_array_equal(against.values, -expected)


def test_classes_and_batches_share_passes_and_nothing_else() -> None:
    classifier, network, inputs = case(2, Head.SOFTMAX)
    passed: list[int] = []
    handle = network.register_forward_pre_hook(lambda _, args: passed.append(len(args[0])))
    explainer = Occlusion(window=6.0, stride=4.0, batch_size=5)
    maps, _ = maps_of(explainer, classifier, inputs[:2], [(0, 0), (1, 1), (0, 2)])
    handle.remove()
    assert sum(passed) - 2 <= 2 * maps[0].facts["passes"] + 1
    assert max(passed) == 5


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"window": 1.0, "stride": 1.0},
            r"would need 27000 passes through the network, and at most 20000 are made",
        ),
        ({"window": 4.0, "stride": 5.0}, r"Windows of 4 every 5 don't cover the image; choose a stride at most as"),
    ],
)
def test_windows_that_can_not_be_are_a_sentence(options: dict[str, Any], sentence: str) -> None:
    network = nn.Sequential(nn.Conv3d(1, 2, 3), nn.AdaptiveAvgPool3d(1), nn.Flatten())
    with pytest.raises(InputError, match=sentence):
        maps_of(Occlusion(**options), classifier_of(network, 3), torch.rand(1, 1, 30, 30, 30), [(0, 1)])


def test_smaller_windows_cost_more() -> None:
    classifier, _, inputs = case(3, Head.ONE_LOGIT)
    passes = [
        maps_of(Occlusion(window=size, stride=size), classifier, inputs[:1], [(0, 1)])[0][0].facts["passes"]
        for size in (2.0, 4.0, 20.0)
    ]
    assert all(more > fewer for more, fewer in pairwise(passes))
    assert passes[-1] == 1


def test_windows_are_counted_before_they_are_listed() -> None:
    """Eight billion of them, of an image that takes no memory."""
    network = nn.Sequential(nn.Conv3d(1, 2, 3), nn.AdaptiveAvgPool3d(1), nn.Flatten())
    x = torch.zeros(1, 1, 1, 1, 1).expand(1, 1, 2000, 2000, 2000)
    with pytest.raises(InputError, match="would need 8000000000 passes"):
        maps_of(Occlusion(window=1.0, stride=1.0), classifier_of(network, 3), x, [(0, 1)])


def test_the_default_window_is_a_fifth_of_the_image() -> None:
    classifier = classifier_of(nn.Sequential(nn.Conv3d(1, 2, 3), nn.AdaptiveAvgPool3d(1), nn.Flatten()), 3)
    (raw,), _ = maps_of(Occlusion(), classifier, torch.rand(1, 1, 30, 20, 10), [(0, 1)], spacing=(1.0, 3.0, 0.2))
    assert (raw.facts["window"], raw.facts["stride"]) == ([6, 4, 2], [3, 2, 1])
    (raw,), _ = maps_of(Occlusion(stride=90.0), classifier, torch.rand(1, 1, 30, 20, 10), [(0, 1)])
    assert raw.facts["stride"] == raw.facts["window"]
