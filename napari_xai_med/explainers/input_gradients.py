"""What all methods share that make a map of gradients with respect to the network's input."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from napari_xai_med.errors import InputError, ModelError
from napari_xai_med.explainers.base import Explainer, Question, RawMap
from napari_xai_med.explainers.batches import FEWER, batch_option, batch_size
from napari_xai_med.explainers.completeness import completeness
from napari_xai_med.explainers.layer_maps import rounds
from napari_xai_med.explainers.noise import Moments, Tunnel, noisy, value_range
from napari_xai_med.job import Job
from napari_xai_med.models.devices import in_batches
from napari_xai_med.models.formats.base import Gives
from napari_xai_med.models.head import Answer
from napari_xai_med.models.run import forward, gradient_sentence
from napari_xai_med.models.target import AnyTarget
from napari_xai_med.options import option

_ANSWERING = 0.05
"""Share of the time that the answers take which come before many gradients."""


@dataclass(frozen=True)
class Point:
    """Where a gradient is taken, and what it counts with.

    Parameters
    ----------
    at : Tensor, shape (C, *spatial)
    factor : Tensor or float
        The gradient times this is what the point adds to the attribution.
    beside : Tensor, shape (C, *spatial), optional
        The baseline that goes through the network beside it, for methods with another way back.
    """

    at: Tensor
    factor: Tensor | float = 1.0
    beside: Tensor | None = None


@dataclass(frozen=True)
class InputGradients(Explainer):
    """A method that adds up gradients with respect to the network's input, at one point or at several.

    Maps lie on the grid of the network's input, behind the preprocessing, as do baselines and noise. Channels are
    added up at the end. captum has the noise as a method around others, `NoiseTunnel`. Here it is part of each: what
    is drawn does not depend on the size of the batches, and no gradient is kept.

    Attributes
    ----------
    advice : str
        What to do if the map does not add up to the difference between answers, without a full stop.
    """

    needs: ClassVar[frozenset[Gives]] = frozenset({Gives.GRADIENTS})
    signed: ClassVar[bool] = True
    advice: ClassVar[str] = ""

    noise_tunnel: str = option(
        "none",
        "What becomes of the attributions of noisy copies of the image: their mean (smoothgrad), the mean of their "
        "squares (smoothgrad_sq) or their variance (vargrad); the image itself is explained if none.",
        choices=tuple(map(str, Tunnel)),
    )
    noise_samples: int = option(16, "Number of noisy copies.", limits=(1, 100_000))
    noise_std: float = option(
        0.15,
        "Standard deviation of the noise, as a share of the range of the image's values behind the preprocessing.",
        limits=(0.0, None),
    )
    seed: int = option(0, "Seed of all that is drawn.", limits=(0, None))
    batch_size: int = batch_option()

    def __post_init__(self) -> None:
        # Squares and variances can't speak against a class.
        object.__setattr__(self, "signed", type(self).signed and self.noise_tunnel in (Tunnel.NONE, Tunnel.SMOOTHGRAD))

    def references(self, question: Question) -> Tensor | None:  # noqa: ARG002  # others need it
        """Images that each row is compared with, shape (N, K, C, *spatial), on the device of the inputs."""
        return None

    def inner(self, references: Tensor | None) -> int:  # noqa: ARG002  # others need it
        """At how many points gradients are taken for one attribution."""
        return 1

    @abstractmethod
    def point(self, image: Tensor, references: Tensor | None, inner: int, sample: int) -> Point:
        """One of these points.

        Parameters
        ----------
        image : Tensor, shape (C, *spatial)
            With noise, if there is any.
        references : Tensor, shape (K, C, *spatial), optional
            Those of its row.
        inner : int
            Number of the point.
        sample : int
            Number of the noisy copy.
        """

    @property
    def adds_up(self) -> bool:
        """Whether the map has to add up to the difference between the answers at image and references."""
        return False

    def shares(self, count: int) -> list[float]:
        """How much each of the K references counts; together 1."""
        return [1 / count] * count

    def answers(
        self,
        question: Question,
        images: Tensor,
        beside: Tensor | None,  # noqa: ARG002  # others need it
        job: Job,
    ) -> tuple[Answer, Answer | None]:
        """What the network says about images, with its gradient, and about the baselines beside them."""
        return forward(question.classifier, images, job), None

    def explained(self, target: AnyTarget, answer: Answer, before: Answer | None) -> Tensor:  # noqa: ARG002
        """The number that goes back for each image of a batch, shape (N,)."""
        return target.of(answer)

    def reduced(self, attribution: Tensor) -> Tensor:
        """A map, shape (*spatial), of an attribution, shape (C, *spatial)."""
        return attribution.sum(0)

    def attribute(self, question: Question, job: Job) -> tuple[list[RawMap], Answer]:
        """One forward pass for all targets of a point, and a backward pass for each; see `Explainer`."""
        if self.noise_tunnel == Tunnel.VARGRAD and self.noise_samples < 2:
            raise InputError("One noisy copy has no variance; take at least 2 noise_samples for vargrad.")
        question = replace(question, inputs=question.inputs.to(question.classifier.device))
        return _Sums(self, question).run(job)


class _Sums:
    """The attributions of one question while they are computed."""

    def __init__(self, explainer: InputGradients, question: Question) -> None:
        self._explainer, self._question = explainer, question
        self._references = explainer.references(question)
        self._samples = 1 if explainer.noise_tunnel == Tunnel.NONE else explainer.noise_samples
        self._inner = explainer.inner(self._references)
        count = len(question.targets)
        self._open: list[Tensor | None] = [None] * count
        self._moments = [Moments() for _ in range(count)]
        self._before: list[float] | None = None
        self._wanted: tuple[tuple[int, AnyTarget], ...] = ()
        self._noisy: tuple[tuple[int, int], Tensor] | None = None
        self._sizes: list[int] = []

    def run(self, job: Job) -> tuple[list[RawMap], Answer]:
        """Compute them."""
        question, each = self._question, self._samples * self._inner
        if each == 1 and self._asks_images():
            # The rows that nothing is asked about take part, since the answer is about all of them.
            self._sizes = [len(question.inputs)]
            answer = self._add([(row, 0, 0) for row in range(len(question.inputs))], job)
        else:
            with torch.no_grad():
                answer = forward(question.classifier, question.inputs, job.part(0.0, _ANSWERING))
            self._wanted = question.resolved(answer)
            rows = dict.fromkeys(row for row, _ in question.targets)
            units = [(row, *divmod(k, self._inner)) for row in rows for k in range(each)]
            self._in_batches(units, job.part(_ANSWERING, 1.0))
        self._ask_references(job)
        return [self._raw(k, answer) for k in range(len(self._wanted))], answer

    def _asks_images(self) -> bool:
        """Whether the only point is the image itself, and not a noisy copy or a place on the way to a baseline."""
        return all(torch.equal(self._point(row, 0, 0).at, image) for row, image in enumerate(self._question.inputs))

    def _in_batches(self, units: list[tuple[int, int, int]], job: Job) -> None:
        done = 0

        def add(part: Tensor) -> None:
            nonlocal done
            after = done + len(part)
            self._add([units[k] for k in part.tolist()], job.part(done / len(units), after / len(units)))
            done = after

        self._sizes = [batch_size(self._question, self._explainer.batch_size, gradients=True)]
        in_batches(torch.arange(len(units)), self._sizes[0], add, self._sizes.append)

    def _add(self, units: Sequence[tuple[int, int, int]], job: Job) -> Answer:
        """Add what the points of some units say, each a row, a noisy copy and a point's number; the answer to them."""
        explainer, question = self._explainer, self._question
        points = [self._point(*unit) for unit in units]
        images = torch.stack([point.at for point in points]).detach().requires_grad_()
        besides = [point.beside for point in points if point.beside is not None]
        with torch.enable_grad():
            answer, before = explainer.answers(question, images, torch.stack(besides) if besides else None, job)
        self._wanted = self._wanted or question.resolved(answer)
        # All that may need more memory than there is comes before anything is added.
        found = self._gradients(units, images, answer, before)
        products = [(k, at, gradient * points[at].factor) for k, at, gradient in found]
        for k, at, product in products:
            _, sample, inner = units[at]
            self._include(k, product, inner)
            if before is not None and sample == 0:
                self._before = self._before or [0.0] * len(self._wanted)
                self._before[k] += explainer.shares(self._inner)[inner] * float(self._wanted[k][1].of(before)[at])
        return answer

    def _gradients(
        self, units: Sequence[tuple[int, int, int]], images: Tensor, answer: Answer, before: Answer | None
    ) -> list[tuple[int, int, Tensor]]:
        """The gradient of each target at each point of its row: number of the target, position of the point."""
        places: dict[int, list[int]] = {}
        for at, (row, _, _) in enumerate(units):
            places.setdefault(row, []).append(at)
        here = [k for k, (row, _) in enumerate(self._wanted) if row in places]
        found = []
        waiting = list(rounds([self._wanted[k] for k in here]))
        for number, chosen in enumerate(waiting):
            asked = [(k, at) for k in (here[each] for each in chosen) for at in places[self._wanted[k][0]]]
            targets = [(at, self._wanted[k][1]) for k, at in asked]
            values = {target: self._explainer.explained(target, answer, before) for _, target in targets}
            value = torch.stack([values[target][at] for at, target in targets]).sum()
            gradient = _gradient(value, images, keep=number + 1 < len(waiting))
            if not bool(gradient.isfinite().all()):
                raise ModelError(gradient_sentence(self._question.classifier, images, targets))
            found += [(k, at, gradient[at]) for k, at in asked]
        return sorted(found, key=lambda item: item[:2])

    def _include(self, k: int, values: Tensor, inner: int) -> None:
        """Add what a point says, one after the other: then the sum does not depend on the size of the batches."""
        opened = self._open[k]
        self._open[k] = values if opened is None else opened.add_(values)
        if inner == self._inner - 1:
            total = self._open[k]
            assert total is not None
            self._moments[k].add(total)
            self._open[k] = None

    def _point(self, row: int, sample: int, inner: int) -> Point:
        """A point, with the noise of its sample, which several points share."""
        explainer, image = self._explainer, self._question.inputs[row]
        if self._noisy is None or self._noisy[0] != (row, sample):
            std = 0.0 if explainer.noise_tunnel == Tunnel.NONE else explainer.noise_std
            self._noisy = (row, sample), noisy(image, std, explainer.seed, sample)
        references = None if self._references is None else self._references[row]
        return explainer.point(self._noisy[1], references, inner, sample)

    def _ask_references(self, job: Job) -> None:
        """Ask what the network says about references, unless they went through it beside the points."""
        explainer, references = self._explainer, self._references
        if not explainer.adds_up or references is None or self._before is not None:
            return
        shares = explainer.shares(references.shape[1])
        flat = references.flatten(0, 1)
        size = batch_size(self._question, explainer.batch_size, gradients=False)
        with torch.no_grad():
            answers = in_batches(
                flat,
                size,
                lambda part: forward(self._question.classifier, part, job.part(1.0, 1.0)),
                self._sizes.append,
            )
        self._before = []
        for row, target in self._wanted:
            values = torch.cat([target.of(answer) for answer in answers]).unflatten(0, references.shape[:2])[row]
            self._before.append(sum(share * float(value) for share, value in zip(shares, values, strict=True)))

    def _raw(self, k: int, answer: Answer) -> RawMap:
        """The map of a target."""
        explainer, (row, target) = self._explainer, self._wanted[k]
        values = explainer.reduced(self._moments[k].result(explainer.noise_tunnel))
        facts: dict[str, Any] = {"gradients": self._samples * self._inner, "batch_size": self._sizes[-1]}
        if explainer.noise_tunnel != Tunnel.NONE:
            std = explainer.noise_std * value_range(self._question.inputs[row])
            facts |= {"noise": explainer.noise_tunnel, "noise_samples": self._samples, "noise_std": std}
        notices = tuple(FEWER.format(self._sizes[0], size) for size in self._sizes[-1:] if size < self._sizes[0])
        if explainer.adds_up and self._before is not None:
            difference = float(target.of(answer)[row].detach()) - self._before[k]
            told, off = completeness(float(values.double().sum()), difference, explainer.advice)
            facts, notices = facts | told, (*notices, *off)
        array = values.detach().float().cpu().numpy()
        return RawMap(array, np.eye(array.ndim + 1), facts, notices)


def _gradient(value: Tensor, images: Tensor, *, keep: bool) -> Tensor:
    """Gradient of a number with respect to images.

    Raises
    ------
    ModelError
        If there is none.
    """
    found = None
    if value.requires_grad:
        (found,) = torch.autograd.grad(value, images, retain_graph=keep, allow_unused=True)
    if found is None:
        raise ModelError("No gradient leads from the answer to the image; choose a method without gradients.")
    return found
