"""What metrics share that ask a classifier about changed copies of its input."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import nan
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from napari_xai_med.errors import InputError
from napari_xai_med.explainers.base import Question
from napari_xai_med.explainers.baselines import BASELINES, BLUR, OneBaseline
from napari_xai_med.explainers.masked import Play, told_of
from napari_xai_med.explanation import inputs_of
from napari_xai_med.games.base import Float
from napari_xai_med.games.numbered import bits_as_numbers, numbers_as_bits
from napari_xai_med.games.threads import one_thread
from napari_xai_med.io import read_image
from napari_xai_med.job import Job
from napari_xai_med.metrics.base import Family, Metric, Need
from napari_xai_med.metrics.case import Asked, Case, Map, Sign
from napari_xai_med.metrics.outcome import EXPLANATION, Outcome, Score, Verdict
from napari_xai_med.models.classifier import Classifier
from napari_xai_med.models.head import Head
from napari_xai_med.models.target import Quantity, Target
from napari_xai_med.options import FILES, option
from napari_xai_med.section import where_it_can
from napari_xai_med.targets import target_of
from napari_xai_med.windows import asking

Make = Callable[[Tensor], Tensor]
"""Gives images, (B, C, *spatial), of their numbers, (B,)."""

AS_EXPLAINED = "as explained"
QUANTITIES = (AS_EXPLAINED, *map(str, Quantity))

_FEW = 0.05
"""Share of the time that controls and the answer about the image itself take."""
_SLACK = 1e-6
"""Share of the range by which rounding may leave it."""

_ENOUGH = 0.1
"""By how much a probability has to fall for its falls to tell maps apart."""
_ROUNDING = 1e-6
"""The same for other quantities, relative to the score: float32 can hardly tell smaller ones."""

_OUTSIDE = (
    "{} of {} changed images ({:.0%}) leave the range of the network's input, by up to {:.2g} of its width, and so may "
    "have values that the network has never seen."
)


@dataclass
class Probe:
    """The network's input of a case, and what the classifier says about changed copies of it.

    Parameters
    ----------
    case : Case
    play : Play
        One row, one target.
    maps : dict of str to ndarray of float32, shape (*spatial)
        The explanation and its controls on the grid of the network's input, by subject. With the sign "negative"
        they are turned round, and so is the target: what speaks against it is what supports the opposite.
    """

    case: Case
    play: Play
    maps: Mapping[str, Map]
    evaluations: int = 0
    outside: int = 0
    farthest: float = 0.0
    facts: dict[str, Any] = field(default_factory=dict)
    _notices: tuple[str, ...] = ()

    @property
    def image(self) -> Tensor:
        """The network's input on its device, shape (C, *spatial)."""
        return self.play.image

    @property
    def subjects(self) -> tuple[str, ...]:
        """The explanation, and then the controls."""
        return tuple(self.maps)

    def scores(self, make: Make, count: int, start: float = 0.0, stop: float = 1.0) -> Float:
        """What is explained, of changed images; shape (count,).

        Parameters
        ----------
        make : callable
        count : int
            The images' numbers are those below it.
        start, stop : float
            Which share of the work this is.
        """
        lows, highs = self.image.flatten(1).aminmax(dim=1)
        # A channel may be the same everywhere.
        width = (highs - lows).clamp_min(torch.finfo(lows.dtype).tiny)
        left = torch.zeros(count, dtype=width.dtype, device=width.device)

        def compose(bits: Tensor) -> Tensor:
            numbers = bits_as_numbers(bits, count)
            images = make(numbers)
            low, high = images.flatten(2).aminmax(dim=2)
            left[numbers] = (torch.maximum(lows - low, high - highs) / width).amax(1)
            return images

        coalitions = numbers_as_bits(count)
        play = replace(self.play, job=self.play.job.part(start, stop))
        game = play.game(compose, coalitions.shape[1], 0, expected=count)
        result: Float = game(coalitions)[:, 0]
        facts, notices = told_of(game)
        self.evaluations += game.evaluations
        self.outside += int((left > _SLACK).sum())
        self.farthest = max(self.farthest, float(left.max()))
        self.facts |= {**facts, "evaluations": self.evaluations}
        self._notices += notices
        return result

    def baselines(self, names: Sequence[str], options: WithBaselines) -> Tensor:
        """Baselines by name, shape (len(names), C, *spatial)."""
        made = []
        for name in names:
            files = options.baseline_image if name == "image" else ()
            one = _Baseline(name, options.blur, options.constant, self.case.seed, files)
            made.append(one.baselines(self.play.question)[0])
        # One alone may be one number everywhere that takes no memory.
        return made[0] if len(made) == 1 else torch.cat(made)

    @property
    def notices(self) -> tuple[str, ...]:
        """Sentences that the user should read, as far as was asked."""
        share = self.outside / max(self.evaluations, 1)
        outside = (_OUTSIDE.format(self.outside, self.evaluations, share, self.farthest),) if self.outside else ()
        return tuple(dict.fromkeys((*self._notices, *outside)))

    def is_enough(self, whole: float, least: float) -> bool:
        """Whether a score falls far enough, from that of the image, to tell maps apart."""
        enough = _ROUNDING * max(abs(whole), abs(least))
        return whole - least > (_ENOUGH if self.facts["quantity"] == Quantity.PROBABILITY else enough)


