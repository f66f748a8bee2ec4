from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import classifier_of
from label_maps import ball
from monai.bundle import ConfigParser
from scipy import ndimage
from torch import nn

from napari_xai_med import Classifier, Image, check_explanation, explain, load_model, read_image
from napari_xai_med.cases import case_of
from napari_xai_med.errors import Cancelled, InputError
from napari_xai_med.grid import Grid
from napari_xai_med.job import Job
from napari_xai_med.metrics.attribution_by_region import AttributionByRegion
from napari_xai_med.metrics.base import Metric, make_metric
from napari_xai_med.metrics.case import Case
from napari_xai_med.metrics.counterfactual_regions import CounterfactualRegions
from napari_xai_med.metrics.outcome import EXPLANATION, Outcome
from napari_xai_med.metrics.regions import BODY, BORDER, CORNERS, OUTSIDE, TABLE, TEXT, find_regions
from napari_xai_med.metrics.replacing import FILLS, ball_inside, flattened
from napari_xai_med.models.head import Head
from napari_xai_med.training.phantoms import make_phantom, make_slice
from napari_xai_med.training.reference import HELD_OUT_SEED, train, write_bundle
from napari_xai_med.training.shortcut import CLEAN, MARKED, MarkedRecipe, with_marker

UPPER_LEFT = CORNERS[0]
SEEN = HELD_OUT_SEED + 1000
"""Phantoms from here on are in no training and no held-out accuracy."""


class SumIn(nn.Module):
    """Two logits: plus and minus the mean of the first channel in a box, times a factor."""

    def __init__(self, box: tuple[slice, ...], factor: float = 1.0) -> None:
        super().__init__()
        self.box, self.factor = box, factor
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean = self.factor * x[(slice(None), 0, *self.box)].flatten(1).mean(1, keepdim=True) + self.bias
        return torch.cat([-mean, mean], 1)


