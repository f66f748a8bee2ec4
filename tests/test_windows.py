"""Classifiers of patches on larger images: one answer and one map from many windows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import MeanOf, centre_of_mass, classifier_of, ones, random_affine
from luna_network import LunaNodule
from monai.inferers import sliding_window_inference
from monai.transforms import Compose, Orientation, ScaleIntensityRange, Spacing
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

from napari_xai_med import Image, classifier_from_module, explain, predict, read_image, windows
from napari_xai_med.errors import Cancelled
from napari_xai_med.grid import Grid
from napari_xai_med.job import Job
from napari_xai_med.models.classifier import Classifier
from napari_xai_med.models.head import Head
from napari_xai_med.models.sliding_window import Aggregate, SlidingWindow
from napari_xai_med.pipeline import layers_for
from napari_xai_med.request import ExplainRequest

AGGREGATES = list(Aggregate)


def small_network(outputs: int = 2, seed: int = 0) -> nn.Module:
    """Padded convolutions and a nonlinear head: a window's map depends on where the window ends."""
    torch.manual_seed(seed)
    body = (nn.Conv3d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv3d(4, 4, 3, padding=1), nn.ReLU())
    return nn.Sequential(
        *body, nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, outputs)
    )


def smooth(shape: tuple[int, ...], seed: int, sigma: float = 4.0) -> np.ndarray:
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=shape), sigma)
    return (noise / noise.std()).astype(np.float32)


def by_windows(classifier: Classifier, size: int, aggregate: str, **settings: Any) -> Classifier:
    window = SlidingWindow((size,) * classifier.spatial_dims, Aggregate(aggregate), **settings)
    return replace(classifier, windows=window)


def cut(values: np.ndarray, size: int, overlap: float) -> list[np.ndarray]:
    """All windows of a volume, as someone would cut them by hand; the last ones end where the volume ends."""
    step = int(size * (1 - overlap))
    places = [sorted({*range(0, n - size, step), n - size}) for n in values.shape]
    return [values[tuple(slice(s, s + size) for s in start)] for start in product(*places)]


class OneLogit(nn.Module):
    """The mean of the input, as the only logit."""

    def __init__(self) -> None:
        super().__init__()
        self.features = ones(nn.Conv3d(1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.features(x).mean((2, 3, 4))


# The answer


@pytest.mark.parametrize("aggregate", AGGREGATES)
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5])
def test_the_logits_are_those_of_a_plain_loop(aggregate: str, overlap: float) -> None:
    values = smooth((13, 20, 17), 1)
    classifier = classifier_of(small_network(3), 3, 3)
    prediction = predict(Image.from_array(values), by_windows(classifier, 8, aggregate, overlap=overlap, batch_size=3))
    with torch.no_grad():
        each = [classifier.network(torch.tensor(part)[None, None])[0].numpy() for part in cut(values, 8, overlap)]
    logits = np.array(each, float)
    expected = {
        "max": logits.max(0),
        "mean": logits.mean(0),
        "logsumexp": np.log(np.exp(logits).mean(0)),
    }[aggregate]
    np.testing.assert_allclose(prediction.logits, expected, atol=1e-6)
    np.testing.assert_allclose(prediction.probabilities, np.exp(expected) / np.exp(expected).sum(), atol=1e-6)
    assert tuple(prediction.network_input.tensor.shape) == (1, 1, 13, 20, 17)


@pytest.mark.parametrize("shape", [(13, 20, 17), (5, 20, 8), (3, 4, 7)])
@pytest.mark.parametrize("overlap", [0.0, 0.3, 0.5, 0.9])
def test_the_windows_are_those_of_monai(shape: tuple[int, ...], overlap: float) -> None:
    image = torch.tensor(smooth(shape, 2))[None]
    seen: list[Tensor] = []

    def remember(part: Tensor) -> Tensor:
        seen.extend(part)
        return part

    sliding_window_inference(image[None], (8, 6, 7), 2, remember, overlap=overlap)
    ours = windows.Windows.of(image, SlidingWindow((8, 6, 7), Aggregate.MEAN, overlap, 2))
    found, notices = ours.each(range(len(ours.starts)), lambda _, batch, __: batch, Job())
    assert torch.equal(torch.cat(found), torch.stack(seen))
    assert notices == ()


