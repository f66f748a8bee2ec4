"""Refuse tensors that fit no memory before they are made.

A few letters in a file can ask for any size, of a network's weights or of what it computes. What PyTorch would
allocate is found out first, on its device "meta", which knows shapes and holds no numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from napari_xai_med.errors import ModelError

_IMAGE = (
    "The network asks for {:.0e} numbers at once, more than this image has any use for; "
    "get the file again from its author."
)
_WEIGHTS = (
    "The weights do not fit the network, which asks for {:.0e} numbers at once, more than they have; "
    "give it the weights that were trained in it."
)

SMALL = 2**28
"""Numbers that any tensor may have: 1 GB of floats."""

_TIMES = 1024
"""How many times the image's numbers a feature map may have: 64 channels of twice the length along each axis, twice."""


class SizeGuard(TorchDispatchMode):
    """While active, a tensor with more numbers than allowed is refused with a `ModelError`.

    Parameters
    ----------
    largest : int
        Numbers that one tensor may have.
    refusal : str
        What is said, with a place for the number.
    in_all : int, optional
        Numbers that all tensors may have that are not made of others, such as new weights.
    """

    def __init__(self, largest: int, refusal: str = _IMAGE, in_all: int | None = None) -> None:
        super().__init__()
        self._largest, self._sentence, self._left = largest, refusal, in_all
        self._refusal: ModelError | None = None

    @classmethod
    def for_image(cls, numbers: int) -> SizeGuard:
        """The guard of a network that is asked about an image with so many numbers."""
        return cls(max(SMALL, _TIMES * numbers))

    @classmethod
    def for_weights(cls, stored: int) -> SizeGuard:
        """The guard of a network that is built for weights which take so many bytes."""
        # A number takes a byte at least; building also makes tensors that are not stored, such as tables of places.
        return cls(SMALL, _WEIGHTS, max(2 * stored, 2**24))

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Call an operator, if its result is not too large."""
        kwargs = kwargs or {}
        # What watches functions of PyTorch has seen this one, with its gradient, which is out of sight here.
        with torch._C.DisableTorchFunction():
            numbers = _known(function, args, kwargs)
            self._check(numbers)
            if self._left is not None and not any(True for _ in _tensors((args, kwargs))):
                self._left -= numbers
                self._check(numbers, self._left < 0)
            return function(*args, **kwargs)

    def _check(self, numbers: int, too_many: bool = False) -> None:
        if too_many or numbers > self._largest:
            self._refusal = ModelError(self._sentence.format(numbers))
            raise self._refusal

    def __exit__(self, *error: Any) -> None:
        """Give the refusal on as it was: TorchScript's interpreter makes another error of it."""
        super().__exit__(*error)
        if self._refusal is not None and error[1] is not self._refusal:
            raise self._refusal


_passed: WeakKeyDictionary[torch.nn.Module, set[tuple[int, ...]]] = WeakKeyDictionary()
"""Shapes of inputs that networks were asked about with nothing to refuse."""


@contextmanager
def guarded(network: torch.nn.Module, shape: tuple[int, ...], *, always: bool) -> Iterator[None]:
    """Guard a pass through a network; only the first for each shape of its input, since small networks feel it.

    Always, if code that came with the network may decide by the image what is computed.
    """
    passed = _passed.setdefault(network, set())
    if shape in passed and not always:
        yield
        return
    with SizeGuard.for_image(math.prod(shape)):
        yield
    passed.add(shape)


_MOST_KNOWN = 10_000
_sizes: dict[Any, int] = {}
"""What operators give, by what they are given: finding out takes longer than some of them."""


def _known(function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int:
    if function is torch.ops.aten.repeat_interleave.Tensor:
        # What it gives depends on values.
        return int(args[0].sum()) if args[0].device.type != "meta" else 0
    key = (function, _described(args), _described(kwargs))
    try:
        found = _sizes.get(key)
    except TypeError:
        return _numbers_of(function, args, kwargs)
    if found is None:
        if len(_sizes) > _MOST_KNOWN:
            _sizes.clear()
        found = _sizes[key] = _numbers_of(function, args, kwargs)
    return found


def _described(value: Any) -> Any:
    """Arguments with the shapes of tensors in their place."""
    if isinstance(value, Tensor):
        return (value.shape, value.dtype)
    if isinstance(value, list | tuple):
        return tuple(map(_described, value))
    return tuple((key, _described(part)) for key, part in value.items()) if isinstance(value, Mapping) else value


def _numbers_of(function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int:
    """Numbers in the largest tensor that an operator would give."""
    on_meta = _changed(kwargs, _as_meta)
    # Also where it is left out, which for TorchScript is the processor.
    if any(argument.name == "device" for argument in function._schema.arguments):
        on_meta["device"] = torch.device("meta")
    try:
        result = function(*_changed(args, _as_meta), **on_meta)
    except Exception:  # noqa: BLE001  # what has no shape before it is computed is not larger than what it is made of
        return 0
    return max((math.prod(tensor.shape) for tensor in _tensors(result)), default=0)


def _as_meta(tensor: Tensor) -> Tensor:
    if tensor.device.type == "meta":
        return tensor
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")


def _changed(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same lists and dicts with other tensors in them."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, list | tuple):
        return type(value)([_changed(part, change) for part in value])
    return {key: _changed(part, change) for key, part in value.items()} if isinstance(value, Mapping) else value


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _tensors(part)
    elif isinstance(value, Mapping):
        yield from _tensors(list(value.values()))
