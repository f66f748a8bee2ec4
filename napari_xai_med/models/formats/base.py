"""What every format of a network's file is, and how the formats are found."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from napari_xai_med.registry import Registry

if TYPE_CHECKING:
    from torch import nn

    from napari_xai_med.models.formats.facts import NetworkFacts


class Gives(StrEnum):
    """What a network lets a method have."""

    GRADIENTS = "gradients"
    LAYERS = "layers"


class NetworkFormat(ABC):
    """One format of network files.

    Attributes
    ----------
    name : str
        How people call it.
    suffixes : tuple of str
        Of its files, in small letters.
    gives : frozenset of Gives
        What a network of this format lets a method have, at most; see `gives_of`.
    has_architecture : bool
        Whether the file holds the network itself, or weights only.
    """

    name: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]]
    gives: ClassVar[frozenset[Gives]]
    has_architecture: ClassVar[bool]

    @abstractmethod
    def load(self, path: Path, architecture: Callable[[], nn.Module]) -> nn.Module:
        """Load a network without running code that its file could bring.

        Parameters
        ----------
        path : Path
        architecture : callable
            Builds the network without weights, for formats that hold weights only.

        Raises
        ------
        ModelError
            If the file is damaged or does not fit the architecture.
        """

    def facts(self, path: Path) -> NetworkFacts | None:  # noqa: ARG002  # for formats that say something
        """What a file says about its network, if it says anything."""
        return None

    def files(self, path: Path) -> tuple[Path, ...]:
        """The file, and others in its folder or below that belong to it."""
        return (path,)

    def gives_of(self, module: nn.Module) -> frozenset[Gives]:  # noqa: ARG002  # for formats where it depends
        """What a network that `load` gave lets a method have."""
        return self.gives


_registry = Registry("napari_xai_med.models.formats")
register = _registry.register


def formats() -> Mapping[str, type[NetworkFormat]]:
    """All registered formats by name."""
    return _registry.all()
