"""TorchScript: a network with its weights, in a language that can compute and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from napari_xai_med.errors import ModelError
from napari_xai_med.models.endings import logits_of
from napari_xai_med.models.formats.base import Gives, NetworkFormat, register

if TYPE_CHECKING:
    from torch import Tensor, nn


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
        ending = _ending(network)
        return _BeforeEnding(network, ending) if ending else network


def _ending(network: Any) -> str:
    """The function that the network ends in, if that is sigmoid or softmax."""
    outputs = list(network.inlined_graph.outputs())
    kind = outputs[0].node().kind() if len(outputs) == 1 else ""
    return {"aten::sigmoid": "sigmoid", "aten::softmax": "softmax"}.get(kind, "")


class _BeforeEnding(torch.nn.Module):
    """A network that ends in sigmoid or softmax, giving the logits that its probabilities stand for."""

    def __init__(self, network: nn.Module, ending: str) -> None:
        super().__init__()
        self.network, self.ending = network, ending

    def forward(self, x: Tensor) -> Tensor:
        """Logits, shape (N, number of logits)."""
        return logits_of(self.network(x), self.ending)
