from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import Saliency
from captum.metrics import sensitivity_max
from helpers import MeanOf, classifier_of, ones
from scipy.stats import spearmanr
from torch import Tensor, nn

from napari_xai_med import explain
from napari_xai_med.cases import case_of
from napari_xai_med.errors import Cancelled
from napari_xai_med.evaluation import panel
from napari_xai_med.grid import Grid
from napari_xai_med.image import Image
from napari_xai_med.job import Job
from napari_xai_med.metrics.agreement import top_overlap
from napari_xai_med.metrics.asked_again import noisy, seen_plane
from napari_xai_med.metrics.base import make_metric
from napari_xai_med.metrics.case import Case, Map, Sign
from napari_xai_med.metrics.outcome import EXPLANATION, Matrix, Outcome
from napari_xai_med.metrics.similarity_of_maps import NAMES
from napari_xai_med.metrics.unrelated import MOVED
from napari_xai_med.models.sliding_window import Aggregate, SlidingWindow
from napari_xai_med.segmenting import Regions

STABILITY = ("max_sensitivity", "repeatability", "augmentations")


class Small(nn.Module):
    """A convolutional network for two or three axes."""

    def __init__(self, dims: int = 2) -> None:
        super().__init__()
        convolution = (nn.Conv2d, nn.Conv3d)[dims - 2]
        torch.manual_seed(0)
        self.features = nn.Sequential(convolution(1, 4, 3, padding=1), nn.Tanh(), convolution(4, 4, 3), nn.Tanh())
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(x).flatten(2).mean(2))
        return logits


def picture(size: int = 24) -> Image:
    return Image.from_array(np.random.default_rng(0).random((size, size), np.float32))


def volume() -> Image:
    return Image.from_array(np.random.default_rng(0).random((16, 14, 12), np.float32), (2.0, 1.0, 1.0))


def looking_at_itself(dims: int = 2) -> nn.Module:
    """Grad-CAM of this network is its image, where that is positive."""
    return MeanOf(ones((nn.Conv2d, nn.Conv3d)[dims - 2](1, 1, 1)))


def asked(method: str, network: nn.Module, image: Image, **options: Any) -> Case:
    changes = {key: options.pop(key) for key in ("windows", "classes", "dims") if key in options}
    classifier = classifier_of(network, changes.pop("dims", 2), changes.pop("classes", 3), **changes)
    return case_of(explain(image, classifier, method, target="class 1", **options), image=image, classifier=classifier)


def measure(case: Case, name: str, job: Job | None = None, **options: Any) -> Outcome:
    return make_metric(name, options).measure(case, job or Job())


def score(outcome: Outcome, name: str, at: str = "", subject: str = EXPLANATION, of: str = "") -> float:
    (found,) = (
        each for each in outcome.scores if (each.name, each.subject, each.of) == (name, subject, of) and at in each.at
    )
    return found.value


def test_max_sensitivity_equals_captum() -> None:
    image, network = picture(), Small()
    case = asked("saliency", network, image)
    ours = measure(case, "max_sensitivity", samples=5, radius=0.1, shifts=0)
    random = np.random.default_rng(0)
    drawn = torch.stack([torch.from_numpy(noisy(image, 0.1, random, uniform=True).data) for _ in range(5)])
    theirs = sensitivity_max(
        Saliency(network).attribute,
        torch.from_numpy(image.data[None]),
        perturb_func=lambda _: drawn,
        n_perturb_samples=5,
        target=1,
    )
    assert score(ours, "max_sensitivity") == pytest.approx(float(theirs), rel=1e-5)
    assert score(ours, "mean_sensitivity") < score(ours, "max_sensitivity")


def test_noise_lies_in_the_box_that_is_stated() -> None:
    image = replace(picture(), data=picture().data * 50 - 10)
    width = 0.1 * float(np.ptp(image.data))
    found = noisy(image, 0.1, np.random.default_rng(0), uniform=True).data - image.data
    assert np.abs(found).max() <= width * (1 + 1e-5)
    assert np.abs(found).max() > 0.98 * width
    assert found.std() == pytest.approx(width / np.sqrt(3), rel=0.1)
    found = noisy(image, 0.1, np.random.default_rng(0)).data - image.data
    assert found.std() == pytest.approx(width, rel=0.1)


