"""How alike a map is when what its method draws by chance is drawn anew."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from math import nan
from typing import ClassVar

import numpy as np

from napari_xai_med.explainers.base import make_explainer
from napari_xai_med.job import Job
from napari_xai_med.metrics.asked_again import asked_of
from napari_xai_med.metrics.base import Family, Meaning, Metric, Need, register
from napari_xai_med.metrics.case import Asked, Case
from napari_xai_med.metrics.outcome import Better, Curves, Float, Line, Matrix, Outcome, Plot, Score, Verdict
from napari_xai_med.metrics.similarity_of_maps import moved_copies, rank_correlation, thinned, why_not
from napari_xai_med.metrics.unrelated import MOVED
from napari_xai_med.options import option, option_fields

_COPIES = 20
_STABLE, _UNSTABLE = 0.9, 0.5
"""Rank correlations from which on, and below which, a map is called repeatable or not."""
_EQUAL = "All {} runs gave the same map to the bit: with these options the method draws nothing by its seed."
_NOTHING_DRAWN = "{} draws nothing by chance, so that the same image gives the same map each time."


@register
@dataclass(frozen=True)
class Repeatability(Metric):
    """The method run again with other seeds: rank correlation of its values, and their standard errors.

    Of methods that explain by segments the segments' contributions are compared, of others the maps on the grid of
    the network's input. Not defined for methods without a seed, which give the same bits each time.
    """

    name: ClassVar[str] = "repeatability"
    title: ClassVar[str] = "Repeatability"
    family: ClassVar[Family] = Family.STABILITY
    about: ClassVar[str] = "How alike the maps are that the method gives with other seeds."
    paper: ClassVar[str] = ""
    needs: ClassVar[frozenset[Need]] = frozenset({Need.CLASSIFIER})
    quantities: ClassVar[Mapping[str, Meaning]] = {
        "rank_correlation": Meaning(Better.HIGHER, "-1 to 1"),
        "standard_error": Meaning(Better.LOWER, "of the map's values"),
        "relative_error": Meaning(Better.LOWER, "0 up"),
    }

    seeds: int = option(5, "Runs of the method, each with a seed of its own.", limits=(2, None))

    def measure(self, case: Case, job: Job) -> Outcome:
        """See `Metric`."""
        asked = asked_of(case)
        method = make_explainer(asked.request.method, asked.request.options)
        if all(item.name != "seed" for item in option_fields(type(method))):
            return _undefined(self.title, _NOTHING_DRAWN.format(method.title))
        runs, parts = self._runs(asked, case.seed, job)
        if reason := next(filter(None, map(why_not, runs)), ""):
            return _undefined(self.title, reason)
        correlations = np.eye(len(runs))
        for k, j in combinations(range(len(runs)), 2):
            correlations[k, j] = correlations[j, k] = rank_correlation(runs[k], runs[j])
        mean = float(correlations[np.triu_indices(len(runs), 1)].mean())
        control = _control(runs, case.seed, by_segments=bool(parts))
        values = np.stack(runs)
        errors = values.std(0, ddof=1) / np.sqrt(len(runs))
        highest = float(np.abs(values.mean(0)).max())
        scores = (
            Score("rank_correlation", mean, better=Better.HIGHER),
            Score("rank_correlation", control, subject=MOVED, better=Better.HIGHER),
            Score("standard_error", float(errors.mean()), better=Better.LOWER),
            Score("relative_error", float(errors.mean()) / highest, better=Better.LOWER)
            if highest
            else Score("relative_error", nan, "The mean of the runs is zero everywhere.", better=Better.LOWER),
        )
        equal = all(np.array_equal(runs[0], each) for each in runs)
        names = [f"run {k}" for k in range(1, len(runs) + 1)]
        plots: list[Plot] = [Matrix("Runs with other seeds", "rank correlation", names, names, correlations)]
        if parts:
            plots.append(_errors_by_size(values.mean(0), errors))
        notices = (_EQUAL.format(len(runs)),) if equal else ()
        facts = {"runs": len(runs), "compared": "segments" if parts else "voxels"}
        return Outcome(scores, (_verdict(mean, control),), tuple(plots), notices, facts)

    def _runs(self, asked: Asked, seed: int, job: Job) -> tuple[list[Float], int]:
        """The values of each run, and of how many segments they are; 0 if they are those of voxels."""
        runs, parts = [], 0
        for k, drawn in enumerate(np.random.SeedSequence(seed).generate_state(self.seeds)):
            part = job.part(k / self.seeds, (k + 1) / self.seeds)
            found = asked.explained(part, options={**asked.request.options, "seed": int(drawn >> 1)})
            if found.segments is None:
                runs.append(np.asarray(thinned(asked.on_input(found.values)), np.float64))
            else:
                parts = len(found.segments.table) - 1
                # Its first row is about what belongs to no segment.
                runs.append(found.segments.table["contribution"].to_numpy(np.float64)[1:])
        return runs, parts


def _undefined(title: str, reason: str) -> Outcome:
    names = ("rank_correlation", "standard_error", "relative_error")
    better = (Better.HIGHER, Better.LOWER, Better.LOWER)
    scores = tuple(Score(name, nan, reason, better=way) for name, way in zip(names, better, strict=True))
    return Outcome(scores, (Verdict.undefined(title, reason),))


def _control(runs: list[Float], seed: int, *, by_segments: bool) -> float:
    """Mean rank correlation of the second run with the first after its places were mixed up."""
    one, other = runs[0], runs[1]
    if by_segments:
        random = np.random.default_rng(seed)
        copies = [random.permutation(one) for _ in range(_COPIES)]
    else:
        copies = list(moved_copies(one, _COPIES, seed))
    found = [value for copy in copies if not isinstance(value := rank_correlation(copy, other), str)]
    return float(np.mean(found))


def _errors_by_size(means: Float, errors: Float) -> Curves:
    order = np.argsort(-np.abs(means), kind="stable")
    x = np.arange(1, len(order) + 1, dtype=float)
    lines = (Line("size of the mean", x, np.abs(means)[order]), Line("standard error", x, errors[order]))
    return Curves("Segments over the runs", "segment, the largest contribution first", "contribution", lines)


def _verdict(mean: float, control: float) -> Verdict:
    sentence = f"With other seeds the rank correlation is {mean:.2f} (of values in mixed places {control:.2f})"
    if mean >= _STABLE:
        return Verdict(f"{sentence}: the map is repeatable.", True)
    if mean < _UNSTABLE:
        return Verdict(f"{sentence}: the map is not repeatable; take more samples.", False)
    return Verdict(f"{sentence}: the map is repeatable in part; take more samples.")
