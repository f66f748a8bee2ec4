from __future__ import annotations

from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import numpy as np
import pytest
import torch
from helpers import classifier_of, maps_of
from scipy.ndimage import gaussian_filter
from torch import nn

from napari_xai_med.errors import InputError
from napari_xai_med.explainers.base import Question
from napari_xai_med.explainers.baselines import simple_baselines
from napari_xai_med.explainers.deeplift import DeepLIFTSHAP
from napari_xai_med.explainers.integrated import IntegratedGradients
from napari_xai_med.explanation import explain_request
from napari_xai_med.io import read_image
from napari_xai_med.job import Job
from napari_xai_med.options import option_fields
from napari_xai_med.request import ExplainRequest

NETWORK = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())


@pytest.mark.parametrize("spacing", [(), (3.0, 1.0, 0.5)])
def test_baselines_are_of_each_row_and_channel(spacing: tuple[float, ...]) -> None:
    x = torch.randn(2, 3, 8, 9, 10)
    found = simple_baselines(
        Question(classifier_of(NETWORK, 3), x, (), spacing), ("zero", "minimum", "mean", "blurred"), 2.0
    )
    assert found.shape == (2, 4, 3, 8, 9, 10)
    widths = [2 / step for step in spacing or (1, 1, 1)]
    for row in range(2):
        for channel in range(3):
            image, (zero, minimum, mean, blurred) = x[row, channel].numpy(), found[row, :, channel].numpy()
            assert not zero.any()
            assert (minimum == image.min()).all()
            np.testing.assert_allclose(mean, image.mean(), atol=1e-6)
            np.testing.assert_allclose(blurred, gaussian_filter(image, widths, mode="nearest"), atol=1e-6)


def test_a_blur_keeps_a_constant_image_up_to_its_border() -> None:
    x = torch.full((1, 1, 12, 12), 3.0)
    torch.testing.assert_close(simple_baselines(Question(classifier_of(NETWORK, 2), x, ()), ("blurred",), 4.0)[:, 0], x)


def test_an_image_as_baseline_goes_through_the_preprocessing(tmp_path: Path) -> None:
    """Also where it is asked for by path, as in scripts."""
    random = np.random.default_rng(0)
    for name in ("image", "other"):
        imageio.imwrite(tmp_path / f"{name}.png", random.integers(0, 255, (12, 10), dtype=np.uint8))
    classifier, other = classifier_of(NETWORK, 2), str(tmp_path / "other.png")
    image = read_image(tmp_path / "image.png")

    def explained(method: str, **options: Any) -> Any:
        return explain_request(image, classifier, ExplainRequest(method, options, 1), Job())

    found = explained("integrated_gradients", baseline="image", baseline_image=other)
    tensors = [classifier.prepare(each).tensor for each in (image, read_image(other))]
    explainer = IntegratedGradients(baseline="image")
    (raw,), _ = maps_of(explainer, classifier, tensors[0], [(0, 1)], others=tensors[1])
    np.testing.assert_array_equal(found.raw, raw.values)
    assert found.record.request["options"]["baseline_image"] == (other,)
    assert found.record.method["compared_with"] == [{"source": other, "sha256": read_image(other).sha256}]
    for count in (1, 2):
        shap = explained("deeplift_shap", background=[other] * count)
        (raw,), _ = maps_of(DeepLIFTSHAP(), classifier, tensors[0], [(0, 1)], others=torch.cat(tensors[1:] * count))
        np.testing.assert_allclose(shap.raw, raw.values, atol=1e-9)
    with pytest.raises(InputError, match="Integrated Gradients compares with one image; choose a baseline_image, or"):
        explained("integrated_gradients", baseline="image")
    with pytest.raises(InputError, match="compares with one image"):
        explained("integrated_gradients", baseline="image", baseline_image=[other, other])


def test_a_methods_own_options_come_first() -> None:
    names = [item.name for item in option_fields(IntegratedGradients)]
    assert names[:4] == ["steps", "baseline", "blur", "baseline_image"]
    assert names[4] == "noise_tunnel"
    assert len(names) == len(set(names))
