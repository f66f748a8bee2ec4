"""Follow where each position of a tensor comes from, through the operators that a network runs.

Every axis of a tensor is a product of factors; a factor either says which of the input's positions its
steps stand for, or nothing. Networks are followed operator by operator (and not module by module), so
that functional calls, slices, additions and reshapes count as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakIdKeyDictionary


@dataclass(frozen=True)
class Steps:
    """What the positions 0, 1, 2, ... along an axis stand for.

    Parameters
    ----------
    axis : int
        Spatial axis of the network's input.
    jump : float
        Input voxels from one position to the next.
    low, high : float
        First and last input voxel that position 0 sees.
    """

    axis: int
    jump: float = 1.0
    low: float = 0.0
    high: float = 0.0

    def window(self, first: float, last: float, stride: float) -> Steps:
        """Steps of an operator whose position i sees positions i*stride + first to i*stride + last."""
        ends = (self.jump * first, self.jump * last)
        return Steps(self.axis, self.jump * stride, self.low + min(ends), self.high + max(ends))


@dataclass(frozen=True)
class Factor:
    """A part of an axis: how many positions, and what they stand for if that is known.

    Parameters
    ----------
    size : int
    steps : Steps, optional
    inside : tuple of Factor
        A known axis that lies among the positions, such as that of patches behind a class token.
    lead : int
        How many positions come before it.
    """

    size: int
    steps: Steps | None = None
    inside: Axis = ()
    lead: int = 0

    @property
    def known(self) -> bool:
        """Whether anything is known of the positions."""
        return self.steps is not None or bool(self.inside)


Axis = tuple[Factor, ...]
Geometry = tuple[Axis, ...]

# Rules take (geometries of the tensors before, arguments, keywords, result) and return the geometry of the
# result, or a list of them for several results; None stands for nothing known.
Rule = Callable[[list[Geometry], tuple[Any, ...], dict[str, Any], Any], Any]


def steps_of(axis: Axis) -> Steps | None:
    """What an axis of one factor stands for."""
    known = [factor for factor in axis if factor.size > 1 or factor.steps is not None]
    return known[0].steps if len(known) == 1 else None


def size_of(axis: Axis) -> int:
    """How many positions an axis has."""
    return prod(factor.size for factor in axis)


def unknown(tensor: Tensor) -> Geometry:
    """The geometry of a tensor of which nothing is known."""
    return tuple((Factor(n),) for n in tensor.shape)


class Follower(TorchDispatchMode):
    """While active, keeps the geometry of every tensor that comes from a marked input.

    Parameters
    ----------
    rules : mapping of str to Rule
        By operator.
    default : Rule
        For all other operators.
    """

    def __init__(self, rules: Mapping[str, Rule], default: Rule) -> None:
        super().__init__()
        self._rules, self._default = rules, default
        self._known: Any = WeakIdKeyDictionary()

    def mark(self, tensor: Tensor) -> None:
        """Make a tensor (N, C, *spatial) the input that geometry refers to."""
        spatial = tuple((Factor(n, Steps(k)),) for k, n in enumerate(tensor.shape[2:]))
        self._known[tensor] = (*unknown(tensor)[:2], *spatial)

    def geometry(self, tensor: Tensor) -> Geometry:
        """What is known of a tensor."""
        found: Geometry = self._known.get(tensor) or unknown(tensor)
        return found

    def is_known(self, value: Any) -> bool:
        """Whether a value is a tensor that comes from the input in a known way."""
        return isinstance(value, Tensor) and value in self._known

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator and note the geometry of what it returns."""
        kwargs = kwargs or {}
        before = [self.geometry(t) for t in _tensors(args)]
        result = func(*args, **kwargs)
        if any(self.is_known(t) for t in _tensors(args)):
            name = func.overloadpacket.__name__
            rule = self._rules.get(name) or self._rules.get(name.rstrip("_")) or self._default
            self._note(result, rule(before, args, kwargs, result))
        return result

    def _note(self, result: Any, geometry: Any) -> None:
        results = result if isinstance(result, tuple | list) else [result]
        geometries = geometry if isinstance(geometry, list) else [geometry]
        for tensor, known in zip(results, geometries, strict=False):
            if not isinstance(tensor, Tensor):
                continue
            fits = known is not None and [size_of(axis) for axis in known] == list(tensor.shape)
            if fits and any(f.known for axis in known for f in axis):
                self._known[tensor] = known
            else:
                self._known.pop(tensor, None)


def _tensors(args: Any) -> list[Tensor]:
    """All tensors among the positional arguments, lists of tensors opened."""
    flat: list[Tensor] = []
    for value in args:
        if isinstance(value, Tensor):
            flat.append(value)
        elif isinstance(value, tuple | list):
            flat.extend(v for v in value if isinstance(v, Tensor))
    return flat
