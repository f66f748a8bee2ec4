"""LIME and Kernel SHAP of 1000 samples by 50 superpixels, beside the packages lime, shap and captum.

The same network, image, segments and number of evaluations. *tuned*: masks made without a loop and the network's best
batch, where the package lets one choose it; *default*: the package's own settings, with the masks of its tutorials.

Processor time in one thread: at a millisecond an image, what else the machine does would tell more than the packages.

``OMP_NUM_THREADS=1 python benchmarks/perturbation.py``
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from typing import Any

import numpy as np
import shap
import torch
from captum.attr import KernelShap, Lime
from lime.lime_image import LimeImageExplainer
from measure import seconds, table
from numpy.typing import NDArray

from napari_xai_med import load_model, read_image
from napari_xai_med.explainers.base import Question, make_explainer
from napari_xai_med.job import Job
from napari_xai_med.models.classifier import Classifier
from napari_xai_med.models.target import Target
from napari_xai_med.samples import sample_files
from napari_xai_med.segments.base import Segments, make_segmenter

SAMPLES, SEGMENTS, BATCH = 1000, 50, 32
Array = NDArray[Any]


class Task:
    """One image, its segments, and what the packages need of the network."""

    def __init__(self) -> None:
        self.classifier: Classifier = load_model("chest_ct_2d")
        image = read_image(sample_files("slice_ground_glass")[0])
        self.x = self.classifier.prepare(image).tensor
        self.segments: Segments = make_segmenter("slic", {"number": SEGMENTS}).segments(self.x[0].numpy(), (1.0, 1.0))
        self.picture = self.x[0, 0].numpy().astype(np.float64)
        self.labels = self.segments.labels - 1
        self.count = self.segments.count

    def network(self, images: Array) -> Array:
        """Logits of images, shape (B, 1, *spatial)."""
        with torch.inference_mode():
            return np.asarray(self.classifier.network(torch.from_numpy(images.astype(np.float32))))

    def plain(self) -> None:
        """As many passes through the network alone."""
        images = np.repeat(self.x.numpy(), BATCH, 0)
        for _ in range(SAMPLES // BATCH):
            self.network(images)

    def ours(self, method: str, **options: Any) -> Callable[[], None]:
        """A map by this library."""
        explainer = make_explainer(method, options)
        question = Question(self.classifier, self.x, ((0, Target(1)),), (1.0, 1.0), segments=(self.segments,))

        def call() -> None:
            explainer.attribute(question, Job())

        return call

    def lime(self, batch: int) -> Callable[[], None]:
        """LIME by the package lime, which makes its masks by a loop over segments."""

        def call() -> None:
            LimeImageExplainer(random_state=0).explain_instance(
                self.picture,
                lambda images: self.network(images[..., :1].transpose(0, 3, 1, 2)),
                labels=(1,),
                hide_color=0,
                num_samples=SAMPLES,
                batch_size=batch,
                segmentation_fn=lambda _: self.labels,
            )

        return call

    def masked(self, coalitions: Array) -> Array:
        """Images of coalitions, without a loop."""
        return np.where(coalitions.astype(bool)[:, self.labels], self.x.numpy()[0, 0], 0)[:, None]

    def masked_in_a_loop(self, coalitions: Array) -> Array:
        """As the tutorials of shap make them."""
        images = np.zeros((len(coalitions), *self.picture.shape))
        for row in range(len(coalitions)):
            images[row] = self.picture
            for segment in range(self.count):
                if coalitions[row, segment] == 0:
                    images[row][self.labels == segment] = 0
        return images[:, None]

    def shap(self, masked: Callable[[Array], Array], batch: int, **options: Any) -> Callable[[], None]:
        """Kernel SHAP by the package shap, which gives all coalitions at once."""

        def score(coalitions: Array) -> Array:
            parts = np.split(coalitions, range(batch, len(coalitions), batch))
            return np.concatenate([self.network(masked(part)) for part in parts])[:, 1]

        def call() -> None:
            np.random.seed(0)  # noqa: NPY002  # what shap draws with
            explainer = shap.KernelExplainer(score, np.zeros((1, self.count)))
            explainer.shap_values(np.ones((1, self.count)), nsamples=SAMPLES, silent=True, **options)

        return call

    def captum(self, kind: type[Lime] | type[KernelShap], batch: int) -> Callable[[], None]:
        """LIME or Kernel SHAP by captum."""
        method, mask = kind(self.classifier.network), torch.from_numpy(self.labels).long()[None, None]

        def call() -> None:
            with torch.no_grad():
                method.attribute(self.x, target=1, feature_mask=mask, n_samples=SAMPLES, perturbations_per_eval=batch)

        return call


def main() -> None:
    """Print tables."""
    warnings.simplefilter("ignore")
    task = Task()
    groups = {
        "LIME": {
            "napari-xai-med": task.ours("lime", samples=SAMPLES),
            "lime, tuned": task.lime(BATCH),
            "lime, default": task.lime(10),
            "captum, tuned": task.captum(Lime, BATCH),
            "captum, default": task.captum(Lime, 1),
        },
        "Kernel SHAP": {
            "napari-xai-med, Shapley values": task.ours("shapley", evaluations=SAMPLES),
            "napari-xai-med, Kernel SHAP (shap)": task.ours("kernelshap", samples=SAMPLES),
            "shap, tuned": task.shap(task.masked, BATCH, l1_reg=False),
            "shap, default": task.shap(task.masked_in_a_loop, SAMPLES),
            "captum, tuned": task.captum(KernelShap, BATCH),
            "captum, default": task.captum(KernelShap, 1),
        },
    }
    for title, calls in groups.items():
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            times = seconds({**calls, "plain": task.plain}, 7, time.process_time, 1)
        first = times[next(iter(calls))]
        rows = {
            name: [f"{times[name]:.2f}", f"{times[name] / times['plain']:.2f}", f"{times[name] / first:.2f}"]
            for name in calls
        }
        table(title, ["", "seconds", "plain passes", "times ours"], rows)


if __name__ == "__main__":
    main()
