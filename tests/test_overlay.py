from __future__ import annotations

import numpy as np
import pytest

from napari_xai_med.errors import InputError
from napari_xai_med.overlay import overlay_colours, overlay_labels, overlay_names, overlay_sizes

YELLOW, GREEN, RED, BLUE = (1, 1, 0), (0, 1, 0), (1, 0, 0), (0, 0, 1)


@pytest.mark.parametrize("count", [1, 2])
def test_every_way_to_overlap_has_its_colour_and_its_size(count: int) -> None:
    random = np.random.default_rng(0)
    explained, *masks = random.random((count + 1, 5, 6, 7)) < 0.4
    labels = overlay_labels(explained, masks)
    colours = dict(enumerate(overlay_colours(count), 1))
    names = overlay_names(["tumour", "cyst"][:count])
    sizes = overlay_sizes(labels, count, (2.0, 3.0, 5.0))
    assert len(colours) == len(names) == len(sizes) == 2 ** (count + 1) - 1
    alone = np.logical_and.reduce([~mask for mask in masks])
    wanted = {
        GREEN: (explained & alone, "explanation only"),
        RED: (masks[0] & ~explained & ~masks[-1] if count > 1 else masks[0] & ~explained, "tumour only"),
        YELLOW: (explained & masks[0] & ~masks[-1] if count > 1 else explained & masks[0], "explanation and tumour"),
    }
    if count > 1:
        wanted[BLUE] = (masks[1] & ~masks[0] & ~explained, "cyst only")
    for colour, (where, name) in wanted.items():
        (label,) = [label for label, each in colours.items() if each == colour]
        np.testing.assert_array_equal(labels == label, where)
        assert names[label - 1] == name
        assert sizes[label - 1] == pytest.approx(where.sum() * 30 / 1000)
    assert len(set(colours.values())) == len(colours)


@pytest.mark.parametrize("count", [0, 3])
def test_one_or_two_masks(count: int) -> None:
    with pytest.raises(InputError, match="one or two masks"):
        overlay_labels(np.ones((2, 2), bool), [np.ones((2, 2), bool)] * count)