def test_the_window_with_the_largest_logit_decides_for_both_classes_of_one_logit() -> None:
    values = np.full((8, 8, 24), -1.0, np.float32)
    values[..., 16:] = -0.5
    classifier = classifier_of(OneLogit(), 3, head=Head.ONE_LOGIT)
    classifier = by_windows(classifier, 8, "max", overlap=0.0)
    image = Image.from_array(values)
    prediction = predict(image, classifier)
    assert prediction.logits.tolist() == pytest.approx([-0.5])
    assert prediction.probabilities[0] == pytest.approx(1 / (1 + np.exp(-0.5)))
    against = explain(image, classifier, target=0)
    assert against.values.shape == (8, 8, 24)
    assert against.values[..., 16:].min() > 0
    assert not against.values[..., :16].any()
    assert explain(image, classifier, target=1).is_zero
    assert "One of 3 windows decides: the map ends where that window ends." in against.notices


def test_equal_windows_are_told() -> None:
    classifier = by_windows(classifier_of(OneLogit(), 3, head=Head.ONE_LOGIT), 8, "max", overlap=0.0)
    attribution = explain(np.ones((8, 8, 24), np.float32), classifier, target=1)
    assert "3 of 3 windows give the same largest answer; one of them is explained." in attribution.notices
    assert attribution.record.method["windows_explained"] == 1


# The map


def test_without_windows_nothing_changes() -> None:
    image = Image.from_array(smooth((16, 16, 16), 3))
    plain = classifier_of(small_network(), 3)
    one = explain(image, plain, target=1)
    assert one.record.model["sliding_window"] is None
    for aggregate in AGGREGATES:
        other = explain(image, by_windows(plain, 16, aggregate), target=1)
        np.testing.assert_allclose(other.values, one.values, atol=1e-6 * one.values.max())
        np.testing.assert_allclose(other.prediction.logits, one.prediction.logits, atol=1e-6)


@pytest.mark.parametrize("overlap", [0.25, 0.5, 0.7])
def test_a_map_without_context_is_that_of_one_pass(overlap: float) -> None:
    image = Image.from_array(smooth((21, 30, 26), 4))
    classifier = classifier_of(MeanOf(ones(nn.Conv3d(1, 1, 1))), 3)
    whole = explain(image, classifier, target=1).values
    assembled = explain(image, by_windows(classifier, 10, "mean", overlap=overlap), target=1).values
    np.testing.assert_allclose(assembled / assembled.max(), whole / whole.max(), atol=1e-5)


def test_a_map_with_some_context_is_that_of_one_pass_but_at_the_border() -> None:
    """A 3x3x3 convolution has no cell on a window's outermost voxels: its map goes on there with the next value.

    Their share is about 0.001 of the mean for each axis, since the next window has its centre there.
    """
    image = Image.from_array(smooth((24, 32, 32), 5))
    classifier = classifier_of(MeanOf(ones(nn.Conv3d(1, 1, 3))), 3)
    whole = explain(image, classifier, target=1).values
    assembled = explain(image, by_windows(classifier, 16, "mean"), target=1).values
    inside = (slice(1, -1),) * 3
    whole, assembled = whole[inside] / whole[inside].max(), assembled[inside] / assembled[inside].max()
    steepest = max(np.abs(np.diff(whole, axis=axis)).max() for axis in range(3))
    np.testing.assert_allclose(assembled, whole, atol=3 * 2e-3 * steepest)