class _Baseline(OneBaseline):
    title: ClassVar[str] = "The metric"


def joined(parts: Sequence[Outcome], facts: Mapping[str, Any]) -> Outcome:
    """What was found with each of several baselines as one outcome."""
    return Outcome(
        tuple(score for part in parts for score in part.scores),
        tuple(verdict for part in parts for verdict in part.verdicts),
        tuple(plot for part in parts for plot in part.plots),
        facts=facts,
    )


@dataclass(frozen=True)
class Probing(Metric):
    """A metric that compares what a classifier says about changed copies of its input with a map."""

    family: ClassVar[Family] = Family.FAITHFULNESS
    needs: ClassVar[frozenset[Need]] = frozenset({Need.CLASSIFIER})
    ranks: ClassVar[bool] = True
    """Whether only the part of the map counts that is evidence; else its signed values do."""

    quantity: str = option(
        str(Quantity.PROBABILITY),
        "What is asked of the classifier: the class's probability, log-odds or logit, or what the explanation is "
        "about. The logit, where there is no such number, as of a segmentation.",
        choices=QUANTITIES,
    )

    @abstractmethod
    def judge(self, probe: Probe) -> Outcome:
        """Ask, and judge; without what every such metric tells of its passes."""

    def measure(self, case: Case, job: Job) -> Outcome:
        """Judge a map beside its controls; see `Metric`."""
        asked = case.asked
        assert asked is not None
        job.step(0.0, "Preparing the controls")
        reason, maps = _maps_of(case, asked, ranks=self.ranks)
        if reason:
            scores = tuple(Score(name, nan, reason, better=each.better) for name, each in self.quantities.items())
            return Outcome(scores, (Verdict.undefined(self.title, reason),))
        job.step(_FEW / 2, "Asking about the image")

        def work(classifier: Classifier) -> Outcome:
            row = asked.network_input.tensor
            question = Question(classifier, row, (), asked.spacing, self._others(asked, classifier))
            with torch.no_grad(), one_thread(), asking(classifier) as ask:
                # Its classes and, of a segmentation, their regions; the score itself comes from the same batches as
                # all others, since another batch may give other bits.
                answer = ask(row.to(classifier.device, copy=True), job.part(_FEW / 2, _FEW))
                target = self._target(case, asked, classifier).resolved(answer, 0)
                play = Play(question, 0, [target], question.inputs[0], ask, job.part(_FEW, 1.0))
                probe = Probe(case, play, maps, facts={"quantity": str(target.quantity)})
                outcome = self.judge(probe)
            facts = {**outcome.facts, **probe.facts}
            return replace(outcome, facts=facts, notices=(*outcome.notices, *probe.notices))

        outcome, said = where_it_can(asked.known, work)
        return replace(outcome, notices=(*outcome.notices, *said))

    def _target(self, case: Case, asked: Asked, classifier: Classifier) -> Target:
        target = target_of(classifier, asked.request)
        if self.quantity != AS_EXPLAINED:
            only = classifier.head in (Head.REGRESSION, Head.SEGMENTATION) or target.against is not None
            target = replace(target, quantity=Quantity.LOGIT if only else Quantity(self.quantity))
        return replace(target, opposite=target.opposite != (case.sign is Sign.NEGATIVE))

    def _others(self, asked: Asked, classifier: Classifier) -> Tensor | None:
        images = [read_image(path) for path in getattr(self, "baseline_image", ())]
        return inputs_of(images, classifier, asked.request, asked.image, asked.network_input)


@dataclass(frozen=True)
class WithBaselines(Probing):
    """Options of metrics that put baselines in place of parts of the image."""

    baselines: tuple[str, ...] = option(
        ("zero",),
        "What stands for parts that are taken away, behind the preprocessing; one or several of "
        f"{', '.join(BASELINES)}. Each gives numbers of its own.",
    )
    blur: float = option(8.0, BLUR, limits=(0.0, None))
    constant: float = option(0.0, "The value of the constant baseline, behind the preprocessing.")
    baseline_image: tuple[str, ...] = option((), "The image that the baseline image means.", choices=FILES)

    def __post_init__(self) -> None:
        wrong = [name for name in self.baselines if name not in BASELINES]
        if wrong or not self.baselines:
            given = repr(wrong[0]) if wrong else "none"
            raise InputError(f"{self.title} can't have baselines {given}; choose some of {', '.join(BASELINES)}.")
        if self.baseline_image and "image" not in self.baselines:
            raise InputError(f"{self.title} has a baseline_image; choose the baseline image too, or leave it out.")


def _maps_of(case: Case, asked: Asked, *, ranks: bool) -> tuple[str, dict[str, Map]]:
    """Why a map can't be judged, or nothing, and it and its controls on the grid of the network's input."""
    if case.not_finite:
        return case.not_finite, {}
    way = np.float32(-1 if case.sign is Sign.NEGATIVE else 1)
    own = way * asked.on_input(case.values)
    counts = np.abs(own) if case.sign is Sign.ABSOLUTE else own
    if ranks and not (counts > 0).any():
        return f"Nothing in the map is {case.sign} evidence where the network looks.", {}
    if np.ptp(counts if ranks else own) == 0:
        return "The map has one value everywhere where the network looks, so that it tells no part from another.", {}
    controls = {name: way * asked.on_input(values) for name, values in case.controls.items()}
    return "", {EXPLANATION: own, **controls}
