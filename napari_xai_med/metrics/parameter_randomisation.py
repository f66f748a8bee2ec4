"""Whether a map changes when the network forgets what it learnt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import ClassVar

import numpy as np

from napari_xai_med.errors import ModelError
from napari_xai_med.job import Job
from napari_xai_med.metrics.asked_again import asked_of, smooth_map
from napari_xai_med.metrics.base import Family, Meaning, Metric, Need, register
from napari_xai_med.metrics.case import Asked, Case, Map
from napari_xai_med.metrics.outcome import EXPLANATION, Better, Curves, Line, Matrix, Outcome, Plot, Score, Verdict
from napari_xai_med.metrics.similarity_of_maps import NAMES, similarities, why_not
from napari_xai_med.metrics.unrelated import MOVED, Likeness, mean_score, means
from napari_xai_med.models.randomised import WeightLayer, weight_layers, with_random_weights
from napari_xai_med.options import option

PAIRS = "between random networks"
"""The subject of similarities between maps of different random networks: what the image does alone."""

_FAILED = "{} of {} random networks could not be explained: {}"
_CONSTANT = "In {} of {} random networks the map was the same everywhere; these can't be compared and were left out."


class Mode(StrEnum):
    """Which layers are made random."""

    ALL = "all"
    """All at once."""
    TOP_DOWN = "top_down"
    """The last one, then more and more of those before it."""
    BOTTOM_UP = "bottom_up"
    """The first one, then more and more of those behind it."""
    INDEPENDENT = "independent"
    """One layer at a time, the others as they were learnt."""


@dataclass(frozen=True)
class Stage:
    """Layers that are made random together.

    Parameters
    ----------
    name : str
    layers : tuple of WeightLayer
    """

    name: str
    layers: tuple[WeightLayer, ...]


@register
@dataclass(frozen=True)
class ParameterRandomisation(Metric):
    """Model parameter randomisation test.

    Similarities of the map with those of copies of the network whose weights are random; see
    `napari_xai_med.models.randomised`. The control is the map itself moved elsewhere, compared with the same maps.

    References
    ----------
    Adebayo et al. 2018, Sanity checks for saliency maps, NeurIPS, arXiv:1810.03292.
    Hedstrom et al. 2024, Sanity checks revisited, NeurIPS XAI in Action, arXiv:2401.06465, for the noisy copies.
    """

    name: ClassVar[str] = "parameter_randomisation"
    title: ClassVar[str] = "Parameter randomisation"
    family: ClassVar[Family] = Family.SANITY
    about: ClassVar[str] = "How alike the map stays when the network's weights are random."
    paper: ClassVar[str] = "Adebayo et al. 2018, arXiv:1810.03292"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.CLASSIFIER})
    panel: ClassVar[bool] = True
    quantities: ClassVar[Mapping[str, Meaning]] = dict.fromkeys(NAMES, Meaning(Better.LOWER, "-1 to 1"))

    mode: str = option(
        "top_down",
        "Which layers are made random: from the last or the first one on, all at once, or each by itself.",
        choices=tuple(str(mode) for mode in Mode),
    )
    stages: int = option(3, "Choices of layers that are tried, where it is not all at once.", limits=(1, None))
    draws: int = option(2, "Random networks for each choice of layers.", limits=(1, None))
    smoothing: int = option(
        0,
        "Noisy copies of the image whose maps are averaged, as in smooth MPRT; 0 explains the image itself.",
        limits=(0, None),
    )
    noise: float = option(0.1, "Spread of that noise, as a share of the image's range.", limits=(0, None))

    def measure(self, case: Case, job: Job) -> Outcome:
        """See `Metric`."""
        asked = asked_of(case)
        stages = self._stages(weight_layers(asked.classifier.network))
        count = 1 + len(stages)
        one = asked.on_input(case.values)
        if self.smoothing and not why_not(one):
            one = smooth_map(asked, asked.classifier, self.smoothing, self.noise, case.seed, job.part(0.0, 1 / count))
        if reason := why_not(one):
            return undefined(self.title, reason)
        maps, failed = [], []
        for k, stage in enumerate(stages, 1):
            part, noise = job.part(k / count, (k + 1) / count), (self.smoothing, self.noise)
            found, errors = random_maps(asked, stage.layers, self.draws, case.seed, part, *noise)
            maps.append(found)
            failed += errors
        if not any(maps):
            raise ModelError(failed[0])
        told = _notices([each for found in maps for each in found], failed, len(stages) * self.draws)
        return self._outcome(one, list(zip(stages, maps, strict=True)), case.seed, told)

    def _stages(self, layers: tuple[WeightLayer, ...]) -> list[Stage]:
        total = max(len(layers), 1)
        if self.mode == Mode.ALL or not layers:
            return [Stage("all layers", layers)]
        steps = sorted({round(k) for k in np.linspace(1, total, min(self.stages, total))} | {total})
        if self.mode == Mode.INDEPENDENT:
            return [Stage(layers[k - 1].name, (layers[k - 1],)) for k in steps]
        last = self.mode == Mode.TOP_DOWN
        way = "last" if last else "first"
        return [Stage(f"{way} {k} of {total} layers", layers[-k:] if last else layers[:k]) for k in steps]

    def _outcome(self, one: Map, found: list[tuple[Stage, list[Map]]], seed: int, notices: tuple[str, ...]) -> Outcome:
        parts = [(stage, Likeness(one, maps, seed)) for stage, maps in found]
        alone = self.mode == Mode.INDEPENDENT
        scores: list[Score] = []
        for stage, likeness in parts:
            where = {"of": stage.name} if alone else {"at": stage.name}
            scores += likeness.scores(Better.LOWER, **where)
        scores += _pairs(found[-1][0].name, [] if alone else found[-1][1])
        maps = [each for _, some in found for each in some]
        verdicts = () if alone else random_verdicts(one, maps, seed)
        facts = {"random_networks": len(maps), "smoothing": self.smoothing}
        return Outcome(tuple(scores), verdicts, self._plots(parts), notices, facts)

    def _plots(self, parts: list[tuple[Stage, Likeness]]) -> tuple[Plot, ...]:
        title = "Likeness with random weights"
        if self.mode == Mode.INDEPENDENT:
            values = np.array([means(likeness.found) for _, likeness in parts])
            return (Matrix(title, "similarity", [stage.name for stage, _ in parts], NAMES, values),)
        lines = []
        for subject, told, of in ((EXPLANATION, "the map", "found"), (MOVED, f"the map {MOVED}", "unrelated")):
            values = np.array([means(getattr(likeness, of)) for _, likeness in parts])
            x = np.arange(len(parts), dtype=float)
            lines += [Line(told, x, y, subject, name) for name, y in zip(NAMES, values.T, strict=True)]
        counts = [len(stage.layers) for stage, _ in parts]
        which = {Mode.TOP_DOWN: "the last ones", Mode.BOTTOM_UP: "the first ones"}.get(Mode(self.mode), "all")
        label = f"random layers: {which} of {counts[-1]}"
        return (Curves(title, label, "similarity", tuple(lines), ticks=tuple(map(str, counts))),)


def seed_of(seed: int, draw: int) -> int:
    """The seed of a random network."""
    return int(np.random.SeedSequence((seed, draw)).generate_state(1)[0])


def random_maps(
    asked: Asked,
    layers: tuple[WeightLayer, ...],
    draws: int,
    seed: int,
    job: Job,
    smoothing: int = 0,
    noise: float = 0.0,
) -> tuple[list[Map], list[str]]:
    """The maps of networks whose layers are random, see `smooth_map`, and why some of these can't be explained.

    Raises
    ------
    ModelError
        If the weights can't be made random.
    """
    maps, failed = [], []
    for draw in range(draws):
        part = job.part(draw / draws, (draw + 1) / draws)
        part.step(0.0, "Making the weights random")
        chosen = with_random_weights(asked.classifier, layers, seed_of(seed, draw))
        try:
            maps.append(smooth_map(asked, chosen, smoothing, noise, seed, part))
        except ModelError as error:
            failed.append(str(error))
    return maps, failed


def undefined(title: str, reason: str) -> Outcome:
    """No similarities, for one reason."""
    scores = tuple(Score(name, np.nan, reason, better=Better.LOWER) for name in NAMES)
    return Outcome(scores, (Verdict.undefined(title, reason),))


def random_verdicts(one: Map, maps: list[Map], seed: int) -> tuple[Verdict, ...]:
    """What the likeness with maps of random networks means; regardless of the signs as well where there are some."""
    learnt = "what the network learnt"
    ends = (
        f"it depends on {learnt}",
        f"a part of it comes from the image and the method alone, and not from {learnt}",
        f"it does not depend on {learnt}",
    )
    verdicts = [Likeness(one, maps, seed).verdict("With random weights", *ends)]
    if (one < 0).any():
        sizes = Likeness(np.abs(one), [np.abs(each) for each in maps], seed)
        verdicts.append(sizes.verdict("With random weights, and regardless of signs,", *ends))
    return tuple(verdicts)


def _notices(maps: list[Map], failed: list[str], count: int) -> tuple[str, ...]:
    constant = sum(bool(why_not(each)) for each in maps)
    told = [_FAILED.format(len(failed), count, failed[0])] if failed else []
    return (*told, *([_CONSTANT.format(constant, count)] if constant else []))


def _pairs(at: str, maps: list[Map]) -> list[Score]:
    """How alike the maps of different random networks are: what the image and the method do alone."""
    able = [each for each in maps if not why_not(each)]
    found = [similarities(one, other) for one, other in pairwise(able)]
    return [mean_score(name, found, subject=PAIRS, at=at) for name in NAMES] if found else []
