from __future__ import annotations

import time

import numpy as np
import pytest
from label_maps import ball, texture
from scipy.cluster.hierarchy import cut_tree, is_monotonic, is_valid_linkage, ward
from sklearn.cluster import ward_tree

from napari_xai_med.segments.base import make_segmenter
from napari_xai_med.segments.cleaning import borders
from napari_xai_med.segments.part import scaled
from napari_xai_med.segments.tree import partition_tree


def blocks(rows: int, columns: int, size: int = 4) -> np.ndarray:
    """Squares of the same size."""
    numbers = np.arange(1, rows * columns + 1, dtype=np.int32).reshape(rows, columns)
    return np.kron(numbers, np.ones((size, size), np.int32))


def means(labels: np.ndarray, data: np.ndarray) -> np.ndarray:
    values = scaled(data, labels > 0)
    return np.array([values[:, labels == k].mean(1) for k in range(1, labels.max() + 1)], float)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("seed", range(3))
def test_equals_scikit_learn_where_segments_are_as_large(seed: int, channels: int) -> None:
    """Theirs counts each segment once: ours is larger by the root of the voxels of one. Both join the same."""
    labels = blocks(7, 9)
    data = texture(labels.shape, channels, seed)
    ours = partition_tree(labels, data, (1.0, 1.0))
    children, _, _, _, distances = ward_tree(
        means(labels, data), connectivity=borders(labels, (1.0, 1.0)), return_distance=True
    )
    np.testing.assert_array_equal(np.sort(ours[:, :2], axis=1), np.sort(children, axis=1))
    np.testing.assert_allclose(ours[:, 2], 4 * np.maximum.accumulate(distances), rtol=1e-4)


def test_equals_scipy_where_all_are_neighbours() -> None:
    """Three segments that all touch."""
    labels = np.array([[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 3, 3]], np.int32)
    data = np.select([labels == 1, labels == 2], [0, 10], 4)[None].astype(np.float32)
    np.testing.assert_allclose(
        partition_tree(labels, data, (1.0, 1.0)), ward(means(labels, data)) * [1, 1, 2, 1], rtol=1e-6
    )


def test_larger_segments_are_further_apart() -> None:
    """By Ward's criterion a small segment joins before a large one of the same difference."""
    labels = np.array([[1] * 9 + [2] * 9 + [3]], np.int32)
    data = np.select([labels == 1, labels == 2], [0, 5], 10)[None].astype(np.float32)
    tree = partition_tree(labels, data, (1.0, 1.0))
    assert tree[0, :2].tolist() == [1, 2]
    first, second, third = means(labels, data)[:, 0]
    assert tree[0, 2] == pytest.approx(np.sqrt(2 * 9 * 1 / (9 + 1)) * (third - second), rel=1e-6)
    assert tree[0, 2] < np.sqrt(2 * 9 * 9 / (9 + 9)) * (second - first)


@pytest.mark.parametrize("shape", [(64, 64), (12, 24, 24)])
@pytest.mark.parametrize("masked", [False, True])
def test_trees_are_valid_and_join_neighbours(shape: tuple[int, ...], masked: bool) -> None:
    data, spacing = texture(shape), (3.0, 1.0, 1.0)[-len(shape) :]
    labels = make_segmenter("slic", {"number": 60}).segments(data, spacing, ball(shape) if masked else None).labels
    tree, n = partition_tree(labels, data, spacing), int(labels.max())
    assert tree.shape == (n - 1, 4)
    assert is_valid_linkage(tree)
    assert is_monotonic(tree)
    assert tree[-1, 3] == n
    touch = borders(labels, spacing).toarray() > 0
    members = [{k} for k in range(n)]
    for one, other, _, count in tree:
        a, b = members[int(one)], members[int(other)]
        assert touch[np.ix_(list(a), list(b))].any()
        members.append(a | b)
        assert count == len(a | b)
    # What a user does with it: fewer segments, which hold the first ones.
    assert len(np.unique(cut_tree(tree, 10))) == 10


def test_what_does_not_touch_joins_last_by_distance() -> None:
    """Three islands of two segments; the far one looks like the first."""
    labels = np.zeros((4, 40), np.int32)
    for k, start in enumerate((0, 6, 36)):
        labels[:, start : start + 2], labels[:, start + 2 : start + 4] = 2 * k + 1, 2 * k + 2
    data = np.zeros((1, 4, 40), np.float32)
    data[..., 6:10] = 9
    data[0][labels % 2 == 0] += 1
    tree = partition_tree(labels, data, (1.0, 1.0))
    assert is_valid_linkage(tree)
    assert is_monotonic(tree)
    assert {frozenset(map(int, row[:2])) for row in tree[:3]} == {frozenset(p) for p in ((0, 1), (2, 3), (4, 5))}
    cut = cut_tree(tree, 2).ravel()
    assert len(set(cut[:4])) == 1
    assert cut[0] != cut[4] == cut[5]


@pytest.mark.parametrize("value", [0.0, 3.0])
def test_constant_images_and_few_segments(value: float) -> None:
    data = np.full((1, 8, 8), value, np.float32)
    tree = partition_tree(blocks(2, 2), data, (1.0, 1.0))
    assert is_valid_linkage(tree)
    assert not tree[:, 2].any()
    assert partition_tree(np.ones((8, 8), np.int32), data, (1.0, 1.0)).shape == (0, 4)


def test_a_thousand_segments_are_quick() -> None:
    """A tenth of a second on a slow processor; a search through all pairs for each join would take minutes."""
    labels = blocks(32, 32)
    data = texture(labels.shape)
    start = time.perf_counter()
    partition_tree(labels, data, (1.0, 1.0))
    assert time.perf_counter() - start < 3
