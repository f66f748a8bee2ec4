"""Methods of shap against shap itself, which masks the image in a plain loop."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from math import floor
from threading import Thread
from time import sleep
from typing import Any

import numpy as np
import pytest
import shap
import torch
from helpers import maps_of, segments_of
from numpy.typing import NDArray
from scipy.stats import spearmanr
from segment_cases import HEADS, case, weights_of
from torch import Tensor

from napari_xai_med.errors import InputError
from napari_xai_med.explainers.base import RawMap, make_explainer
from napari_xai_med.explainers.kernelshap import KernelSHAP
from napari_xai_med.explainers.library_shap import GlobalRandom
from napari_xai_med.explainers.partitionshap import PartitionSHAP
from napari_xai_med.explainers.samplingshap import SamplingSHAP
from napari_xai_med.models.classifier import Classifier
from napari_xai_med.models.head import Head
from napari_xai_med.segments.tree import partition_tree

SEED = 3
Scores = Callable[[NDArray[Any]], NDArray[np.float64]]


def masking(classifier: Classifier, x: Tensor, labels: NDArray[np.int32]) -> Scores:
    """Logits of class 1 of images one by one, segments with a 0 filled with zeros."""

    def scores(rows: NDArray[Any]) -> NDArray[np.float64]:
        found = []
        for row in rows:
            image = x.clone()
            for segment in np.flatnonzero(np.asarray(row) == 0):
                image[0, :, torch.from_numpy(labels == segment + 1)] = 0
            with torch.no_grad():
                # That of class 1, where there is but one.
                found.append(float(classifier.network(image)[0, :2][-1]))
        return np.array(found)

    return scores


def kernel(scores: Scores, n: int, _: object, **options: Any) -> NDArray[np.float64]:
    np.random.seed(SEED)  # noqa: NPY002  # what shap draws from
    return shap.KernelExplainer(scores, np.zeros((1, n))).shap_values(np.ones(n), silent=True, **options)


def permutation(scores: Scores, n: int, _: object) -> NDArray[np.float64]:
    explainer = shap.PermutationExplainer(scores, shap.maskers.Independent(np.zeros((1, n))), seed=SEED)
    return np.mean([explainer(np.ones((1, n)), max_evals=2 * n + 1, silent=True).values[0] for _ in range(4)], 0)


def sampling(scores: Scores, n: int, _: object, **options: Any) -> NDArray[np.float64]:
    np.random.seed(SEED)  # noqa: NPY002
    return shap.SamplingExplainer(scores, np.zeros((1, n))).shap_values(np.ones(n), silent=True, **options)


def partition(scores: Scores, n: int, tree: NDArray[np.float64], most: int) -> NDArray[np.float64]:
    np.random.seed(SEED)  # noqa: NPY002
    explainer = shap.PartitionExplainer(scores, shap.maskers.Partition(np.zeros((1, n)), clustering=tree))
    return explainer(np.ones((1, n)), max_evals=most, silent=True).values[0]


@pytest.mark.parametrize("head", list(HEADS))
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("name", "options", "theirs"),
    [
        ("kernelshap", {"samples": 120}, lambda *game: kernel(*game, nsamples=120, l1_reg=False)),
        ("kernelshap", {}, lambda *game: kernel(*game, l1_reg=0)),
        ("kernelshap", {**KernelSHAP.presets["shap"], "features": 5}, lambda *g: kernel(*g, l1_reg="num_features(5)")),
        ("kernelshap", {"samples": 120, "l1_reg": "aic"}, lambda *g: kernel(*g, nsamples=120, l1_reg="aic")),
        ("permutationshap", {"permutations": 4}, permutation),
        ("samplingshap", SamplingSHAP.presets["shap"], lambda *game: sampling(*game, nsamples=2000)),
        ("samplingshap", {"samples": 300}, lambda *game: sampling(*game, nsamples=300)),
        ("partitionshap", PartitionSHAP.presets["shap"], lambda *game: partition(*game, 500)),
        ("partitionshap", {"evaluations": 30}, lambda *game: partition(*game, 30)),
    ],
)
def test_equals_shap(channels: int, head: Head, name: str, options: dict[str, Any], theirs: Any) -> None:
    classifier, x = case(channels, head, (16, 12))
    segments = segments_of(x, 12)
    tree = partition_tree(segments[0].labels, x[0].numpy(), (1.0, 1.0))
    expected = theirs(masking(classifier, x, segments[0].labels), segments[0].count, tree)
    explainer = make_explainer(name, {"seed": SEED, **options})
    (raw,), _ = maps_of(explainer, classifier, x, [(0, 1)], segments=segments)
    np.testing.assert_allclose(weights_of(raw), expected, atol=1e-6 * np.abs(expected).max())
    assert raw.facts["additivity_residual"] == pytest.approx(0.0, abs=1e-5)


def owen(
    worth: Callable[[set[int]], float], tree: NDArray[np.float64], node: int, context: set[int]
) -> dict[int, float]:
    """Values of a node's players by the definition: the mean of what each half adds before and after the other."""
    n = len(tree) + 1
    if node < n:
        return {node: worth(context | {node}) - worth(context)}
    members = [_members(tree, int(half)) for half in tree[node - n, :2]]
    found: dict[int, float] = {}
    for k, half in enumerate(tree[node - n, :2]):
        for before in (set(), members[1 - k]):
            for player, value in owen(worth, tree, int(half), context | before).items():
                found[player] = found.get(player, 0.0) + value / 2
    return found