def test_sensitivity_of_a_map_that_is_the_image() -> None:
    image = picture()
    case = asked("gradcam", looking_at_itself(), image, classes=2)
    outcome = measure(case, "max_sensitivity", samples=1, shifts=2, millimetres=3)
    change = noisy(image, 0.02, np.random.default_rng(0), uniform=True).data
    # Where noise makes it negative, the map is cut at zero.
    expected = np.linalg.norm(np.maximum(change, 0) - image.data) / np.linalg.norm(image.data)
    assert score(outcome, "max_sensitivity", "noise of 2 %") == pytest.approx(expected, rel=1e-5)
    assert score(outcome, "max_sensitivity", "shift by 3 x 3 pixels") == pytest.approx(0, abs=1e-6)
    assert outcome.verdicts[1].good
    mean = [float(each.data.mean()) for each in (image, replace(image, data=change))]
    before, after = (1 / (1 + np.exp(-2 * each)) for each in mean)
    assert score(outcome, "change_of_answer", "noise") == pytest.approx(abs(after - before), abs=1e-6)


class Jumping(nn.Module):
    """Sees only whether the first pixel is above 0.5, and then where the image is bright or where it is dark."""

    def forward(self, x: Tensor) -> Tensor:
        first = x[:, :, :1, :1] > 0.5
        mean = torch.where(first, x.square(), (1 - x).square()).flatten(1).mean(1, keepdim=True)
        return torch.cat([-mean, mean], 1)


def test_an_unstable_map_is_told() -> None:
    image = picture()
    image.data[0, 0, 0] = 0.501
    case = asked("saliency", Jumping(), image, classes=2)
    outcome = measure(case, "max_sensitivity", samples=8, shifts=0)
    assert score(outcome, "max_sensitivity") > score(outcome, "max_sensitivity", subject=MOVED) / 2
    assert not outcome.verdicts[0].good


@pytest.mark.parametrize("dims", [2, 3])
def test_augmentations_of_a_map_that_is_the_image(dims: int) -> None:
    from scipy.ndimage import gaussian_filter

    image = picture(32) if dims == 2 else volume()
    # Smooth, so that turning it there and back blurs little.
    image = replace(image, data=gaussian_filter(image.data, (0, *(2.5,) * dims), mode="nearest") ** 2)
    case = asked("gradcam", looking_at_itself(dims), image, classes=2, dims=dims)
    outcome = measure(case, "augmentations", flip=True, noise=0.0, millimetres=2.0)
    for at, least in (("rotation by 5", 0.97), ("rotation by -5", 0.97), ("contrast", 0.999), ("gamma", 0.999)):
        assert score(outcome, "spearman", at) > least
        assert score(outcome, "spearman", at) > score(outcome, "spearman", at, MOVED) + 0.3
    assert score(outcome, "spearman", "shift") == pytest.approx(1)
    assert score(outcome, "spearman", "mirrored") == pytest.approx(1)
    assert score(outcome, "ssim", "mirrored") == pytest.approx(1, abs=1e-5)
    assert any("another body" in notice for notice in outcome.notices)
    assert all(verdict.good for verdict in outcome.verdicts)


def test_an_image_turned_too_far_can_t_be_compared_where_nothing_is_left() -> None:
    case = asked("gradcam", looking_at_itself(), picture(), classes=2)
    off = {"degrees": 0.0, "noise": 0.0, "gamma": 1.0, "contrast": 1.0}
    outcome = measure(case, "augmentations", **off, millimetres=100.0)
    assert all(np.isnan(score(outcome, name, "shift")) for name in NAMES)
    assert outcome.verdicts[0].good is None
    assert not measure(case, "augmentations", **off, millimetres=0.0).scores


@pytest.mark.parametrize(("plane", "axes"), [("axial", (1, 2)), ("coronal", (0, 2)), ("sagittal", (0, 1))])
def test_images_move_in_the_slice_that_is_seen(plane: str, axes: tuple[int, int]) -> None:
    case = asked("gradcam", looking_at_itself(), volume(), classes=2, plane=plane, slice=5)
    assert seen_plane(case.asked) == axes
    outcome = measure(case, "augmentations", flip=True)
    # In a volume as napari shows it the last axis runs from side to side, which a sagittal slice lies across.
    if plane == "sagittal":
        assert np.isnan(score(outcome, "spearman", "mirrored"))
    else:
        assert score(outcome, "spearman", "mirrored") == pytest.approx(1)
    assert score(outcome, "spearman", "shift") == pytest.approx(1)


def test_axes_are_those_of_the_patient_whatever_the_file_s_are() -> None:
    # Array axes to the patient's left, to the head and to the back.
    affine = np.array([[-1.0, 0, 0, 0], [0, 0, -1, 0], [0, 2, 0, 0], [0, 0, 0, 1]])
    image = Image(volume().data.transpose(0, 3, 1, 2).copy(), Grid((12, 16, 14), affine))
    case = asked("gradcam", looking_at_itself(3), image, classes=2, dims=3)
    assert seen_plane(case.asked) == (0, 2)
    assert score(measure(case, "augmentations", flip=True), "spearman", "mirrored") == pytest.approx(1)


