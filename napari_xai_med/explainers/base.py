"""What every explanation method is, and how the methods are found."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from napari_xai_med.errors import InputError
from napari_xai_med.models.formats.base import Gives
from napari_xai_med.models.target import AnyTarget, Target
from napari_xai_med.registry import Registry
from napari_xai_med.segments.base import Segments

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from napari_xai_med.grid import Float
    from napari_xai_med.job import Job
    from napari_xai_med.models.classifier import Classifier
    from napari_xai_med.models.head import Answer


@dataclass(frozen=True)
class Parts:
    """What each part of an image contributes.

    Parameters
    ----------
    labels : ndarray of int32, shape (*spatial)
        On the grid of the network's input: 0 for what belongs to no part, then 1 to the number of parts.
    values, errors : ndarray of float64, shape (number of parts,)
        Contributions and their standard errors, NaN where nothing is known of these.
    """

    labels: NDArray[np.int32]
    values: NDArray[np.float64]
    errors: NDArray[np.float64]

    def painted(self) -> NDArray[np.float32]:
        """Each voxel with the contribution of its part, 0 outside of them."""
        return np.concatenate([[0.0], self.values]).astype(np.float32)[self.labels]


@dataclass(frozen=True)
class RawMap:
    """A map on the grid where the method made it.

    Parameters
    ----------
    values : ndarray of float32, shape of the method's own grid
        Neither clipped nor normalised.
    to_input : ndarray, shape (ndim + 1, ndim + 1)
        Index of this grid to index of the network's input.
    facts : mapping
        What belongs in the record, such as the layer and how its cells were placed.
    notices : tuple of str
        Sentences that the user should read.
    parts : Parts, optional
        Of which parts of the input `values` are painted, on its grid; they keep their edges on the image.
    """

    values: NDArray[np.float32]
    to_input: Float
    facts: Mapping[str, Any] = field(default_factory=dict)
    notices: tuple[str, ...] = ()
    parts: Parts | None = None


@dataclass(frozen=True)
class Question:
    """What a method is asked.

    Parameters
    ----------
    classifier : Classifier
    inputs : Tensor, shape (N, C, *spatial)
        What the network gets.
    targets : tuple of (int, Target)
        Row of `inputs` and what of its answer is to be explained, for each map that is wanted.
    spacing : tuple of float
        Millimetres between the inputs' voxels along each spatial axis; pixels where a picture has no spacing.
    others : Tensor, shape (K, C, *spatial)
        The images that `Explainer.images` names, preprocessed like the inputs; none by default.
    segments : tuple of Segments
        Of each row of `inputs`, on its grid, for methods that use them; none by default.
    """

    classifier: Classifier
    inputs: Tensor
    targets: tuple[tuple[int, AnyTarget], ...]
    spacing: tuple[float, ...] = ()
    others: Tensor | None = None
    segments: tuple[Segments, ...] = ()

    def resolved(self, answer: Answer) -> tuple[tuple[int, AnyTarget], ...]:
        """The targets with the most probable class of a row where none is named."""
        return tuple(
            (row, target.resolved(answer, row) if isinstance(target, Target) else target)
            for row, target in self.targets
        )

    def one_by_one(self) -> list[Question]:
        """A question for each target, about its row alone: for networks of files that take one image at a time."""
        return [
            replace(
                self,
                inputs=self.inputs[row : row + 1],
                targets=((0, target),),
                segments=self.segments[row : row + 1],
            )
            for row, target in self.targets
        ]


class Explainer(ABC):
    """One explanation method. A subclass is a frozen dataclass whose fields are its options.

    Attributes
    ----------
    name : str
        How scripts and the command line call it.
    title : str
        How people call it.
    paper : str
        The publication that describes it.
    signed : bool
        Whether its map can speak against the class; an instance whose options decide that says so itself.
    needs : frozenset of Gives
        What the classifier's format has to give.
    caution : str
        What everyone who looks at its map should know, such as that it hardly depends on the weights; or nothing.
    uses_segments : bool
        Whether it explains by the contributions of segments; see `Question.segments`.
    whole : bool
        Whether it asks about whole images only, which a sliding window then cuts up, instead of explaining each window.
    presets : mapping of str to mapping
        Names of sets of options, such as the defaults of a library that people know.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    paper: ClassVar[str]
    signed: ClassVar[bool]
    needs: ClassVar[frozenset[Gives]]
    caution: ClassVar[str] = ""
    uses_segments: ClassVar[bool] = False
    whole: ClassVar[bool] = False
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    @classmethod
    def reason(cls, classifier: Classifier) -> str:  # noqa: ARG003  # for methods that are for some networks only
        """Why it can't explain a network that is known by now, in one sentence; empty if it can, or nobody knows.

        It is asked often and has to be quick: see `Classifier.traces`.
        """
        return ""

    @property
    def images(self) -> tuple[str, ...]:
        """Paths of further images that the method compares with; see `Question.others`."""
        return ()

    def each(self) -> tuple[Explainer, ...]:
        """The explainers whose maps are listed one by one, if the options ask for several; else only this one."""
        return (self,)

    @abstractmethod
    def attribute(self, question: Question, job: Job) -> tuple[list[RawMap], Answer]:
        """Explain answers of a classifier.

        Parameters
        ----------
        question : Question
        job : Job

        Returns
        -------
        (list of RawMap, Answer)
            One map for each target, and what the classifier says about all rows.
        """


_registry = Registry("napari_xai_med.explainers")
register = _registry.register


def explainers() -> Mapping[str, type[Explainer]]:
    """All registered explainers by name, those of a file together."""
    return dict(sorted(_registry.all().items(), key=lambda pair: str(pair[1].__module__)))


def reason_against(explainer: type[Explainer], classifier: Classifier) -> str:
    """Why a method can't be used with a classifier, in one sentence; empty if it can."""
    missing = sorted(explainer.needs - classifier.gives)
    if not missing:
        return explainer.reason(classifier)
    limit = classifier.network_facts.limit
    reason = (
        f"{classifier.name} does not give: {limit}." if limit else f"the format of {classifier.name} does not give."
    )
    return f"{explainer.title} needs {' and '.join(missing)}, which {reason}"


def make_explainer(name: str, options: Mapping[str, Any]) -> Explainer:
    """An explainer by name with its options.

    Raises
    ------
    InputError
        If there is no such method or option.
    """
    made: Explainer = _registry.make("method", name, options)
    return made


def preset_options(name: str, preset: str) -> Mapping[str, Any]:
    """The options of a method's preset.

    Raises
    ------
    InputError
        If there is no such method or preset.
    """
    explainer = type(make_explainer(name, {}))
    if preset and preset not in explainer.presets:
        known = ", ".join(explainer.presets) or "none"
        raise InputError(f"{explainer.title} has no preset {preset!r}; it has {known}.")
    return explainer.presets[preset] if preset else {}
