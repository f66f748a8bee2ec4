"""Weights without a network: state dicts of PyTorch, and safetensors."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from napari_xai_med.errors import ModelError, one_line, told_as
from napari_xai_med.models.archives import check_swelling
from napari_xai_med.models.formats.base import Gives, NetworkFormat, register

if TYPE_CHECKING:
    from torch import nn

    from napari_xai_med.models.formats.facts import NetworkFacts


_ADVICE = "save it with torch.save(network.state_dict(), ...)"

_HOLDERS = ("state_dict", "model_state_dict", "model", "network", "net", "state")
"""What training programs call the weights in their checkpoints."""

_PREFIXES = ("module.", "_orig_mod.", "model.", "network.", "net.")
"""What DataParallel, torch.compile and Lightning put before every key."""

_DEEPEST = 3


@register
class StateDict(NetworkFormat):
    """A state dict written by ``torch.save``; only tensors are read, never code."""

    name: ClassVar[str] = "state dict"
    suffixes: ClassVar[tuple[str, ...]] = (".pt", ".pth")
    gives: ClassVar[frozenset[Gives]] = frozenset(Gives)
    has_architecture: ClassVar[bool] = False

    def load(self, path: Path, architecture: Callable[[], nn.Module]) -> nn.Module:
        """Build the network and put the weights in; see `NetworkFormat`."""
        self.facts(path)
        with told_as(ModelError, f"{path} is not a plain state dict: {_ADVICE}"):
            state = torch.load(path, map_location="cpu", weights_only=True)
        return fill(architecture(), state, path)

    def facts(self, path: Path) -> NetworkFacts | None:
        """Nothing; a `ModelError` if the file holds a whole network."""
        if not zipfile.is_zipfile(path):
            return None
        with told_as(ModelError, f"{path} is not a plain state dict: {_ADVICE}"):
            with zipfile.ZipFile(path) as archive:
                inside = {name.partition("/")[2] for name in archive.namelist()}
                if "constants.pkl" in inside:
                    raise ModelError(f"{path} is TorchScript and not a state dict: name it {path.stem}.ts.")
                check_swelling(archive, path)
            # They are read from the pickle without running it.
            foreign = torch.serialization.get_unsafe_globals_in_checkpoint(path) if "data.pkl" in inside else []
        if foreign:
            # Layers of PyTorch and MONAI tell less than the network's own class.
            example = min(foreign, key=lambda name: (name.startswith(("torch.", "monai.")), name))
            raise ModelError(
                f"{path} is not a plain state dict: it holds objects of Python ({one_line(ValueError(example))}), "
                f"as a whole network is stored, which would run code; load it where it was made and {_ADVICE}."
            )
        return None


def _candidates(state: Any, depth: int = 0) -> Iterator[dict[str, Any]]:
    """The state dicts in a checkpoint: itself, those it holds under usual names, and all without usual prefixes."""
    if not isinstance(state, dict) or not state or not all(isinstance(key, str) for key in state):
        return
    inner = [state[key] for key in _HOLDERS if isinstance(state.get(key), dict)] if depth < _DEEPEST else []
    for held in inner:
        yield from _candidates(held, depth + 1)
    while state:
        yield state
        prefix = next((p for p in _PREFIXES if all(key.startswith(p) for key in state)), None)
        state = {key.removeprefix(prefix): value for key, value in state.items()} if prefix else {}


def _chosen(network: nn.Module, state: Any, path: Path) -> Any:
    """The state dict in a checkpoint that fits a network; if none does, the first, which tells what is wrong."""
    shapes = _shapes(network.state_dict())
    found = list(_candidates(state))
    fitting = [one for one in found if _shapes(one) == shapes]
    if len(fitting) > 1:
        raise ModelError(f"{path} holds {len(fitting)} sets of weights that fit the network; save only the right one.")
    return next(iter((*fitting, *found)), state)


def _shapes(state: dict[str, Any]) -> dict[str, Any]:
    """Of all weights; PyTorch does without the counters of batches, which old checkpoints have not."""
    return {k: getattr(v, "shape", None) for k, v in state.items() if not k.endswith("num_batches_tracked")}


def fill(network: nn.Module, state: Any, path: Path) -> nn.Module:
    """Put weights into a network, also those in a checkpoint; a `ModelError` if they do not fit."""
    state = _chosen(network, state, path)
    if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
        raise ModelError(f"{path} is not a plain state dict: {_ADVICE}.")
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
