"""What a sliding window is made of, how it is stated, and how windows decide together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import MeanOf, classifier_of, ones, write_bundle
from torch import nn

from napari_xai_med import load_model, predict
from napari_xai_med.errors import ModelError
from napari_xai_med.models.head import Head
from napari_xai_med.models.module import classifier_from_module
from napari_xai_med.models.sliding_window import Aggregate, SlidingWindow
from napari_xai_med.models.small_cnn import SmallCNN


def network() -> nn.Module:
    return MeanOf(ones(nn.Conv3d(1, 1, 3)))


def test_a_bundle_states_its_windows(tmp_path: Path) -> None:
    small = {"_target_": "napari_xai_med.models.small_cnn.SmallCNN", "spatial_dims": 3, "in_channels": 1}
    inference = {"network_def": small | {"num_classes": 2}, "preprocessing": {"_target_": "Compose"}}
    stated = {"roi_size": [16, 16, 16], "overlap": 0.25, "aggregate": "max", "batch_size": 2}
    for name, settings in (("good", stated), ("bad", stated | {"aggregate": "sum"})):
        bundle = write_bundle(tmp_path / name, inference, ("a", "b"), sliding_window=settings)
        torch.save(SmallCNN(3, 1, 2).state_dict(), bundle / "models" / "model.pt")
    classifier = load_model(tmp_path / "good")
    assert classifier.windows == SlidingWindow((16, 16, 16), Aggregate.MAX, 0.25, 2)
    assert classifier.windows.to_dict() == stated
    with pytest.raises(ModelError, match=r"^bad can't be used as its metadata.json says: .*no aggregate 'sum'; choose"):
        load_model(tmp_path / "bad")


def test_a_module_can_have_windows() -> None:
    window = {"roi_size": (12, 12, 12), "aggregate": "mean"}
    classifier = classifier_from_module(network(), ["a", "b"], sliding_window=window)
    assert classifier.windows == SlidingWindow((12, 12, 12), Aggregate.MEAN)
    assert classifier.on("cpu").windows is classifier.windows
    assert predict(np.random.default_rng(0).random((24, 24, 24)), classifier).probabilities.sum() == pytest.approx(1)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"roi_size": [8, 8, 0]}, r"roi_size of a sliding window has to be whole numbers above 0, not \[8, 8, 0\]"),
        ({"roi_size": 8}, "roi_size of a sliding window has to be whole numbers above 0, not 8"),
        ({"roi_size": [8.5, 8, 8]}, "roi_size of a sliding window has to be whole numbers"),
        ({"roi_size": [8, 8]}, "takes 3D images and its sliding window is 2D; give a roi_size of 3 numbers"),
        ({"aggregate": "sum"}, "no aggregate 'sum'; choose one of max, mean, logsumexp"),
        ({"aggregate": ["max"]}, "no aggregate"),
        ({"overlap": 1}, "overlap of a sliding window has to be from 0 to less than 1"),
        ({"overlap": "half"}, "overlap of a sliding window has to be from 0 to less than 1"),
        ({"overlap": float("nan")}, "overlap of a sliding window has to be from 0 to less than 1"),
        ({"batch_size": 0}, "batch_size of a sliding window has to be a whole number above 0"),
        ({"stride": 4}, "no stride; it has roi_size, aggregate, overlap, batch_size"),
    ],
)
def test_what_can_t_be_is_one_sentence(change: dict[str, Any], sentence: str) -> None:
    window = {"roi_size": [8, 8, 8], "aggregate": "max"} | change
    with pytest.raises(ModelError, match=sentence):
        classifier_from_module(network(), ["a", "b"], sliding_window=window)


def test_what_is_missing_and_what_is_no_classification_is_told() -> None:
    with pytest.raises(ModelError, match="needs at least a roi_size and an aggregate"):
        classifier_from_module(network(), ["a", "b"], sliding_window={"roi_size": [8, 8, 8]})
    with pytest.raises(ModelError, match="needs at least a roi_size and an aggregate"):
        SlidingWindow.from_dict([8, 8, 8])
    segmentation = classifier_of(nn.Conv3d(1, 2, 3), 3, head=Head.SEGMENTATION)
    with pytest.raises(ModelError, match="is a segmentation, whose answers can't be put together from windows"):
        replace(segmentation, windows=SlidingWindow((8, 8, 8), Aggregate.MAX))
