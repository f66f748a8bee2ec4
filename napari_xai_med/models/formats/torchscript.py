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
from napari_xai_med.models.endings import ended_in
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
        endings = _endings(network)
        return _Telling(network, endings) if any(endings.values()) else network


_ENDINGS = {"sigmoid": "sigmoid", "special_expit": "sigmoid", "softmax": "softmax", "log_softmax": "log_softmax"}
_SHAPING = frozenset(
    (
        *("squeeze", "unsqueeze", "flatten", "view", "reshape", "permute", "transpose", "contiguous", "clone"),
        *("select", "slice", "to", "type_as", "detach", "dropout", "clamp", "clamp_min", "clamp_max", "clip"),
    )
)


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


def _endings(network: Any) -> dict[str | int, str]:
    """The function that each output ends in: by its key in a dict, or its number, 0 for the only one."""
    (output,) = network.inlined_graph.outputs()
    node = output.node()
    values = list(node.inputs())
    if node.kind() in ("prim::TupleConstruct", "prim::ListConstruct"):
        return {k: _ending(value) for k, value in enumerate(values)}
    if node.kind() == "prim::DictConstruct":
        keys = [value.toIValue() for value in values[::2]]
        return {key: _ending(value) for key, value in zip(keys, values[1::2], strict=True)}
    return {0: _ending(output)}


def _ending(value: Any) -> str:
    """The last function before a value, if that is sigmoid or softmax, and nothing but the shape changes after it."""
    node = value.node()
    kind = node.kind().partition("::")[2].rstrip("_")
    if any(use.user.kind().endswith("_") for use in value.uses()):
        # Changed in place afterwards.
        return ""
    if kind in _ENDINGS:
        return _ENDINGS[kind]
    if kind == "If":
        # One branch often only raises an error.
        place = [output.debugName() for output in node.outputs()].index(value.debugName())
        branches = [list(block.outputs())[place] for block in node.blocks()]
        found = {_ending(branch) for branch in branches if branch.node().kind() != "prim::Uninitialized"}
        return found.pop() if len(found) == 1 else ""
    if kind == "exp":
        return "softmax" if _ending(node.input()) == "log_softmax" else ""
    if kind in ("cat", "stack"):
        # Only a sigmoid's parts may lie along any axis.
        found = {_ending(part) for part in next(node.inputs()).node().inputs()}
        return "sigmoid" if found == {"sigmoid"} else ""
    return _ending(next(node.inputs())) if kind in _SHAPING else ""


class _Telling(torch.nn.Module):
    """A network that says of its outputs what they end in, which can't be seen from outside."""

    def __init__(self, network: nn.Module, endings: dict[str | int, str]) -> None:
        super().__init__()
        self.network, self._endings = network, endings

    def forward(self, x: Tensor) -> Any:
        """What the network gives."""
        output = self.network(x)
        if isinstance(output, dict):
            return {key: self._told(value, key) for key, value in output.items()}
        if isinstance(output, tuple | list):
            return tuple(self._told(value, k) for k, value in enumerate(output))
        return self._told(output, 0)

    def _told(self, value: Any, key: str | int) -> Any:
        ending = self._endings.get(key)
        return ended_in(value, ending) if ending and isinstance(value, torch.Tensor) else value
