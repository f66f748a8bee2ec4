"""Train the embedded classifiers on phantoms and write them as MONAI bundles."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import monai
import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.transforms import Compose
from torch import Tensor, nn

from napari_xai_med.errors import ModelError
from napari_xai_med.models.head import Head
from napari_xai_med.training.phantoms import Phantom, make_phantom, make_slice

ACCURACY_NEEDED = 0.9
HELD_OUT_SEED = 100_000
"""Seeds from here on are never trained on."""

Report = Callable[[str], None]


@dataclass(frozen=True)
class ReferenceRecipe:
    """All that decides what a reference classifier becomes.

    Parameters
    ----------
    name, task : str
        Of the bundle.
    spatial_dims : int
        2 for slices, 3 for volumes.
    kinds : tuple of str
        The phantoms' kinds, in the order of the classes.
    input_size : tuple of int
        Of the network's input.
    cases : int
        Training cases of each class.
    held_out : int
        Cases of each class that accuracy is measured on.
    epochs, batch : int
    learning_rate : float
    seed : int
    """

    name: str
    task: str
    spatial_dims: int
    kinds: tuple[str, ...]
    input_size: tuple[int, ...]
    cases: int
    held_out: int
    epochs: int
    batch: int
    learning_rate: float
    seed: int = 0

    @property
    def class_names(self) -> tuple[str, ...]:
        """The kinds as people write them."""
        return tuple(kind.replace("_", " ") for kind in self.kinds)

    @property
    def head(self) -> Head:
        """One logit for two classes: nothing that speaks for both can hide in it."""
        return Head.ONE_LOGIT if len(self.kinds) == 2 else Head.SOFTMAX

    @property
    def network(self) -> dict[str, Any]:
        """Configuration of the network."""
        return {
            "_target_": "napari_xai_med.models.small_cnn.SmallCNN",
            "spatial_dims": self.spatial_dims,
            "in_channels": 1,
            "num_classes": 1 if self.head is Head.ONE_LOGIT else len(self.kinds),
        }

    @property
    def preprocessing(self) -> list[dict[str, Any]]:
        """Configuration of the transforms from a file to the network's input."""
        key = {"keys": "image"}
        orientation = (
            [{"_target_": "Orientationd", **key, "axcodes": "RAS", "labels": None}] if self.spatial_dims == 3 else []
        )
        window = {"a_min": -1000, "a_max": 400, "b_min": 0.0, "b_max": 1.0, "clip": True}
        mode = "trilinear" if self.spatial_dims == 3 else "bilinear"
        size = {"spatial_size": list(self.input_size), "mode": mode, "align_corners": False}
        return [
            {"_target_": "LoadImaged", **key},
            {"_target_": "EnsureChannelFirstd", **key},
            *orientation,
            {"_target_": "ScaleIntensityRanged", **key, **window},
            {"_target_": "Resized", **key, **size},
        ]

    def phantom(self, seed: int, kind: str) -> Phantom:
        """A volume or a slice."""
        return make_phantom(seed, kind) if self.spatial_dims == 3 else make_slice(seed, kind)


CHEST_CT_3D = ReferenceRecipe(
    name="Chest CT phantoms 3D",
    task="Tell chest CT phantoms with ground-glass lesions from normal ones",
    spatial_dims=3,
    kinds=("normal", "ground_glass"),
    input_size=(64, 64, 32),
    cases=250,
    held_out=100,
    epochs=14,
    batch=8,
    learning_rate=5e-3,
)

CHEST_CT_2D = ReferenceRecipe(
    name="Chest CT phantom slices 2D",
    task="Tell slices of chest CT phantoms with ground glass or nodules from normal ones",
    spatial_dims=2,
    kinds=("normal", "ground_glass", "nodule"),
    input_size=(96, 96),
    cases=400,
    held_out=100,
    epochs=12,
    batch=16,
    learning_rate=5e-3,
)


@dataclass(frozen=True)
class Trained:
    """A trained network with the accuracy that it reached on phantoms it had never seen."""

    recipe: ReferenceRecipe
    network: nn.Module
    accuracy: float


def train(recipe: ReferenceRecipe, report: Report) -> Trained:
    """Train a reference classifier.

    Parameters
    ----------
    recipe : ReferenceRecipe
    report : callable
        Called with a line after each epoch.

    Raises
    ------
    ModelError
        If the accuracy on held-out cases is below `ACCURACY_NEEDED`.
    """
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        network: nn.Module = ConfigParser({"network": recipe.network}).get_parsed_content("network")
        inputs, labels = _cases(recipe, recipe.cases, recipe.seed)
        fit(recipe, network, inputs, labels, report)
    accuracy = _accuracy(recipe, network, *_cases(recipe, recipe.held_out, HELD_OUT_SEED))
    report(f"{recipe.name}: accuracy {accuracy:.3f} on {recipe.held_out * len(recipe.kinds)} held-out cases")
    if accuracy < ACCURACY_NEEDED:
        raise ModelError(f"{recipe.name} reached {accuracy:.3f} on held-out cases; {ACCURACY_NEEDED} is needed.")
    return Trained(recipe, network, accuracy)


