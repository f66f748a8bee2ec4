from __future__ import annotations

import nibabel
import numpy as np
import pytest

from napari_xai_med.training.phantoms import KINDS, make_phantom, make_slice


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(3))
def test_phantoms_are_chests_with_lesions_in_their_lungs(kind: str, seed: int) -> None:
    for make in (make_phantom, make_slice):
        one, two = make(seed, kind), make(seed, kind)
        np.testing.assert_array_equal(one.data, two.data)
        np.testing.assert_array_equal(one.affine, two.affine)
        assert one.data.shape == one.mask.shape == one.lungs.shape
        assert bool(one.mask.any()) == (kind != "normal")
        assert one.lungs[one.mask > 0].all()
        assert -1024 <= one.data.min() < -900
        assert 150 < one.data.max() <= 1500
        assert -950 < np.median(one.data[(one.lungs > 0) & (one.mask == 0)]) < -700
        if kind != "normal":
            lesion = float(np.mean(one.data[one.mask > 0]))
            assert (-700 if kind == "ground_glass" else -500) < lesion < (-150 if kind == "ground_glass" else 100)


def test_seeds_and_classes_give_other_phantoms() -> None:
    assert not np.array_equal(make_slice(0, "normal").data, make_slice(1, "normal").data)
    assert not np.array_equal(make_slice(0, "normal").data, make_slice(0, "nodule").data)


def test_volumes_lie_in_two_orientations() -> None:
    codes = {nibabel.aff2axcodes(make_phantom(seed, "normal").affine) for seed in range(8)}
    assert codes == {("L", "P", "S"), ("L", "A", "S")}


@pytest.mark.parametrize("seed", range(6))
def test_the_spine_is_at_the_back_whatever_the_orientation(seed: int) -> None:
    phantom = make_phantom(seed, "normal")
    bone = np.argwhere(phantom.data > 200)
    centre = nibabel.affines.apply_affine(phantom.affine, bone.mean(0))
    middle = nibabel.affines.apply_affine(phantom.affine, (np.array(phantom.data.shape) - 1) / 2)
    assert centre[1] < middle[1] - 30
