from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from label_maps import ball

from napari_xai_med.errors import InputError
from napari_xai_med.segments.given import given_segments


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.int16])
def test_labels_with_gaps(dtype: Any) -> None:
    labels = np.array([[0, 7, 7], [3, 0, 100]], dtype)
    found = given_segments(labels)
    assert found.labels.tolist() == [[0, 2, 2], [1, 0, 3]]
    assert found.facts["original"] == [3, 7, 100]
    assert found.labels.dtype == np.int32
    assert (found.count, found.notices) == (3, ())


def test_background_mask_and_negative_labels() -> None:
    labels = np.array([[0, -2, 7], [5, 0, 7]])
    found = given_segments(labels, background=True)
    assert found.labels.tolist() == [[2, 1, 4], [3, 2, 4]]
    assert found.facts["original"] == [-2, 0, 5, 7]
    mask = np.array([[True, True, False], [False, False, False]])
    assert given_segments(labels, mask).labels.tolist() == [[0, 1, 0], [0, 0, 0]]
    found = given_segments(labels, mask, background=True)
    assert found.labels.tolist() == [[2, 1, 0], [0, 0, 0]]
    assert found.facts["original"] == [-2, 0]


def test_originals_lead_back() -> None:
    labels = np.random.default_rng(0).integers(-50, 50, (6, 7, 8))
    found = given_segments(labels, ball((6, 7, 8)), background=True)
    np.testing.assert_array_equal(
        np.array(found.facts["original"])[found.labels[ball((6, 7, 8))] - 1], labels[ball((6, 7, 8))]
    )


def test_a_drawn_mask_is_one_segment() -> None:
    found = given_segments(ball((9, 9)))
    np.testing.assert_array_equal(found.labels, ball((9, 9)))


@pytest.mark.parametrize(
    ("labels", "mask", "sentence"),
    [
        (np.zeros((3, 3), int), None, "no label other than 0"),
        (np.eye(3, dtype=int), ~np.eye(3, dtype=bool), "no label other than 0"),
        (np.ones((3, 3)), None, "float64 are no whole numbers"),
        (np.ones((3, 3), int), np.zeros((3, 3), bool), "The mask is empty"),
        (np.ones((3, 3), int), np.ones((3, 4), bool), r"\(3, 4\) does not fit"),
    ],
)
def test_errors_are_sentences(labels: Any, mask: Any, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        given_segments(labels, mask)