def _cases(recipe: ReferenceRecipe, count: int, first_seed: int) -> tuple[Tensor, Tensor]:
    """Preprocessed phantoms, (N, 1, *input_size), and their classes, (N,)."""
    steps = ConfigParser({"steps": recipe.preprocessing[2:]}).get_parsed_content("steps")
    transform = Compose(steps)
    inputs, labels = [], []
    for seed in range(first_seed, first_seed + count):
        for label, kind in enumerate(recipe.kinds):
            phantom = recipe.phantom(seed, kind)
            data = torch.from_numpy(phantom.data.astype(np.float32))[None]
            image = MetaTensor(data, affine=torch.from_numpy(phantom.affine))
            inputs.append(transform({"image": image})["image"].as_tensor())
            labels.append(label)
    return torch.stack(inputs), torch.tensor(labels)


def fit(recipe: ReferenceRecipe, network: nn.Module, inputs: Tensor, labels: Tensor, report: Report) -> None:
    """Train a network by a recipe on inputs, (N, C, *spatial), with classes, (N,); it is in eval mode then."""
    optimiser = torch.optim.AdamW(network.parameters(), recipe.learning_rate, weight_decay=1e-2)
    steps = recipe.epochs * -(-len(inputs) // recipe.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.learning_rate, total_steps=steps)
    network.train()
    for epoch in range(recipe.epochs):
        total = 0.0
        for rows in torch.randperm(len(inputs)).split(recipe.batch):
            optimiser.zero_grad()
            probabilities = recipe.head.probabilities(network(_augmented(inputs[rows])))
            loss = nn.functional.nll_loss(probabilities.clamp_min(1e-7).log(), labels[rows])
            loss.backward()
            optimiser.step()
            schedule.step()
            total += loss.item() * len(rows)
        report(f"{recipe.name}: epoch {epoch + 1} of {recipe.epochs}, loss {total / len(inputs):.4f}")
    network.eval()


def _augmented(batch: Tensor) -> Tensor:
    """Flips from side to side, small shifts and noise, drawn anew for every case."""
    cases = []
    for case in batch:
        # Axis 1 of a volume (R to L) and axis 2 of a slice (columns) run from side to side.
        side = 1 if case.ndim == 4 else 2
        flipped = case.flip(side) if torch.rand(()) < 0.5 else case
        axes = list(range(1, case.ndim))
        shifts = torch.randint(-3, 4, (len(axes),)).tolist()
        cases.append(flipped.roll(shifts, axes))
    shifted = torch.stack(cases)
    return (shifted + 0.01 * torch.randn_like(shifted)).clamp(0, 1)


def _accuracy(recipe: ReferenceRecipe, network: nn.Module, inputs: Tensor, labels: Tensor) -> float:
    with torch.inference_mode():
        answers = torch.cat([recipe.head.scores(network(batch)).argmax(1) for batch in inputs.split(8)])
    return float((answers == labels).float().mean())


def write_bundle(trained: Trained, folder: Path) -> None:
    """Write a trained network as a MONAI bundle folder.

    Parameters
    ----------
    trained : Trained
    folder : Path
        Made where it does not exist.
    """
    recipe = trained.recipe
    inference = {
        "network_def": recipe.network,
        "preprocessing": {"_target_": "Compose", "transforms": recipe.preprocessing},
    }
    for name, content in (("inference", inference), ("metadata", _metadata(trained))):
        path = folder / "configs" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    (folder / "models").mkdir(exist_ok=True)
    torch.save(trained.network.state_dict(), folder / "models" / "model.pt")


def _metadata(trained: Trained) -> dict[str, Any]:
    recipe = trained.recipe
    image = {
        "type": "image",
        "format": "hounsfield",
        "modality": "CT",
        "num_channels": 1,
        "spatial_shape": list(recipe.input_size),
        "dtype": "float32",
        "value_range": [0, 1],
        "is_patch_data": False,
        "channel_def": {"0": "image"},
    }
    names = {str(index): name for index, name in enumerate(recipe.class_names)}
    prediction = {"type": "probabilities", "format": "classes", "num_channels": len(names), "channel_def": names}
    return {
        "version": "0.1.0",
        "monai_version": monai.__version__,
        "pytorch_version": torch.__version__.split("+")[0],
        "numpy_version": np.__version__,
        "name": recipe.name,
        "task": recipe.task,
        "description": "Trained on drawn phantoms only; it knows nothing of real patients.",
        "authors": "napari-xai-med developers",
        "copyright": "napari-xai-med developers, BSD-3-Clause",
        "intended_use": "Research use only. Not for diagnosis.",
        "network_data_format": {"inputs": {"image": image}, "outputs": {"pred": prediction}},
        "napari_xai_med": {
            "head": str(recipe.head),
            "held_out_accuracy": round(trained.accuracy, 4),
            "held_out_cases": recipe.held_out * len(recipe.kinds),
            "training_cases": recipe.cases * len(recipe.kinds),
            "seed": recipe.seed,
        },
    }
