"""Every registered method through scripts, windows and real networks, on the grid of the image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from brain_network import BrainTumour
from conftest import ROOT
from explained_networks import SMALL, small_case
from helpers import FEW_MASKED, random_affine

from napari_xai_med import Classifier, Image, classifier_from_module, explain, explain_all, predict, read_image
from napari_xai_med.errors import InputError
from napari_xai_med.explainers.base import explainers, reason_against
from napari_xai_med.explanation import explain_request
from napari_xai_med.grid import Grid
from napari_xai_med.io.nifti import save_nifti
from napari_xai_med.job import Job
from napari_xai_med.models.sliding_window import Aggregate, SlidingWindow
from napari_xai_med.options import option_fields
from napari_xai_med.preprocessing.base import transform_of
from napari_xai_med.preprocessing.files import read_preprocessing
from napari_xai_med.request import ExplainRequest

QUICK = {"steps": 4, "noise_samples": 3, "channels": 4, "window": 40.0, "stride": 40.0, **FEW_MASKED}
"""Few passes: what is tested is where the map lies and what is recorded."""


def quick(name: str) -> dict[str, float]:
    own = {item.name: item.default for item in option_fields(explainers()[name])}
    return {key: type(own[key])(value) for key, value in QUICK.items() if key in own}


def image_of(inputs: torch.Tensor) -> Image:
    """The first input, in a world that is turned and has voxels of different lengths."""
    affine = random_affine(np.random.default_rng(0)) if inputs.ndim == 5 else np.diag([0.7, 1.3, 1.0])
    return Image(inputs[0].numpy(), Grid(tuple(inputs.shape[2:]), affine))


@pytest.mark.parametrize("case", ["2d one logit", "3d softmax"])
@pytest.mark.parametrize("name", explainers())
def test_maps_lie_on_the_image_and_the_record_gives_them_again(name: str, case: str) -> None:
    classifier, inputs = small_case(name, case)
    image = image_of(inputs)
    for asked in ({}, {"quantity": "log_odds"}, {"target": 0, "against": 1}):
        attribution = explain(image, classifier, name, **quick(name), **asked)
        assert attribution.values.shape == image.grid.shape
        assert np.isfinite(attribution.values).all()
        request = ExplainRequest.from_dict(attribution.record.request)
        again = explain_request(image, classifier, request, Job())
        assert again.record.result["sha256"] == attribution.record.result["sha256"]
        caution = explainers()[name].caution
        assert attribution.record.method.get("caution", "") == caution
        assert not caution or caution in attribution.notices


@pytest.mark.parametrize("switched_off", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("name", explainers())
def test_callers_may_have_switched_gradients_off(name: str, switched_off: Callable[[], Any]) -> None:
    classifier, inputs = small_case(name, "2d softmax")
    expected = explain(image_of(inputs), classifier, name, **quick(name))
    with switched_off():
        found = explain(image_of(inputs), classifier, name, **quick(name))
    assert found.record.result["sha256"] == expected.record.result["sha256"]


@pytest.mark.parametrize("case", SMALL)
@pytest.mark.parametrize("name", explainers())
def test_one_window_over_the_whole_image_changes_nothing(name: str, case: str) -> None:
    classifier, inputs = small_case(name, case)
    image = image_of(inputs)
    windows = SlidingWindow(tuple(inputs.shape[2:]), Aggregate.MAX)
    for asked in ({"target": 1}, {"target": 0, "quantity": "probability"}):
        plain = explain(image, classifier, name, **quick(name), **asked)
        windowed = explain(image, replace(classifier, windows=windows), name, **quick(name), **asked)
        # Of a probability each window is explained along the logits: the slope is that at the image.
        if "quantity" in asked and name not in ("gradcam", "hirescam", "input_x_gradient"):
            continue
        np.testing.assert_allclose(windowed.values, plain.values, atol=1e-4 * np.abs(plain.values).max())


def test_a_baseline_image_is_cut_into_the_same_windows(tmp_path: Path) -> None:
    classifier, inputs = small_case("integrated_gradients", "3d softmax")
    classifier = replace(classifier, channels=1, network=torch.nn.Sequential(_Twice(), classifier.network))
    image = Image(inputs[0, :1].numpy(), Grid(tuple(inputs.shape[2:]), np.diag([1.0, 2.0, 3.0, 1.0])))
    save_nifti(tmp_path / "baseline.nii.gz", inputs[1, 0].numpy(), image.grid)
    size = tuple(n // 2 for n in inputs.shape[2:])
    windowed = replace(classifier, windows=SlidingWindow(size, Aggregate.MEAN, overlap=0.0))
    asked = {"baseline": "image", "baseline_image": str(tmp_path / "baseline.nii.gz"), "steps": 256}
    parts = explain(image, windowed, "integrated_gradients", target=1, **asked)
    # Each window's map adds up to the difference between its answer and that of the baseline's window.
    logits = [predict(one, windowed).logits[1] for one in (image, tmp_path / "baseline.nii.gz")]
    assert float(parts.raw.sum()) == pytest.approx(logits[0] - logits[1], rel=0.02)


class _Twice(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, -x], 1)


@pytest.fixture(scope="module")
def brain(shared_data: Callable[[str], Path]) -> tuple[Classifier, Image]:
    folder = shared_data("weights_brain_tumor_2d")
    network = BrainTumour()
    network.load_state_dict(torch.load(folder / "brain_tumor_cnn_23.pt"))
    steps = read_preprocessing(str(ROOT / "docs" / "real_networks" / "brain_tumour.json"), 2)
    classifier = classifier_from_module(
        network, ("no tumour", "tumour"), head="one_logit", preprocessing=transform_of(steps, "brain")
    )
    return classifier, read_image(shared_data("brain_mri_253") / "yes" / "Y1.jpg")


@pytest.mark.slow
@pytest.mark.parametrize("name", explainers())
def test_every_method_explains_a_real_network_on_a_real_image(name: str, brain: tuple[Classifier, Image]) -> None:
    classifier, picture = brain
    # Known once it was asked about: what a transformer is can't be told before.
    classifier.layers(tuple(classifier.prepare(picture).tensor.shape[1:]))
    if reason := reason_against(explainers()[name], classifier):
        assert "attention" in reason or "tokens" in reason
        return
    if name == "cam":
        # The network pools by maximum and has two linear layers.
        with pytest.raises(Exception, match="choose Grad-CAM or HiResCAM instead"):
            explain(picture, classifier, name, target="tumour")
        return
    # The few channels that are most active are not those that the answer depends on.
    options = quick(name) | ({"channels": 0} if name == "ablationcam" else {})
    attribution = explain(picture, classifier, name, target="tumour", **options)
    assert attribution.values.shape == picture.grid.shape
    assert attribution.values.any()


@pytest.mark.parametrize("name", ["integrated_gradients", "occlusion"])
def test_the_record_says_how_many_were_computed_at_once(name: str) -> None:
    """The last bits depend on it, and what is free in memory may be another share the next time."""
    classifier, inputs = small_case(name, "3d softmax")
    record = explain(image_of(inputs), classifier, name, **quick(name)).record
    assert record.request["options"]["batch_size"] == record.method["batch_size"] > 0


def test_several_layers_with_windows_are_refused_or_listed() -> None:
    classifier, inputs = small_case("gradcam", "2d softmax")
    classifier = replace(classifier, windows=SlidingWindow((8, 8), Aggregate.MEAN))
    layers = ("features.2", "features.5")
    with pytest.raises(InputError, match="with a sliding window choose one layer, or separate"):
        explain(image_of(inputs), classifier, layers=layers)
    assert len(explain_all(image_of(inputs), classifier, layers=layers, separate=True, targets=[1])) == 2
