from __future__ import annotations

from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import numpy as np
import pytest
import torch
from helpers import classifier_of, maps_of
from scipy.ndimage import gaussian_filter
from skimage.restoration import inpaint_biharmonic
from torch import nn

from napari_xai_med.errors import InputError
from napari_xai_med.explainers.base import Question
from napari_xai_med.explainers.baselines import simple_baselines
from napari_xai_med.explainers.deeplift import DeepLIFTSHAP
from napari_xai_med.explainers.integrated import IntegratedGradients
from napari_xai_med.explainers.segment_baselines import inpainted, segment_means
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
    assert names[:6] == ["steps", "baseline", "blur", "constant", "seed", "baseline_image"]
    assert names[6] == "noise_tunnel"
    assert len(names) == len(set(names))


def test_constant_and_noise() -> None:
    x = torch.randn(2, 2, 40, 50) * torch.tensor([1.0, 3.0])[:, None, None] + torch.tensor([5.0, -2.0])[:, None, None]
    question = Question(classifier_of(NETWORK, 2), x, ())
    constant = IntegratedGradients(baseline="constant", constant=-1024.0).baselines(question)
    assert constant.shape == (2, 1, 2, 40, 50)
    assert (constant == -1024).all()
    noise, same, other = (
        IntegratedGradients(baseline="noise", seed=seed).baselines(question)[:, 0] for seed in (1, 1, 2)
    )
    torch.testing.assert_close(noise, same, rtol=0, atol=0)
    assert (noise != other).any()
    # Of 2000 voxels the mean is known to 2 %, and the standard deviation to 2 %, of the standard deviation.
    spread = x.std((2, 3))
    assert ((noise.mean((2, 3)) - x.mean((2, 3))).abs() < 0.1 * spread).all()
    assert ((noise.std((2, 3)) / spread - 1).abs() < 0.1).all()


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (2.5, 0.7, 1.2)])
def test_segments_are_filled_with_their_mean_or_from_their_surroundings(spacing: tuple[float, ...]) -> None:
    shape = (12, 14, 10)[: len(spacing)]
    random = np.random.default_rng(0)
    noisy = random.normal(size=(2, *shape))
    places = np.meshgrid(*map(np.arange, shape), indexing="ij")
    ramp = np.stack([sum(step * place for step, place in zip(spacing, places, strict=True)), 3.0 - places[0]])
    labels = np.zeros(shape, np.int32)
    inner = tuple(slice(3, 8) for _ in shape)
    labels[inner] = 1
    labels[(slice(4, 6), *inner[1:])] = 2
    labels[(0,) * len(shape)] = 3
    mean = segment_means(noisy, labels)
    for number in (1, 2, 3):
        for channel in range(2):
            np.testing.assert_allclose(mean[channel][labels == number], noisy[channel][labels == number].mean())
    np.testing.assert_array_equal(mean[:, labels == 0], noisy[:, labels == 0])
    inside = (labels == 1) | (labels == 2)
    # A ramp is what no edge between segments shows in, as biharmonic functions are.
    filled = inpainted(ramp, labels, spacing)
    np.testing.assert_allclose(filled[:, inside], ramp[:, inside], atol=1e-3)
    theirs = inpaint_biharmonic(ramp[0], labels == 2)
    np.testing.assert_allclose(filled[0][labels == 2], theirs[labels == 2], atol=1e-3)
    # Laplace's equation at each voxel of a segment, whose neighbours in other segments are as they were.
    filled = inpainted(noisy, labels, spacing)
    np.testing.assert_array_equal(filled[:, labels == 0], noisy[:, labels == 0])
    for place in np.argwhere(inside):
        here, total, weights = tuple(place), 0.0, 0.0
        for axis, step in enumerate(spacing):
            for side in (-1, 1):
                there = tuple(place + side * (np.arange(len(shape)) == axis))
                around = filled if labels[there] == labels[here] else noisy
                total, weights = total + around[(0, *there)] / step**2, weights + step**-2
        assert filled[(0, *here)] == pytest.approx(total / weights, abs=1e-3)


def test_a_segment_with_nothing_around_is_filled_with_its_mean() -> None:
    data = np.arange(24.0).reshape(1, 4, 6)
    np.testing.assert_allclose(inpainted(data, np.ones((4, 6), np.int32), (1.0, 1.0)), data.mean())
