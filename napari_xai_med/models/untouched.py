"""Leave a network as it came: modes, weights, buffers and the random state, also after an error."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

_READING = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@contextmanager
def untouched(network: nn.Module) -> Iterator[Mapping[str, nn.Module]]:
    """Put a network in eval mode, and afterwards every module's own mode and the random state back.

    Random numbers drawn inside always start from the same state. Gives the modules by name, since walking through
    hundreds of them takes time.
    """
    modules = dict(network.named_modules())
    modes = {name: module.training for name, module in modules.items()}
    with torch.random.fork_rng(enabled=True):
        restart_random()
        try:
            if any(modes.values()):
                network.eval()
            yield modules
        finally:
            for name, module in modules.items():
                if module.training != modes[name]:
                    module.training = modes[name]


def restart_random() -> None:
    """Let random numbers start from the same state, on all devices in use.

    `torch.manual_seed` also leaves a note for a CUDA that was never started, with the stack of its caller: that takes
    a millisecond, and the notes are kept.
    """
    torch.default_generator.manual_seed(0)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(0)
    if torch.backends.mps.is_available():
        torch.mps.manual_seed(0)


@contextmanager
def constant_weights(modules: Mapping[str, nn.Module]) -> Iterator[Callable[[], None]]:
    """Let no gradient be kept for weights, and put them and the buffers back as they were.

    Gives a function that puts the buffers back already inside, between two passes.

    Exchanging each of them for a detached one, as `torch.func.functional_call` does, takes longer than a small
    network itself; that is left to weights for which nothing else works.
    """
    if is_scripted(modules):
        # Its weights can't be exchanged; its loader has made constants of them.
        yield lambda: None
        return
    groups = [group for module in modules.values() for group in (module._parameters, module._buffers) if group]
    tensors = [value for group in groups for value in group.values() if value is not None]
    # Batch normalisation reads its statistics only, in eval mode; who knows what classes made of it do.
    changing = [module._buffers for module in modules.values() if type(module) not in _READING and module._buffers]
    if any(value.is_inference() or not value.is_leaf for value in tensors):
        with _exchanged(groups), _kept(changing) as restore:
            yield restore
        return
    learning = [value for value in tensors if value.requires_grad]
    with _kept(changing) as restore:
        try:
            for value in learning:
                value.requires_grad_(False)
            yield restore
        finally:
            for value in learning:
                value.requires_grad_(True)


@contextmanager
def _exchanged(groups: list[Any]) -> Iterator[None]:
    """Constants in place of weights that autograd can't keep, such as those made in inference mode."""
    before = [dict(group) for group in groups]
    made: dict[int, Tensor] = {}
    try:
        for group in groups:
            for name, value in group.items():
                if value is not None:
                    # A copy of buffers as well, which a network may change when it runs.
                    own = value.is_inference() or not isinstance(value, nn.Parameter)
                    constant = value.clone().detach() if own else value.detach()
                    # Modules that share a weight share its constant.
                    group[name] = made.setdefault(id(value), constant)
        yield
    finally:
        for group, values in zip(groups, before, strict=True):
            group.clear()
            group.update(values)


@contextmanager
def _kept(groups: list[Any]) -> Iterator[Callable[[], None]]:
    """Put buffers back that a network changes when it runs, such as a count of its calls."""
    before = [dict(group) for group in groups]
    copies = [
        (value, value._version, value.clone()) for group in before for value in group.values() if value is not None
    ]

    def restore() -> None:
        for group, kept in zip(groups, before, strict=True):
            if len(group) != len(kept) or any(group.get(name) is not value for name, value in kept.items()):
                group.clear()
                group.update(kept)
        with torch.no_grad():
            for k, (value, version, copy) in enumerate(copies):
                if value._version != version:
                    value.copy_(copy)
                    # Which counts as one more change.
                    copies[k] = (value, value._version, copy)

    try:
        yield restore
    finally:
        restore()


def is_scripted(modules: Mapping[str, nn.Module]) -> bool:
    """Whether one of a network's modules is TorchScript, whose inside is out of reach."""
    return any(isinstance(module, torch.jit.ScriptModule) for module in modules.values())