class Thrice(SumIn):
    """The same, and twice the latter."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        two = super().forward(x)
        return torch.cat([two, 2 * two[:, 1:]], 1)


def body_image(shape: tuple[int, ...] = (60, 60), corner: float = 8.0) -> Image:
    """Noise of about 4 in a cylinder and 0 around it, with a bright block in the upper left corner."""
    values = np.where(ball(shape[-2:]), 4 + np.random.default_rng(0).normal(scale=0.2, size=shape), 0)
    values[..., 2:7, 2:7] = corner
    return Image.from_array(values.astype(np.float32))


def case_with(image: Image, network: nn.Module, method: str = "saliency", **changes: Any) -> Case:
    options = {key: changes.pop(key) for key in ("plane", "slice") if key in changes}
    dims = changes.pop("dims", image.ndim)
    classifier = classifier_of(network, dims, channels=len(image.data))
    attribution = explain(image, classifier, method=method, target="class 1", **options)
    return case_of(attribution, changes.pop("masks", None), image, classifier, **changes)


def numbers(outcome: Outcome, name: str, subject: str = EXPLANATION) -> dict[str, float]:
    return {score.of: score.value for score in outcome.scores if score.name == name and score.subject == subject}


def bad(outcome: Outcome) -> list[str]:
    return [verdict.sentence for verdict in outcome.verdicts if verdict.good is False]


@pytest.mark.parametrize("shape", [(60, 60), (4, 60, 60)])
def test_shares_are_those_counted_by_hand(shape: tuple[int, ...]) -> None:
    image = body_image(shape)
    values = np.zeros(shape, np.float32)
    values[..., 2:7, 2:7], values[..., 30, 30:40] = 3, 5
    values[..., 30, 20:24] = -7
    lesion = np.zeros(shape, bool)
    lesion[..., 30, 30:35] = True
    outcome = AttributionByRegion().measure(case_of(values, {"lesion": lesion}, image), Job())
    positive, negative = 75 + 50, 28
    share, density = numbers(outcome, "positive_share"), numbers(outcome, "positive_density")
    assert share[UPPER_LEFT] == pytest.approx(75 / positive)
    assert share["lesion"] == pytest.approx(25 / positive)
    assert share[BODY] + share[OUTSIDE] == pytest.approx(1)
    assert density[UPPER_LEFT] == pytest.approx(75 / positive / (9 * 9 / 3600))
    assert numbers(outcome, "negative_share")[BODY] == pytest.approx(1)
    assert numbers(outcome, "absolute_share")[UPPER_LEFT] == pytest.approx(75 / (positive + negative))
    assert numbers(outcome, "volume_share")["lesion"] == pytest.approx(5 / 3600)
    sentence = next(each for each in bad(outcome) if UPPER_LEFT in each)
    assert "60% of what speaks for the class lies in the upper left corner, which is 2.2% of the image" in sentence
    assert "(26.7 times its share" in sentence


def test_random_maps_have_a_region_s_share_of_the_volume_on_average() -> None:
    image = body_image()
    values = ndimage.gaussian_filter(np.random.default_rng(1).normal(size=(60, 60)), 2).astype(np.float32)
    outcome = AttributionByRegion(random=400).measure(case_of(values, image=image, sign="absolute"), Job())
    volumes, random = numbers(outcome, "volume_share"), numbers(outcome, "absolute_share", "random")
    for name, mean in random.items():
        # Blobs of about 25 pixels: 400 maps bring a share of 1 % to within a tenth.
        assert mean == pytest.approx(volumes[name], rel=0.1), name


@pytest.mark.slow
@pytest.mark.parametrize("sigma", [0, 3, 10])
def test_random_maps_seldom_lean(sigma: float) -> None:
    """Once in 20 times for each of seven regions at most: 35 of 100, and fewer, as they have to be denser as well."""
    image = Image.from_array(make_slice(0, "normal").data)
    count = 0
    for seed in range(100):
        noise = np.random.default_rng(seed).normal(size=image.grid.shape)
        # Wrapped, since noise that is reflected at the edge is stronger there.
        values = ndimage.gaussian_filter(noise, sigma, mode="wrap").astype(np.float32)
        count += bool(bad(AttributionByRegion().measure(case_of(values, image=image, seed=seed), Job())))
    assert count <= 35


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.full((60, 60), np.nan), "3600 of 3600 voxels of the map are not finite."),
        (np.zeros((60, 60)), "The map has no positive part."),
        (-np.ones((60, 60)), "The map has no positive part."),
    ],
)
def test_maps_without_shares_have_a_reason(values: np.ndarray, reason: str) -> None:
    outcome = AttributionByRegion().measure(case_of(values, image=body_image()), Job())
    scores = [score for score in outcome.scores if score.name == "positive_share"]
    assert len(scores) == len(find_regions(case_of(values, image=body_image())).masks)
    assert {score.reason for score in scores} == {reason}
    assert [verdict.sentence for verdict in outcome.verdicts] == [reason]
    assert outcome.verdicts[0].good is None
    assert np.isfinite([value for name, value in numbers(outcome, "volume_share").items() if name == BODY]).all()


def test_an_image_of_one_pixel_has_no_region() -> None:
    outcome = AttributionByRegion().measure(case_of(np.ones((1, 1)), image=Image.from_array(np.ones((1, 1)))), Job())
    assert all(np.isnan(score.value) and score.reason for score in outcome.scores)
    assert [verdict.good for verdict in outcome.verdicts] == [None]


def test_a_constant_image_has_border_and_corners_only() -> None:
    image = Image.from_array(np.full((40, 40), 5.0))
    outcome = AttributionByRegion().measure(case_of(np.ones((40, 40)), image=image), Job())
    assert set(numbers(outcome, "positive_share")) == {BORDER, *CORNERS}
    reasons = {score.of: score.reason for score in outcome.scores if score.name == "volume_share" and score.reason}
    assert set(reasons) == {BODY, OUTSIDE, TABLE, TEXT}
    assert "same value everywhere" in reasons[BODY]
    assert not bad(outcome)


def test_a_body_that_was_drawn_where_none_can_be_told() -> None:
    image = Image.from_array(np.random.default_rng(0).random((40, 40)))
    box = (slice(10, 20), slice(10, 20))
    drawn = np.zeros((40, 40), bool)
    drawn[box] = True
    case = case_with(image, SumIn(box), masks={BODY: drawn})
    outcome = CounterfactualRegions().measure(case, Job())
    assert OUTSIDE in find_regions(case).missing
    assert numbers(outcome, "logit_change")[BODY] != 0
    assert any(each.sentence.startswith("Without the body") for each in outcome.verdicts)


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("shape", [(60, 60), (4, 60, 60)])
def test_a_network_of_one_corner_uses_that_corner_alone(shape: tuple[int, ...], fill: str) -> None:
    image = body_image(shape)
    case = case_with(image, SumIn((..., slice(2, 7), slice(2, 7))))
    outcome = CounterfactualRegions(fill=fill, blur=20.0).measure(case, Job())
    change = numbers(outcome, "logit_change")
    assert numbers(outcome, "logit")[""] == pytest.approx(8, rel=1e-4)
    assert change[UPPER_LEFT] < -5
    for name in CORNERS[1:]:
        # Exactly, but for the mean of all the rest, which no voxel of this box has.
        assert change[name] == pytest.approx(0, abs=1e-5)
    assert numbers(outcome, "logit_change", "elsewhere in the patient")[UPPER_LEFT] == pytest.approx(0, abs=1e-5)
    assert any(
        f"Without the {UPPER_LEFT} " in each and each.endswith("the classifier uses it.") for each in bad(outcome)
    )
    assert not any(f"Without the {name} " in each for name in CORNERS[1:] for each in bad(outcome))


@pytest.mark.parametrize(
    ("request_", "told", "good"),
    [
        ({}, "Without the upper left corner the probability of class 2 falls from 1 to 0.333", False),
        ({"against": "class 0"}, "the logit of class 2 rather than class 0 falls from 24 to 0", False),
        ({"opposite": True}, "the log odds against class 2 fall by at most 0.00, beyond", True),
        ({"against": "class 0", "opposite": True}, "the log odds against class 2 rather than class 0 fall", True),
        ({"target": "class 1"}, "the log odds for class 1 fall by at most 0.00, beyond", True),
        ({"target": "class 1", "opposite": True}, "0.333 (without as much of the patient: 0.000335): ", False),
    ],
    ids=str,
)
def test_verdicts_are_of_what_was_asked(request_: dict[str, Any], told: str, good: bool) -> None:
    """Of the logits -m, m and 2 m, where m is the mean of a corner: 8, and 0 without it."""
    image = body_image()
    classifier = classifier_of(Thrice((..., slice(2, 7), slice(2, 7))), 2, 3)
    attribution = explain(image, classifier, method="saliency", **{"target": "class 2", **request_})
    outcome = CounterfactualRegions().measure(case_of(attribution, image=image, classifier=classifier), Job())
    verdict = next(each for each in outcome.verdicts if told in each.sentence)
    assert verdict.good is good
    uses_against = "the classifier uses it against class 1." in verdict.sentence
    assert uses_against == (request_ == {"target": "class 1", "opposite": True})
    # Corners are named only where they count.
    assert not any(name in each.sentence for each in outcome.verdicts for name in CORNERS[1:])


def test_changes_are_those_of_the_image_asked_by_hand() -> None:
    """Behind a preprocessing that sees the whole image, so that a replaced region changes all of the input."""
    image = body_image()
    steps = [{"_target_": "NormalizeIntensityd", "keys": "image"}]
    transforms = ConfigParser({"steps": steps}).get_parsed_content("steps")
    classifier = classifier_of(SumIn((..., slice(25, 35), slice(25, 35))), 2, steps=transforms)
    case = case_of(explain(image, classifier, method="saliency", target=1), image=image, classifier=classifier)
    outcome = CounterfactualRegions(fill="mean").measure(case, Job())
    for name, mask in find_regions(case).masks.items():
        data = image.data[0].astype(np.float64)
        level = np.median(data[find_regions(case).masks[OUTSIDE]]) if name in (BODY, OUTSIDE) else data[~mask].mean()
        data[mask] = level
        logit = ((data - data.mean()) / data.std())[25:35, 25:35].mean()
        before = ((image.data[0] - image.data.mean()) / image.data.std())[25:35, 25:35].mean()
        assert numbers(outcome, "logit_change")[name] == pytest.approx(logit - before, abs=1e-4), name


def test_a_network_of_the_body_uses_nothing_else() -> None:
    body = np.zeros((60, 60), bool)
    body[25:35, 25:35] = True
    case = case_with(body_image(), SumIn((..., slice(25, 35), slice(25, 35))), masks={"lesion": body})
    outcome = CounterfactualRegions().measure(case, Job())
    assert not bad(outcome)
    assert sum(verdict.good is True for verdict in outcome.verdicts) == 1
    assert numbers(outcome, "logit_change")[BODY] == pytest.approx(-4, abs=0.1)
    told = [verdict.sentence for verdict in outcome.verdicts if verdict.good is None]
    assert [each.split(" the ")[1].split()[0] for each in told] == ["body", "lesion"]
    assert "falls from 1 to 0.5" in told[0]


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_slices_of_a_volume_in_its_file_s_axes(plane: str) -> None:
    """The slice of a volume as if it were a picture."""
    phantom = make_phantom(3, "ground_glass")
    image = Image(phantom.data[None].astype(np.float32), Grid(phantom.data.shape, phantom.affine))
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    torch.manual_seed(0)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.1)
    case = case_with(image, network, "gradcam", plane=plane, slice=20, dims=2)
    assert case.asked is not None
    flat = case.asked.section.image
    picture = case_with(flat, network, "gradcam")
    for metric in (AttributionByRegion(), CounterfactualRegions()):
        for name in ("positive_share", "logit_change"):
            ours, theirs = (numbers(metric.measure(each, Job()), name) for each in (case, picture))
            assert ours.keys() == theirs.keys()
            # Corners of equal size, but for the order in which random maps run over the axes.
            np.testing.assert_allclose(list(ours.values()), list(theirs.values()), rtol=1e-4, atol=1e-5)


def test_colours_and_regression() -> None:
    data = np.stack([body_image().data[0] * factor for factor in (1.0, 0.5, 0.2)])
    outcome = CounterfactualRegions().measure(
        case_with(Image.from_array(data, channel_axis=0), SumIn((..., slice(2, 7), slice(2, 7)))), Job()
    )
    assert any(UPPER_LEFT in each for each in bad(outcome))
    classifier = classifier_of(SumIn((..., slice(2, 7), slice(2, 7))), 2, head=Head.REGRESSION)
    image = body_image()
    case = case_of(explain(image, classifier, method="saliency", target=1), image=image, classifier=classifier)
    told = CounterfactualRegions().measure(case, Job()).verdicts
    assert {verdict.good for verdict in told} == {None}
    assert any("the value of class 1 falls from 8 to" in verdict.sentence for verdict in told)


@pytest.mark.parametrize("metric", [AttributionByRegion(), CounterfactualRegions()])
def test_same_seed_same_bits_and_nothing_is_changed(metric: Metric) -> None:
    image = body_image()
    network = SumIn((..., slice(25, 35), slice(25, 35)))
    before = image.data.copy()
    state = {name: value.clone() for name, value in network.state_dict().items()}
    random, own = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002  # that it is left alone

    def found(seed: int) -> list[Any]:
        outcome = metric.measure(case_with(image, network, seed=seed), Job())
        return [(score.name, score.of, score.subject, score.value) for score in outcome.scores if not score.reason]

    first = found(3)
    assert found(3) == first
    assert found(4) != first
    np.testing.assert_array_equal(image.data, before)
    assert all(torch.equal(state[name], value) for name, value in network.state_dict().items())
    assert not network.training
    assert torch.equal(torch.get_rng_state(), random)
    np.testing.assert_array_equal(np.random.get_state()[1], own)  # noqa: NPY002


@pytest.mark.parametrize("metric", [AttributionByRegion(), CounterfactualRegions()])
def test_it_can_be_stopped(metric: Metric) -> None:
    class Set:
        def is_set(self) -> bool:
            return True

    case = case_with(body_image(), SumIn((..., slice(2, 7), slice(2, 7))))
    with pytest.raises(Cancelled):
        metric.measure(case, Job(cancel=Set()))


@pytest.mark.parametrize("options", [{"fill": "noise"}, {"places": 0}, {"border": 0.6}])
def test_wrong_options(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="Answers without regions can't have"):
        make_metric("counterfactual_regions", options)


def test_what_replaces_a_region() -> None:
    """A ramp is filled in with the ramp; one value is the median of where it is said."""
    ramp = np.broadcast_to(np.arange(30, dtype=np.float32), (1, 20, 30)).copy()
    mask = np.zeros((20, 30), bool)
    mask[5:12, 8:20] = True
    hole = np.where(mask, 99, ramp).astype(np.float32)
    np.testing.assert_allclose(FILLS["surroundings"](hole, mask, (1.0, 1.0), 0.0), ramp, atol=0.01)
    np.testing.assert_allclose(FILLS["mean"](hole, mask, (1.0, 1.0), 0.0)[0][mask], ramp[0][~mask].mean(), rtol=1e-6)
    expected = ndimage.gaussian_filter(hole[0], (4, 2), mode="nearest")
    np.testing.assert_allclose(FILLS["blur"](hole, mask, (1.0, 2.0), 4.0)[0][mask], expected[mask], rtol=1e-6)
    assert (flattened(hole, mask, mask)[0][mask] == 99).all()
    large = np.broadcast_to(np.arange(64, dtype=np.float32), (1, 64, 64, 64)).copy()
    inside = np.zeros(large.shape[1:], bool)
    inside[8:56, 8:56, 8:56] = True
    filled = FILLS["surroundings"](np.where(inside, 99, large), inside, (1.0, 1.0, 1.0), 0.0)
    np.testing.assert_array_equal(filled[0][~inside], large[0][~inside])
    # Of blocks of two voxels.
    np.testing.assert_allclose(filled, large, atol=1.1)
    for fill in FILLS.values():
        np.testing.assert_array_equal(fill(hole, mask, (1.0, 1.0), 4.0)[0][~mask], ramp[0][~mask])


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (4.0, 1.0, 1.0)])
def test_a_ball_has_the_nearest_voxels_of_the_patient(spacing: tuple[float, ...]) -> None:
    patient = ball((12, 30, 30))
    found = ball_inside(patient, 300, spacing, np.random.default_rng(0))
    assert np.count_nonzero(found) == 300
    assert not (found & ~patient).any()
    centre = np.unravel_index(
        np.flatnonzero(patient)[np.random.default_rng(0).integers(np.count_nonzero(patient))], patient.shape
    )
    distances = np.linalg.norm((np.argwhere(patient) - centre) * spacing, axis=1)
    assert np.linalg.norm((np.argwhere(found) - centre) * spacing, axis=1).max() <= np.sort(distances)[300]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[MarkedRecipe], Classifier]:
    """Each recipe is trained once, on some seconds of one core."""
    known: dict[str, Classifier] = {}

    def get(recipe: MarkedRecipe) -> Classifier:
        key = f"{recipe.name} {recipe.seed}"
        if key not in known:
            folder = tmp_path_factory.mktemp("bundles") / "b"
            write_bundle(train(recipe, lambda _: None), folder)
            known[key] = load_model(folder)
        return known[key]

    return get


def flagged(classifier: Classifier, seeds: range, metric: Metric) -> int:
    """Of so many phantoms with ground glass and a letter, on how many it is said that the letter is used."""
    count = 0
    for seed in seeds:
        image = Image.from_array(with_marker(make_slice(seed, "ground_glass")).data)
        attribution = explain(image, classifier, target="ground glass")
        outcome = metric.measure(case_of(attribution, image=image, classifier=classifier, seed=seed), Job())
        count += any(UPPER_LEFT in each for each in bad(outcome))
    return count


@pytest.mark.slow
@pytest.mark.parametrize("metric", [AttributionByRegion(), CounterfactualRegions()], ids=lambda each: each.name)
@pytest.mark.parametrize("seed", [0, 1000, 2000])
def test_a_planted_shortcut_is_caught_and_no_clean_network_is(
    trained: Callable[[MarkedRecipe], Classifier], seed: int, metric: Metric
) -> None:
    """All but one of 60, and none of 60; a check that is right 95 times in 100 misses more than 3 of 20 once in 60."""
    seeds = range(SEEN, SEEN + 20)
    assert flagged(trained(replace(MARKED, seed=seed)), seeds, metric) >= 17
    assert flagged(trained(replace(CLEAN, seed=seed)), seeds, metric) <= 3


def test_the_panel_tells_of_a_planted_shortcut(trained: Callable[[MarkedRecipe], Classifier]) -> None:
    """The same letter on a normal slice makes it sick for one network only."""
    phantom = make_slice(SEEN, "normal")
    for recipe, caught in ((MARKED, True), (CLEAN, False)):
        classifier = trained(recipe)
        image = Image.from_array(with_marker(phantom).data)
        attribution = explain(image, classifier, target="ground glass")
        assert (attribution.prediction.probabilities[1] > 0.5) is np.bool_(caught)
        found = check_explanation(attribution, image=image, classifier=classifier)
        told = {metric.name: outcome for metric, outcome in found.outcomes.items()}
        for name in ("attribution_by_region", "counterfactual_regions"):
            assert any(UPPER_LEFT in each for each in bad(told[name])) is caught


@pytest.mark.parametrize(("folder", "kind"), [("covid_cxr_lungmask", "lungs"), ("busi", "lesion")])
def test_real_pictures_and_their_masks(folder: str, kind: str, shared_data: Callable[[str], Path]) -> None:
    """Of a map that is the mask itself, all lies in the mask; and of one that is its opposite, nothing."""
    root = shared_data(folder)
    pictures = root / ("images" if folder.startswith("covid") else "benign/images")
    masks = pictures.parent / ("masks" if folder.startswith("covid") else "mask")
    masks = masks if masks.is_dir() else pictures.parent / "masks"
    for path in sorted(pictures.iterdir())[:3]:
        image, mask = read_image(path), read_image(masks / f"{path.stem}.png")
        image = Image.from_array(image.data.mean(0)[::4, ::4])
        inside = mask.data[0][::4, ::4] > 0
        outcome = AttributionByRegion().measure(
            case_of(inside.astype(np.float32) - 0.5, {kind: inside}, image, sign="absolute"), Job()
        )
        assert numbers(outcome, "positive_share")[kind] == 1
        assert numbers(outcome, "negative_share")[kind] == 0
        assert numbers(outcome, "absolute_share")[kind] == pytest.approx(inside.mean())
        assert not bad(outcome)
