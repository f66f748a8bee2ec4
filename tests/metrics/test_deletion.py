"""Curves that are known in closed form, or made by a plain loop."""

from __future__ import annotations

from math import nan
from typing import Any

import numpy as np
import pytest
import torch
from faithful_cases import SHAPES, case_for, conv_network, found, image_of, linear_case, measured
from helpers import classifier_of
from scipy.integrate import trapezoid

from napari_xai_med.errors import InputError
from napari_xai_med.metrics.case import Case, Sign
from napari_xai_med.metrics.outcome import Better, Outcome
from napari_xai_med.models.head import Head


@pytest.mark.parametrize(("dims", "channels"), [(2, 1), (3, 1), (2, 3)])
@pytest.mark.parametrize("steps", [7, 1000])
def test_curves_of_a_linear_network_are_sums_of_sorted_contributions(dims: int, channels: int, steps: int) -> None:
    case, _, _ = linear_case(dims, channels)
    each = np.sort(case.values.ravel().astype(float))[::-1]
    sums = np.concatenate([[0], np.cumsum(each)])[np.rint(np.arange(steps + 1) / steps * each.size).astype(int)]
    for name, curve in (("deletion", sums[-1] - sums), ("insertion", sums)):
        outcome = measured(name, case, quantity="logit", steps=steps)
        (line,) = [line for line in outcome.plots[0].lines if line.subject == "explanation"]
        np.testing.assert_allclose(line.y, curve, atol=1e-4)
        area = trapezoid(curve, dx=1 / steps)
        assert found(outcome, f"{name}_auc") == pytest.approx(area, abs=1e-4)
        # The image's score is 1 and that of zeros 0.
        assert found(outcome, f"{name}_auc_normalised") == pytest.approx(area / sums[-1], abs=1e-4)


def test_exact_contributions_beat_every_control_and_each_image_is_asked_about_once() -> None:
    case, _, _ = linear_case(2)
    assert case.values.sum() > 0
    for name in ("deletion", "insertion"):
        outcome = measured(name, case, quantity="logit", steps=20)
        assert outcome.verdicts[0].good
        # The image and the baseline belong to all four maps.
        assert outcome.facts["evaluations"] == 4 * 19 + 2
        assert outcome.facts["baselines"] == ["zero"]
        assert not outcome.notices
    turned = linear_case(2)[0]
    turned = case_for(turned.asked.image, turned.asked.classifier, -turned.values)
    verdict = measured("deletion", turned, quantity="logit").verdicts[0]
    assert verdict.good is False
    assert "not better than the control" in verdict.sentence


HEADS = [(Head.SOFTMAX, 3), (Head.ONE_LOGIT, 2), (Head.MULTI_LABEL, 3)]


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize(("head", "classes"), HEADS)
@pytest.mark.parametrize("baselines", [("zero",), ("mean", "constant", "minimum")])
def test_equals_a_plain_loop(dims: int, head: Head, classes: int, baselines: tuple[str, ...]) -> None:
    network = conv_network(dims, 1 if head is Head.ONE_LOGIT else classes)
    image = image_of(SHAPES[dims])
    values = np.random.default_rng(2).normal(size=SHAPES[dims]).astype(np.float32)
    case = case_for(image, classifier_of(network, dims, classes, head=head), values)
    x = torch.from_numpy(image.data)
    known = {"zero": 0.0, "mean": float(x.mean()), "constant": 0.3, "minimum": float(x.min())}
    ranks = np.argsort(np.argsort(-values.ravel())).reshape(values.shape)

    def probability(seen: torch.Tensor) -> float:
        with torch.no_grad():
            logits = network(seen[None])[0]
        return float(logits.softmax(0)[1] if head is Head.SOFTMAX else logits[-1 if len(logits) == 1 else 1].sigmoid())

    for name in ("deletion", "insertion"):
        outcome = measured(name, case, baselines=baselines, constant=0.3, steps=5)
        for baseline in baselines:
            curve = []
            for k in range(6):
                gone = torch.from_numpy(ranks < np.rint(k / 5 * values.size)) ^ (name == "insertion")
                curve.append(probability(torch.where(gone, torch.tensor(known[baseline]), x)))
            area = trapezoid(curve, dx=0.2)
            assert found(outcome, f"{name}_auc", at=f"baseline {baseline}") == pytest.approx(area, abs=1e-6)
        assert [plot.title.split()[-1] for plot in outcome.plots] == list(baselines)


