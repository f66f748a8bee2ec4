"""Speed and rank correlation of Grad-CAM in reduced precision, on the processor and on CUDA where there is one.

``python benchmarks/precision.py``
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

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


def main() -> None:
    """Print how many times as fast each precision is as float32, and the rank correlation of its map."""
    rows = {}
    explainer = make_explainer("gradcam", {})
    for device in ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]:
        for case in CLASSIFIERS:
            classifier, x = CLASSIFIERS[case]()
            classifier = classifier.on(device)
            asked = {
                precision: Question(
                    classifier.at(precision), x, tuple((0, Target(k)) for k in range(len(classifier.class_names)))
                )
                for precision in Precision
            }
            times = seconds({name: partial(explainer.attribute, question, Job()) for name, question in asked.items()})
            maps = {name: explainer.attribute(question, Job())[0] for name, question in asked.items()}
            row = []
            for name in (Precision.BFLOAT16, Precision.FLOAT16):
                ranks = [
                    float(spearmanr(one.values.ravel(), full.values.ravel()).statistic)
                    for one, full in zip(maps[name], maps[Precision.FLOAT32], strict=True)
                    if full.values.any()
                ]
                row += [f"{times[Precision.FLOAT32] / times[name]:.2f}", f"{min(ranks):.4f}"]
            rows[f"{case}, {device}"] = row
    columns = ["bfloat16: times as fast", "rank correlation", "float16: times as fast", "rank correlation"]
    table("Grad-CAM in reduced precision", ["network and input", *columns], rows)


if __name__ == "__main__":
    main()
