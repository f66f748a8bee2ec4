"""TorchScript: a network with its weights, in a language that can compute and nothing else."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from napari_xai_med.errors import ModelError, told_as
from napari_xai_med.models.archives import check_archive
from napari_xai_med.models.endings import logits_of
from napari_xai_med.models.formats.base import Gives, NetworkFormat, register
from napari_xai_med.models.script_check import check_code, check_tensors, records_in

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
        with told_as(ModelError, f"{path} is not a TorchScript file: save it with torch.jit.save"):
            network: nn.Module = torch.jit.load(_checked(path), map_location="cpu")
        # Nobody else has this network, and its weights can't be swapped for constants as others can.
        for weight in network.parameters():
            weight.requires_grad_(False)
        ending = _ending(network)
        return _BeforeEnding(network, ending) if ending else network


def _checked(path: Path) -> io.BytesIO:
    """The archive, written anew from those of its files that were checked: readers of zips may differ."""
    with zipfile.ZipFile(path) as archive:
        check_archive(archive, path)
        files = {name: archive.read(entry) for entry in archive.infolist() if (name := _needed(entry.filename))}
    sizes = {name: len(content) for name, content in files.items()}
    for name, content in files.items():
        if name.startswith("code/"):
            check_code(content.decode("ascii", "replace"), str(path))
        elif name.endswith(".pkl"):
            check_tensors(content, dict(records_in(sizes, name.removesuffix(".pkl"))), str(path))
    copy = io.BytesIO()
    with zipfile.ZipFile(copy, "w") as archive:
        for name, content in files.items():
            archive.writestr(f"network/{name}", content)
    copy.seek(0)
    return copy


def _needed(name: str) -> str:
    """Where a file lies in the archive; empty for those that only help to debug it."""
    inside = name.partition("/")[2]
    known = re.fullmatch(r"(\.data/)?version|byteorder|(data|constants)(\.pkl|/\w+)|code/[\w./]+\.py", inside)
    return inside if known else ""


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
