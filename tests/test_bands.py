from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from napari_xai_med.bands import band_labels, band_names
from napari_xai_med.errors import InputError


def test_bands_are_those_of_their_definition() -> None:
    values = np.random.default_rng(0).normal(size=(7, 8, 9)).astype(np.float32)
    share = values / values.max()
    np.testing.assert_array_equal(
        band_labels(values, (0.3, 0.7), signed=False), np.where(share > 0.7, 2, np.where(share > 0.3, 1, 0))
    )
    signed = values / np.abs(values).max()
    expected = np.select([signed > 0.7, signed > 0.3, signed < -0.7, signed < -0.3], [2, 1, 4, 3])
    np.testing.assert_array_equal(band_labels(values, (0.3, 0.7), signed=True), expected)
    assert band_names((0.3, 0.7), signed=False) == ["0.3 to 0.7 of the maximum", "0.7 to 1 of the maximum"]
    assert len(band_names((0.3, 0.7), signed=True)) == expected.max()


def test_the_published_bands_of_the_published_maps(shared_data: Any) -> None:
    """The thesis compares cam > 0.7 and cam > 0.3; its maps have a maximum of 1."""
    import nibabel

    for study in ("0255", "0256", "0258", "0260"):
        path = shared_data("mosmed_thesis") / f"study_{study}_cam.nii.gz"
        cam = np.asarray(nibabel.load(path).dataobj, np.float32)
        assert cam.max() == pytest.approx(1, abs=1e-6)
        labels = band_labels(cam, (0.3, 0.7), signed=False)
        assert (labels == 2).sum() == pytest.approx((cam > 0.7).sum(), abs=1)
        assert (labels > 0).sum() == pytest.approx((cam > 0.3).sum(), abs=1)


def test_a_map_that_is_zero_everywhere_has_no_bands() -> None:
    assert not band_labels(np.zeros((3, 3), np.float32), (0.3,), signed=False).any()
    assert not band_labels(np.zeros((3, 3), np.float32), (0.0, 0.5), signed=True).any()


@pytest.mark.parametrize("edges", [(), (0.7, 0.3), (1.0,), (-0.1, 0.5), (float("nan"),)])
def test_edges_that_are_none_are_refused(edges: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match="can't be the edges of bands; give rising shares"):
        band_labels(np.ones((2, 2), np.float32), edges, signed=False)
