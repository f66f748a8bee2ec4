"""Time of one Grad-CAM in forward passes of the same network, beside captum and MONAI.

python benchmarks/gradcam.py
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from captum.attr import LayerGradCam
from monai.networks.nets import DenseNet121, resnet18
from monai.visualize import GradCAM as MonaiGradCAM
from torch import Tensor, nn

from napari_xai_med.explainers.base import Question
from napari_xai_med.explainers.cam import GradCAM
from napari_xai_med.job import Job
from napari_xai_med.models.classifier import Classifier
from napari_xai_med.models.head import Head
from napari_xai_med.models.receptive_field import default_layer
from napari_xai_med.models.target import Target

CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "ResNet18 3D, 96x96x96": (lambda: resnet18(spatial_dims=3, n_input_channels=1, num_classes=2), (1, 96, 96, 96)),
    "DenseNet121 3D, 64x64x64": (lambda: DenseNet121(3, 1, 2), (1, 64, 64, 64)),
    "DenseNet121 2D, 224x224": (lambda: DenseNet121(2, 1, 2), (1, 224, 224)),
}


def seconds(call: Callable[[], Any], rounds: int = 5) -> float:
    """Median time of a call, after one that does not count."""
    call()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return median(times)


def compare(network: nn.Module, x: Tensor) -> dict[str, float]:
    """Times of a forward pass and of each library's Grad-CAM of the last convolution."""
    classifier = Classifier("peer", network, lambda t: t, ("a", "b"), Head.SOFTMAX, x.ndim - 2, 1, "", "")
    name = default_layer(classifier.layers(tuple(x.shape[1:]))).name
    captum = LayerGradCam(network, network.get_submodule(name))
    monai = MonaiGradCAM(network, name)

    def plain() -> None:
        with torch.inference_mode():
            network(x)

    return {
        "forward": seconds(plain),
        "napari-xai-med": seconds(lambda: GradCAM().attribute(Question(classifier, x, ((0, Target(1)),)), Job())),
        "captum": seconds(lambda: captum.attribute(x, 1)),
        "monai": seconds(lambda: monai(x, 1)),
    }


def main() -> None:
    """Print each time as a multiple of the forward pass."""
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    for title, (build, shape) in CASES.items():
        times = compare(build().eval(), torch.rand(1, *shape))
        base = times.pop("forward")
        ratios = ", ".join(f"{name} {value / base:.2f}" for name, value in times.items())
        print(f"{title}: forward {base:.3f} s = 1; {ratios}", flush=True)


if __name__ == "__main__":
    main()