def _members(tree: NDArray[np.float64], node: int) -> set[int]:
    n = len(tree) + 1
    return {node} if node < n else _members(tree, int(tree[node - n, 0])) | _members(tree, int(tree[node - n, 1]))


def test_partition_shap_comes_to_owen_values_of_its_tree() -> None:
    classifier, x = case(1, Head.SOFTMAX, (16, 12))
    segments = segments_of(x, 9)
    n = segments[0].count
    tree = partition_tree(segments[0].labels, x[0].numpy(), (1.0, 1.0))
    scores, known = masking(classifier, x, segments[0].labels), {}

    def worth(players: set[int]) -> float:
        key = frozenset(players)
        if key not in known:
            known[key] = scores(np.array([[k in key for k in range(n)]]))[0]
        return float(known[key])

    expected = owen(worth, tree, 2 * n - 2, set())
    (few,), _ = maps_of(PartitionSHAP(evaluations=20), classifier, x, [(0, 1)], segments=segments)
    (all_split,), _ = maps_of(PartitionSHAP(), classifier, x, [(0, 1)], segments=segments)
    np.testing.assert_allclose(weights_of(all_split), [expected[k] for k in range(n)], atol=1e-9)
    assert all_split.facts["all_groups_split"]
    assert not few.facts["all_groups_split"]
    assert any("20 evaluations were not enough" in notice for notice in few.notices)
    assert not any("not enough" in notice for notice in all_split.notices)


@pytest.mark.parametrize(
    ("name", "options"), [("permutationshap", {"permutations": 6}), ("samplingshap", {"samples": 200})]
)
def test_standard_errors_are_those_from_seed_to_seed(name: str, options: dict[str, Any]) -> None:
    classifier, x = case(1, Head.SOFTMAX, (16, 12))
    explainers = [make_explainer(name, {"seed": seed, **options}) for seed in range(30)]
    runs = [maps_of(each, classifier, x, [(0, 1)], segments=segments_of(x, 9))[0][0] for each in explainers]
    spread = np.std([weights_of(raw) for raw in runs], 0, ddof=1)
    told = np.sqrt(np.mean([raw.parts.errors**2 for raw in runs if raw.parts is not None], 0))
    # The standard deviation of 30 runs is itself known to 13 %.
    assert 0.8 < np.median(spread / told) < 1.2


