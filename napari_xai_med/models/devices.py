"""Where a network runs: the processor, or an accelerator."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from io import BytesIO
from typing import Any, TypeVar

import psutil
import torch
from torch import nn

from napari_xai_med.errors import InputError

AUTO = "auto"
Result = TypeVar("Result")

_OUT_OF_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "Failed to allocate memory",
    "bad_alloc",
)
_NO_DOUBLE = "doesn't support float64"


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


def free_bytes(device: torch.device) -> int:
    """Memory of a device that can be used now, in bytes."""
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    return int(psutil.virtual_memory().available)


def copy_on(network: nn.Module, device: str | torch.device) -> nn.Module:
    """A copy of a network on a device. What it was copied from stays as it is, and is not copied where it is first."""
    copies: dict[int, Any] = {}
    scripted: tuple[str, ...] = ()
    for name, module in network.named_modules():
        if name.startswith(scripted):
            continue
        if isinstance(module, torch.jit.ScriptModule):
            # Its weights are out of reach of a copy.
            scripted = (*scripted, f"{name}." if name else "")
            copies[id(module)] = _scripted_on(module, device)
            continue
        with torch.no_grad():
            for value in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
                moved = value.to(device, copy=True)
                parameter = isinstance(value, nn.Parameter)
                copies[id(value)] = nn.Parameter(moved, value.requires_grad) if parameter else moved
    # A network that makes its copy by itself may make it elsewhere.
    return deepcopy(network, copies).to(device)


def _scripted_on(module: Any, device: str | torch.device) -> Any:
    content = BytesIO()
    torch.jit.save(module, content)
    content.seek(0)
    copy: Any = torch.jit.load(content, map_location=device)
    for new, old in zip(copy.parameters(), module.parameters(), strict=True):
        new.requires_grad_(old.requires_grad)
    return copy


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device's memory was not enough."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _OUT_OF_MEMORY)


def is_lacking(error: BaseException, device: torch.device) -> bool:
    """Whether an error says that an accelerator lacks an operator, or a type of numbers, that the processor has."""
    return device.type != "cpu" and (isinstance(error, NotImplementedError) or _NO_DOUBLE in str(error))


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
    RuntimeError, MemoryError
        If a single one does not fit.
    """
    results: list[Result] = []
    done = 0
    while done < len(inputs):
        try:
            results.append(compute(inputs[done : done + size]))
            done += size
        except (RuntimeError, MemoryError) as error:
            if size == 1 or not is_out_of_memory(error):
                raise
            size = -(-size // 2)
            free_memory()
            smaller(size)
    return results
