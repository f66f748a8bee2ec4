from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from mask_cases import case_on, outcome_of, random_pair, values_of
from scipy.ndimage import gaussian_filter
from scipy.stats import spearmanr
from sklearn.metrics import average_precision_score, roc_auc_score

from napari_xai_med.metrics.over_masks import CHANCE
from napari_xai_med.metrics.ranks import Ranks

SHAPES = ((30, 41), (9, 20, 31), (1, 30, 41), (1, 2))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("decimals", [None, 2, 0])
@pytest.mark.parametrize("seed", range(3))
def test_ranking_is_that_of_scikit_learn_and_scipy(shape: tuple[int, ...], decimals: int | None, seed: int) -> None:
    values, mask = random_pair(seed, shape, decimals)
    if np.prod(shape) == 2:
        values, mask = np.float32([[seed, 1.5]]), np.array([[True, False]])
    evidence = np.maximum(values, 0)
    found = values_of("ranking", case_on(values, mask))
    assert found["auroc"] == pytest.approx(roc_auc_score(mask.ravel(), evidence.ravel()), abs=1e-12)
    assert found["auprc"] == pytest.approx(average_precision_score(mask.ravel(), evidence.ravel()), abs=1e-12)
    assert found["spearman"] == pytest.approx(spearmanr(evidence.ravel(), mask.ravel()).statistic, abs=1e-12)
    mass = evidence.astype(np.float64)
    assert found["relevance_mass_accuracy"] == pytest.approx(mass[mask].sum() / mass.sum(), abs=1e-12)


def test_the_bits_of_every_size_of_number_are_in_order() -> None:
    random = np.random.default_rng(0)
    values = np.concatenate([10.0 ** random.uniform(-44, 38, 5000), np.zeros(100)]).astype(np.float32)
    mask = random.random(values.size) < 0.3
    assert Ranks.of(values, mask).auroc == pytest.approx(roc_auc_score(mask, values), abs=1e-12)


def test_rank_accuracy_is_the_share_of_the_mask_among_the_highest() -> None:
    values, mask = random_pair(0, (9, 20, 31))
    evidence = np.abs(values)
    highest = np.argsort(-evidence, axis=None)[: mask.sum()]
    found = Ranks.of(evidence, mask)
    assert found.rank_accuracy == pytest.approx(mask.ravel()[highest].mean(), abs=1e-12)
    assert found.inside == mask.sum()


def test_ties_at_the_limit_count_as_often_as_they_would_be_chosen() -> None:
    values, mask = random_pair(0, (20, 30), 0)
    evidence = np.maximum(values, 0)
    random = np.random.default_rng(1)
    drawn = []
    for _ in range(2000):
        order = random.permutation(evidence.size)
        highest = order[np.argsort(-evidence.ravel()[order], kind="stable")[: mask.sum()]]
        drawn.append(mask.ravel()[highest].mean())
    error = np.std(drawn) / np.sqrt(len(drawn))
    assert Ranks.of(evidence, mask).rank_accuracy == pytest.approx(np.mean(drawn), abs=4 * error)


def test_chance_is_the_mean_over_shuffled_maps() -> None:
    values, mask = random_pair(0, (60, 70))
    random = np.random.default_rng(1)
    shuffled = [values_of("ranking", case_on(random.permuted(values), mask)) for _ in range(200)]
    for name, expected in values_of("ranking", case_on(values, mask), CHANCE).items():
        drawn = [each[name] for each in shuffled]
        # The mean precision of few voxels lies a little above the share of the mask.
        slack = 0.002 if name == "auprc" else 0
        assert np.mean(drawn) == pytest.approx(expected, abs=4 * np.std(drawn) / np.sqrt(len(drawn)) + slack), name


def test_a_constant_map_ranks_nothing_but_has_its_mass_somewhere() -> None:
    _, mask = random_pair(0, (20, 30))
    found = values_of("ranking", case_on(np.full((20, 30), 0.3), mask))
    assert found.pop("relevance_mass_accuracy") == pytest.approx(mask.mean())
    assert np.isnan(list(found.values())).all()


@pytest.mark.parametrize(
    ("shift", "good", "told"),
    [
        (0, True, "AUPRC for m is 1: better than all controls"),
        (9, False, "not better than the control centre with 0.9"),
    ],
)
def test_the_verdict_is_beside_the_controls(shift: int, good: bool, told: str) -> None:
    rows, columns = np.ogrid[-20:21, -20:21]
    mask = np.maximum(abs(rows), abs(columns)) <= 5
    beside = np.exp(-((np.hypot(rows + shift, columns) / 8) ** 2))
    made = case_on(mask if good else beside, mask)
    (verdict,) = outcome_of("ranking", made).verdicts
    assert verdict.good is good
    assert told in verdict.sentence
    # Also what lies beside the middle is above chance.
    assert values_of("ranking", made)["auprc"] > 2 * values_of("ranking", made, CHANCE)["auprc"]


def test_controls_of_huge_maps_are_ranked_at_every_nth_voxel(monkeypatch: pytest.MonkeyPatch) -> None:
    values = gaussian_filter(np.random.default_rng(0).normal(size=(64, 60, 50)), 3).astype(np.float32)
    mask = np.zeros(values.shape, bool)
    mask[20:44, 10:30, 15:40] = True
    intensities = gaussian_filter(np.random.default_rng(1).normal(size=(1, *values.shape)), (0, 3, 3, 3))
    found = {}
    for many in (2**22, 2**15):
        monkeypatch.setattr("napari_xai_med.metrics.case._MANY", many)
        case = replace(case_on(values, mask), intensities=intensities.astype(np.float32))
        scores = outcome_of("ranking", case).scores
        found[many] = {(each.name, each.subject): each.value for each in scores}
        place = case.coarse.grid.affine @ (3, 2, 1, 1)
        step = {2**22: 1, 2**15: 2}[many]
        np.testing.assert_allclose(place, case.grid.affine @ (3 * step, 2 * step, step, 1))
    for key, value in found[2**22].items():
        known = key[1] in ("explanation", CHANCE)
        # The random one is another draw.
        assert known or key[1] == "random" or found[2**15][key] != value
        assert found[2**15][key] == pytest.approx(value, abs=1e-12 if known else 0.3 if key[1] == "random" else 0.03)


@pytest.mark.parametrize("first", [0, 1])
def test_controls_of_huge_maps_are_ranked_in_full_where_few_voxels_say_something_else(
    monkeypatch: pytest.MonkeyPatch, first: int
) -> None:
    """Evidence in every second slice: of every second voxel either all or none has some."""
    values, mask = np.random.default_rng(0).random((60, 40, 50)), np.zeros((60, 40, 50), bool)
    values[1 - first :: 2] = 0
    mask[20:44, 10:30, 15:40] = True
    known = [score.value for score in outcome_of("ranking", case_on(values, mask)).scores]
    monkeypatch.setattr("napari_xai_med.metrics.case._MANY", 2**15)
    assert [score.value for score in outcome_of("ranking", case_on(values, mask)).scores] == known
    assert case_on(values, mask).coarse.values.shape == (30, 20, 25)
