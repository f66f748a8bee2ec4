"""Networks that end in sigmoid or softmax, explained before it.

Behind these functions a sure network's gradient vanishes, and a head that applies them again gives wrong
probabilities. Which function a network ends in is not read from its code but seen while it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode, handle_torch_function, has_torch_function_unary
from torch.utils.weak import WeakTensorKeyDictionary

_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "softmax": lambda values: values.softmax(1),
    "log_softmax": lambda values: values.log_softmax(1),
}
_NAMES = {name: name for name in _FUNCTIONS} | {"expit": "sigmoid"}
_THEN = {("log_softmax", "exp"): "softmax", ("softmax", "log"): "log_softmax"}
_SHAPING = frozenset(
    (
        *("squeeze", "unsqueeze", "flatten", "unflatten", "ravel", "view", "view_as", "reshape", "reshape_as"),
        *("permute", "transpose", "movedim", "expand", "expand_as", "unsafe_view", "contiguous", "clone", "alias"),
        *("getitem", "select", "slice", "narrow", "dropout"),
        *("to", "to_copy", "type", "type_as", "half", "bfloat16", "float", "double", "cpu", "cuda"),
    )
)
"""Functions that leave values as they are, and give some of them, in another shape or type."""
_CLAMPING = frozenset(("clamp", "clip", "clamp_min", "clamp_max"))
_JOINING = frozenset(("cat", "concat", "concatenate", "stack", "hstack", "vstack", "column_stack"))

_MOST_COMPARED = 10_000
"""Voxels at which it is checked whether an ending is over the classes; a segmentation has millions."""

_ENOUGH = 8
"""Different numbers between 0 and 1, and none outside, from which on a sigmoid is likely."""

_ELSEWHERE = (
    "The network of {} ends in a {} that is not over its classes; its outputs were taken as they are: let it end in "
    "one over axis 1, or in none."
)
_TWICE = (
    "The network of {} ends in a {} of what is a probability already, and hardly tells classes apart; take one of the "
    "two off."
)
_UNSEEN = (
    "All outputs of {} so far {}, as if it ended in a {} that was not recognised, and its probabilities may be wrong: "
    "let it end in torch.{}, or in none."
)


@dataclass(frozen=True)
class Ended:
    """A network's output, and what it was before the function that the network ends in.

    Parameters
    ----------
    output : Tensor, shape (N, number of outputs, *further)
        What the network gives.
    logits : Tensor, shape of `output`
        The same before its ending.
    ending : str
        "sigmoid" or "softmax"; empty if it ends in none.
    replaced : bool
        Whether a hook has replaced the output at the ending, or behind it.
    elsewhere : str
        The ending that was seen, if it is not over the classes and so is none.
    twice : bool
        Whether `logits` are probabilities already.
    normalised : bool
        Whether `logits` were told from the probabilities of a softmax, so that those of different images differ from
        the network's own by different numbers and can't be compared.
    """

    output: Tensor
    logits: Tensor
    ending: str = ""
    replaced: bool = False
    elsewhere: str = ""
    twice: bool = False
    normalised: bool = False

    def in_float(self) -> Ended:
        """The same in float32 at least: sums and probabilities of half precision tell little."""
        if self.output.dtype.itemsize >= 4:
            return self
        return replace(self, output=self.output.float(), logits=self.logits.float())

    @classmethod
    def without(cls, logits: Tensor, ending: str) -> Ended:
        """Logits of a network whose ending was taken off when it was loaded."""
        return cls(_FUNCTIONS[ending](logits) if ending else logits, logits, ending)

    def notices(self, name: str) -> tuple[str, ...]:
        """What the user of the network of that name should know."""
        elsewhere = (_ELSEWHERE.format(name, self.elsewhere),) if self.elsewhere else ()
        return (*elsewhere, _TWICE.format(name, self.ending)) if self.twice else elsewhere


@dataclass(frozen=True)
class _Seen:
    """What is known of a tensor: what it was before a function, and both tensors' versions when it came out."""

    before: Tensor
    kind: str
    versions: tuple[int, int]
    over_classes: bool = True
    replaced: bool = False
    twice: bool = False
    normalised: bool = False

    @classmethod
    def of(cls, result: Tensor, before: Tensor, kind: str, **others: bool) -> _Seen:
        return cls(before, kind, (_version(result), _version(before)), **others)

    def then(self, result: Tensor, before: Tensor, kind: str) -> _Seen:
        """What is known of a tensor that was made of this one."""
        return replace(self, before=before, kind=kind, versions=(_version(result), _version(before)))