@pytest.mark.parametrize(
    ("name", "few", "many"),
    [
        ("kernelshap", {"samples": 24}, {"samples": 1000}),
        ("kernelshap", {"samples": 120, "l1_reg": "num_features", "features": 5}, {}),
        ("permutationshap", {"permutations": 2}, {"permutations": 100}),
        ("samplingshap", {"samples": 24}, {"samples": 4000}),
    ],
)
def test_how_alike_another_seed_ranks_the_segments_is_told(
    name: str, few: dict[str, Any], many: dict[str, Any]
) -> None:
    classifier, x = case(1, Head.SOFTMAX, (16, 12))
    # Segments act together where the network's units are saturated.
    with torch.no_grad():
        for parameter in classifier.network[4].parameters():
            parameter *= 20

    def run(options: dict[str, Any], seed: int = 0) -> RawMap:
        explainer = make_explainer(name, {"seed": seed, **options})
        return maps_of(explainer, classifier, x, [(0, 1)], segments=segments_of(x, 12))[0][0]

    runs = [run(few, seed) for seed in range(20)]
    pairs = combinations([weights_of(raw) for raw in runs], 2)
    measured = np.mean([spearmanr(*pair).statistic for pair in pairs])
    told = [raw.facts["expected_rank_correlation"] for raw in runs]
    # Simulated around each run, whose own noise spreads the ranks out: rather too low than too high.
    assert measured - 0.15 < np.mean(told) < measured + 0.03
    for raw, each in zip(runs, told, strict=True):
        assert any(f"rank correlation {floor(100 * each) / 100:.2f}" in notice for notice in raw.notices) == (
            each < 0.95
        )
    assert min(told) < 0.95
    sure = run(many)
    assert sure.facts["expected_rank_correlation"] > 0.95
    assert not any("rank correlation" in notice for notice in sure.notices)


def test_nothing_is_told_of_ranks_where_nothing_is_known() -> None:
    classifier, x = case(1, Head.SOFTMAX, (16, 12))
    explainer = make_explainer("permutationshap", {"permutations": 1})
    (raw,), _ = maps_of(explainer, classifier, x, [(0, 1)], segments=segments_of(x, 12))
    assert "expected_rank_correlation" not in raw.facts
    assert not raw.notices


def test_too_few_samples_are_a_sentence() -> None:
    classifier, x = case(1, Head.SOFTMAX, (16, 12))
    segments = segments_of(x, 12)
    for explainer in (KernelSHAP(samples=20), SamplingSHAP(samples=20)):
        with pytest.raises(InputError, match=r"take at least \d+ samples|needs at least \d+ samples"):
            maps_of(explainer, classifier, x, [(0, 1)], segments=segments)


def test_threads_do_not_share_random_numbers() -> None:
    """Nor do they change what others draw, inside of the network or afterwards."""
    np.random.seed(0)  # noqa: NPY002  # somebody else's
    state = str(np.random.get_state())  # noqa: NPY002
    found: dict[int, list[float]] = {}
    inside: list[str] = []

    def draw(seed: int) -> None:
        mine = GlobalRandom(seed)
        for _ in range(20):
            with mine.lent():
                found.setdefault(seed, []).append(np.random.rand())  # noqa: NPY002
                with mine.taken_back():
                    inside.append(str(np.random.get_state()))  # noqa: NPY002
                    sleep(0.001)
                found[seed].append(np.random.rand())  # noqa: NPY002

    threads = [Thread(target=draw, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed, drawn in found.items():
        np.testing.assert_array_equal(drawn, np.random.RandomState(seed).rand(40))
    # Of four threads one may look while another has them.
    assert state in inside
    assert str(np.random.get_state()) == state  # noqa: NPY002


@pytest.mark.parametrize("name", ["kernelshap", "permutationshap", "samplingshap", "partitionshap"])
def test_shap_prints_nothing(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    classifier, x = case(1, Head.SOFTMAX, (16, 12))
    maps_of(make_explainer(name, {}), classifier, x, [(0, 1)], segments=segments_of(x, 6))
    assert capfd.readouterr() == ("", "")
