"""Weights without a network: state dicts of PyTorch, and safetensors."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from napari_xai_med.errors import ModelError, one_line, told_as
from napari_xai_med.models.archives import check_swelling
from napari_xai_med.models.formats.base import Gives, NetworkFormat, register

if TYPE_CHECKING:
    from torch import nn


@register
class StateDict(NetworkFormat):
    """A state dict written by ``torch.save``; only tensors are read, never code."""

    name: ClassVar[str] = "state dict"
    suffixes: ClassVar[tuple[str, ...]] = (".pt", ".pth")
    gives: ClassVar[frozenset[Gives]] = frozenset(Gives)
    has_architecture: ClassVar[bool] = False

    def load(self, path: Path, architecture: Callable[[], nn.Module]) -> nn.Module:
        """Build the network and put the weights in; see `NetworkFormat`."""
        advice = "save it with torch.save(network.state_dict(), ...)"
        with told_as(ModelError, f"{path} is not a plain state dict: {advice}"):
            if zipfile.is_zipfile(path):
                with zipfile.ZipFile(path) as archive:
                    check_swelling(archive, path)
            state = torch.load(path, map_location="cpu", weights_only=True)
        return fill(architecture(), _innermost(state), path)


def _innermost(state: Any) -> Any:
    """The state dict itself where it lies in a checkpoint beside other things."""
    for key in ("state_dict", "model", "net"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            return state[key]
    return state


def fill(network: nn.Module, state: Any, path: Path) -> nn.Module:
    """Put weights into a network; a `ModelError` if they do not fit."""
    if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
        raise ModelError(f"{path} is not a plain state dict: save it with torch.save(network.state_dict(), ...).")
    try:
        network.load_state_dict(state)
    except Exception as error:  # values that are no tensors fail anywhere
        # The first line names the network, the second what is wrong.
        reason = one_line(ValueError(" ".join(str(error).splitlines()[:2])))
        raise ModelError(f"The weights in {path} do not fit the network: {reason}.") from error
    return network


@register
class SafeTensors(NetworkFormat):
    """Weights in Hugging Face's safetensors format, which holds nothing but numbers."""

    name: ClassVar[str] = "safetensors"
    suffixes: ClassVar[tuple[str, ...]] = (".safetensors",)
    gives: ClassVar[frozenset[Gives]] = frozenset(Gives)
    has_architecture: ClassVar[bool] = False

    def load(self, path: Path, architecture: Callable[[], nn.Module]) -> nn.Module:
        """Build the network and put the weights in; see `NetworkFormat`."""
        try:
            from safetensors.torch import load_file
        except ImportError as error:
            raise ModelError(f"{path.name} needs the package safetensors: pip install safetensors.") from error
        with told_as(ModelError, f"{path} is not a safetensors file: {{}}"):
            state = load_file(path)
        return fill(architecture(), state, path)
