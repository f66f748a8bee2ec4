"""What class activation maps cost, in plain forward passes of the same network, beside other libraries.

``python benchmarks/cams.py``; medcam is left out where it is not installed.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from captum.attr import LayerGradCam
from measure import peak_megabytes, seconds, table
from monai.visualize import GradCAM as MonaiGradCAM
from torch import Tensor, nn

from napari_xai_med.explainers.base import Question, make_explainer
from napari_xai_med.job import Job
from napari_xai_med.models.architectures import build
from napari_xai_med.models.classifier import Classifier
from napari_xai_med.models.module import classifier_from_module
from napari_xai_med.models.receptive_field import default_layer
from napari_xai_med.models.target import Target

CASES: dict[str, tuple[str, dict[str, Any], tuple[int, ...]]] = {
    "3D CNN of Zunair et al., 128 x 128 x 64": ("ct_cnn_17", {"num_classes": 3}, (1, 128, 128, 64)),
    "DenseNet121 3D, 128 x 128 x 64": ("densenet121", {"spatial_dims": 3, "num_classes": 3}, (1, 128, 128, 64)),
    "DenseNet121 2D, 224 x 224": ("densenet121", {"spatial_dims": 2, "num_classes": 3}, (1, 224, 224)),
}
METHODS = ("gradcam", "gradcampp", "hirescam", "xgradcam", "layercam", "eigencam")
BY_MASKS = ("scorecam", "ablationcam")
CHANNELS, BATCH = 32, 4


def made(case: str) -> tuple[Classifier, Tensor, str]:
    """A classifier with random weights, its input and its default layer."""
    name, options, shape = CASES[case]
    torch.manual_seed(0)
    classifier = classifier_from_module(build(name, **options).eval(), ["a", "b", "c"])
    return classifier, torch.rand(1, *shape), default_layer(classifier.layers(shape)).name


def plain(network: nn.Module, x: Tensor) -> Callable[[], Any]:
    """A forward pass in inference mode."""

    def call() -> None:
        with torch.inference_mode():
            network(x)

    return call


def ours(classifier: Classifier, x: Tensor, method: str, classes: int = 1, **options: Any) -> Callable[[], Any]:
    """A map for each of some classes."""
    targets = tuple((0, Target(index)) for index in range(classes))
    explainer = make_explainer(method, options)
    return lambda: explainer.attribute(Question(classifier, x, targets, (1.0,) * (x.ndim - 2)), Job())


def peers(network: nn.Module, x: Tensor, layer: str) -> dict[str, Callable[[], Any]]:
    """The same Grad-CAM by other libraries."""
    captum, monai = LayerGradCam(network, network.get_submodule(layer)), MonaiGradCAM(network, layer)
    calls: dict[str, Callable[[], Any]] = {"captum": lambda: captum.attribute(x, 0), "MONAI": lambda: monai(x, 0)}
    if find_spec("medcam"):
        from medcam import medcam

        model = medcam.inject(network, backend="gcam", layer=layer, label=0, return_attention=True)
        calls["medcam"] = lambda: model(x)
    return calls


def memory_of(case: str, what: str) -> Callable[[], Any]:
    """What `peak_megabytes` measures: the forward pass, or a Grad-CAM of ours or of another library."""
    classifier, x, layer = made(case)
    if what == "forward":
        return plain(classifier.network, x)
    if what == "napari-xai-med":
        # The layers are found once for a size of input, and not with each map.
        return ours(classifier, x, "gradcam")
    return peers(classifier.network, x, layer)[what]


def by_gradients() -> None:
    """Grad-CAM beside other libraries, and the family."""
    names = ["napari-xai-med", *peers(*_network("DenseNet121 2D, 224 x 224"))]
    grad, family = {}, {}
    for case in CASES:
        classifier, x, _ = made(case)
        forward = plain(classifier.network, x)
        single = {"forward": forward, "napari-xai-med": ours(classifier, x, "gradcam")}
        # Other libraries on a network of their own: some leave their hooks on it.
        times = seconds(single | {"three": ours(classifier, x, "gradcam", 3)} | peers(*_network(case)))
        base = times["forward"]
        further = (times["three"] - times["napari-xai-med"]) / 2 / base
        grad[case] = [f"{base:.3f}", *(f"{times[name] / base:.2f}" for name in names), f"{further:+.2f}"]
        times = seconds({"forward": forward} | {name: ours(classifier, x, name) for name in METHODS})
        family[case] = [f"{times[name] / times['forward']:.2f}" for name in METHODS]
    columns = ["network and input", "forward in s", *names, "further class"]
    table("Grad-CAM in forward passes, and each further class", columns, grad)
    table("The family in forward passes", ["network and input", *METHODS], family)


def by_masks() -> None:
    """Score-CAM and Ablation-CAM."""
    rows = {}
    for case, (_, _, shape) in CASES.items():
        classifier, x, _ = made(case)
        options = {"batch_size": BATCH, "channels": CHANNELS}
        calls = {name: ours(classifier, x, name, **options) for name in BY_MASKS}
        calls["forward"] = plain(classifier.network, x.expand(BATCH, *shape).contiguous())
        times = seconds(calls, 2)
        rows[case] = [f"{times[name] / (times['forward'] * CHANNELS / BATCH):.2f}" for name in BY_MASKS]
    table(
        f"{CHANNELS} channels by masks, in as many plain forward passes in batches of {BATCH}",
        ["network and input", *BY_MASKS],
        rows,
    )


def memory() -> None:
    """What a Grad-CAM needs at most."""
    names = ["napari-xai-med", *peers(*_network("DenseNet121 2D, 224 x 224"))]
    rows = {}
    for case in CASES:
        peaks = {name: peak_megabytes(partial(memory_of, case, name)) for name in ("forward", *names)}
        rows[case] = [f"{peaks['forward']:.0f}", *(f"{peaks[name] / peaks['forward']:.2f}" for name in names)]
    columns = ["network and input", "forward in MB", *names]
    table("Memory at most, in that of the forward pass", columns, rows)


def main() -> None:
    """Print all tables."""
    warnings.simplefilter("ignore")
    by_gradients()
    by_masks()
    memory()


def _network(case: str) -> tuple[nn.Module, Tensor, str]:
    classifier, x, layer = made(case)
    return classifier.network, x, layer


if __name__ == "__main__":
    main()
