"""Every registered architecture at a size that is quick, for tests that go through all of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from napari_xai_med import classifier_from_module
from napari_xai_med.models.architectures import architectures, build
from napari_xai_med.models.classifier import Classifier
from napari_xai_med.preprocessing.base import Step
from napari_xai_med.preprocessing.presets import preset
from napari_xai_med.preprocessing.steps import Resize, ToColours
from napari_xai_med.samples import sample_files

# Inputs of networks that take any size: large enough for their poolings, small enough to be quick.
_SIDE = {2: 64, 3: 32}
_NEEDS_MORE = ("senet154", "seresnet", "seresnext", "ct_cnn_17")
_SMALL: dict[str, dict[str, Any]] = {
    "vit": {"hidden_size": 48, "mlp_dim": 96, "num_layers": 2, "num_heads": 4},
    "swin": {"feature_size": 12, "num_heads": [3, 3, 3, 3]},
}

NAMES = [(name, dims) for name, entry in architectures().items() for dims in entry.spatial_dims]


@dataclass(frozen=True)
class Case:
    """An architecture in 2D or 3D, and what is needed to ask it about a sample image."""

    name: str
    dims: int

    @property
    def image(self) -> Path:
        """The sample that it is asked about."""
        return sample_files("slice_nodule" if self.dims == 2 else "chest_ct_lesion")[0]

    @property
    def options(self) -> dict[str, Any]:
        """The architecture's options, with a small input where it is fixed."""
        entry = architectures()[self.name]
        options: dict[str, Any] = dict(_SMALL.get(self.name, {}))
        if len(entry.spatial_dims) > 1:
            options["spatial_dims"] = self.dims
        if hasattr(entry.chosen(**options), "image_size"):
            options["image_size"] = [32] * self.dims if self.name == "vit" else [64] * self.dims
        return {**options, "num_classes": entry.chosen(**options).num_classes}

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape (C, *spatial)."""
        chosen = vars(architectures()[self.name].chosen(**self.options))
        side = 64 if self.name.startswith(_NEEDS_MORE) else _SIDE[self.dims]
        return (chosen["in_channels"], *chosen.get("image_size", [side] * self.dims))

    @property
    def steps(self) -> tuple[Step, ...]:
        """A preprocessing that makes its input of the sample."""
        colours = [ToColours()] if self.input_shape[0] == 3 else []
        mode = "bilinear" if self.dims == 2 else "trilinear"
        return (*preset("ct", self.dims), *colours, Resize(spatial_size=self.input_shape[1:], mode=mode))

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of its classes; two for one logit."""
        return tuple(f"class {k}" for k in range(max(self.options["num_classes"], 2)))

    def network(self) -> nn.Module:
        """The network with random weights."""
        return build(self.name, **self.options).eval()

    def around(self, network: nn.Module) -> Classifier:
        """The classifier of a network that a script holds."""
        head = "one_logit" if self.options["num_classes"] == 1 else "softmax"
        # Grey images become colours in the preprocessing.
        return replace(classifier_from_module(network, self.classes, head=head), channels=0, spatial_dims=self.dims)


def cases(*whole: int) -> list[Any]:
    """The first architecture of each family in 2D and 3D, which stands for the others; all of it in `whole`.

    The members of a family, those of one paper, differ in how often the same layers are repeated.

    Parameters
    ----------
    *whole : int
        2, 3 or both: as many dimensions have the members of families that are wanted too.
    """
    chosen, families = [], set()
    for name, dims in NAMES:
        family = (architectures()[name].paper, dims)
        if dims in whole or family not in families or architectures()[name].layout != "as in MONAI":
            chosen.append(pytest.param(Case(name, dims), id=f"{name} {dims}d"))
        families.add(family)
    return chosen
