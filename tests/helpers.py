"""What several tests build: classifiers with a known answer, bundles, affines and blobs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.transforms import Compose
from numpy.typing import NDArray
from torch import nn

from napari_xai_med.explainers.base import Explainer, Question, RawMap
from napari_xai_med.job import Job
from napari_xai_med.models.classifier import Classifier
from napari_xai_med.models.head import Answer, Head
from napari_xai_med.models.target import Target
from napari_xai_med.segments.base import Segments, make_segmenter


def classifier_of(network: nn.Module, spatial_dims: int, classes: int = 2, **changes: Any) -> Classifier:
    """A classifier around a network, with the preprocessing `steps` (none by default)."""
    steps = changes.pop("steps", [])

    def preprocess(image: Any) -> Any:
        return Compose(steps)({"image": image})["image"]

    values: dict[str, Any] = {
        "name": "test",
        "network": network.eval(),
        "preprocessing": preprocess,
        "class_names": tuple(f"class {k}" for k in range(classes)),
        "head": Head.SOFTMAX,
        "spatial_dims": spatial_dims,
        "channels": 1,
        "sha256": "0",
        "source": "test",
    }
    return Classifier(**values | changes)


def maps_of(
    explainer: Explainer,
    classifier: Classifier,
    inputs: torch.Tensor,
    targets: Sequence[tuple[int, int | Target | None]],
    job: Job | None = None,
    **others: Any,
) -> tuple[list[RawMap], Answer]:
    """Maps for rows of inputs and their classes, as logits, and the answer."""
    chosen = tuple((row, each if isinstance(each, Target) else Target(each)) for row, each in targets)
    return explainer.attribute(Question(classifier, inputs, chosen, **others), job or Job())


FEW_MASKED: dict[str, Any] = {"samples": 300, "permutations": 1, "evaluations": 250, "masks": 24}
"""Options of methods that ask about masked images, for as few as a hundred segments take: two for each at least."""


def segments_of(inputs: torch.Tensor, number: int) -> tuple[Segments, ...]:
    """About so many boxes, the same for each row of inputs."""
    shape = tuple(inputs.shape[2:])
    boxes = make_segmenter("grid", {"number": number}).segments(np.zeros((1, *shape), np.float32), (1.0,) * len(shape))
    return (boxes,) * len(inputs)


class MeanOf(nn.Module):
    """Logits are plus and minus the mean over space of what `features` gives: Grad-CAM is relu(features)."""

    def __init__(self, *features: nn.Module) -> None:
        super().__init__()
        self.features = nn.Sequential(*features)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean = self.features(x).flatten(2).mean(2).sum(1, keepdim=True)
        return torch.cat([-mean, mean], 1)


def ones(convolution: nn.Module) -> nn.Module:
    """The same convolution, without bias, that takes the mean of what it sees."""
    with torch.no_grad():
        weight = convolution.weight
        weight.fill_(1 / weight[0].numel())
        if convolution.bias is not None:
            convolution.bias.zero_()
    return convolution


def random_affine(random: np.random.Generator, degrees: float = 30.0) -> NDArray[np.float64]:
    """Flips, axis order, spacing 0.5 to 8 mm and a rotation of at most `degrees` about any axis."""
    from scipy.spatial.transform import Rotation

    axis = random.normal(size=3)
    turn = Rotation.from_rotvec(axis / np.linalg.norm(axis) * np.deg2rad(random.uniform(0, degrees))).as_matrix()
    order = np.eye(3)[random.permutation(3)] * random.choice((-1, 1), 3)
    affine = np.eye(4)
    affine[:3, :3] = turn @ order @ np.diag(np.exp(random.uniform(np.log(0.5), np.log(8), 3)))
    affine[:3, 3] = random.uniform(-200, 200, 3)
    return affine


def world_of(shape: Sequence[int], affine: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """World coordinates of every voxel, shape (*shape, 3)."""
    index = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), axis=-1)
    return index @ affine[:-1, :-1].T + affine[:-1, -1]


def centre_of_mass(values: NDArray[Any], affine: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Centre of mass in world coordinates."""
    weights = values.astype(float)
    return (world_of(values.shape, affine) * weights[..., None]).reshape(-1, values.ndim).sum(0) / weights.sum()


def write_bundle(folder: Path, inference: dict[str, Any], names: Sequence[str], **own: Any) -> Path:
    """A bundle folder without weights."""
    channels = own.pop("channels", 1)
    shape = own.pop("spatial_shape", [8, 8, 8])
    metadata = {
        "name": folder.name,
        "network_data_format": {
            "inputs": {"image": {"num_channels": channels, "spatial_shape": shape}},
            "outputs": {"pred": {"channel_def": {str(k): name for k, name in enumerate(names)}}},
        },
        "napari_xai_med": own,
    }
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    (folder / "configs" / "inference.json").write_text(json.dumps(inference))
    (folder / "configs" / "metadata.json").write_text(json.dumps(metadata))
    return folder
