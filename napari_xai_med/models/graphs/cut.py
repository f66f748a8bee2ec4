"""Find the softmax or sigmoid that an output of a file's graph ends in, through operators that only reshape.

Explanations are about logits: the gradient of a probability vanishes where the network is sure, and a head that
applied the function once more would give wrong probabilities.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

Shape = Sequence[int | None]
"""Lengths of a value's axes; None for one that the file leaves open."""


@dataclass(frozen=True)
class Maker:
    """What makes a value, as far as the ending of a network goes.

    Parameters
    ----------
    node : int
        Its number in the graph.
    source : str
        The value that it is made of.
    ending : {"", "softmax", "sigmoid"}
        The function that it is, or nothing for what changes no number.
    axis : int
        Of a softmax; negative ones count from the last.
    order : tuple of int
        Where a transposition takes each axis from.
    """

    node: int
    source: str
    ending: str = ""
    axis: int = -1
    order: tuple[int, ...] = ()


@dataclass(frozen=True)
class Cut:
    """How an output ends.

    Parameters
    ----------
    ending : {"linear", "softmax", "sigmoid"}
    before : str
        The value that goes into that function; the output itself for "linear".
    node : int
        The function's number in the graph; -1 for "linear".
    chain : tuple of int
        What comes between the function and the output, in the order of execution.
    """

    ending: str
    before: str
    node: int = -1
    chain: tuple[int, ...] = ()


def find_cut(output: str, maker: Callable[[str], Maker | None], shape: Callable[[str], Shape | None]) -> Cut:
    """Find what an output ends in.

    Parameters
    ----------
    output : str
        A value whose classes lie along axis 1.
    maker : callable
        What makes a value; None where that is neither an ending nor a mere change of shape.
    shape : callable
        A value's shape; None if it is not known.

    Returns
    -------
    Cut
        A softmax along another axis than that of the classes is no ending.
    """
    value, chain = output, list[int]()
    axis: int | None = 1
    while (made := maker(value)) is not None:
        before = shape(made.source)
        if made.ending:
            # One whose shape nobody knows is nearly always of images by classes.
            rank = 2 if before is None else len(before)
            if made.ending == "sigmoid" or (axis is not None and rank and made.axis % rank == axis):
                return Cut(made.ending, made.source, made.node, tuple(reversed(chain)))
            break
        if axis is not None:
            axis = made.order[axis] if axis < len(made.order) else axis_before(before, shape(value), axis)
        chain.append(made.node)
        value = made.source
    return Cut("linear", output)


def axis_before(before: Shape | None, after: Shape | None, axis: int) -> int | None:
    """Which axis became an axis when the shape changed; None if that can't be told, or several did.

    Parameters
    ----------
    before, after : sequence of int or None
        The shapes; None for one that is not known, which is then taken to have changed nothing.
    axis : int
        Of `after`.
    """
    if before is None or after is None or list(before) == list(after):
        return axis
    pairs = list(zip(before, after, strict=False))
    first = next((k for k, (a, b) in enumerate(pairs) if a != b), len(pairs))
    if axis < first:
        return axis
    last = next((k for k, (a, b) in enumerate(zip(reversed(before), reversed(after), strict=False)) if a != b), 0)
    if len(after) - axis <= last:
        return axis - len(after) + len(before)
    # Axes of length 1 come and go.
    long_before, long_after = ([k for k, n in enumerate(s) if k and n != 1] for s in (before, after))
    if axis in long_after and [before[k] for k in long_before] == [after[k] for k in long_after]:
        return long_before[long_after.index(axis)]
    return None