def jumps(values: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Steps between neighbouring voxels where windows begin or end, and elsewhere; as shares of the largest value."""
    across, elsewhere = [], []
    step = size // 2
    for axis, n in enumerate(values.shape):
        starts = {*range(0, n - size, step), n - size}
        borders = sorted(({*starts} | {s + size for s in starts}) - {0, n})
        steps = np.moveaxis(np.abs(np.diff(values, axis=axis)), axis, 0) / np.abs(values).max()
        at = np.zeros(n - 1, bool)
        at[[b - 1 for b in borders]] = True
        across.append(steps[at].ravel())
        # The image's own border is where the network sees zeros: no matter of windows.
        elsewhere.append(steps[~at].ravel())
    return np.concatenate(across), np.concatenate(elsewhere)


def seams(values: np.ndarray, size: int) -> float:
    """How much larger steps across windows' borders are than steps elsewhere: their mean, or their largest tenth."""
    across, elsewhere = jumps(values, size)
    return float(max(across.mean() / elsewhere.mean(), np.quantile(across, 0.9) / np.quantile(elsewhere, 0.9)))


# Of the mean all windows are alike; by this factor on the logits one window weighs up to 14 times the mean.
@pytest.mark.parametrize(("aggregate", "factor"), [("mean", 1), ("logsumexp", 300)])
@pytest.mark.parametrize(("seed", "target"), [(1, 0), (2, 0), (4, 1)])
def test_no_seam_shows(aggregate: str, factor: int, seed: int, target: int, monkeypatch: pytest.MonkeyPatch) -> None:
    image = Image.from_array(smooth((40, 32, 36), seed))
    network = small_network(seed=seed)
    with torch.no_grad():
        network[-1].weight *= factor
    classifier = by_windows(classifier_of(network, 3), 16, aggregate)
    assert seams(explain(image, classifier, target=target).raw, 16) < 1
    monkeypatch.setattr(windows, "importance", lambda size: np.ones(tuple(size), np.float32))
    naive = explain(image, classifier, target=target).raw
    assert seams(naive, 16) > 1.25


@pytest.mark.parametrize("seed", range(4))
def test_a_planted_ball_is_found_by_the_window_that_decides(seed: int) -> None:
    """Anywhere in a volume that lies obliquely, also far from its window's centre: within half a cell."""
    random = np.random.default_rng(seed)
    shape, affine = (52, 45, 60), random_affine(random)
    index = np.array([random.uniform(8, n - 9) for n in shape])
    local = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), -1) - index
    values = np.exp(-((local / 1.5) ** 2).sum(-1) / 2)
    values[values < 1e-3] = 0
    image = Image(values[None].astype(np.float32), Grid(shape, affine), "ball")
    spacing = float(np.mean(image.grid.spacing))
    steps = [Orientation("RAS", labels=None), Spacing((spacing,) * 3)]
    network = MeanOf(ones(nn.Conv3d(1, 1, 3)), ones(nn.Conv3d(1, 1, 2, 2)))
    classifier = classifier_of(network, 3, preprocessing=Compose(steps), sha256="")
    attribution = explain(image, by_windows(classifier, 24, "max"), target=1)
    method = attribution.record.method
    assert method["windows"] >= 8
    assert method["windows_explained"] == 1
    found = centre_of_mass(attribution.values, affine)
    cell = max(2 * spacing, *image.grid.spacing)
    assert np.linalg.norm(found - image.grid.to_world(index)) < cell / 2


def test_an_input_smaller_than_a_window_is_padded_and_cropped_again() -> None:
    values = smooth((5, 20, 9), 6)
    classifier = classifier_of(MeanOf(ones(nn.Conv3d(1, 1, 1))), 3)
    image = Image.from_array(values)
    attribution = explain(image, by_windows(classifier, 10, "mean"), target=1)
    whole = explain(image, classifier, target=1).values
    assert attribution.values.shape == attribution.raw.shape == values.shape
    np.testing.assert_allclose(attribution.values / attribution.values.max(), whole / whole.max(), atol=1e-5)
    sentence = "The network's input, 5 x 20 x 9, is smaller than its window, 10 x 10 x 10; it was padded with zeros."
    assert attribution.notices == (sentence,)
    assert predict(image, by_windows(classifier, 10, "mean")).notices == (sentence,)


def test_windows_of_a_slice() -> None:
    values = smooth((6, 30, 26), 7)
    classifier = by_windows(classifier_of(MeanOf(ones(nn.Conv2d(1, 1, 1))), 2), 12, "mean")
    attribution = explain(values, classifier, target=1, slice=3)
    expected = np.maximum(values[3], 0)
    np.testing.assert_allclose(attribution.values[0] / attribution.values.max(), expected / expected.max(), atol=1e-5)


def test_layers_are_those_of_a_window_and_the_record_says_what_happened() -> None:
    image = Image.from_array(smooth((30, 28, 26), 8))
    classifier = by_windows(classifier_of(small_network(), 3), 12, "logsumexp", batch_size=3)
    layers, default = layers_for(image, classifier, ExplainRequest())
    assert default == "2"
    assert layers[0].shape == (12, 12, 12)
    record = explain(image, classifier, target=1).record
    assert record.model["sliding_window"] == {
        "roi_size": [12, 12, 12],
        "aggregate": "logsumexp",
        "overlap": 0.5,
        "batch_size": 3,
    }
    assert record.method["layer"] == "2"
    assert record.method["layer_shape"] == [12, 12, 12]
    assert record.method["windows"] == record.method["windows_explained"] == 64
    told = record.method["strongest_windows"]
    assert len(told) == 10
    assert [window["weight"] for window in told] == sorted((window["weight"] for window in told), reverse=True)
    assert record.to_json()


# Long work


