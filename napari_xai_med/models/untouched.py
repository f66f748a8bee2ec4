"""Leave a network as it came: modes, weights, buffers and the random state, also after an error."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from napari_xai_med.models.size_guard import guarded

_READING = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@contextmanager
def untouched(network: nn.Module, shape: tuple[int, ...]) -> Iterator[Mapping[str, nn.Module]]:
    """Put a network in eval mode, and afterwards every module's own mode and the random state back.

    What it computes may not be much larger than its input, which has this shape; see `guarded`.
    Random numbers drawn inside always start from the same state, so that a network which samples in eval
    mode answers the same way twice. Gives the modules by name, since walking through hundreds of them takes time.
    """
    modules = dict(network.named_modules())
    modes = {name: module.training for name, module in modules.items()}
    with torch.random.fork_rng(enabled=True), guarded(network, shape, always=is_scripted(modules)):
        torch.manual_seed(0)
        try:
            if any(modes.values()):
                network.eval()
            yield modules
        finally:
            for name, module in modules.items():
                if module.training != modes[name]:
                    module.training = modes[name]


@contextmanager
def constant_weights(modules: Mapping[str, nn.Module]) -> Iterator[None]:
    """Let no gradient be kept for weights, and put them and the buffers back as they were.

    Exchanging each of them for a detached one, as `torch.func.functional_call` does, takes longer than a small
    network itself; that is left to weights for which nothing else works.
    """
    if is_scripted(modules):
        # Its weights can't be exchanged; its loader has made constants of them.
        yield
        return
    groups = [group for module in modules.values() for group in (module._parameters, module._buffers) if group]
    tensors = [value for group in groups for value in group.values() if value is not None]
    if any(value.is_inference() or not value.is_leaf for value in tensors):
        with _exchanged(groups):
            yield
        return
    learning = [value for value in tensors if value.requires_grad]
    # Batch normalisation reads its statistics only, in eval mode; who knows what classes made of it do.
    others = [module for module in modules.values() if type(module) not in _READING]
    with _kept([module._buffers for module in others if module._buffers]):
        try:
            for value in learning:
                value.requires_grad_(False)
            yield
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
def _kept(groups: list[Any]) -> Iterator[None]:
    """Put buffers back that a network changes when it runs, such as a count of its calls."""
    before = [dict(group) for group in groups]
    copies = [
        (value, value._version, value.clone()) for group in before for value in group.values() if value is not None
    ]
    try:
        yield
    finally:
        for group, kept in zip(groups, before, strict=True):
            group.clear()
            group.update(kept)
        with torch.no_grad():
            for value, version, copy in copies:
                if value._version != version:
                    value.copy_(copy)


def is_scripted(modules: Mapping[str, nn.Module]) -> bool:
    """Whether one of a network's modules is TorchScript, whose inside is out of reach."""
    return any(isinstance(module, torch.jit.ScriptModule) for module in modules.values())
