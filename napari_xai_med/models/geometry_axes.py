"""What becomes of one axis where tensors are put together or cut; see `napari_xai_med.models.geometry`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

from napari_xai_med.models.geometry import Axis, Factor, Geometry, size_of, steps_of


def merged_axis(axes: Sequence[Axis], size: int) -> Axis:
    """The axis of a sum of tensors; nothing is known of it where they do not fit."""
    known = [a for a in axes if size_of(a) == size and any(f.known for f in a)]
    if not known:
        return (Factor(size),)
    first = known[0]
    for other in known[1:]:
        if [f.size for f in other] != [f.size for f in first]:
            whole = _unblocked(first, other) or _unblocked(other, first)
            if whole is None:
                return (Factor(size),)
            first = whole
            continue
        first = tuple(_merged_factor(a, b) for a, b in zip(first, other, strict=True))
    return first


def _unblocked(whole: Axis, blocks: Axis) -> Axis | None:
    """The first of two axes, if the other one is the same cut into blocks, as by attention inside of windows.

    What a block's positions see of each other is left out, as of other global branches.
    """
    steps, block = steps_of(whole), blocks[0]
    if steps is None or block.steps is None or any(f.known for f in blocks[1:]):
        return None
    same = block.steps.axis == steps.axis and abs(block.steps.jump * block.size - steps.jump * size_of(whole)) < 1e-9
    return whole if same else None


def _merged_factor(one: Factor, two: Factor) -> Factor:
    a, b = one.steps, two.steps
    if a is None or b is None:
        return one if one.known else two
    if a.axis != b.axis or abs(a.jump - b.jump) > 1e-9:
        return Factor(one.size)
    return Factor(one.size, replace(a, low=min(a.low, b.low), high=max(a.high, b.high)))


def joined_axis(axes: Sequence[Axis], size: int) -> Axis:
    """Axes one behind the other: a single known one stays known, such as that of patches behind a class token."""
    starts = list(accumulate(map(size_of, axes), initial=0))
    known = [(start, axis) for start, axis in zip(starts, axes, strict=False) if any(f.known for f in axis)]
    if len(known) != 1 or starts[-1] != size:
        return (Factor(size),)
    start, axis = known[0]
    if axis[0].inside:
        return (Factor(size, inside=axis[0].inside, lead=start + axis[0].lead),)
    return (Factor(size, inside=axis, lead=start),)


def within(factor: Factor, start: int, size: int) -> Axis:
    """Some positions of an axis that a known one lies in."""
    lead, length = factor.lead - start, size_of(factor.inside)
    if lead < 0 or lead + length > size:
        return (Factor(size),)
    return factor.inside if size == length else (Factor(size, inside=factor.inside, lead=lead),)


def squeezed(geometry: Geometry, shape: Sequence[int]) -> Geometry | None:
    """The geometry of the same tensor with axes of one position added or taken away; None if more was changed."""
    if [size_of(axis) for axis in geometry if size_of(axis) > 1] != [size for size in shape if size > 1]:
        return None
    gaps = [_units(geometry, size_of), _units(shape, int)]
    result: list[Axis] = []
    for axis, units, wanted in zip((*(a for a in geometry if size_of(a) > 1), None), *gaps, strict=True):
        known = [unit for unit in units if any(f.known for f in unit)]
        if len(known) > len(wanted):
            return None
        kept = units if len(units) == len(wanted) else known
        # A new batch comes first.
        result += [*[(Factor(1),)] * (len(wanted) - len(kept)), *kept, *([] if axis is None else [axis])]
    return tuple(result)


def _units(axes: Sequence[Any], size: Callable[[Any], int]) -> list[list[Any]]:
    """Axes of one position before each larger one, and behind the last."""
    gaps: list[list[Any]] = [[]]
    for axis in axes:
        if size(axis) > 1:
            gaps.append([])
        else:
            gaps[-1].append(axis)
    return gaps
