"""How far from its true place each library puts the map of one bright spot.

A chain of averaging convolutions sees a bright block that fills the receptive field of one cell exactly. The
map's peak belongs at the block's centre. Printed is the distance along an axis, in voxels of the input.

    pip install grad-cam medcam --no-deps; python benchmarks/localisation.py
"""

from __future__ import annotations

import sys
import types
import warnings
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import torch
from captum.attr import LayerAttribution, LayerGradCam
from monai.visualize import GradCAM as MonaiGradCAM
from numpy.typing import NDArray
from torch import Tensor, nn

from napari_xai_med.explainers.base import Question
from napari_xai_med.explainers.cam import GradCAM
from napari_xai_med.job import Job
from napari_xai_med.models.classifier import Classifier, NetworkInput
from napari_xai_med.models.head import Head
from napari_xai_med.models.receptive_field import default_layer, trace_layers
from napari_xai_med.models.target import Target
from napari_xai_med.on_image import on_image

Map = NDArray[np.float32]


class Chain(nn.Module):
    """Convolutions with a stride of 2 that take the mean of what they see; logits are plus and minus its mean."""

    def __init__(self, dims: int, steps: int, kernel: int, padding: int) -> None:
        super().__init__()
        kind = (nn.Conv2d, nn.Conv3d)[dims - 2]
        self.features = nn.Sequential(*(kind(1, 1, kernel, 2, padding, bias=False) for _ in range(steps)))
        for layer in self.features:
            nn.init.constant_(next(layer.parameters()), kernel**-dims)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, shape (N, 2)."""
        mean = self.features(x).flatten(1).mean(1, keepdim=True)
        return torch.cat([-mean, mean], 1)


def ours(network: Chain, x: Tensor) -> Map:
    """napari-xai-med."""
    dims = x.ndim - 2
    classifier = Classifier("chain", network, lambda t: t, ("a", "b"), Head.SOFTMAX, dims, 1, "", "")
    (raw,), _ = GradCAM().attribute(Question(classifier, x, ((0, Target(1)),)), Job())
    return on_image(raw, NetworkInput(x, np.eye(dims + 1)), tuple(x.shape[2:]))


def captum(network: Chain, x: Tensor) -> Map:
    """Captum with its own interpolation, which is nearest by default and linear here."""
    small = LayerGradCam(network, network.features[-1]).attribute(x, 1, relu_attributions=True)
    mode = "bilinear" if x.ndim == 4 else "trilinear"
    values: Map = LayerAttribution.interpolate(small, tuple(x.shape[2:]), mode)[0, 0].detach().numpy()
    return values


def monai(network: Chain, x: Tensor) -> Map:
    """MONAI with its upsampling, without its normalisation (which turns the map upside down)."""
    name = f"features.{len(network.features) - 1}"
    values: Map = MonaiGradCAM(network, name, postprocessing=lambda m: m)(x, 1)[0, 0].detach().numpy()
    return values


def pytorch_grad_cam(network: Chain, x: Tensor) -> Map:
    """pytorch-grad-cam with its own resizing."""
    # It imports names of torchvision that Grad-CAM does not use.
    for name in ("torchvision", "torchvision.transforms", "torchvision.transforms.functional"):
        module = sys.modules.setdefault(name, types.ModuleType(name))
        for unused in ("Compose", "Normalize", "ToTensor", "resize"):
            setattr(module, unused, getattr(module, unused, object))
    from pytorch_grad_cam import GradCAM as Peer
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    with Peer(network, [network.features[-1]]) as peer:
        return np.asarray(peer(x, [ClassifierOutputTarget(1)])[0])


def medcam(network: Chain, x: Tensor) -> Map:
    """M3d-Cam (medcam) with its own resizing."""
    from medcam import medcam as peer

    layer = f"features.{len(network.features) - 1}"
    model = peer.inject(network, backend="gcam", layer=layer, label=1, return_attention=True)
    return np.asarray(model(x)[1]).squeeze()


PEERS: dict[str, Callable[[Chain, Tensor], Map]] = {
    "napari-xai-med": ours,
    "captum": captum,
    "monai": monai,
    "pytorch-grad-cam": pytorch_grad_cam,
    "medcam": medcam,
}


def spot(dims: int, steps: int, kernel: int, padding: int) -> tuple[Chain, Tensor, float]:
    """A network, its input with a bright block, and the block's centre along each axis."""
    network = Chain(dims, steps, kernel, padding).eval()
    reach = default_layer(trace_layers(network, (1, *[600] * dims))).receptive_field.size[0]
    size = int(reach) + 5 * 2**steps
    layer = default_layer(trace_layers(network, (1, *[size] * dims)))
    centre = layer.receptive_field.start[0] + 2**steps * (layer.shape[0] // 2)
    half = (layer.receptive_field.size[0] - 1) / 2
    x = torch.zeros(1, 1, *[size] * dims)
    block: tuple[Any, ...] = (0, 0, *[slice(round(centre - half), round(centre + half) + 1)] * dims)
    x[block] = 1
    return network, x, centre


def offset(values: Map, centre: float) -> float:
    """Distance of the peak from its true place, the largest over the axes."""
    off = []
    for axis in range(values.ndim):
        line = values.sum(tuple(k for k in range(values.ndim) if k != axis))
        off.append(abs(float(np.flatnonzero(line >= line.max() * (1 - 1e-5)).mean()) - centre))
    return max(off)


def main() -> None:
    """Print a table: a row for each network, a column for each library."""
    warnings.simplefilter("ignore")
    print(f"{'':28}" + "".join(f"{name:>18}" for name in PEERS))
    for dims, steps, kernel, padded in product((2, 3), (1, 2, 3, 4), (3, 4), (True, False)):
        padding = (kernel - 1) // 2 if padded else 0
        row = f"{dims}D stride {2**steps:2} kernel {kernel} pad {padding}"
        cells = []
        for method in PEERS.values():
            network, x, centre = spot(dims, steps, kernel, padding)
            values = method(network, x)
            cells.append(f"{offset(values, centre):18.2f}" if values.shape == x.shape[2:] else f"{values.shape!s:>18}")
        print(f"{row:28}" + "".join(cells), flush=True)


if __name__ == "__main__":
    main()