class Counting(nn.Module):
    """Notes the size of each batch, and what else is to happen then."""

    def __init__(self, then: Callable[[int], None]) -> None:
        super().__init__()
        self.features = nn.Conv3d(1, 2, 3)
        self.sizes: list[int] = []
        self.then = then

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "meta":
            self.sizes.append(len(x))
            self.then(len(x))
        return self.features(x).mean((2, 3, 4))


def test_batches_shrink_when_the_memory_is_not_enough() -> None:
    def fail(size: int) -> None:
        if size > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    image = Image.from_array(smooth((24, 24, 24), 9))
    torch.manual_seed(0)
    small = by_windows(classifier_of(Counting(fail), 3), 12, "mean", batch_size=8)
    plenty = replace(small, network=Counting(lambda _: None).eval())
    plenty.network.load_state_dict(small.network.state_dict())
    attribution, expected = explain(image, small, target=0), explain(image, plenty, target=0)
    np.testing.assert_allclose(attribution.values, expected.values, atol=1e-6 * np.abs(expected.values).max())
    assert "The memory was not enough for 8 windows at once; they were computed in batches of 2." in attribution.notices
    assert "computed in batches of 2" in predict(image, small).notices[0]
    assert expected.notices == ()
    assert max(plenty.network.sizes) == 8


@pytest.mark.parametrize("passes", [1, 4, 12])
def test_cancel_stops_within_one_batch(passes: int) -> None:
    """There are 9 batches: the first two stop while the windows are asked, the last while they are explained."""

    class Token:
        def is_set(self) -> bool:
            return len(network.sizes) >= passes

    network = Counting(lambda _: None)
    classifier = by_windows(classifier_of(network, 3), 12, "mean", batch_size=3)
    with pytest.raises(Cancelled):
        explain(smooth((24, 24, 24), 9), classifier, target=0, cancel=Token())
    assert len(network.sizes) == passes


def test_progress_rises_and_counts_windows() -> None:
    seen: list[tuple[float, str]] = []
    classifier = by_windows(classifier_of(Counting(lambda _: None), 3), 12, "mean", batch_size=3)
    explain(smooth((24, 24, 24), 9), classifier, target=0, progress=lambda *step: seen.append(step))
    shares = [share for share, _ in seen]
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert "Running the network: windows 4 to 6 of 27" in [text for _, text in seen]


# The real thing


@pytest.mark.slow
@pytest.mark.parametrize("start", [(17, 1, 46), (6, 46, 144)])
def test_the_lung_nodule_network_finds_a_nodule_in_a_scan(
    start: tuple[int, int, int], shared_data: Callable[[str], Path]
) -> None:
    """A real nodule, put softly into the lung of a real CT at 1 mm where no window is centred: within one cell."""
    ct = read_image(shared_data("ct_totalsegmentator") / "aorta_case" / "ct_cropped.nii.gz")
    patch = np.load(shared_data("luna_patches") / "positive_patch.npy")
    weights = torch.load(shared_data("weights_luna_nodule_3d") / "luna_v29.pt", weights_only=True)
    network = LunaNodule()
    network.load_state_dict(weights)
    steps = [Orientation("RAS", labels=None), Spacing((1, 1, 1)), ScaleIntensityRange(-1000, 400, 0, 1, clip=True)]
    classifier = classifier_from_module(
        network,
        ["malignant"],
        preprocessing=Compose(steps),
        output="o_mal",
        sliding_window={"roi_size": [64, 64, 64], "aggregate": "max", "overlap": 0.25},
    )
    seen = classifier.prepare(ct)
    data = seen.tensor[0].numpy()
    place = (0, *(slice(s, s + 64) for s in start))
    # A hard edge around the patch would be a finding itself.
    share = np.clip((30 - np.linalg.norm(np.indices(patch.shape).T - 31.5, axis=-1).T) / 10, 0, 1)
    data[place] = data[place] * (1 - share) + patch * share
    grid = Grid(data.shape[1:], ct.grid.affine @ seen.to_image)
    attribution = explain(Image(data * 1400 - 1000, grid, "scan with a nodule"), classifier, target="malignant")
    assert attribution.prediction.logits[0] > 1
    assert attribution.values.shape == data.shape[1:]
    assert attribution.record.method["windows"] == 80
    assert attribution.record.method["windows_explained"] == 1
    peak = np.array(np.unravel_index(attribution.values.argmax(), attribution.values.shape))
    assert np.abs(peak - start - 31.5).max() <= 16