def test_what_speaks_against_a_class_supports_the_opposite() -> None:
    case, _, _ = linear_case(2)
    own = measured("deletion", case, quantity="logit")
    turned = case_for(case.asked.image, case.asked.classifier, -case.values, target=0, sign=Sign.NEGATIVE)
    other = measured("deletion", turned, quantity="logit")
    assert found(own, "deletion_auc") == found(other, "deletion_auc")
    both = case_for(case.asked.image, case.asked.classifier, case.values, sign=Sign.ABSOLUTE)
    large = np.sort(np.abs(case.values).ravel())[::-1][:54]
    line = measured("deletion", both, quantity="logit", steps=2).plots[0].lines[0]
    kept = case.values[np.abs(case.values) < large.min()].sum()
    np.testing.assert_allclose(line.y, [case.values.sum(), kept, 0], atol=1e-5)


def test_ties_are_broken_by_the_seed_and_the_same_seed_gives_the_same_bits() -> None:
    values = np.zeros(SHAPES[2], np.float32)
    values[3:5, 4:6] = 1

    def run(seed: int) -> Outcome:
        case, _, _ = linear_case(2)
        return measured("deletion", case_for(case.asked.image, case.asked.classifier, values, seed=seed))

    assert [score.value for score in run(0).scores] == [score.value for score in run(0).scores]
    assert found(run(0), "deletion_auc") != found(run(1), "deletion_auc")


def broken(values: Any) -> Case:
    case, _, _ = linear_case(2)
    return case_for(case.asked.image, case.asked.classifier, np.broadcast_to(np.float32(values), SHAPES[2]))


@pytest.mark.parametrize(
    "name",
    ["deletion", "insertion", "pixel_flipping", "sufficiency_comprehensiveness", "road", "infidelity", "sensitivity_n"],
)
def test_what_a_map_can_not_be_asked_is_nan_with_a_reason(name: str) -> None:
    def reasons(values: Any) -> set[str]:
        outcome = measured(name, broken(values))
        assert all(np.isnan(score.value) and score.better in Better for score in outcome.scores)
        assert len(outcome.scores) >= 1
        (reason,) = {score.reason for score in outcome.scores}
        assert outcome.verdicts[0].good is None
        assert outcome.verdicts[0].sentence.endswith(f"is not defined: {reason}")
        return {reason}

    hole = np.ones(SHAPES[2])
    hole[2, 3:5] = nan
    assert reasons(hole) == {"2 of 108 voxels of the map are not finite."}
    zero, constant = reasons(0), reasons(0.5)
    assert constant == {
        "The map has one value everywhere where the network looks, so that it tells no part from another."
    }
    ranks = name not in ("infidelity", "sensitivity_n")
    assert zero == ({"Nothing in the map is positive evidence where the network looks."} if ranks else constant)


def test_images_that_leave_the_range_of_the_input_are_told() -> None:
    case, x, _ = linear_case(2)
    (notice,) = measured("deletion", case, baselines=("constant",), constant=-3.0, steps=4).notices
    # All but the image itself: 3 for each of four maps, and the baseline.
    share = (float(x.min()) + 3) / float(np.ptp(x))
    assert notice.startswith(
        f"13 of 14 changed images (93%) leave the range of the network's input, by up to {share:.2g}"
    )


def test_a_baseline_that_keeps_the_class_decides_nothing() -> None:
    case, x, _ = linear_case(2)
    verdict = measured("insertion", case, baselines=("blurred",), blur=0.0).verdicts[0]
    assert verdict.good is None
    assert "choose another baseline" in verdict.sentence
    outcome = measured("insertion", case, baselines=("blurred",), blur=0.0)
    assert np.isnan(found(outcome, "insertion_auc_normalised"))
    assert x.size


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"baselines": ("sky",)}, "Deletion can't have baselines 'sky'; choose some of zero, minimum"),
        ({"baselines": ()}, "Deletion can't have baselines none"),
        ({"baseline_image": ("a.nii",)}, "choose the baseline image too"),
        ({"steps": 0}, "steps 0"),
        ({"quantity": "loss"}, "can't have quantity 'loss'"),
    ],
)
def test_wrong_options_are_one_sentence(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        measured("deletion", linear_case(2)[0], **options)


def test_shares_have_to_rise() -> None:
    for name in ("road", "sufficiency_comprehensiveness", "sensitivity_n"):
        with pytest.raises(InputError, match="give it some that rise"):
            measured(name, linear_case(2)[0], shares=(0.5, 0.1))