def test_drawn_segments_do_not_move() -> None:
    image = picture()
    labels = Image.from_array(np.arange(24 * 24).reshape(24, 24) // 96 + 1)
    options = {"segments": labels, "samples": 40}
    case = asked("lime", Small(), image, **options)
    case = replace(case, asked=replace(case.asked, regions=Regions(labels=labels)))
    outcome = measure(case, "max_sensitivity", samples=1)
    assert np.isnan(score(outcome, "max_sensitivity", "shift"))
    assert np.isfinite(score(outcome, "max_sensitivity", "noise"))
    assert "do not move" in outcome.scores[-1].reason
    outcome = measure(case, "augmentations")
    assert np.isnan(score(outcome, "ssim", "rotation by 5"))
    assert np.isfinite(score(outcome, "ssim", "noise"))
    told = [verdict.sentence for verdict in outcome.verdicts if verdict.good is None][-1]
    assert re.search(r"can't be told for rotation by 5 degrees, rotation by -5 degrees, shift .* do not move", told)


@pytest.mark.parametrize("method", ["lime", "rise"])
def test_repeatability_is_that_of_runs_with_other_seeds(method: str) -> None:
    few: dict[str, Any] = {"rise": {"masks": 40}, "lime": {"samples": 40, "segments": {"method": "grid", "number": 16}}}
    case = asked(method, Small(), picture(), **few[method])
    outcome = measure(case, "repeatability", seeds=3)
    seeds = [int(each >> 1) for each in np.random.SeedSequence(0).generate_state(3)]
    found = [case.asked.explained(Job(), options={**case.asked.request.options, "seed": seed}) for seed in seeds]
    if method == "lime":
        values = [each.segments.table["contribution"].to_numpy()[1:] for each in found]
    else:
        values = [each.values.ravel() for each in found]
    expected = np.mean([spearmanr(values[a], values[b]).statistic for a, b in ((0, 1), (0, 2), (1, 2))])
    assert score(outcome, "rank_correlation") == pytest.approx(expected, abs=1e-6)
    errors = np.std(values, axis=0, ddof=1) / np.sqrt(3)
    assert score(outcome, "standard_error") == pytest.approx(errors.mean(), rel=1e-4)
    assert outcome.facts["compared"] == ("segments" if method == "lime" else "voxels")
    assert isinstance(outcome.plots[0], Matrix)


def test_without_any_change_nothing_is_told() -> None:
    none = {"degrees": 0.0, "millimetres": 0.0, "noise": 0.0, "gamma": 1.0, "contrast": 1.0}
    (verdict,) = measure(asked("gradcam", Small(), picture()), "augmentations", **none).verdicts
    assert (verdict.good, "can't be told for no change" in verdict.sentence) == (None, True)


def test_repeatability_of_what_is_not_drawn() -> None:
    outcome = measure(asked("gradcam", Small(), picture()), "repeatability")
    assert all(np.isnan(each.value) for each in outcome.scores)
    assert outcome.scores[0].reason == (
        "Grad-CAM draws nothing by chance, so that the same image gives the same map each time."
    )
    (verdict,) = outcome.verdicts
    assert (verdict.good, outcome.scores[0].reason in verdict.sentence) == (None, True)
    # It could draw noise, but does not by default.
    outcome = measure(asked("saliency", Small(), picture()), "repeatability")
    assert score(outcome, "rank_correlation") == pytest.approx(1)
    assert score(outcome, "standard_error") == 0
    assert "the same map to the bit" in outcome.notices[0]
    assert outcome.verdicts[0].good


def with_others(values: Map, others: dict[str, Map], sign: Sign = Sign.POSITIVE) -> Case:
    return Case(values, Image.from_array(np.zeros(values.shape)).grid, others=others, sign=sign)


def test_agreement_equals_plain_counts() -> None:
    random = np.random.default_rng(0)
    one, near, far = random.normal(size=(3, 20, 30)).astype(np.float32)
    near += 2 * one
    outcome = measure(with_others(one, {"near": near, "far": far}), "agreement", share=0.1)
    for name, other in (("near", near), ("far", far)):
        assert score(outcome, "rank_correlation", of=name) == pytest.approx(spearmanr(one, other, axis=None).statistic)
        tops = [set(np.argsort(-each.ravel())[:60]) for each in (one, other)]
        assert score(outcome, "top_overlap", of=name) == pytest.approx(len(tops[0] & tops[1]) / 60)
        # A tenth of the voxels meets a tenth of them by chance.
        assert score(outcome, "top_overlap", of=name, subject=MOVED) == pytest.approx(0.1, abs=0.05)
    table = outcome.plots[0]
    assert isinstance(table, Matrix)
    assert table.values[1, 2] == pytest.approx(spearmanr(near, far, axis=None).statistic)
    np.testing.assert_array_equal(table.values, table.values.T)
    assert "lowest with far" in outcome.verdicts[0].sentence


def test_agreement_goes_by_the_sign() -> None:
    one = np.random.default_rng(0).normal(size=(20, 20)).astype(np.float32)
    opposite = {"opposite": -one}
    assert score(measure(with_others(one, opposite), "agreement"), "rank_correlation", of="opposite") == pytest.approx(
        -1
    )
    both = measure(with_others(one, opposite, Sign.ABSOLUTE), "agreement")
    assert score(both, "rank_correlation", of="opposite") == pytest.approx(1)
    assert score(both, "top_overlap", of="opposite") == pytest.approx(1)


def test_ties_count_in_part_and_too_few_are_told() -> None:
    """Of four equal voxels two are the highest, which ones nobody knows: half of each counts."""
    one = np.array([[1, 1, 1, 1, 0, 0, 0, 0]], np.float32)
    other = np.array([[2, 3, 0, 0, 0, 0, 0, 0.5]], np.float32)
    assert top_overlap(one, one, 0.25) == pytest.approx(1)
    assert top_overlap(one, other, 0.25) == pytest.approx(0.5)
    assert isinstance(top_overlap(one, other, 0.5), str)


@pytest.mark.parametrize("metric", STABILITY)
@pytest.mark.parametrize("value", [0.0, np.nan])
def test_maps_of_which_nothing_can_be_said(metric: str, value: float) -> None:
    case = asked("gradcam", Small(), picture())
    outcome = measure(replace(case, values=np.full_like(case.values, value)), metric)
    assert outcome.scores
    assert all(np.isnan(each.value) and each.reason for each in outcome.scores)
    assert outcome.verdicts
    assert all(each.good is None and outcome.scores[0].reason in each.sentence for each in outcome.verdicts)
    agreeing = with_others(np.full((9, 9), value, np.float32), {"other": picture(9).data[0]})
    assert all(np.isnan(each.value) for each in measure(agreeing, "agreement").scores)


@pytest.mark.parametrize("metric", STABILITY)
@pytest.mark.parametrize("kind", ["3d", "slice", "windows", "shapley", "rise"])
def test_every_kind_of_question(metric: str, kind: str) -> None:
    few: dict[str, dict[str, Any]] = {
        "shapley": {"evaluations": 40, "segments": {"method": "grid", "number": 9}},
        "rise": {"masks": 24},
    }
    if kind == "3d":
        case = asked("integrated_gradients", Small(3), volume(), dims=3, steps=4)
    elif kind == "slice":
        case = asked("saliency", Small(), volume(), plane="coronal", slice=5)
    elif kind == "windows":
        case = asked("saliency", Small(), picture(), windows=SlidingWindow((16, 16), Aggregate.MEAN))
    else:
        case = asked(kind, Small(), picture(), **few[kind])
    before = {key: value.clone() for key, value in case.asked.classifier.network.state_dict().items()}
    told: list[float] = []
    first = measure(case, metric, Job(lambda share, _: told.append(share)))
    second = measure(case, metric)
    assert told == sorted(told)
    assert [each.value for each in first.scores] == pytest.approx([each.value for each in second.scores], abs=0)
    assert np.isfinite([each.value for each in first.scores]).all()
    assert all(torch.equal(value, before[key]) for key, value in case.asked.classifier.network.state_dict().items())


class After:
    """Stops the work when it was asked so many times."""

    def __init__(self, count: int) -> None:
        self.left = count

    def is_set(self) -> bool:
        self.left -= 1
        return self.left < 0


@pytest.mark.parametrize("metric", STABILITY)
def test_work_can_be_stopped(metric: str) -> None:
    case = asked("rise", Small(), picture(), masks=24)
    before = case.intensities.copy()
    for count in (0, 3, 9):
        with pytest.raises(Cancelled):
            measure(case, metric, Job(cancel=After(count)))
    np.testing.assert_array_equal(case.asked.image.data, before)


def test_one_stability_metric_is_in_the_panel() -> None:
    assert "max_sensitivity" in [metric.name for metric in panel()]
