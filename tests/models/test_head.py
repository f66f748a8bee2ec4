from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import classifier_of
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from napari_xai_med import explain, predict
from napari_xai_med.errors import ModelError
from napari_xai_med.image import Image
from napari_xai_med.job import Job
from napari_xai_med.models.head import Head
from napari_xai_med.models.run import forward
from napari_xai_med.models.target import Target

NAMES = {"class_names": ("background", "organ", "lesion"), "head": Head.SEGMENTATION}


class Voxels(nn.Module):
    """A segmentation with known logits: background 0, organ x - 1, lesion 3 (x - 2)."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(1, 3, 1)
        with torch.no_grad():
            self.layer.weight[:] = torch.tensor([0.0, 1.0, 3.0])[:, None, None, None]
            self.layer.bias[:] = torch.tensor([0.0, -1.0, -6.0])

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x)
        return out


def picture() -> Image:
    values = np.zeros((8, 10), np.float32)
    values[2:6, 2:8] = 2  # organ: logits 0, 1, 0
    values[3:5, 3:5] = 4  # lesion: logits 0, 3, 6
    return Image.from_array(values)


def test_a_segmentation_is_asked_about_the_region_that_it_predicts() -> None:
    prediction = predict(picture(), classifier_of(Voxels(), 2, **NAMES))
    # The background's own region, 56 voxels; the organ's 20 with logit 1; the lesion's 4 with logit 6.
    np.testing.assert_allclose(prediction.logits, [0, 1, 6])
    np.testing.assert_allclose(prediction.probabilities, [56 / 80, 20 / 80, 4 / 80])
    assert prediction.quantity == "share of the image"
    assert prediction.class_names[prediction.top] == "organ"


def test_grad_cam_of_a_segmentation_is_that_of_the_mean_over_its_region() -> None:
    torch.manual_seed(3)
    classifier = classifier_of(nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), Voxels4()), 2, **NAMES)
    image = picture()
    attribution = explain(image, classifier, target="lesion", layers="0")
    x = torch.from_numpy(image.data)[None]
    maps = classifier.network[0](x).detach().requires_grad_()
    voxels = classifier.network[2](torch.relu(maps))
    region = voxels.argmax(1)[0] == 2
    assert region.any()
    voxels[0, 2][region].mean().backward()
    expected = (maps.grad.mean((2, 3))[0][:, None, None] * maps[0]).sum(0).relu().detach().numpy()
    np.testing.assert_allclose(attribution.raw, expected, atol=1e-6)


def test_a_changed_image_is_asked_about_the_region_of_the_image_itself() -> None:
    image, classifier = picture(), classifier_of(Voxels(), 2, **NAMES)
    x = torch.from_numpy(image.data)[None]
    answer, covered = forward(classifier, x, Job()), forward(classifier, torch.zeros_like(x), Job())
    found = Target(2).resolved(answer, 0)
    # 3 (x - 2) at 4, and where 0 covers it, where no lesion is predicted any more.
    assert float(found.of(answer)) == 6
    assert float(found.of(covered)) == -6
    assert float(Target(2, 1).resolved(answer, 0).of(covered)) == -6 + 1
    lesion = image.data[0] == 4
    occlusion = explain(image, classifier, "occlusion", target="lesion", window=1.0, stride=1.0)
    # Of four voxels, each covered alone.
    np.testing.assert_allclose(occlusion.values, np.where(lesion, 12 / 4, 0), atol=1e-6)
    gradients = explain(image, classifier, "integrated_gradients", target="lesion", steps=4)
    np.testing.assert_allclose(gradients.values, np.where(lesion, 12 / 4, 0), atol=1e-5)
    assert gradients.notices == ()


class Voxels4(nn.Conv2d):
    """Three logits of four feature maps."""

    def __init__(self) -> None:
        super().__init__(4, 3, 1)


def test_a_class_without_a_region_is_asked_about_everywhere() -> None:
    image = Image.from_array(np.full((4, 4), 2, np.float32))
    prediction = predict(image, classifier_of(Voxels(), 2, **NAMES))
    np.testing.assert_allclose(prediction.logits, [0, 1, 0])
    np.testing.assert_allclose(prediction.probabilities, [0, 1, 0])


def test_one_logit_for_each_voxel_has_a_background() -> None:
    network = nn.Conv2d(1, 1, 1)
    with torch.no_grad():
        network.weight.fill_(1)
        network.bias.fill_(-1)
    names = {"class_names": ("background", "organ"), "head": Head.SEGMENTATION}
    prediction = predict(picture(), classifier_of(network, 2, **names))
    np.testing.assert_allclose(prediction.logits, [1, (20 * 1 + 4 * 3) / 24])
    np.testing.assert_allclose(prediction.probabilities, [56 / 80, 24 / 80])


def test_a_regression_is_asked_about_its_number() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 1))
    classifier = classifier_of(network, 2, class_names=("diameter in mm",), head=Head.REGRESSION)
    image = picture()
    prediction = predict(image, classifier)
    expected = float(network(torch.from_numpy(image.data)[None]))
    assert prediction.quantity == "value"
    np.testing.assert_allclose(prediction.probabilities, [expected], rtol=1e-6)
    assert explain(image, classifier).class_name == "diameter in mm"


def test_a_head_that_does_not_fit_is_told() -> None:
    with pytest.raises(ModelError, match="gives no number for each voxel"):
        predict(
            picture(),
            classifier_of(
                nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), 2, class_names=("a", "b"), head=Head.SEGMENTATION
            ),
        )
    with pytest.raises(ModelError, match="gives 3 numbers, but its bundle names 2 classes with a segmentation head"):
        predict(picture(), classifier_of(Voxels(), 2, class_names=("a", "b"), head=Head.SEGMENTATION))


def sigmoids() -> nn.Module:
    """Two classes that overlap: logits x - 1 and 3 - x."""
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Sigmoid())
    with torch.no_grad():
        network[0].weight[:] = torch.tensor([1.0, -1.0])[:, None, None, None]
        network[0].bias[:] = torch.tensor([-1.0, 3.0])
    return network


def test_classes_of_a_segmentation_with_a_sigmoid_each_have_regions_of_their_own() -> None:
    names = {"class_names": ("organ", "rest"), "head": Head.SEGMENTATION}
    prediction = predict(picture(), classifier_of(sigmoids(), 2, **names))
    # Organ where x > 1: 20 voxels with logit 1 and 4 with 3; the rest where x < 3: 56 with logit 3 and 20 with 1.
    np.testing.assert_allclose(prediction.probabilities, [24 / 80, 76 / 80])
    np.testing.assert_allclose(prediction.logits, [(20 * 1 + 4 * 3) / 24, (56 * 3 + 20 * 1) / 76], rtol=1e-6)
    assert (prediction.ending, prediction.class_names[prediction.top]) == ("sigmoid", "rest")
    # Where no class is predicted, the whole image is asked about, and the class that comes closest is explained.
    nowhere = sigmoids()
    with torch.no_grad():
        nowhere[0].bias[:] = torch.tensor([-7.0, -6.0])
    prediction = predict(picture(), classifier_of(nowhere, 2, **names))
    mean = picture().data.mean()
    np.testing.assert_allclose(prediction.logits, [mean - 7, -mean - 6], rtol=1e-6)
    assert (prediction.probabilities.tolist(), prediction.top) == ([0, 0], 0 if mean - 7 > -mean - 6 else 1)


def test_a_segmentation_needs_little_more_memory_than_its_logits() -> None:
    logits = torch.zeros(1, 64, 32, 32, 32)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as told:
        Head.SEGMENTATION.answer(logits, 64)
    allocated = [event.cpu_memory_usage for event in told.events() if event.cpu_memory_usage > 0]
    # One class at a time: a flag for every class and voxel as a whole number of 64 bits would be twice the logits.
    assert max(allocated) < logits.nbytes / 8
