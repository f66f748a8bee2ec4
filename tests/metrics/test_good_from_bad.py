"""The standard panel tells a map that is right from one that is not."""

from __future__ import annotations

import numpy as np
import pytest

from napari_xai_med import Image, explain, load_model
from napari_xai_med.cases import case_of
from napari_xai_med.evaluation import evaluate_case, panel
from napari_xai_med.grid import Grid
from napari_xai_med.job import Job
from napari_xai_med.metrics.base import Family
from napari_xai_med.training.phantoms import Phantom, make_phantom, make_slice
from napari_xai_med.training.reference import HELD_OUT_SEED


def wins(phantoms: list[Phantom], model: str, **options: str) -> dict[tuple[str, str], int]:
    """For how many of held-out phantoms Grad-CAM is better than each control, by each curve's AUC."""
    classifier = load_model(model)
    count: dict[tuple[str, str], int] = {}
    for phantom in phantoms:
        image = Image(phantom.data[None].astype(np.float32), Grid(phantom.data.shape, phantom.affine))
        attribution = explain(image, classifier, target="ground glass")
        case = case_of(attribution, image=image, classifier=classifier)
        chosen = [type(metric)(**options) for metric in panel() if metric.family is Family.FAITHFULNESS]
        for metric, outcome in evaluate_case(case, chosen, Job()).outcomes.items():
            areas = {score.subject: score.value for score in outcome.scores if score.name == f"{metric.name}_auc"}
            own = areas.pop("explanation")
            for name, area in areas.items():
                better = own > area if metric.name == "insertion" else own < area
                count[metric.name, name] = count.get((metric.name, name), 0) + better
            assert outcome.verdicts[0].good is all(
                own > area if metric.name == "insertion" else own < area for area in areas.values()
            )
    return count


def test_gradcam_of_slices_beats_every_control() -> None:
    """Of 20 slices with ground glass that the classifier never saw."""
    slices = [make_slice(HELD_OUT_SEED + seed, "ground_glass") for seed in range(20)]
    found = wins(slices, "chest_ct_2d")
    assert found == {(curve, name): 20 for curve in ("deletion", "insertion") for name in ("random", "edges", "centre")}


@pytest.mark.slow
def test_gradcam_of_volumes_beats_the_random_map_and_the_edges() -> None:
    """By the logit: the probability stays at 1 until nearly all is gone, so that it hides what comes first."""
    volumes = [make_phantom(HELD_OUT_SEED + seed, "ground_glass") for seed in range(20)]
    found = wins(volumes, "chest_ct_3d", quantity="logit")
    assert min(found.values()) >= 18
