"""The number that an explanation is about."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from helpers import MeanOf, classifier_of, maps_of, ones
from torch import nn

from napari_xai_med import Attribution, Image, explain, explain_all
from napari_xai_med.errors import InputError
from napari_xai_med.explainers.cam import GradCAM
from napari_xai_med.explanation import explain_request
from napari_xai_med.job import Job
from napari_xai_med.models.head import Head
from napari_xai_med.models.target import Quantity, Target
from napari_xai_med.request import ExplainRequest

HEADS = {Head.SOFTMAX: 3, Head.MULTI_LABEL: 3, Head.ONE_LOGIT: 1, Head.REGRESSION: 3}


def answer_of(head: Head, logits: torch.Tensor) -> Any:
    return head.answer(logits, 2 if head is Head.ONE_LOGIT else 3)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("index", [0, 1])
def test_quantities_are_those_of_the_probabilities(head: Head, index: int) -> None:
    torch.manual_seed(0)
    logits = torch.randn(5, HEADS[head], dtype=torch.double)
    answer = answer_of(head, logits)
    probability = answer.probabilities[:, index]
    score = {Head.ONE_LOGIT: logits[:, 0] * (2 * index - 1)}.get(head, logits[:, index % HEADS[head]])
    torch.testing.assert_close(Target(index).of(answer), score)
    torch.testing.assert_close(Target(index, opposite=True).of(answer), -score)
    if head is Head.REGRESSION:
        for quantity in (Quantity.PROBABILITY, Quantity.LOG_ODDS):
            with pytest.raises(InputError, match=r"A regression has no .* of a class; explain its logit"):
                Target(index, quantity=quantity).check(head)
        return
    torch.testing.assert_close(Target(index, quantity=Quantity.PROBABILITY).of(answer), probability)
    odds = (probability / (1 - probability)).log()
    torch.testing.assert_close(Target(index, quantity=Quantity.LOG_ODDS).of(answer), odds)
    between = Target(index, against=1 - index).of(answer)
    other = answer.probabilities[:, 1 - index]
    if head is Head.MULTI_LABEL:
        odds = odds - (other / (1 - other)).log()
    torch.testing.assert_close(between, odds if head is not Head.SOFTMAX else (probability / other).log())


def test_a_probability_s_map_is_the_logit_s_times_its_slope() -> None:
    """With two classes whose logits are -m and m: p = sigmoid(2m), of slope p (1 - p) times 2 by m."""
    network = MeanOf(ones(nn.Conv2d(1, 1, 3)))
    classifier, x = classifier_of(network, 2), torch.rand(2, 1, 8, 8)
    targets = [Target(1), Target(1, quantity=Quantity.PROBABILITY), Target(1, 0), Target(0, opposite=True)]
    maps, answer = maps_of(GradCAM(), classifier, x, [(0, target) for target in targets])
    p = float(answer.probabilities[0, 1])
    logit, probability, between, opposite = (raw.values for raw in maps)
    np.testing.assert_allclose(probability, 2 * p * (1 - p) * logit, rtol=1e-5)
    np.testing.assert_allclose(between, 2 * logit, rtol=1e-5)
    np.testing.assert_allclose(opposite, logit, rtol=1e-5)


def test_the_record_says_what_was_explained_and_gives_it_again() -> None:
    classifier = classifier_of(MeanOf(ones(nn.Conv2d(1, 1, 3))), 2)
    image = Image.from_array(np.random.default_rng(0).random((8, 9)).astype(np.float32))
    for asked, about in (
        ({"quantity": "log_odds"}, "log-odds of class 1"),
        ({"quantity": "probability"}, "probability of class 1"),
        ({"target": "class 1", "against": "class 0"}, "class 1 rather than class 0"),
        ({"target": 0, "opposite": True}, "what speaks against class 0"),
    ):
        attribution = explain(image, classifier, **asked)
        assert attribution.about == attribution.record.method["about"] == about
        request = ExplainRequest.from_dict(attribution.record.request)
        repeated = explain_request(image, classifier, request, Job())
        assert repeated.record.result["sha256"] == attribution.record.result["sha256"]


def test_all_classes_from_one_pass_equal_each_alone() -> None:
    torch.manual_seed(0)
    passes = []
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    classifier = classifier_of(network, 2, 3)
    image = Image.from_array(np.random.default_rng(0).random((8, 9)).astype(np.float32))
    explain(image, classifier)
    network.register_forward_pre_hook(lambda *_: passes.append(1))
    together = explain_all(image, classifier)
    assert len(passes) == 1
    assert [each.class_name for each in together] == list(classifier.class_names)
    for each in together:
        alone = explain(image, classifier, target=each.class_name)
        assert alone.record.result["sha256"] == each.record.result["sha256"]


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"target": 1, "against": 1}, "can't be explained against itself; choose two different classes"),
        ({"target": 1, "against": 0, "quantity": "probability"}, "difference of logits; leave out probability"),
        ({"quantity": "odds"}, "There is no quantity 'odds'; choose one of logit, log_odds, probability"),
        ({"minus": "cam2"}, "There is no method 'cam2'; choose one of"),
        ({"against": "tumour"}, "test has no class 'tumour'; choose one of class 0, class 1"),
    ],
)
def test_what_can_t_be_explained_is_refused_in_a_sentence(asked: dict[str, Any], sentence: str) -> None:
    classifier = classifier_of(MeanOf(ones(nn.Conv2d(1, 1, 3))), 2)
    with pytest.raises(InputError, match=sentence):
        explain(np.ones((8, 8)), classifier, **asked)


def test_each_class_is_explained_against_another_but_that_one_itself() -> None:
    network = nn.Sequential(nn.Conv2d(1, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    classifier, image = classifier_of(network, 2, 3), np.random.default_rng(0).random((8, 9))
    found = explain_all(image, classifier, against="class 1")
    assert [each.about for each in found] == ["class 0 rather than class 1", "class 2 rather than class 1"]
    with pytest.raises(InputError, match="Nothing is to be explained; name a class"):
        explain_all(image, classifier, targets=())


def by_its_maximum(attribution: Attribution) -> np.ndarray:
    values: np.ndarray = attribution.values / np.abs(attribution.raw).max()
    return values


@pytest.mark.parametrize(("method", "minus"), [("saliency", "gradient_shap"), ("integrated_gradients", "scorecam")])
def test_methods_whose_options_have_the_same_names_and_other_values_can_be_compared(method: str, minus: str) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    classifier, image = classifier_of(network, 2), np.random.default_rng(0).random((8, 9))
    difference = explain(image, classifier, method, target=1, minus=minus)
    parts = [
        by_its_maximum(explain(image, classifier, name, target=1, **options))
        for name, options in (
            (method, {}),
            (minus, {"noise_samples": 16, "noise_std": 0.15} if minus == "gradient_shap" else {}),
        )
    ]
    np.testing.assert_allclose(difference.values, parts[0] - parts[1], atol=1e-6)


def test_a_whole_number_for_an_option_in_millimetres_is_shared() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    classifier, image = classifier_of(network, 2), np.random.default_rng(0).random((40, 50))
    asked = {"baseline": "blurred", "blur": 1}
    difference = explain(image, classifier, "occlusion", target=1, minus="integrated_gradients", **asked)
    parts = [
        by_its_maximum(explain(image, classifier, name, target=1, **asked))
        for name in ("occlusion", "integrated_gradients")
    ]
    np.testing.assert_allclose(difference.values, parts[0] - parts[1], atol=1e-6)
