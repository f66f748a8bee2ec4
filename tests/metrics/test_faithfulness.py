"""Metrics beside the curves: against captum, a plain loop, or what is known of a linear network."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from captum.metrics import infidelity
from faithful_cases import SHAPES, case_for, conv_network, found, image_of, linear_case, measured
from helpers import classifier_of
from scipy.stats import pearsonr

from napari_xai_med.metrics.outcome import EXPLANATION, Outcome
from napari_xai_med.segments.base import make_segmenter

DIMS = [(2, 1), (3, 1), (2, 3)]


@pytest.mark.parametrize(("dims", "channels"), DIMS)
@pytest.mark.parametrize("perturbation", ["square", "segments"])
def test_contributions_to_a_linear_network_have_no_infidelity(dims: int, channels: int, perturbation: str) -> None:
    case, _, _ = linear_case(dims, channels)
    outcome = measured("infidelity", case, perturbation=perturbation, scaled=False, samples=40, parts=20)
    assert found(outcome, "infidelity_share") == pytest.approx(0, abs=1e-10)
    assert found(outcome, "infidelity_share", "random") > 0.5
    assert outcome.verdicts[0].good
    # Not of the other class, nor of twice the map, unless it is scaled; nor the map turned round.
    other = case_for(case.asked.image, case.asked.classifier, -2 * case.values)
    options = {"perturbation": perturbation, "samples": 40, "parts": 20}
    assert found(measured("infidelity", other, scaled=False, **options), "infidelity_share") == pytest.approx(9)
    turned = measured("infidelity", other, **options)
    assert found(turned, "infidelity_share") == pytest.approx(0, abs=1e-10)
    assert turned.verdicts[0].good is False
    assert "turned round" in turned.verdicts[0].sentence


@pytest.mark.parametrize("dims", [2, 3])
def test_the_gradient_of_a_linear_network_has_no_infidelity(dims: int) -> None:
    case, _, weights = linear_case(dims)
    gradient = case_for(case.asked.image, case.asked.classifier, weights[0])
    for baselines in (("zero",), ("mean", "noise")):
        outcome = measured("infidelity", gradient, per_unit=True, scaled=False, samples=20, baselines=baselines)
        for baseline in baselines:
            assert found(outcome, "infidelity", at=f"baseline {baseline}") == pytest.approx(0, abs=1e-8)
    assert found(measured("infidelity", gradient, samples=20), "infidelity_share") > 0.01


@pytest.mark.parametrize(("dims", "channels"), DIMS)
@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("per_unit", [True, False])
def test_infidelity_equals_captums(dims: int, channels: int, scaled: bool, per_unit: bool) -> None:
    network = conv_network(dims, 2, channels)
    image = image_of(SHAPES[dims], channels)
    values = np.random.default_rng(4).normal(size=SHAPES[dims]).astype(np.float32)
    case = case_for(image, classifier_of(network, dims, channels=channels), values)
    options = {"scaled": scaled, "per_unit": per_unit, "samples": 25, "side": 0.4, "baselines": ("constant",)}
    outcome = measured("infidelity", case, constant=0.2, quantity="probability", **options)
    shape = np.array(SHAPES[dims])
    size = np.rint(0.4 * shape).astype(int)
    starts = np.random.default_rng((0, 5)).integers(0, shape - size + 1, (25, dims))
    x = torch.from_numpy(image.data)[None]
    masks = torch.zeros(25, 1, *shape)
    for mask, start in zip(masks, starts, strict=True):
        mask[(0, *(slice(a, a + n) for a, n in zip(start, size, strict=True)))] = 1

    def perturb(inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        changes = masks * (inputs - 0.2)
        # captum multiplies the map with this, which has all channels: the map's own value counts once.
        weights = changes if per_unit else masks.expand_as(inputs) / channels
        return weights, inputs - changes

    expected = infidelity(
        lambda seen: network(seen).softmax(1)[:, 1],
        perturb,
        x,
        torch.from_numpy(values).expand_as(x),
        n_perturb_samples=25,
        normalize=scaled,
    )
    assert found(outcome, "infidelity") == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.parametrize(("dims", "channels"), DIMS)
def test_contributions_to_a_linear_network_have_sensitivity_n_of_one(dims: int, channels: int) -> None:
    case, _, _ = linear_case(dims, channels)
    outcome = measured("sensitivity_n", case, parts=30, samples=20)
    assert found(outcome, "sensitivity_n_mean") == pytest.approx(1, abs=1e-6)
    assert all(score.value == pytest.approx(1, abs=1e-6) for score in outcome.scores if score.subject == EXPLANATION)
    assert found(outcome, "sensitivity_n_mean", "random") < 0.9
    assert outcome.verdicts[0].good


def test_sensitivity_n_is_a_correlation_and_nan_where_nothing_falls() -> None:
    network = conv_network(2, 2)
    image = image_of(SHAPES[2])
    values = np.random.default_rng(4).normal(size=SHAPES[2]).astype(np.float32)
    case = case_for(image, classifier_of(network, 2), values)
    outcome = measured("sensitivity_n", case, parts=20, samples=15, shares=(0.3,))
    labels = make_segmenter("grid", {"number": 20}).segments(image.data, (1.0, 1.0)).labels
    count = int(labels.max())
    order = np.random.default_rng((0, 4)).random((1, 15, count)).argsort(2).argsort(2)[0]
    said, fell = [], []
    for row in order < round(0.3 * count):
        gone = np.concatenate([[False], row])[labels]
        with torch.no_grad():
            logits = network(torch.from_numpy(np.stack([image.data, np.where(gone, np.float32(0), image.data)])))
        said.append(values[gone].sum())
        fell.append(float(logits[0, 1] - logits[1, 1]))
    assert found(outcome, "sensitivity_n") == pytest.approx(pearsonr(said, fell).statistic, abs=1e-4)
    with torch.no_grad():
        network[-1].weight.zero_()
    flat = measured("sensitivity_n", case, parts=20, samples=15)
    assert {score.reason for score in flat.scores} == {
        "The fall of the score is the same for all sets of parts of one size."
    }
    assert flat.verdicts[0].good is None


@pytest.mark.parametrize(("dims", "channels"), DIMS)
def test_sufficiency_and_comprehensiveness_of_a_linear_network(dims: int, channels: int) -> None:
    case, _, _ = linear_case(dims, channels)
    each = np.sort(case.values.ravel().astype(float))[::-1]
    shares = (0.05, 0.25, 1.0)
    outcome = measured("sufficiency_comprehensiveness", case, quantity="logit", shares=shares)
    top = np.array([each[: round(share * each.size)].sum() for share in shares])
    for name, expected in (("comprehensiveness", top), ("sufficiency", each.sum() - top)):
        for share, value in zip(shares, expected, strict=True):
            told = f"baseline zero, {share:.4g} of"
            assert found(outcome, name, at=told) == pytest.approx(value, abs=1e-4)
        assert found(outcome, f"{name}_aopc") == pytest.approx(expected.sum() / 4, abs=1e-4)
    # All of both ends are the image and the baseline, whatever the map.
    assert outcome.facts["evaluations"] == 2 + 2 * 2 * 4


@pytest.mark.parametrize(("dims", "channels"), DIMS)
@pytest.mark.parametrize("flips", [4, 100])
def test_aopc_of_a_linear_network_is_the_mean_of_sorted_sums(dims: int, channels: int, flips: int) -> None:
    case, x, _ = linear_case(dims, channels)
    labels = make_segmenter("grid", {"number": 12}).segments(x, (1.0,) * dims).labels
    sums = np.sort(np.bincount(labels.ravel(), case.values.ravel())[1:])
    outcome = measured("pixel_flipping", case, quantity="logit", regions=12, flips=flips)
    most, least = (np.concatenate([[0], np.cumsum(order)])[: flips + 1].mean() for order in (sums[::-1], sums))
    assert found(outcome, "aopc") == pytest.approx(most, abs=1e-4)
    assert found(outcome, "aopc_least_first") == pytest.approx(least, abs=1e-4)
    assert found(outcome, "abpc") == pytest.approx(most - least, abs=1e-4)
    assert outcome.verdicts[0].good


def test_a_single_voxel_is_a_region_too() -> None:
    case, _, _ = linear_case(2)
    outcome: Outcome = measured("pixel_flipping", case, quantity="logit", regions=10_000, flips=10_000)
    each = np.sort(case.values.ravel().astype(float))[::-1]
    assert outcome.facts["regions"] == each.size
    assert found(outcome, "aopc") == pytest.approx(np.concatenate([[0], np.cumsum(each)]).mean(), abs=1e-4)
