"""Networks saved by Keras: its own format, and HDF5 of all its versions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from napari_xai_med.models.formats.base import Gives, NetworkFormat, register

if TYPE_CHECKING:
    from torch import nn

    from napari_xai_med.models.formats.facts import NetworkFacts


@register
class Keras(NetworkFormat):
    """A classifier saved by Keras, converted into PyTorch's modules where all its layers have one."""

    name: ClassVar[str] = "Keras"
    suffixes: ClassVar[tuple[str, ...]] = (".keras", ".h5", ".hdf5", ".model")
    gives: ClassVar[frozenset[Gives]] = frozenset(Gives)
    has_architecture: ClassVar[bool] = True

    def load(self, path: Path, architecture: Callable[[], nn.Module]) -> nn.Module:  # noqa: ARG002  # it is in the file
        """Load the network; see `NetworkFormat`."""
        from napari_xai_med.models.keras_files.network import load_keras

        return load_keras(path)

    def gives_of(self, module: nn.Module) -> frozenset[Gives]:
        """Layers of a network that Keras itself has to run are out of reach of hooks."""
        from napari_xai_med.models.keras_files.network import WrappedKeras

        return frozenset({Gives.GRADIENTS}) if isinstance(module, WrappedKeras) else self.gives

    def facts(self, path: Path) -> NetworkFacts:
        """What the file says about its network."""
        from napari_xai_med.models.keras_files.network import load_keras

        return load_keras(path).facts
