"""Speed and rank correlation of Grad-CAM in reduced precision, on the processor and on CUDA where there is one.

``python benchmarks/precision.py``
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from cams import CASES, made
from measure import seconds, table
from scipy.stats import spearmanr
from torch import Tensor

from napari_xai_med.explainers.base import Question, make_explainer
from napari_xai_med.io import read_image
from napari_xai_med.job import Job
from napari_xai_med.models import load_model
from napari_xai_med.models.classifier import Classifier
from napari_xai_med.models.precision import Precision
from napari_xai_med.models.target import Target
from napari_xai_med.samples import sample_files


def trained(image: str, model: str) -> tuple[Classifier, Tensor]:
    """An embedded classifier, and a sample as its network gets it."""
    classifier = load_model(model)
    return classifier, classifier.prepare(read_image(sample_files(image)[0])).tensor


def untrained(case: str) -> tuple[Classifier, Tensor]:
    """One of the other benchmarks' classifiers, and its input."""
    return made(case)[:2]


CLASSIFIERS: dict[str, Callable[[], tuple[Classifier, Tensor]]] = {
    "embedded 3D classifier, trained": partial(trained, "chest_ct_lesion", "chest_ct_3d"),
    "embedded 2D classifier, trained": partial(trained, "slice_nodule", "chest_ct_2d"),
    **{f"{case}, random weights": partial(untrained, case) for case in CASES},
}


def measured(classifier: Classifier, x: Tensor, precision: Precision) -> tuple[str, str]:
    """How many times as fast Grad-CAM is as in float32, and the lowest rank correlation of its maps of all classes."""
    explainer = make_explainer("gradcam", {})
    targets = tuple((0, Target(k)) for k in range(len(classifier.class_names)))
    calls: dict[str, Callable[[], Any]] = {
        each: partial(explainer.attribute, Question(classifier.at(each), x, targets), Job())
        for each in (Precision.FLOAT32, precision)
    }
    times = seconds(calls, 3)
    maps = [calls[each]()[0] for each in calls]
    ranks = [
        float(spearmanr(one.values.ravel(), other.values.ravel()).statistic)
        for one, other in zip(*maps, strict=True)
        if one.values.any()
    ]
    return f"{times[Precision.FLOAT32] / times[precision]:.2f}", f"{min(ranks):.4f}"


def main() -> None:
    """Print a table for the processor, and one for CUDA where there is one."""
    # Processors compute float16 step by step, which takes minutes.
    devices = {"cpu": [Precision.BFLOAT16]}
    if torch.cuda.is_available():
        devices["cuda"] = [Precision.BFLOAT16, Precision.FLOAT16]
    for device, precisions in devices.items():
        rows = {}
        for case, make in CLASSIFIERS.items():
            classifier, x = make()
            rows[case] = [text for each in precisions for text in measured(classifier.on(device), x, each)]
        columns = [text for each in precisions for text in (f"{each}: times as fast", "rank correlation")]
        table(f"Grad-CAM in reduced precision, {device}", ["network and input", *columns], rows)


if __name__ == "__main__":
    main()
