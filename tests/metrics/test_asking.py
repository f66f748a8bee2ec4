"""Metrics that ask a classifier, for every kind of classifier and image; with progress, cancelling and no trace."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from faithful_cases import SHAPES, case_for, conv_network, image_of, measured
from helpers import classifier_of
from monai.transforms import Resized
from torch import Tensor, nn

from napari_xai_med import Image, evaluate, explain
from napari_xai_med.cases import case_of
from napari_xai_med.errors import Cancelled
from napari_xai_med.evaluation import evaluate_case, metrics_for, panel
from napari_xai_med.job import Job
from napari_xai_med.metrics.base import Family, metrics
from napari_xai_med.metrics.outcome import EXPLANATION
from napari_xai_med.models.classifier import Classifier
from napari_xai_med.models.head import Head
from napari_xai_med.models.sliding_window import SlidingWindow

FEW: dict[str, dict[str, Any]] = {
    "deletion": {"steps": 4},
    "insertion": {"steps": 4},
    "infidelity": {"samples": 12},
    "pixel_flipping": {"regions": 12, "flips": 4},
    "sufficiency_comprehensiveness": {},
    "road": {"shares": (0.3, 0.6)},
    "sensitivity_n": {"parts": 12, "samples": 6},
}
CONTROLS = {"random", "edges", "centre"}


def asked_of(image: Image, classifier: Classifier, **how: Any) -> Any:
    attribution = explain(image, classifier, "input_x_gradient", target=1, **how)
    return attribution, case_of(attribution, image=image, classifier=classifier, sign="absolute")


def kinds() -> dict[str, tuple[Image, Classifier, dict[str, Any]]]:
    volume = image_of((12, 10, 11))
    windows = SlidingWindow((6, 6, 6), "mean")
    segmenting = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1))
    resize = [Resized(keys="image", spatial_size=(14, 9), mode="bilinear")]
    return {
        "picture": (image_of((12, 13)), classifier_of(conv_network(2, 3), 2, 3), {}),
        "resized": (image_of((12, 13)), classifier_of(conv_network(2, 3), 2, 3, steps=resize), {}),
        "colours": (image_of((12, 13), 3), classifier_of(conv_network(2, 2, 3), 2, channels=3), {}),
        "slice": (volume, classifier_of(conv_network(2, 2), 2), {"plane": "coronal", "slice": 4}),
        "volume": (volume, classifier_of(conv_network(3, 2), 3), {}),
        "windows": (volume, classifier_of(conv_network(3, 2), 3, windows=windows), {}),
        "one logit": (image_of((12, 13)), classifier_of(conv_network(2, 1), 2, head=Head.ONE_LOGIT), {}),
        "labels": (image_of((12, 13)), classifier_of(conv_network(2, 3), 2, 3, head=Head.MULTI_LABEL), {}),
        "segmentation": (image_of((12, 13)), classifier_of(segmenting, 2, 3, head=Head.SEGMENTATION), {}),
        "regression": (image_of((12, 13)), classifier_of(conv_network(2, 2), 2, head=Head.REGRESSION), {}),
        "against": (image_of((12, 13)), classifier_of(conv_network(2, 3), 2, 3), {"against": 0}),
        "as probability": (image_of((12, 13)), classifier_of(conv_network(2, 3), 2, 3), {"quantity": "probability"}),
    }


@pytest.mark.parametrize("kind", kinds())
def test_every_kind_of_classifier_can_be_asked(kind: str) -> None:
    torch.manual_seed(0)
    image, classifier, how = kinds()[kind]
    _, case = asked_of(image, classifier, **how)
    family = {name for name, metric in metrics().items() if metric.family is Family.FAITHFULNESS}
    assert family == set(FEW)
    for name, options in FEW.items():
        outcome = measured(name, case, **options)
        subjects = {score.subject for score in outcome.scores}
        assert subjects == {EXPLANATION, *CONTROLS}
        assert {each: [score.subject for score in outcome.scores].count(each) for each in subjects} == dict.fromkeys(
            subjects, len(outcome.scores) // 4
        )
        assert all(np.isfinite(score.value) or score.reason for score in outcome.scores)
        assert np.isfinite([score.value for score in outcome.scores if not score.name.endswith("normalised")]).all()
        assert outcome.verdicts
        explained = name in ("infidelity", "sensitivity_n")
        plain = kind in ("segmentation", "regression", "against") or explained
        expected = "logit" if plain and kind != "as probability" else "probability"
        assert outcome.facts["quantity"] == expected
        assert outcome.facts["evaluations"] > 1


def test_the_panel_has_both_curves_and_scripts_get_a_table() -> None:
    image, classifier, _ = kinds()["picture"]
    attribution, _ = asked_of(image, classifier)
    assert {"deletion", "insertion"} <= {metric.name for metric in panel()}
    table = evaluate(
        attribution, image=image, classifier=classifier, metrics=[{"metric": "deletion", "baselines": ["zero", "mean"]}]
    )
    assert set(table["at"]) == {"baseline zero", "baseline mean"}
    assert len(table) == 2 * 2 * 4


class Counts(nn.Module):
    """Counts its calls in a buffer, and drops out where it is not told to evaluate."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = conv_network(2, 2)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.inner(x)


@pytest.mark.parametrize("name", FEW)
def test_the_same_seed_gives_the_same_bits_and_the_network_is_left_as_it_was(name: str) -> None:
    network = Counts()
    values = np.random.default_rng(3).normal(size=SHAPES[2]).astype(np.float32)
    image = image_of(SHAPES[2])
    before = copy.deepcopy(network.state_dict()), image.data.copy()

    def numbers(seed: int) -> list[float]:
        case = case_for(image, classifier_of(network, 2), values, seed=seed)
        return [score.value for score in measured(name, case, **FEW[name]).scores]

    first = numbers(0)
    assert first == numbers(0)
    assert first != numbers(1)
    assert all(torch.equal(value, before[0][key]) for key, value in network.state_dict().items())
    np.testing.assert_array_equal(image.data, before[1])
    assert not network.training
    assert all(parameter.grad is None and parameter.requires_grad for parameter in network.parameters())


def test_progress_rises_and_cancel_stops_at_any_time() -> None:
    image, classifier, _ = kinds()["picture"]
    _, case = asked_of(image, classifier)
    chosen = metrics_for(case, [{"metric": name, **options} for name, options in FEW.items()])
    seen: list[float] = []
    evaluate_case(case, chosen, Job(progress=lambda done, _: seen.append(done)))
    assert seen == sorted(seen)
    assert seen[-1] == 1

    class After:
        """Set from the so-many-th question on."""

        def __init__(self, left: int) -> None:
            self.left = left

        def is_set(self) -> bool:
            self.left -= 1
            return self.left < 0

    for name, options in FEW.items():
        for left in (0, 4, 12):
            with pytest.raises(Cancelled):
                measured(name, case, Job(cancel=After(left)), **options)
