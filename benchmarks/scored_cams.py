"""Time of a Score-CAM and an Ablation-CAM, in plain batched forward passes for as many channels.

python benchmarks/scored_cams.py
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from monai.networks.nets import DenseNet121, resnet18
from torch import nn

from napari_xai_med.explainers.base import Question
from napari_xai_med.explainers.cam_ablation import AblationCAM
from napari_xai_med.explainers.cam_score import ScoreCAM
from napari_xai_med.job import Job
from napari_xai_med.models.classifier import Classifier
from napari_xai_med.models.head import Head
from napari_xai_med.models.target import Target

CHANNELS, BATCH = 16, 8
CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "ResNet18 3D, 48x48x48": (lambda: resnet18(spatial_dims=3, n_input_channels=1, num_classes=2), (1, 48, 48, 48)),
    "DenseNet121 3D, 48x48x48": (lambda: DenseNet121(3, 1, 2), (1, 48, 48, 48)),
    "DenseNet121 2D, 224x224": (lambda: DenseNet121(2, 1, 2), (1, 224, 224)),
}


def seconds(calls: dict[str, Callable[[], Any]], rounds: int = 3) -> dict[str, float]:
    """Median time of each call, in turns and after one that does not count."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if turn:
                times[name].append(time.perf_counter() - start)
    return {name: median(taken) for name, taken in times.items()}


def compare(network: nn.Module, shape: tuple[int, ...]) -> dict[str, float]:
    """Times of plain passes for `CHANNELS` images, and of both methods with so many channels of the default layer."""
    classifier = Classifier("peer", network, lambda t: t, ("a", "b"), Head.SOFTMAX, len(shape) - 1, 1, "", "")
    question = Question(classifier, torch.rand(1, *shape), ((0, Target(1)),))
    batch = torch.rand(BATCH, *shape)

    def plain() -> None:
        with torch.inference_mode():
            for _ in range(CHANNELS // BATCH):
                network(batch)

    return seconds(
        {
            "forward": plain,
            "Score-CAM": lambda: ScoreCAM(channels=CHANNELS, batch_size=BATCH).attribute(question, Job()),
            "Ablation-CAM": lambda: AblationCAM(channels=CHANNELS, batch_size=BATCH).attribute(question, Job()),
        }
    )


def main() -> None:
    """Print each time as a multiple of the plain passes."""
    torch.manual_seed(0)
    for title, (build, shape) in CASES.items():
        times = compare(build().eval(), shape)
        base = times.pop("forward")
        ratios = ", ".join(f"{name} {value / base:.2f}" for name, value in times.items())
        print(f"{title}: {CHANNELS} passes {base:.3f} s = 1; {ratios}", flush=True)


if __name__ == "__main__":
    main()
