"""The standard panel by the time of its own passes through the network: ``python benchmarks/panel.py``.

On a phantom of 128 x 128 x 64 voxels, with the embedded 3D classifier and with MONAI's DenseNet121, which takes so many
voxels as they are.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from measure import THREADS, table
from torch import nn
from torch.nn.modules import module as hooks

from napari_xai_med import Image, classifier_from_module, explain, load_model
from napari_xai_med.cases import case_of
from napari_xai_med.evaluation import evaluate_case, panel
from napari_xai_med.grid import Grid
from napari_xai_med.job import Job
from napari_xai_med.models.architectures import build
from napari_xai_med.models.classifier import Classifier
from napari_xai_med.training.phantoms import make_phantom

SHAPE = (128, 128, 64)


class Clock:
    """Time within networks, of passes both ways."""

    def __init__(self) -> None:
        self.seconds, self.passes, self._depth, self._start = 0.0, 0, 0, 0.0

    def enter(self, *_: object) -> None:
        """A module begins."""
        self._depth += 1
        if self._depth == 1:
            self._start = time.perf_counter()

    def leave(self, _: nn.Module, inputs: tuple[torch.Tensor, ...], __: object) -> None:
        """A module ends."""
        self._depth -= 1
        if not self._depth:
            self.seconds += time.perf_counter() - self._start
            self.passes += len(inputs[0])


@contextmanager
def clock() -> Iterator[Clock]:
    """Count what networks take."""
    counted = Clock()
    handles = [
        hooks.register_module_forward_pre_hook(counted.enter),
        hooks.register_module_forward_hook(counted.leave, always_call=True),
    ]
    try:
        yield counted
    finally:
        for handle in handles:
            handle.remove()


def classifiers() -> dict[str, Classifier]:
    """By name."""
    torch.manual_seed(0)
    densenet = build("densenet121", spatial_dims=3, in_channels=1, num_classes=2).eval()
    return {
        "chest_ct_3d (its input has 64 x 64 x 32 voxels)": load_model("chest_ct_3d", device="cpu"),
        "DenseNet121": classifier_from_module(densenet, ("a", "b"), input_shape=(1, *SHAPE)),
    }


def main() -> None:
    """Print for each metric of the panel how long it took."""
    torch.set_num_threads(THREADS)
    phantom = make_phantom(0, "ground_glass", SHAPE)
    image = Image(phantom.data[None].astype("float32"), Grid(SHAPE, phantom.affine), "phantom")
    for name, classifier in classifiers().items():
        scaled = image if "chest" in name else replace(image, data=(image.data + np.float32(1000)) / np.float32(1400))
        case = case_of(explain(scaled, classifier), phantom.mask, scaled, classifier)
        rows, total, inside = {}, 0.0, 0.0
        for metric in panel():
            with clock() as counted:
                start = time.perf_counter()
                evaluate_case(case, [metric], Job())
                seconds = time.perf_counter() - start
            total, inside = total + seconds, inside + counted.seconds
            share = f"{seconds / counted.seconds:.2f}" if counted.passes else "no passes"
            rows[metric.title] = [f"{seconds:.2f}", str(counted.passes), share]
        rows["all"] = [f"{total:.2f}", "", f"{total / inside:.2f}"]
        table(name, ["metric", "seconds", "passes", "by the passes' time"], rows)


if __name__ == "__main__":
    main()
