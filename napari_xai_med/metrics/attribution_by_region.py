"""How much of a map lies in which region, and whether a class leans on what is not the patient."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import nan
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from skimage.measure import block_reduce

from napari_xai_med.job import Job
from napari_xai_med.metrics.base import Family, Meaning, Metric, Need, register
from napari_xai_med.metrics.case import Case, Map, Mask, Sign
from napari_xai_med.metrics.controls import RANDOM, same_spectrum
from napari_xai_med.metrics.outcome import Better, Outcome, Score, Verdict
from napari_xai_med.metrics.regions import NOT_PATIENT, Places, border_option, corner_option, find_regions
from napari_xai_med.options import option

_MANY = 100_000
"""Voxels of a random map at most: shares of regions need no fine grid, and 19 of them have to be fast."""
_MATERIAL = 0.05
"""Share of the evidence below which a region decides nothing, however dense."""
_NO_REGION = "The image is too small to have a region that is not all of it."
_SPEAKS = {Sign.POSITIVE: "what speaks for", Sign.NEGATIVE: "what speaks against", Sign.ABSOLUTE: "what counts for"}


@dataclass(frozen=True)
class _Shares:
    """Of one sign of a map, or of many random maps: the share of each region, shape (maps, regions)."""

    names: tuple[str, ...]
    values: NDArray[np.float64]

    def of(self, name: str) -> NDArray[np.float64]:
        return self.values[:, self.names.index(name)]


@register
@dataclass(frozen=True)
class AttributionByRegion(Metric):
    """Shares of what speaks for and against a class, by region."""

    name: ClassVar[str] = "attribution_by_region"
    title: ClassVar[str] = "Attribution by region"
    family: ClassVar[Family] = Family.SHORTCUTS
    about: ClassVar[str] = (
        "How much of the map lies in the body, outside of it, in corners, border, text, table and drawn masks, "
        "beside how much of the image these are."
    )
    paper: ClassVar[str] = (
        "After Zech et al. 2018, Variable generalization performance of a deep learning model to detect pneumonia in "
        "chest radiographs, PLOS Medicine 15(11); random maps by Theiler et al. 1992, Physica D 58"
    )
    needs: ClassVar[frozenset[Need]] = frozenset({Need.IMAGE})
    panel: ClassVar[bool] = True
    quantities: ClassVar[Mapping[str, Meaning]] = {
        "volume_share": Meaning(Better.NEITHER, "0 to 1"),
        "positive_share": Meaning(Better.NEITHER, "0 to 1"),
        "negative_share": Meaning(Better.NEITHER, "0 to 1"),
        "absolute_share": Meaning(Better.NEITHER, "0 to 1"),
        "positive_density": Meaning(Better.NEITHER, "0 up; 1 as the volume"),
        "negative_density": Meaning(Better.NEITHER, "0 up; 1 as the volume"),
        "absolute_density": Meaning(Better.NEITHER, "0 up; 1 as the volume"),
    }

    border: float = border_option()
    corner: float = corner_option()
    random: int = option(19, "Random maps that the shares are compared with.", limits=(1, 1000))

    def measure(self, case: Case, job: Job) -> Outcome:
        """Shares, densities and what they mean.

        The share of a region is the sum of the map's positive (negative, absolute) values in it, of that in the whole;
        its density is that share over its share of the volume, 1 for a map that is the same everywhere.

        A class *leans* on a region that is not the patient if three things hold. Its density is above that of the
        patient: voxel by voxel it counts more than the patient does. It holds 5 % of the evidence: less decides
        nothing. And its share is above that of all random maps with the same values and grain: with 19 of them that
        comes by chance once in 20 times for each region. The maximum over all regions, which would hold for them
        together, was tried and missed 17 of 60 planted letters: one spot is in one of four corners often enough.

        Returns
        -------
        Outcome
            Shares are from 0 to 1; of random maps their mean, and the range of all but the outermost 5 % of them.
        """
        places = find_regions(case, self.border, self.corner)
        gone = [Score("volume_share", nan, why, of=name) for name, why in places.missing.items()]
        volumes = {name: float(mask.mean()) for name, mask in places.masks.items()}
        scores = [Score("volume_share", share, of=name) for name, share in volumes.items()]
        if reason := case.not_finite or ("" if volumes else _NO_REGION):
            names = [f"{sign}_{kind}" for sign in Sign for kind in ("share", "density")]
            scores += [Score(name, nan, reason, of=of) for of in volumes for name in names]
            return Outcome((*scores, *gone), (Verdict(reason),))
        verdicts: tuple[Verdict, ...] = ()
        drawn = _random_maps(case, places, self.random, job)
        patient = places.patient
        for sign in Sign:
            part = sign.of(case.values)
            own = _shares(part, places.masks)
            if own is None:
                empty = f"The map has no {sign} part."
                scores += [
                    Score(f"{sign}_{kind}", nan, empty, of=of) for of in volumes for kind in ("share", "density")
                ]
                verdicts += (Verdict(empty),) if sign is case.sign else ()
                continue
            chance = drawn[sign]
            scores += [score for name in volumes for score in _scores(sign, name, volumes[name], own, chance)]
            if sign is case.sign:
                inside = float(part[patient].sum(dtype=np.float64) / part.sum(dtype=np.float64))
                verdicts = _verdicts(case, places, volumes, own, chance, inside / max(float(patient.mean()), 1e-12))
        return Outcome((*scores, *gone), verdicts, facts={"random_maps": self.random})


def _shares(part: Map, masks: Mapping[str, Mask]) -> _Shares | None:
    """Of a map that is nowhere negative; None if it is zero."""
    total = float(part.sum(dtype=np.float64))
    if total == 0:
        return None
    return _Shares(tuple(masks), np.array([[part[mask].sum(dtype=np.float64) / total for mask in masks.values()]]))


def _scores(sign: Sign, name: str, volume: float, own: _Shares, chance: _Shares | None) -> Iterator[Score]:
    share = float(own.of(name)[0])
    yield Score(f"{sign}_share", share, of=name)
    yield Score(f"{sign}_density", share / volume, of=name)
    if chance is None:
        return
    random = chance.of(name)
    low, high = np.percentile(random, [2.5, 97.5])
    yield Score(f"{sign}_share", float(random.mean()), of=name, subject=RANDOM, low=float(low), high=float(high))
    yield Score(f"{sign}_density", float(random.mean()) / volume, of=name, subject=RANDOM)


def _random_maps(case: Case, places: Places, count: int, job: Job) -> dict[Sign, _Shares | None]:
    """Shares of random maps: the map's own values, as smooth as it is, at random places.

    On a coarser grid where there are many voxels, by blocks; regions then are shares of a block.
    """
    factors = [1] * case.values.ndim
    while np.prod([-(-n // f) for n, f in zip(case.values.shape, factors, strict=True)]) > _MANY:
        factors[int(np.argmax([n / f for n, f in zip(case.values.shape, factors, strict=True)]))] += 1
    coarse = block_reduce(case.values, tuple(factors), np.mean).astype(np.float32)
    regions = [block_reduce(mask.astype(np.float32), tuple(factors), np.mean).ravel() for mask in places.masks.values()]
    weights = np.stack(regions).astype(np.float64)
    values = np.sort(coarse, axis=None)
    found: dict[Sign, list[NDArray[np.float64]]] = {sign: [] for sign in Sign}
    for k in range(count):
        job.step(k / count, "Comparing with random maps")
        random = np.random.default_rng((case.seed, k))
        field = same_spectrum(coarse, random.standard_normal(coarse.shape))
        placed = np.empty(field.size, np.float32)
        # Ties, such as a map's zeros, lie at random as well: the field has none.
        placed[np.argsort(field, axis=None)] = values
        for sign in Sign:
            part = sign.of(placed).astype(np.float64)
            if total := part.sum():
                found[sign].append(weights @ part / total)
    names = tuple(places.masks)
    return {sign: _Shares(names, np.array(rows)) if rows else None for sign, rows in found.items()}


def _verdicts(
    case: Case, places: Places, volumes: Mapping[str, float], own: _Shares, chance: _Shares | None, patient: float
) -> tuple[Verdict, ...]:
    """A sentence for each region that the class leans on, or for the one it comes closest to, and for drawn masks."""
    target = None if case.asked is None else case.asked.request.target
    subject = f"{_SPEAKS[case.sign]} {target or 'the class'}"
    leaning, others = [], []
    for name in volumes:
        share = float(own.of(name)[0])
        highest = 1.0 if chance is None else float(chance.of(name).max())
        density = share / volumes[name]
        told = f"{share:.0%} of {subject} lies {_where(name)}, which is {volumes[name]:.1%} of the image"
        told += f" ({density:.1f} times its share; in the patient {patient:.1f} times; random maps up to {highest:.0%})"
        if name in places.drawn:
            others.append(Verdict(f"{told}."))
        elif name in NOT_PATIENT:
            leans = share >= _MATERIAL and density > patient and share > highest
            leaning.append((leans, share, told))
    bad = [Verdict(f"{told}: it leans on what is not the patient.", False) for leans, _, told in leaning if leans]
    if leaning and not bad:
        most = max(leaning, key=lambda each: each[1])
        bad = [Verdict(f"{most[2]}: it does not lean on what is not the patient.", True)]
    return (*bad, *others)


def _where(name: str) -> str:
    return name if name.startswith("outside") else f"in the {name}"
