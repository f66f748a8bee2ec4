"""The game of an image's parts: the right images, each asked about once, and the same bits in every batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from napari_xai_med.errors import Cancelled
from napari_xai_med.games.engine import Composer, ImageGame
from napari_xai_med.job import Job
from napari_xai_med.models import load_model
from napari_xai_med.models.architectures import build
from napari_xai_med.models.batch_sizes import REFERENCE, Sizes
from napari_xai_med.models.classifier import Classifier
from napari_xai_med.models.module import classifier_from_module
from napari_xai_med.models.target import Target
from napari_xai_med.windows import asking
from tests.helpers import classifier_of

SHAPES = {2: (6, 8), 3: (4, 6, 5)}


class Sums(nn.Module):
    """Sums of the two halves of an image's first axis, after a note of how many images there were."""

    def __init__(self, most: int = 10**6, noise: float = 0.0) -> None:
        super().__init__()
        self.most, self.noise = most, noise
        self.sizes: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.sizes.append(len(x))
        if len(x) > self.most:
            raise torch.OutOfMemoryError("out of memory")
        half = x.shape[2] // 2
        logits = torch.stack([x[:, :, :half].flatten(1).sum(1), x[:, :, half:].flatten(1).sum(1)], 1)
        # As libraries do that choose their algorithm by the number of images.
        return logits + self.noise * len(x)


def game_of(classifier: Classifier, ask: Any, shape: tuple[int, ...], players: int, **options: Any) -> ImageGame:
    generator = torch.Generator().manual_seed(1)
    image, baseline = torch.rand(2, *shape, generator=generator)
    labels = torch.randint(0, players + 1, shape[1:], generator=generator, dtype=torch.int32)
    return ImageGame(
        classifier, ask, Composer(image, baseline, labels), shape, players, [Target(0), Target(1)], **options
    )


def coalitions_of(players: int, count: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).random((count, players)) < 0.5


@pytest.fixture(params=[2, 3])
def shape(request: pytest.FixtureRequest) -> Iterator[tuple[int, ...]]:
    return (2, *SHAPES[request.param])


def test_scores_are_those_of_images_masked_one_by_one(shape: tuple[int, ...]) -> None:
    network = Sums()
    classifier = classifier_of(network, len(shape) - 1, 2)
    coalitions = coalitions_of(5, 40)
    with torch.no_grad(), asking(classifier) as ask:
        game = game_of(classifier, ask, shape, 5)
        found = game(coalitions)
        compose: Any = game.compose
        for coalition, scores in zip(coalitions, found, strict=True):
            image = compose.baseline.clone()
            for voxel in np.ndindex(*shape[1:]):
                label = int(compose.labels[voxel])
                if label == 0 or coalition[label - 1]:
                    image[(slice(None), *voxel)] = compose.image[(slice(None), *voxel)]
            expected = network(image[None])[0].numpy()
            np.testing.assert_allclose(scores, expected, rtol=1e-6)


def test_each_coalition_is_asked_about_once(shape: tuple[int, ...]) -> None:
    network = Sums()
    classifier = classifier_of(network, len(shape) - 1, 2)
    coalitions = coalitions_of(4, 50)
    with torch.no_grad(), asking(classifier) as ask:
        game = game_of(classifier, ask, shape, 4)
        first = game(coalitions)
        assert game.evaluations == len(np.unique(coalitions, axis=0)) <= 16
        passes = len(network.sizes)
        np.testing.assert_array_equal(game(coalitions[::-1]), first[::-1])
        assert len(network.sizes) == passes


@pytest.mark.parametrize("limit", [0, 1, 2, 3, 5, 8, 20, 64])
@pytest.mark.parametrize("case", ["chest_ct_2d", "chest_ct_3d", "densenet121", "depends on the batch"])
def test_equal_bits_whatever_the_batch_size(case: str, limit: int) -> None:
    """Also of a network whose answers depend on how many images it gets: then only one size is used."""
    if case.startswith("chest"):
        classifier = load_model(case)
    elif case == "densenet121":
        torch.manual_seed(0)
        classifier = classifier_from_module(build(case, spatial_dims=2, num_classes=3).eval(), ["a", "b", "c"])
    else:
        classifier = classifier_of(Sums(noise=1e-3), 2, 2)
    shape = (1, 32, 32, 32) if case == "chest_ct_3d" else (1, 64, 64)
    coalitions = coalitions_of(6, 21)
    with torch.no_grad(), asking(classifier) as ask:
        expected = game_of(classifier, ask, shape, 6)(coalitions)
        game = game_of(classifier, ask, shape, 6, limit=limit)
        # In two parts, which fill other batches.
        found = np.concatenate([game(coalitions[:9]), game(coalitions[9:])])
    np.testing.assert_array_equal(found, expected)


def test_batches_are_not_larger_than_the_limit_and_the_memory_allow() -> None:
    network = Sums(most=3)
    classifier = classifier_of(network, 2, 2)
    coalitions = coalitions_of(6, 30)
    expected = Sums()
    with torch.no_grad(), asking(classifier) as ask:
        game = game_of(classifier, ask, (1, 6, 8), 6)
        found = game(coalitions)
        compose: Any = game.compose
        np.testing.assert_allclose(found, expected(compose(torch.from_numpy(coalitions))).double().numpy(), rtol=1e-6)
    assert game.smaller == 1
    assert not classifier.batch_sizes
    # It is not tried again for every batch: once eight at once, and then one by one.
    assert network.sizes.count(REFERENCE) == 1
    classifier = classifier_of(network := Sums(), 2, 2)
    with torch.no_grad(), asking(classifier) as ask:
        game = game_of(classifier, ask, (1, 6, 8), 6, limit=4)
        game(coalitions)
        tried = len(network.sizes)
        game(~coalitions)
    assert max(network.sizes[tried:]) <= 4


def test_memory_that_gets_short_later_is_met_with_smaller_batches() -> None:
    network = Sums()
    classifier = classifier_of(network, 2, 2)
    coalitions = coalitions_of(8, 60)
    with torch.no_grad(), asking(classifier) as ask:
        game = game_of(classifier, ask, (1, 6, 8), 8)
        first = game(coalitions[:20])
        network.most = 1
        second = game(coalitions[20:])
        compose: Any = game.compose
        expected = Sums()(compose(torch.from_numpy(coalitions))).double().numpy()
    np.testing.assert_allclose(np.concatenate([first, second]), expected, rtol=1e-6)
    assert game.smaller == 1


def test_it_can_be_stopped_between_batches() -> None:
    network = Sums()
    classifier = classifier_of(network, 2, 2)

    class Later:
        def is_set(self) -> bool:
            return len(network.sizes) > 12

    with torch.no_grad(), asking(classifier) as ask:
        game = game_of(classifier, ask, (1, 6, 8), 20, job=Job(cancel=Later()), expected=1000)
        with pytest.raises(Cancelled):
            game(coalitions_of(20, 1000))
    assert len(network.sizes) < 20


def test_a_number_of_images_is_cut_into_batches_that_are_hardly_filled_up() -> None:
    sizes = Sizes({8: 1.0, 4: 1.1, 2: 1.3, 16: 0.8})
    assert list(sizes.plan(37, 0)) == [(16, 16), (16, 16), (5, 8)]
    assert list(sizes.plan(3, 0)) == [(3, 4)]
    assert list(sizes.plan(12, REFERENCE)) == [(8, 8), (4, 4)]
    assert list(sizes.plan(1, 1)) == [(1, 2)]
