"""Which classes a request is about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from napari_xai_med.errors import InputError
from napari_xai_med.models.classifier import Classifier
from napari_xai_med.models.target import Quantity, Target
from napari_xai_med.request import ExplainRequest


@dataclass(frozen=True)
class MostProbable:
    """So many of an image's most probable classes, as far as there are so many."""

    count: int

    def __post_init__(self) -> None:
        if self.count < 1:
            raise InputError(f"The {self.count} most probable classes can't be explained; give at least 1.")


Targets = Sequence[str | int | None] | MostProbable | None
"""Classes by name or index, None for the most probable one; those of a rank; or all of them, but for the one that they
are explained against."""


def targets_of(classifier: Classifier, request: ExplainRequest, targets: Targets) -> list[Target]:
    """What of a classifier's answer a request asks about, for several classes.

    Raises
    ------
    InputError
        If there is no class, or the classifier has no such number.
    """
    # No class stands against itself.
    other = None if request.against is None else classifier.find_class(request.against)
    names = [name for index, name in enumerate(classifier.class_names) if index != other]
    if isinstance(targets, MostProbable):
        unnamed = target_of(classifier, replace(request, target=None))
        return [replace(unnamed, rank=rank) for rank in range(min(targets.count, len(names)))]
    chosen = names if targets is None else targets
    if not chosen:
        raise InputError("Nothing is to be explained; name a class, or leave the classes out for all of them.")
    return [target_of(classifier, replace(request, target=target)) for target in chosen]


def fewer_classes(targets: Targets, count: int) -> tuple[str, ...]:
    """That only so many classes of those that were asked for can be explained; nothing if there are enough."""
    if not isinstance(targets, MostProbable) or targets.count <= count:
        return ()
    return (f"There {'is 1 class' if count == 1 else f'are {count} classes'} to explain, and not {targets.count}.",)


def target_of(classifier: Classifier, request: ExplainRequest) -> Target:
    """What of a classifier's answer a request asks about."""
    target = Target(
        None if request.target is None else classifier.find_class(request.target),
        None if request.against is None else classifier.find_class(request.against),
        Quantity(request.quantity),
        request.opposite,
    )
    target.check(classifier.head)
    return target
