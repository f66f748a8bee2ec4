from __future__ import annotations

from pathlib import Path

import imageio.v3
import numpy as np
import pytest
import tifffile

from napari_xai_med import read_image
from napari_xai_med.errors import InputError


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_grey_and_colour(tmp_path: Path, suffix: str) -> None:
    grey = np.tile(np.arange(0, 240, 10, dtype=np.uint8), (20, 1))
    imageio.v3.imwrite(tmp_path / f"g{suffix}", grey)
    image = read_image(tmp_path / f"g{suffix}")
    assert image.data.shape == (1, 20, 24)
    np.testing.assert_allclose(image.data[0], grey, atol=0 if suffix != ".jpg" else 4)
    colour = np.stack([grey, np.full_like(grey, 100), np.zeros_like(grey)], -1)
    imageio.v3.imwrite(tmp_path / f"c{suffix}", colour)
    image = read_image(tmp_path / f"c{suffix}")
    assert image.data.shape == (3, 20, 24)
    np.testing.assert_allclose(image.data[1], 100, atol=0 if suffix != ".jpg" else 20)


def test_alpha_is_dropped(tmp_path: Path) -> None:
    imageio.v3.imwrite(tmp_path / "a.png", np.full((5, 6, 4), 7, np.uint8))
    assert read_image(tmp_path / "a.png").data.shape == (3, 5, 6)


def test_a_tiff_stack_is_a_volume_and_three_slices_are_no_colours(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(3, 5, 6)).astype(np.float32)
    tifffile.imwrite(tmp_path / "s.tif", values, photometric="minisblack")
    image = read_image(tmp_path / "s.tif")
    np.testing.assert_array_equal(image.data[0], values)


def test_bad_pictures_are_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"nothing")
    (tmp_path / "a.tif").write_bytes(b"nothing")
    for name in ("a.png", "a.tif"):
        with pytest.raises(InputError, match=f"{name} can't be read as a picture"):
            read_image(tmp_path / name)
    tifffile.imwrite(tmp_path / "t.tif", np.zeros((2, 3, 4, 5), np.uint8), metadata={"axes": "TZYX"}, ome=True)
    with pytest.raises(InputError, match="has axes TZYX"):
        read_image(tmp_path / "t.tif")
