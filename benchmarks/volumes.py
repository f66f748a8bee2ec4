"""What a Grad-CAM costs for each voxel of small and large volumes, beside a plain forward pass.

``python benchmarks/volumes.py``
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import prod
from typing import Any

import torch
from cams import ours, plain
from measure import peak_megabytes, seconds, table
from torch import Tensor

from napari_xai_med.models.architectures import build
from napari_xai_med.models.classifier import Classifier
from napari_xai_med.models.module import classifier_from_module

SHAPES = ((32, 64, 64), (64, 128, 128), (128, 256, 256))


def made(shape: tuple[int, ...]) -> tuple[Classifier, Tensor]:
    """DenseNet121, which takes small volumes as well, and an input."""
    torch.manual_seed(0)
    network = build("densenet121", spatial_dims=3, num_classes=3).eval()
    classifier = classifier_from_module(network, ["a", "b", "c"])
    # The layers are found once for a size of input, and not with each map.
    classifier.layers((1, *shape))
    return classifier, torch.rand(1, 1, *shape)


def memory_of(shape: tuple[int, ...], what: str) -> Callable[[], Any]:
    """What `peak_megabytes` measures."""
    classifier, x = made(shape)
    return plain(classifier.network, x) if what == "forward" else ours(classifier, x, "gradcam")


def main() -> None:
    """Print time and memory for each voxel."""
    rows = {}
    for shape in SHAPES:
        classifier, x = made(shape)
        times = seconds({"forward": plain(classifier.network, x), "gradcam": ours(classifier, x, "gradcam")}, 3)
        peaks = {name: peak_megabytes(partial(memory_of, shape, name)) for name in times}
        voxels = prod(shape)
        rows[" x ".join(map(str, shape))] = [
            *(f"{1e9 * times[name] / voxels:.0f}" for name in times),
            *(f"{2**20 * peaks[name] / voxels:.0f}" for name in times),
        ]
    table(
        "A Grad-CAM for each voxel",
        ["volume", "forward in ns", "Grad-CAM in ns", "forward in bytes", "Grad-CAM in bytes"],
        rows,
    )


if __name__ == "__main__":
    main()
