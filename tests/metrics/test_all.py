"""What every registered metric has to do, on maps and masks of all kinds."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from math import isfinite, isnan

import numpy as np
import pytest
from numpy.typing import NDArray

from napari_xai_med.cases import case_of
from napari_xai_med.errors import InputError
from napari_xai_med.image import Image
from napari_xai_med.job import Job
from napari_xai_med.metrics.base import Family, Need, make_metric, metrics
from napari_xai_med.metrics.case import Case
from napari_xai_med.metrics.outcome import EXPLANATION, Outcome
from napari_xai_med.metrics.thresholds import KINDS
from napari_xai_med.options import option_fields

OF_MASKS = [name for name, kind in metrics().items() if kind.needs <= {Need.MASK}]
SHAPES = ((9, 10), (8, 9, 10), (1, 9, 10), (1, 1, 1), (2, 1), (1, 1))
SPACING = {2: (0.3, 2.0), 3: (0.7, 0.7, 6.5)}
Array = NDArray[np.generic]

MAPS: dict[str, Callable[[np.random.Generator, tuple[int, ...]], Array]] = {
    "random": lambda random, shape: random.normal(size=shape),
    "ties": lambda random, shape: random.integers(0, 3, shape),
    "constant": lambda _, shape: np.full(shape, 0.7),
    "zero": lambda _, shape: np.zeros(shape),
    "minus zero": lambda _, shape: np.full(shape, -0.0),
    "below zero": lambda _, shape: np.full(shape, -1.0),
    "denormal": lambda random, shape: random.random(shape) * 1e-40,
    "huge": lambda random, shape: random.random(shape) * 3e38,
    "one voxel": lambda _, shape: np.eye(1, int(np.prod(shape))).reshape(shape),
}
MASKS: dict[str, Callable[[np.random.Generator, tuple[int, ...]], Array]] = {
    "random": lambda random, shape: random.random(shape) > 0.7,
    "empty": lambda _, shape: np.zeros(shape, bool),
    "full": lambda _, shape: np.ones(shape, bool),
    "one voxel": lambda _, shape: np.eye(1, int(np.prod(shape)), dtype=bool).reshape(shape),
}


def case(values: Array, mask: Array, *, bare: bool = False) -> Case:
    """A case with voxels that are longer than wide, or a bare picture."""
    spacing = (1.0,) * mask.ndim if bare else SPACING[mask.ndim]
    grid = Image.from_array(np.zeros(mask.shape), spacing).grid
    return Case(values.astype(np.float32), grid, {"m": mask.astype(bool)}, is_bare=bare)


def measured(name: str, made: Case, **options: object) -> Outcome:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return make_metric(name, options).measure(made, Job())


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", OF_MASKS)
def test_a_number_is_finite_or_has_a_reason(name: str, shape: tuple[int, ...]) -> None:
    random = np.random.default_rng(0)
    for kind, values in MAPS.items():
        for about, mask in MASKS.items():
            outcome = measured(name, case(values(random, shape), mask(random, shape), bare=shape == (9, 10)))
            assert outcome.scores
            for score in outcome.scores:
                where = (kind, about, score)
                assert isfinite(score.value) != bool(score.reason), where
                assert score.reason == "" or score.reason.endswith("."), where
                assert score.of.startswith("m"), where
                assert isnan(score.low) == isnan(score.high), where
                assert isnan(score.low) or score.low <= score.value <= score.high, where
            assert outcome.verdicts or not metrics()[name].panel
            for verdict in outcome.verdicts:
                assert verdict.sentence.endswith(".")


@pytest.mark.parametrize("kind", KINDS)
def test_every_threshold_takes_every_map(kind: str) -> None:
    random = np.random.default_rng(0)
    for about, values in MAPS.items():
        for shape in SHAPES:
            made = case(values(random, shape), MASKS["random"](random, shape))
            for score in measured("binary_overlap", made, threshold=kind).scores:
                assert isfinite(score.value) != bool(score.reason), (about, shape, score)


@pytest.mark.parametrize("name", OF_MASKS)
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_a_map_that_is_not_finite_has_no_numbers(name: str, wrong: float) -> None:
    values = np.random.default_rng(0).random((8, 9, 10))
    values[2, 3, 4:6] = wrong
    outcome = measured(name, case(values, values > 0.5))
    assert {score.reason for score in outcome.scores} == {"2 of 720 voxels of the map are not finite."}
    assert {score.name for score in outcome.scores} == set(metrics()[name].quantities)


@pytest.mark.parametrize("name", OF_MASKS)
def test_scores_are_those_that_are_documented_for_each_mask(name: str) -> None:
    random = np.random.default_rng(0)
    made = case(random.random((9, 10)), random.random((9, 10)) > 0.5)
    two = Case(made.values, made.grid, {"a": made.masks["m"], "b": ~made.masks["m"]})
    own = [score for score in measured(name, two).scores if score.subject == EXPLANATION]
    assert {(score.name, score.of) for score in own} >= {(key, of) for key in metrics()[name].quantities for of in "ab"}
    for score in own:
        assert score.better == metrics()[name].quantities[score.name].better


@pytest.mark.parametrize("name", OF_MASKS)
def test_the_order_of_the_axes_in_memory_does_not_matter(name: str) -> None:
    random = np.random.default_rng(0)
    values, mask = random.random((8, 9, 10)).round(2), random.random((8, 9, 10)) > 0.7
    turned = case(np.asfortranarray(values), mask)
    assert turned.evidence.flags.f_contiguous
    for one, other in zip(measured(name, case(values, mask)).scores, measured(name, turned).scores, strict=True):
        assert one.value == pytest.approx(other.value, rel=1e-12, nan_ok=True)


@pytest.mark.parametrize("name", metrics())
def test_every_metric_says_what_it_is(name: str) -> None:
    kind = metrics()[name]
    assert kind.title
    # A family's name stands for all of its metrics.
    assert name not in list(Family)
    assert kind.about.endswith(".")
    assert all(item.metadata["text"].endswith(".") for item in option_fields(kind))


def test_a_bare_picture_has_pixels_and_no_millimetres() -> None:
    made = case_of(np.eye(6), masks=np.eye(6) > 0, image=Image.from_array(np.zeros((6, 6))))
    units = {score.unit for name in OF_MASKS for score in measured(name, made).scores}
    assert units <= {"", "pixels", "dB"}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"lower": 1.5}, "can't be above 1"),
        ({"threshold": "percentile", "lower": 101.0}, "can't be above 100"),
        ({"lower": 0.5, "upper": 0.4}, "give an upper end above the lower one"),
        ({"threshold": "otsu", "upper": 0.9}, "give an upper end"),
        ({"threshold": "nothing"}, "choose one of"),
    ],
)
def test_thresholds_that_contradict_themselves_are_refused(options: dict[str, object], told: str) -> None:
    with pytest.raises(InputError, match=told):
        make_metric("binary_overlap", options).measure(case(np.eye(6), np.eye(6)), Job())
