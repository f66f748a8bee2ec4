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
        What a network of this format lets a method have.
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


_registry = Registry("napari_xai_med.models.formats")
register = _registry.register


def formats() -> Mapping[str, type[NetworkFormat]]:
    """All registered formats by name."""
    return _registry.all()
