"""Segmenters that are for slices only say so."""

from __future__ import annotations

import numpy as np
import pytest

from napari_xai_med.errors import InputError
from napari_xai_med.segments.base import make_segmenter, segmenters


@pytest.mark.parametrize("name", [name for name, kind in segmenters().items() if 3 not in kind.dims])
def test_a_segmenter_for_slices_takes_no_volume(name: str) -> None:
    with pytest.raises(InputError, match="is for images of 2 axes and this one has 3"):
        make_segmenter(name, {}).segments(np.zeros((1, 4, 5, 6), np.float32), (1.0, 1.0, 1.0))
