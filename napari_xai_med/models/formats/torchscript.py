"""TorchScript: a network with its weights, in a language that can compute and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import torch

from napari_xai_med.errors import ModelError
from napari_xai_med.models.formats.base import Gives, NetworkFormat, register

if TYPE_CHECKING:
    from torch import nn


@register
class TorchScript(NetworkFormat):
    """A scripted or traced network. Its layers run inside the interpreter, out of reach of hooks."""

    name: ClassVar[str] = "TorchScript"
    suffixes: ClassVar[tuple[str, ...]] = (".ts",)
    gives: ClassVar[frozenset[Gives]] = frozenset({Gives.GRADIENTS})
    has_architecture: ClassVar[bool] = True

    def load(self, path: Path, architecture: Callable[[], nn.Module]) -> nn.Module:  # noqa: ARG002  # it is in the file
        """Load the network; see `NetworkFormat`."""
        try:
            network: nn.Module = torch.jit.load(path, map_location="cpu")
        except (RuntimeError, ValueError, OSError) as error:
            raise ModelError(f"{path} is not a TorchScript file; save it with torch.jit.save.") from error
        # Nobody else has this network, and its weights can't be swapped for constants as others can.
        for weight in network.parameters():
            weight.requires_grad_(False)
        return network
