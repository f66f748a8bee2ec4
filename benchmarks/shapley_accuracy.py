"""Errors of estimated Shapley values against evaluations, beside shapiq, shap and captum.

``python benchmarks/shapley_accuracy.py``; it prints a table and draws docs/images/shapley_accuracy.png. Without shapiq
and lightgbm what they estimate is left out. The first run enumerates the games, which takes some 20 minutes.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import shap
import torch
from captum.attr import KernelShap
from measure import table
from numpy.typing import NDArray
from shapley_games import Table, games

from napari_xai_med.games.exact import exact
from napari_xai_med.games.regression import regression
from napari_xai_med.games.stopping import StopRule

FACTORS = (5, 10, 20, 50)
SEEDS = 20
FEWER_SEEDS = {"shapiq SPEX": 1, "shapiq ProxySPEX": 3}
"""These take seconds each."""

FIGURE = Path(__file__).parents[1] / "docs" / "images" / "shapley_accuracy.png"
OURS = "napari-xai-med"
Float = NDArray[np.float64]
Peer = Callable[[Table, int, int], Float]


def ours(game: Table, budget: int, seed: int) -> Float:
    """The last of our estimates."""
    *_, found = regression(game, StopRule(budget), seed)
    values: Float = found.values[0]
    return values


def kernel_explainer(game: Table, budget: int, seed: int) -> Float:
    """Kernel SHAP of shap, without its selection of players."""
    np.random.seed(seed)  # noqa: NPY002  # shap takes no other
    explain = shap.KernelExplainer(lambda x: game(x > 0.5)[:, 0], np.zeros((1, game.players)))
    found = explain.shap_values(np.ones((1, game.players)), nsamples=budget - 2, silent=True, l1_reg=0)
    values: Float = np.asarray(found)[0]
    return values


def permutation_explainer(game: Table, budget: int, seed: int) -> Float:
    """Antithetic permutations of shap."""
    masker = shap.maskers.Independent(np.zeros((1, game.players)))
    explain = shap.PermutationExplainer(lambda x: game(x > 0.5)[:, 0], masker, seed=seed)
    # Of two evaluations a player and one more it makes whole rounds only.
    found = explain(np.ones((1, game.players)), max_evals=max(budget, 2 * game.players + 1), silent=True)
    values: Float = np.asarray(found.values)[0]
    return values


def captum_kernel_shap(game: Table, budget: int, seed: int) -> Float:
    """Kernel SHAP of captum, which draws coalitions independently."""
    torch.manual_seed(seed)
    explain = KernelShap(lambda x: torch.from_numpy(game(x.numpy() > 0.5)[:, 0]))
    whole = torch.ones(1, game.players)
    found = explain.attribute(whole, baselines=torch.zeros_like(whole), n_samples=budget)
    values: Float = found[0].double().numpy()
    return values


def shapiqs() -> dict[str, Callable[[int, int, int], Any]]:
    """Estimators of shapiq, from players, budget and seed; the best of their options each."""
    if not find_spec("shapiq"):
        print("shapiq is not installed and left out; pip install shapiq lightgbm.")
        return {}
    from shapiq import approximator as a

    paired: dict[str, Any] = {"pairing_trick": True}
    return {
        "KernelSHAP": lambda n, _, s: a.KernelSHAP(n, random_state=s),
        "KernelSHAP, paired": lambda n, _, s: a.KernelSHAP(n, random_state=s, **paired),
        "KernelSHAP, paired, leverage": lambda n, _, s: a.KernelSHAP(
            n, random_state=s, sampling_weights=np.ones(n + 1), **paired
        ),
        "UnbiasedKernelSHAP": lambda n, _, s: a.UnbiasedKernelSHAP(n, random_state=s, **paired),
        "PermutationSamplingSV": lambda n, _, s: a.PermutationSamplingSV(n, random_state=s),
        "StratifiedSamplingSV": lambda n, _, s: a.StratifiedSamplingSV(n, random_state=s),
        "OwenSamplingSV": lambda n, b, s: a.OwenSamplingSV(n, max(2, b // (4 * n)), random_state=s),
        "SVARM": lambda n, _, s: a.SVARM(n, random_state=s, **paired),
        "kADDSHAP, order 2": lambda n, _, s: a.kADDSHAP(n, 2, random_state=s, **paired),
        "kADDSHAP, order 3": lambda n, _, s: a.kADDSHAP(n, 3, random_state=s, **paired),
        "RegressionFSII, order 1": lambda n, _, s: a.RegressionFSII(n, 1, random_state=s, **paired),
        "KernelSHAPIQ": lambda n, _, s: a.KernelSHAPIQ(n, 1, index="SII", random_state=s, **paired),
        "SPEX": lambda n, _, s: a.SPEX(n=n, index="SV", max_order=1, random_state=s),
        "ProxySPEX": lambda n, _, s: a.ProxySPEX(n=n, index="SV", max_order=1, random_state=s),
    }


def by_shapiq(make: Callable[[int, int, int], Any]) -> Peer:
    """One of shapiq's estimators; NaN where it can't do it with this budget."""

    def estimate(game: Table, budget: int, seed: int) -> Float:
        n = game.players

        def worth(coalitions: NDArray[np.bool_]) -> Float:
            return game(np.atleast_2d(coalitions).astype(bool))[:, 0]

        try:
            found = make(n, budget, seed).approximate(budget, worth)
        except ValueError:
            return np.full(n, np.nan)
        return np.array([found[(player,)] for player in range(n)])

    return estimate


def measured(estimators: dict[str, Peer]) -> dict[tuple[str, str, int, int], float]:
    """Mean squared relative error by estimator, network, players and factor."""
    errors = {}
    for ((network, players), game), (name, estimate) in product(games().items(), estimators.items()):
        (known,) = exact(game, 2**players)
        for factor in FACTORS:
            seeds = range(FEWER_SEEDS.get(name, SEEDS))
            wrong = np.array([estimate(game, factor * players, seed) for seed in seeds]) - known.values[0]
            errors[name, network, players, factor] = float(
                np.mean(np.square(wrong).sum(1)) / np.square(known.values).sum()
            )
    return errors


def overall(errors: dict[tuple[str, str, int, int], float], name: str, network: str, factor: int) -> float:
    """Geometric mean over the numbers of players."""
    found = [e for (a, b, _, c), e in errors.items() if (a, b, c) == (name, network, factor)]
    return float(np.exp(np.mean(np.log(found))))


def draw(errors: dict[tuple[str, str, int, int], float], names: list[str], networks: list[str]) -> None:
    """The figure: one panel a network, ours in front."""
    figure, axes = plt.subplots(1, len(networks), figsize=(4 * len(networks), 4.2), layout="constrained")
    for axis, network in zip(axes, networks, strict=True):
        for k, name in enumerate(names):
            line = [overall(errors, name, network, factor) for factor in FACTORS]
            style = {"color": "black", "linewidth": 2.5} if name == OURS else {"color": f"C{k % 10}", "linewidth": 1}
            axis.loglog(FACTORS, line, marker="o" if k <= 10 else "s", markersize=3, label=name, **style)
        # An error of 1 is that of values that are all 0; what is worse need not be seen in detail.
        axis.set(title=network, xlabel="evaluations per segment", xticks=FACTORS, xticklabels=FACTORS)
        axis.set_ylim(top=1.5)
        axis.minorticks_off()
    axes[0].set_ylabel("squared error / squared values")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    FIGURE.parent.mkdir(exist_ok=True)
    figure.savefig(FIGURE, dpi=150)


def main() -> None:
    """Print the tables and draw the figure."""
    warnings.simplefilter("ignore")
    logging.disable(logging.ERROR)
    estimators: dict[str, Peer] = {
        OURS: ours,
        "shap KernelExplainer": kernel_explainer,
        "shap PermutationExplainer": permutation_explainer,
        "captum KernelShap": captum_kernel_shap,
    }
    estimators |= {f"shapiq {name}": by_shapiq(make) for name, make in shapiqs().items()}
    errors = measured(estimators)
    networks = list(dict.fromkeys(network for _, network, _, _ in errors))
    columns = ["estimator", *(f"{network}, {factor} n" for network in networks for factor in FACTORS)]
    rows = {
        name: [f"{overall(errors, name, network, factor):.1e}" for network in networks for factor in FACTORS]
        for name in estimators
    }
    fewer = "".join(f", {count} of {name}" for name, count in FEWER_SEEDS.items() if name in estimators)
    players = [count for _, _, count, _ in errors]
    title = f"mean of {SEEDS} seeds{fewer}, over {min(players)} to {max(players)} segments"
    table(f"Squared error by the squared Shapley values, {title}", columns, rows)
    rows = {
        f"{network}, {count}": [f"{errors[OURS, network, count, factor]:.1e}" for factor in FACTORS]
        for _, network, count, factor in errors
        if factor == FACTORS[0]
    }
    table(OURS, ["network and segments", *(f"{factor} n" for factor in FACTORS)], rows)
    draw(errors, list(estimators), networks)


if __name__ == "__main__":
    main()
