from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
from helpers import random_affine

from napari_xai_med import Image, read_image
from napari_xai_med.errors import InputError
from napari_xai_med.grid import Grid
from napari_xai_med.io.nifti import read_volumes, save_nifti


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("seed", range(3))
def test_what_is_saved_is_read(tmp_path: Path, suffix: str, seed: int) -> None:
    random = np.random.default_rng(seed)
    values, affine = random.normal(size=(3, 4, 5)).astype(np.float32), random_affine(random)
    path = tmp_path / f"a{suffix}"
    save_nifti(path, values, Grid(values.shape, affine), "a map")
    image = read_image(path)
    np.testing.assert_array_equal(image.data[0], values)
    np.testing.assert_allclose(image.grid.affine, affine, atol=1e-4)
    assert image.name == "a"
    assert image.notices == ()
    header = nibabel.load(path).header
    assert header.get_xyzt_units()[0] == "mm"
    assert bytes(header["descrip"]).rstrip(b"\0") == b"a map"


def test_slope_and_intercept_give_hounsfield_units(tmp_path: Path) -> None:
    file = nibabel.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), np.diag([1, 2, 3, 1]))
    file.header.set_slope_inter(2, -1024)
    # Written with raw values, as scanners' converters do.
    path = tmp_path / "ct.nii"
    raw = bytearray(file.to_bytes())
    raw[112:120] = np.array([2, -1024], "<f4").tobytes()
    path.write_bytes(raw)
    data = read_image(path).data
    assert data.min() == -1024
    assert data.max() == 23 * 2 - 1024


@pytest.mark.parametrize("suffix", [".hdr", ".img"])
def test_analyze_pairs(tmp_path: Path, suffix: str) -> None:
    values = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    nibabel.AnalyzeImage(values, None).to_filename(tmp_path / "old.img")
    image = read_image(tmp_path / f"old{suffix}")
    np.testing.assert_array_equal(image.data[0], values)
    assert "does not say how the patient lies" in image.notices[0]


def test_a_file_without_orientation_says_so(tmp_path: Path) -> None:
    file = nibabel.Nifti1Image(np.zeros((2, 3, 4), np.int16), None)
    file.to_filename(tmp_path / "a.nii")
    assert "left and right may be swapped" in read_image(tmp_path / "a.nii").notices[0]


def test_other_units_become_millimetres(tmp_path: Path) -> None:
    file = nibabel.Nifti1Image(np.zeros((2, 3, 4), np.int16), np.diag([500, 500, 1000, 1]))
    file.header.set_xyzt_units("micron")
    file.to_filename(tmp_path / "a.nii")
    assert read_image(tmp_path / "a.nii").grid.spacing == (0.5, 0.5, 1.0)


def test_of_several_volumes_one_is_chosen(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)
    nibabel.Nifti1Image(values, np.eye(4)).to_filename(tmp_path / "t.nii.gz")
    with pytest.raises(InputError, match="holds 5 volumes; choose one from 0 to 4"):
        read_image(tmp_path / "t.nii.gz")
    image = read_image(tmp_path / "t.nii.gz", volume=3)
    np.testing.assert_array_equal(image.data[0], values[..., 3])
    assert image.volume == 3
    with pytest.raises(InputError, match="no volume 5"):
        read_image(tmp_path / "t.nii.gz", volume=5)


def test_colours_are_channels(tmp_path: Path) -> None:
    colours = np.zeros((2, 3, 4), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    colours["G"] = np.arange(24).reshape(2, 3, 4)
    nibabel.Nifti1Image(colours, np.eye(4)).to_filename(tmp_path / "c.nii")
    image = read_image(tmp_path / "c.nii")
    assert image.data.shape == (3, 2, 3, 4)
    np.testing.assert_array_equal(image.data[1], colours["G"])


def test_one_slice_and_trailing_axes(tmp_path: Path) -> None:
    for shape in ((3, 4), (3, 4, 1), (3, 4, 1, 1, 1, 1)):
        nibabel.Nifti1Image(np.zeros(shape, np.float32), np.eye(4)).to_filename(tmp_path / "a.nii")
        assert read_volumes(tmp_path / "a.nii").data.shape == (1, 1, 3, 4, 1)


def test_bad_files_are_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "a.nii.gz").write_bytes(b"no gzip")
    with pytest.raises(InputError, match=r"a.nii.gz can't be read as NIfTI or Analyze"):
        read_image(tmp_path / "a.nii.gz")
    with pytest.raises(InputError, match="There is no file"):
        read_image(tmp_path / "b.nii")
    (tmp_path / "a.doc").write_bytes(b"")
    with pytest.raises(InputError, match="not of a kind that can be read"):
        read_image(tmp_path / "a.doc")
    nibabel.Nifti1Image(np.full((2, 2, 2), np.nan, np.float32), np.eye(4)).to_filename(tmp_path / "n.nii")
    with pytest.raises(InputError, match="not finite"):
        read_image(tmp_path / "n.nii")


def test_a_truncated_file_is_one_sentence(tmp_path: Path) -> None:
    nibabel.Nifti1Image(np.random.default_rng(0).normal(size=(20, 20, 20)), np.eye(4)).to_filename(
        tmp_path / "a.nii.gz"
    )
    whole = (tmp_path / "a.nii.gz").read_bytes()
    (tmp_path / "a.nii.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="can't be read"):
        read_image(tmp_path / "a.nii.gz")


def test_a_picture_is_saved_as_one_slice_as_it_is_displayed(tmp_path: Path) -> None:
    image = Image.from_array(np.arange(12.0).reshape(3, 4), (2.0, 0.5))
    save_nifti(tmp_path / "p.nii", image.data[0], image.grid)
    file = nibabel.load(tmp_path / "p.nii")
    assert file.shape == (1, 3, 4)
    assert nibabel.aff2axcodes(file.affine) == ("I", "P", "L")
    np.testing.assert_allclose(file.header.get_zooms(), (1, 2, 0.5))
