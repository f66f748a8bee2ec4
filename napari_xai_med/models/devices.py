"""Where a network runs: the processor, or an accelerator."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

from napari_xai_med.errors import InputError

AUTO = "auto"
Result = TypeVar("Result")

_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


def devices() -> tuple[str, ...]:
    """Names of the devices that this machine has, the fastest first."""
    cuda = [f"cuda:{k}" for k in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    mps = ["mps"] if torch.backends.mps.is_available() else []
    return (*cuda, *mps, "cpu")


def pick(name: str = AUTO) -> torch.device:
    """The device of a name; the fastest one for ``"auto"``.

    Raises
    ------
    InputError
        If this machine has no such device.
    """
    known = devices()
    if name == AUTO:
        return torch.device(known[0])
    if name not in known and f"{name}:0" not in known:
        raise InputError(f"This machine has no device {name!r}; choose one of {', '.join((AUTO, *known))}.")
    return torch.device(name)


def describe(device: torch.device) -> str:
    """A device's name, for records and people."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return str(device)


def free_memory() -> None:
    """Give back what an accelerator's allocator keeps for later."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device's memory was not enough."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _OUT_OF_MEMORY)


def in_batches(
    inputs: torch.Tensor, size: int, compute: Callable[[torch.Tensor], Result], smaller: Callable[[int], None]
) -> list[Result]:
    """Compute something for a batch in parts, and in smaller ones when the memory is not enough.

    Parameters
    ----------
    inputs : Tensor, shape (N, ...)
    size : int
        How many at once.
    compute : callable
        Of a part of the batch.
    smaller : callable
        Told the new size when the memory was not enough.

    Returns
    -------
    list
        What `compute` returned, in order.

    Raises
    ------
    RuntimeError
        If a single one does not fit.
    """
    results: list[Result] = []
    done = 0
    while done < len(inputs):
        try:
            results.append(compute(inputs[done : done + size]))
            done += size
        except RuntimeError as error:
            if size == 1 or not is_out_of_memory(error):
                raise
            size = -(-size // 2)
            free_memory()
            smaller(size)
    return results
