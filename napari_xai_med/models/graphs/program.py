"""Run a network that a file describes step by step, with the modules it was made of as places for hooks.

Files such as those of torch.export and ONNX hold a list of operators. Which module of the original network
an operator belonged to is written beside it. The steps are run here one by one, and what a module gave
passes through a `Part` of the same name, so that hooks can read and replace it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from napari_xai_med.models.formats.facts import NetworkFacts

LARGEST_TENSOR = 2**33
"""Numbers in one tensor that a file may ask for; 32 GB, more than a classifier of images ever needs."""


def only_in_batches(batch: int | None) -> str:
    """Why a network's layers can't be had, if its file fixes a number of images."""
    return "" if batch in (None, 1) else f"it takes {batch} images at once"


@dataclass(frozen=True)
class Step:
    """One operator.

    Parameters
    ----------
    compute : callable
        Takes all values by name, and returns those it `writes`.
    reads, writes : tuple of str
        Names of values.
    inside : tuple of str
        Every call of a module that it is in, the outermost first; "@1" behind a name is its second call.
    kinds : tuple of str
        Class names of these modules.
    convolves : bool
        Whether it is a convolution.
    changes : str
        The value that it changes in place, or nothing.
    """

    compute: Callable[[Mapping[str, Any]], Sequence[Any]]
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    inside: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    convolves: bool = False
    changes: str = ""


class Part(nn.Module):
    """Stands for a module of the network that was exported: the values that it gave pass through here.

    Attributes
    ----------
    kind : str
        Name of the module's class.
    is_convolution : bool
    """

    def __init__(self, kind: str = "Module") -> None:
        super().__init__()
        self.kind = kind
        self.is_convolution = False

    def forward(self, value: Tensor) -> Tensor:
        """Give the value on, to hooks above all."""
        return value


@dataclass(frozen=True)
class _Exit:
    """A value that leaves a module after a step."""

    part: str
    value: str


class Program(nn.Module):
    """A network made of steps.

    Parameters
    ----------
    steps : sequence of Step
        In the order of execution.
    input_name : str
        The value that the image is.
    outputs : sequence of str
        The values that the network gives: a tensor for one, else a tuple.
    state : mapping of str to (str, Tensor)
        Weights by value, each with the dotted name that it gets here.
    constants : mapping
        Other values that are there from the start: numbers, and tensors that are no weights.
    batch : int, optional
        Number of images that the file fixes; None for any.
    facts : NetworkFacts
    """

    def __init__(
        self,
        steps: Sequence[Step],
        input_name: str,
        outputs: Sequence[str],
        *,
        state: Mapping[str, tuple[str, Tensor]],
        constants: Mapping[str, Any],
        batch: int | None,
        facts: NetworkFacts,
    ) -> None:
        super().__init__()
        self.facts, self.batch = facts, batch
        self.ending, self.endings = facts.ending, facts.endings
        steps = _needed(steps, outputs)
        self._steps, self._input, self._outputs = tuple(steps), input_name, tuple(outputs)
        self._constants = dict(constants)
        self._changed = {step.changes for step in steps if step.changes}
        last = {name: k for k, step in enumerate(steps) for name in step.reads} | dict.fromkeys(outputs, len(steps))
        self._forget = _by_step(len(steps), ((k, name) for name, k in last.items()))
        # Modules before weights: a weight that has a module's name is the one that gets another name.
        exits = self._make_parts(_exits(self._steps, last))
        self._exits: list[list[_Exit]] = _by_step(len(steps), exits)
        self._names = {value: self._place(name, tensor) for value, (name, tensor) in state.items()}
        self.eval()

    def _make_parts(self, exits: Sequence[tuple[int, _Exit]]) -> list[tuple[int, _Exit]]:
        """Make the parts that values leave through; the exits of those that could be made."""
        kinds = {
            path.split("@")[0]: kind for step in self._steps for path, kind in zip(step.inside, step.kinds, strict=True)
        }
        possible = []
        for k, found in exits:
            # A module that is called like something PyTorch's own have, such as "forward", is left out.
            with suppress(KeyError):
                self._part(found.part, kinds)
                possible.append((k, found))
        for step in self._steps:
            path = step.inside[-1].split("@")[0] if step.inside else ""
            if step.convolves and any(found.part == path and found.value in step.writes for _, found in possible):
                part = self.get_submodule(path)
                assert isinstance(part, Part)
                part.is_convolution = True
        return possible

    def _part(self, path: str, kinds: Mapping[str, str]) -> nn.Module:
        """The part at a dotted path, which is made if it is not there."""
        at: nn.Module = self
        names = path.split(".")
        for k, name in enumerate(names):
            if name not in at._modules:
                at.add_module(name, Part(kinds.get(".".join(names[: k + 1]), "Module")))
            at = at.get_submodule(name)
        return at

    def _place(self, dotted: str, tensor: Tensor) -> str:
        """Register a weight under its name, or under a number if that is taken; the name it got."""
        path, _, name = dotted.rpartition(".")
        try:
            owner = self._part(path, {}) if path else self
            if hasattr(owner, name):
                raise KeyError(name)
            _register(owner, name, tensor)
        except (KeyError, AttributeError):
            dotted = f"state_{sum(1 for _ in self.buffers()) + sum(1 for _ in self.parameters())}"
            _register(self, dotted, tensor)
        return dotted

    def forward(self, images: Tensor) -> Any:
        """What the network gives for images, shape (N, C, *spatial)."""
        self._check(images)
        if self.batch is None or len(images) == self.batch:
            return self._run(images)
        rows = [self._run(image.expand(self.batch, *image.shape)) for image in images]
        if isinstance(rows[0], tuple):
            return tuple(torch.cat([row[k][:1] for row in rows]) for k in range(len(rows[0])))
        return torch.cat([row[:1] for row in rows])

    def _check(self, images: Tensor) -> None:
        shape, fixed = tuple(images.shape[1:]), self.facts.input_shape
        fits = len(shape) == len(fixed) and all(b in (None, a) for a, b in zip(shape, fixed, strict=True))
        if not fits:
            wanted = ", ".join("any" if n is None else str(n) for n in fixed)
            raise ValueError(f"it was exported for images of shape ({wanted})")

    def _run(self, images: Tensor) -> Any:
        values = dict(self._constants)
        values |= {value: self._weight(name) for value, name in self._names.items()}
        values[self._input] = images
        for name in self._changed & values.keys():
            # Statistics that a network keeps stay as they are, and so do the caller's images.
            values[name] = values[name].clone()
        for step, exits, forget in zip(self._steps, self._exits, self._forget, strict=True):
            values |= dict(zip(step.writes, step.compute(values), strict=True))
            for found in exits:
                if isinstance(values[found.value], Tensor):
                    values[found.value] = self.get_submodule(found.part)(values[found.value])
            for name in forget:
                values.pop(name, None)
        # Under another identity: what the outputs end in has been read from the file, and need not be seen again.
        results = tuple(torch.ops.aten.alias(values[name]) for name in self._outputs)
        return results[0] if len(results) == 1 else results

    def _weight(self, dotted: str) -> Any:
        path, _, name = dotted.rpartition(".")
        return getattr(self.get_submodule(path), name)


def _needed(steps: Sequence[Step], outputs: Sequence[str]) -> list[Step]:
    """The steps that outputs depend on, and those that change a value in place."""
    needed, kept = set(outputs), []
    for step in reversed(steps):
        if step.changes or not needed.isdisjoint(step.writes):
            kept.append(step)
            needed.update(step.reads)
    return kept[::-1]


def _register(owner: nn.Module, name: str, tensor: Tensor) -> None:
    if isinstance(tensor, nn.Parameter):
        owner.register_parameter(name, tensor)
    else:
        owner.register_buffer(name, tensor)


def _by_step(count: int, items: Any) -> list[list[Any]]:
    lists: list[list[Any]] = [[] for _ in range(count)]
    for k, item in items:
        if k < count:
            lists[k].append(item)
    return lists


def _exits(steps: Sequence[Step], last: Mapping[str, int]) -> list[tuple[int, _Exit]]:
    """Every call of a module that gives one value, with the step after which it does; the innermost first."""
    found: list[tuple[int, _Exit]] = []
    opened: list[tuple[str, int]] = []
    for k in range(len(steps) + 1):
        inside = steps[k].inside if k < len(steps) else ()
        common = 0
        while common < min(len(inside), len(opened)) and opened[common][0] == inside[common]:
            common += 1
        while len(opened) > common:
            path, first = opened.pop()
            values = [name for step in steps[first:k] for name in step.writes if last.get(name, -1) >= k]
            # With several values nobody can tell which of them hooks would be about.
            if len(values) == 1:
                found.append((k - 1, _Exit(path.split("@")[0], values[0])))
        opened.extend((path, k) for path in inside[common:])
    return found
