from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import GradientShap
from captum.attr import IntegratedGradients as CaptumIntegratedGradients
from captum.attr._core.gradient_shap import InputBaselineXGradient
from helpers import classifier_of, maps_of
from plain_networks import HEADS, SPACING, case, close
from torch import nn

from napari_xai_med.explainers.base import Question
from napari_xai_med.explainers.integrated import IntegratedGradients
from napari_xai_med.explainers.shap_gradients import GradientSHAP
from napari_xai_med.models.head import Head
from napari_xai_med.models.target import Quantity, Target


@pytest.mark.parametrize("baseline", ["zero", "minimum", "mean", "blurred", "image"])
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("dims", [2, 3])
def test_integrated_gradients_equal_captum(dims: int, head: Head, baseline: str) -> None:
    classifier, network, inputs = case(dims, head)
    x = inputs[:1]
    explainer = IntegratedGradients(steps=11, baseline=baseline, blur=2.0)
    others = inputs[2:] if baseline == "image" else None
    reference = explainer.baselines(Question(classifier, x, (), SPACING[dims], others))[:, 0]
    options: Any = {"method": "gausslegendre", "n_steps": 11}
    theirs = CaptumIntegratedGradients(network).attribute(x, reference, 1, **options)
    (ours,), _ = maps_of(explainer, classifier, x, [(0, 1)], spacing=SPACING[dims], others=others)
    close(ours.values, theirs[0].sum(0))
    difference = float((network(x) - network(reference))[0, 1].detach())
    assert ours.facts["answer_difference"] == pytest.approx(difference)
    assert ours.facts["map_sum"] == pytest.approx(float(theirs.sum()))
    off = abs(ours.facts["map_sum"] - difference) / abs(difference)
    assert ours.facts["completeness_error"] == pytest.approx(off, rel=1e-3)


@pytest.mark.parametrize("quantity", list(Quantity))
@pytest.mark.parametrize("dims", [2, 3])
def test_more_steps_add_up_better_and_too_few_are_told(dims: int, quantity: Quantity) -> None:
    """On a smooth network, whose integral Gauss and Legendre's nodes find exactly."""
    classifier, _, inputs = case(dims, Head.SOFTMAX, activation=nn.GELU)
    network = nn.Sequential(*(nn.Softplus() if isinstance(part, nn.ReLU) else part for part in classifier.network))
    classifier, target = replace(classifier, network=network.eval()), Target(0, quantity=quantity)
    maps = {
        steps: maps_of(IntegratedGradients(steps=steps), classifier, inputs[:1] * 3, [(0, target)])[0][0]
        for steps in (1, 8, 128)
    }
    errors = [raw.facts["completeness_error"] for raw in maps.values()]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-3
    for raw in maps.values():
        assert bool(raw.notices) == (raw.facts["completeness_error"] > 0.05)
    assert "; take more steps, or another baseline." in maps[1].notices[0]


def draws(explainer: GradientSHAP, count: int) -> list[tuple[int, float]]:
    return [explainer.draw(count, k) for k in range(explainer.noise_samples)]


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("dims", [2, 3])
def test_gradient_shap_equals_captum_at_the_same_draws(dims: int, head: Head, monkeypatch: pytest.MonkeyPatch) -> None:
    """captum draws places with NumPy and baselines by itself: it gets ours one by one."""
    classifier, network, inputs = case(dims, head)
    x, background = inputs[:1], inputs[1:]
    explainer = GradientSHAP(noise_samples=6, seed=2)
    captum, total = InputBaselineXGradient(network), torch.zeros_like(x)
    for number, place in draws(explainer, 2):
        monkeypatch.setattr(np.random, "uniform", lambda *_, place=place: np.array([place]))
        total += captum.attribute(x, background[number : number + 1], 1) / 6
    (ours,), _ = maps_of(explainer, classifier, x, [(0, 1)], others=background)
    close(ours.values, total[0].sum(0))
    expected = np.mean([float((network(x)[0] - network(background)[k])[1].detach()) for k, _ in draws(explainer, 2)])
    assert ours.facts["answer_difference"] == pytest.approx(expected)


def test_gradient_shap_agrees_with_captum_on_average() -> None:
    """Both are means of many draws: they differ by their standard errors only."""
    classifier, network, inputs = case(2, Head.SOFTMAX)
    x, background, count = inputs[:1], inputs[1:], 3000
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002  # captum draws from it
    std = 0.05
    explainer = GradientSHAP(noise_samples=count, noise_std=std, batch_size=500)
    (ours,), _ = maps_of(explainer, classifier, x, [(0, 1)], others=background)
    absolute = ours.facts["noise_std"]
    assert absolute == pytest.approx(std * float(x.max() - x.min()))
    theirs = GradientShap(network).attribute(x, background, n_samples=count, stdevs=absolute, target=1)[0].sum(0)
    variance = GradientSHAP(noise_tunnel="vargrad", noise_samples=count, noise_std=std, batch_size=500)
    # Of the sum of two channels the variance is at most twice the sum of both.
    (spread,), _ = maps_of(variance, classifier, x, [(0, 1)], others=background)
    error = np.sqrt(2 * 2 * spread.values / count)
    assert (np.abs(ours.values - theirs.detach().numpy()) < 5 * error).all()


def test_more_draws_of_gradient_shap_add_up_better() -> None:
    classifier, _, inputs = case(3, Head.ONE_LOGIT)
    errors = [
        maps_of(GradientSHAP(noise_samples=count), classifier, inputs[:1], [(0, 1)])[0][0].facts["completeness_error"]
        for count in (5, 2000)
    ]
    assert errors[1] < 0.05 < errors[0]


def test_without_a_background_four_baselines_are_one() -> None:
    classifier, _, inputs = case(3, Head.SOFTMAX)
    question = Question(classifier, inputs, (), SPACING[3])
    background = GradientSHAP(blur=3.0).backgrounds(question)
    assert background.shape == (3, 4, *inputs.shape[1:])
    for k, name in enumerate(("zero", "minimum", "mean", "blurred")):
        torch.testing.assert_close(
            background[:, k], IntegratedGradients(baseline=name, blur=3.0).baselines(question)[:, 0]
        )


@pytest.mark.parametrize("kind", [IntegratedGradients, GradientSHAP])
def test_many_points_cost_what_as_many_plain_passes_cost(kind: type[IntegratedGradients] | type[GradientSHAP]) -> None:
    """No more images go through the network than points, image and baselines; see benchmarks for seconds."""
    classifier, network, inputs = case(2, Head.SOFTMAX)
    passed: list[int] = []
    handle = network.register_forward_pre_hook(lambda _, args: passed.append(len(args[0])))
    classifier = classifier_of(network, 2, 3, channels=2)
    maps_of(kind(batch_size=8), classifier, inputs[:1], [(0, 1)])
    handle.remove()
    assert sum(passed) <= 1.2 * 32