def _version(values: Tensor) -> int:
    """How often a tensor was changed in place; tensors of the inference mode do not count that."""
    return 0 if values.is_inference() else values._version


_without: WeakKeyDictionary[nn.Module, set[Any]] = WeakKeyDictionary()
"""Modules of networks, and shapes of inputs, for which nothing was seen."""


class Endings(TorchFunctionMode):
    """While active, remembers what went into every sigmoid and softmax, as long as what came out is in use."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: Any = WeakTensorKeyDictionary()
        self._found = False

    @contextmanager
    def watching(self, network: nn.Module, settings: Hashable, shape: tuple[int, ...]) -> Iterator[None]:
        """Be active, unless a pass through the same modules with an input of this shape had none of these functions.

        Watching takes some microseconds for each function that a network calls, and many call hundreds. The same
        modules are those with the same `settings_of`.
        """
        key = (shape, settings)
        if key in _without.get(network, ()):
            yield
            return
        with self:
            yield
        if not self._found:
            _without.setdefault(network, set()).add(key)

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call the function, and remember its input if its output may be the network's."""
        kwargs = kwargs or {}
        if function is ended_in:
            self._found = True
            values, kind = args
            self._seen[values] = _Seen.of(values, logits_of(values, kind), kind, normalised=kind != "sigmoid")
            return values
        name, plain = _names_of(function)
        if not (len(self._seen) or plain in _NAMES):
            return function(*args, **kwargs)
        values = args[0] if args else kwargs.get("input", kwargs.get("self", kwargs.get("tensors")))
        if plain in _JOINING and isinstance(values, tuple | list):
            return self._joined(function, values, args, kwargs)
        known = self._known(values)
        if not isinstance(values, Tensor) or (plain not in _NAMES and known is None):
            return function(*args, **kwargs)
        kept = values.clone() if name == f"{plain}_" and plain in _NAMES else values
        result = function(*args, **kwargs)
        if plain in _NAMES:
            self._found = True
            over = _over_classes(_NAMES[plain], values, args, kwargs)
            twice = known is not None and known.kind != "log_softmax"
            self._seen[result] = _Seen.of(result, kept, _NAMES[plain], over_classes=over, twice=twice)
        elif known is not None and isinstance(result, Tensor):
            if (known.kind, plain) in _THEN:
                self._seen[result] = known.then(result, known.before, _THEN[known.kind, plain])
            elif plain in _SHAPING:
                before = known.before.clone() if name == f"{plain}_" else known.before
                before = again(function, before, args, kwargs)
                self._seen[result] = known.then(result, before, known.kind)
            elif plain in _CLAMPING:
                self._seen[result] = known.then(result, known.before, known.kind)
        return result

    def _joined(
        self, function: Callable[..., Any], values: Sequence[Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Join tensors; if all of them ended in the same function, what comes out does so too."""
        result = function(*args, **kwargs)
        parts = [known for known in map(self._known, values) if known is not None]
        if len(parts) == len(values) and len({known.kind for known in parts}) == 1:
            before = again(function, [known.before for known in parts], args, kwargs)
            flags = {
                "over_classes": all(known.over_classes for known in parts),
                "replaced": any(known.replaced for known in parts),
                "twice": any(known.twice for known in parts),
                "normalised": any(known.normalised for known in parts),
            }
            self._seen[result] = _Seen.of(result, before, parts[0].kind, **flags)
        return result

    def _known(self, values: Any) -> _Seen | None:
        """What is known of a tensor that was not changed since."""
        seen: _Seen | None = self._seen.get(values) if isinstance(values, Tensor) else None
        if seen is None or seen.versions[0] != _version(values):
            return None
        if seen.versions[1] != _version(seen.before):
            # What went in was changed afterwards; what came out still tells of it.
            told = seen.then(values, logits_of(values, seen.kind), seen.kind)
            return replace(told, normalised=seen.kind != "sigmoid")
        return seen

    def replace(self, output: Tensor, by: Tensor) -> Tensor:
        """Take a tensor for another one that a hook puts in its place, and give that back."""
        known = None if by is output else self._known(output)
        if known is not None:
            self._seen[by] = replace(known.then(by, known.before, known.kind), replaced=True)
        return by

    def end_of(self, output: Tensor) -> Ended:
        """What the network's output was before its ending, if it has one over the classes."""
        seen = self._known(output)
        if seen is None:
            return Ended(output, output)
        ending = seen.kind.removeprefix("log_")
        if seen.replaced:
            return Ended(output, output, ending, replaced=True)
        if _is(output, seen.before, seen.kind):
            return Ended(output, seen.before, ending, twice=seen.twice, normalised=seen.normalised)
        one = seen.kind == "softmax" and seen.over_classes and output.shape[1:].numel() == 1
        if one or (seen.kind == "sigmoid" and output.is_floating_point()):
            # One class of several: against all others it is as behind a sigmoid. A sigmoid is another one only where
            # much of it was clamped, and the network's own probabilities are the clamped ones.
            return Ended(output, logits_of(output, "sigmoid"), "sigmoid")
        return Ended(output, output, elsewhere=ending)


def settings_of(modules: Mapping[str, nn.Module]) -> Hashable:
    """A network's modules, and what those of others keep, such as whether they are to give probabilities."""
    kept = [_settings(module) for module in modules.values() if not type(module).__module__.startswith("torch.nn.")]
    return (tuple(map(id, modules.values())), tuple(kept))


def _settings(module: nn.Module) -> tuple[tuple[str, Any], ...]:
    return tuple((name, value) for name, value in vars(module).items() if type(value) in (bool, int, float, str))


@lru_cache(maxsize=1000)
def _names_of(function: Callable[..., Any]) -> tuple[str, str]:
    """A function's name, and the same without what tells that it works in place."""
    # Operators of exported programs are called sigmoid.default, those that work in place sigmoid_.
    name = str(getattr(function, "__name__", "")).split(".")[0].removeprefix("special_")
    return name, name.strip("_")


def _over_classes(kind: str, values: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    axis = args[1] if len(args) > 1 else kwargs.get("dim")
    return kind == "sigmoid" or axis in (1, 1 - values.ndim)


def again(
    function: Callable[..., Any], values: Tensor | list[Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Tensor:
    """The same call of a function with other values as its first argument."""
    if args:
        args = (values, *args[1:])
    else:
        kwargs = kwargs | {next(name for name in ("input", "tensors", "self") if name in kwargs): values}
    result: Tensor = function(*args, **kwargs)
    return result


def _is(output: Tensor, before: Tensor, kind: str) -> bool:
    """Whether an output is a function of what was before, over the classes."""
    if kind != "sigmoid" and output.ndim < 2:
        return False
    with torch.no_grad():
        parts = [values.flatten(2) if values.ndim > 2 else values for values in (output, before)]
        if output.ndim > 2:
            parts = [values[..., :: 1 + values.shape[2] // _MOST_COMPARED] for values in parts]
        found = _FUNCTIONS[kind](parts[1].float())
        # As exact as half precision.
        return torch.allclose(parts[0].float(), found, rtol=1e-3, atol=1e-3, equal_nan=True)


def ended_in(values: Tensor, kind: str) -> Tensor:
    """Say of a network's output that it ends in a function whose input is out of reach; returns the output.

    Parameters
    ----------
    values : Tensor, shape (N, number of outputs, *further)
    kind : {"sigmoid", "softmax", "log_softmax"}
    """
    if has_torch_function_unary(values):
        told: Tensor = handle_torch_function(ended_in, (values,), values, kind)
        return told
    return values


def logits_of(values: Tensor, kind: str) -> Tensor:
    """Logits that give these values, where what was before the last function is out of reach.

    Parameters
    ----------
    values : Tensor
        Behind the function.
    kind : {"sigmoid", "softmax", "log_softmax"}
    """
    tiny = torch.finfo(values.dtype).eps
    if kind == "sigmoid":
        return values.logit(tiny)
    return values.clamp(min=tiny).log() if kind == "softmax" else values


class Range:
    """The numbers that a network gave so far, and what they say about its ending."""

    def __init__(self) -> None:
        self._numbers: set[float] = set()
        self._inside, self._sums = True, True

    @property
    def inside(self) -> bool:
        """Whether none of them lay outside 0 to 1."""
        return self._inside

    def note(self, outputs: Tensor) -> None:
        """Look at outputs for which no ending was found, shape (N, number of outputs, *further)."""
        values = outputs.detach()
        self._inside = self._inside and float(values.min()) >= 0 and float(values.max()) <= 1
        several = values.ndim > 1 and values.shape[1] > 1
        self._sums = self._inside and self._sums and several and bool(((values.sum(1) - 1).abs() < 1e-4).all())
        if self._inside:
            self._numbers |= set(values.flatten()[:_ENOUGH].tolist())

    def notices(self, name: str) -> tuple[str, ...]:
        """A sentence if a network of that name seems to end in a function that was not recognised."""
        if self._sums and self._numbers:
            return (_UNSEEN.format(name, "sum to 1", "softmax", "softmax"),)
        if self._inside and len(self._numbers) >= _ENOUGH:
            return (_UNSEEN.format(name, "lie between 0 and 1", "sigmoid", "sigmoid"),)
        return ()
