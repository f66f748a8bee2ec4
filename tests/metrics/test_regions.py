from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from label_maps import ball
from scipy import ndimage

from napari_xai_med import Image, read_image
from napari_xai_med.cases import case_of
from napari_xai_med.grid import Grid, Reorientation
from napari_xai_med.metrics.burnt_in import burnt_in
from napari_xai_med.metrics.regions import BODY, BORDER, CORNERS, OUTSIDE, TABLE, TEXT, find_regions
from napari_xai_med.training.phantoms import make_phantom, make_slice
from napari_xai_med.training.shortcut import with_marker

FRAME = {BORDER, *CORNERS}


def regions_of(image: Image, **changes: Any) -> Any:
    options = {key: changes.pop(key) for key in ("border", "corner") if key in changes}
    empty = Image(np.zeros((1, *image.grid.shape), np.float32), image.grid)
    return find_regions(case_of(empty, image=image, **changes), **options)


def chest(shape: tuple[int, ...], *, bright: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Grey noise in a ball, on air or on glass."""
    body = ball(shape)
    values = np.where(body, 100, 250 if bright else 0) + np.random.default_rng(0).normal(scale=3, size=shape)
    return values.astype(np.float32), body


@pytest.mark.parametrize("shape", [(64, 60), (6, 64, 60)])
@pytest.mark.parametrize("bright", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
def test_body_and_surroundings_dark_or_bright(shape: tuple[int, ...], bright: bool, channels: int) -> None:
    values, body = chest(shape, bright=bright)
    image = Image.from_array(np.stack([values] * channels), channel_axis=0)
    places = regions_of(image)
    assert places.bright is bright
    assert np.count_nonzero(places.masks[BODY] ^ body) < 0.02 * np.count_nonzero(body)
    np.testing.assert_array_equal(places.masks[OUTSIDE], ~places.masks[BODY])
    np.testing.assert_array_equal(places.patient & places.masks[OUTSIDE], False)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.zeros((40, 40)), "same value everywhere"),
        (np.random.default_rng(0).normal(100, 10, (40, 40)), "neither dark nor bright"),
        (np.zeros((6, 40, 40)), "same value everywhere"),
    ],
)
def test_no_body_has_a_reason(values: np.ndarray, reason: str) -> None:
    places = regions_of(Image.from_array(values))
    assert set(places.masks) == FRAME
    assert set(places.missing) == {BODY, OUTSIDE, TABLE, TEXT}
    assert all(reason in places.missing[name] for name in (BODY, OUTSIDE, TABLE))
    assert places.patient.any()


@pytest.mark.parametrize("shape", [(50, 40), (3, 50, 40)])
def test_border_and_corners_have_the_size_asked_for(shape: tuple[int, ...]) -> None:
    places = regions_of(Image.from_array(np.zeros(shape)), border=0.1, corner=0.2)
    # 5 of 50 rows and 4 of 40 columns on each side; 10 x 8 pixels.
    assert places.masks[BORDER].mean() == pytest.approx(1 - 0.8 * 0.8)
    assert places.masks[BORDER][..., 5:-5, 4:-4].sum() == 0
    for name, (row, column) in zip(CORNERS, [(0, 0), (0, -1), (-1, 0), (-1, -1)], strict=True):
        assert places.masks[name].mean() == pytest.approx(0.04)
        assert places.masks[name][..., row, column].all()
    none = regions_of(Image.from_array(np.zeros(shape)), border=0.0, corner=0.0)
    assert not none.masks
    assert none.missing[BORDER] == none.missing[CORNERS[0]] == "It has no voxel in this image."


@pytest.mark.parametrize("seed", range(4))
def test_the_same_regions_whatever_the_axes(seed: int) -> None:
    """Left and right, front and back as they are shown, and the table behind."""
    phantom = make_phantom(seed, "normal")
    image = Image(phantom.data[None].astype(np.float32), Grid(phantom.data.shape, phantom.affine))
    turn = Reorientation.between(image.grid)
    places, shown = regions_of(image), regions_of(image.reoriented(turn))
    assert set(places.masks) == {BODY, OUTSIDE, TABLE, *FRAME}
    for name, mask in places.masks.items():
        np.testing.assert_array_equal(turn.array(mask), shown.masks[name])
    # 10 mm of 300 mm: what `make_phantom` draws, less its blurred edge.
    volume = places.masks[TABLE].sum() / phantom.data.shape[2] * np.prod(image.grid.spacing[:2])
    assert volume == pytest.approx(10 * 300, rel=0.35)


def test_a_slice_has_the_regions_of_a_picture() -> None:
    phantom = make_phantom(1, "normal")
    image = Image(phantom.data[None].astype(np.float32), Grid(phantom.data.shape, phantom.affine))
    turn = Reorientation.between(image.grid)
    for axis in range(3):
        slab = image.grid.slab(axis, 20)
        plane = np.take(phantom.data, [20], axis).astype(np.float32)
        places = regions_of(Image(plane[None], slab))
        squeezed = Image.from_array(np.squeeze(turn.array(plane), turn.order.index(axis)))
        picture = regions_of(squeezed)
        assert set(places.masks) == set(picture.masks)
        for name, mask in places.masks.items():
            assert mask.shape == slab.shape
            np.testing.assert_array_equal(np.squeeze(turn.array(mask)), picture.masks[name])


def test_drawn_masks_are_regions_by_their_names() -> None:
    image = Image.from_array(chest((64, 60))[0])
    lung = ball((64, 60), 0.1)
    places = regions_of(image, masks={"lung": lung, "nothing": np.zeros_like(lung)})
    np.testing.assert_array_equal(places.masks["lung"], lung)
    assert places.drawn == {"lung"}
    assert places.missing["nothing"] == "It has no voxel in this image."


@pytest.mark.parametrize("seed", range(20))
def test_letters_are_found_and_lungs_are_none(seed: int) -> None:
    phantom = make_slice(seed, "ground_glass")
    marked = with_marker(phantom)
    letter = marked.data != phantom.data
    found = burnt_in(marked.data.astype(np.float32))
    assert found[letter].all()
    assert not (found & ~ndimage.binary_dilation(letter, iterations=4)).any()
    assert not burnt_in(phantom.data.astype(np.float32)).any()


@pytest.mark.parametrize("values", [np.zeros((40, 40)), np.ones((3, 3)), np.arange(1600).reshape(40, 40)])
def test_no_letters_in_plain_pictures(values: np.ndarray) -> None:
    assert not burnt_in(values).any()


def test_letters_in_volumes_and_colours_are_not_looked_for() -> None:
    values, _ = chest((60, 60))
    values[2:9, 2:4] = 400
    assert TEXT in regions_of(Image.from_array(values)).masks
    coloured = np.stack([values, values, values * 0.5])
    assert "grey pictures only" in regions_of(Image.from_array(coloured, channel_axis=0)).missing[TEXT]
    assert "single slices only" in regions_of(Image.from_array(np.stack([values] * 3))).missing[TEXT]


@pytest.mark.parametrize(("folder", "least"), [("busi", 0.15), ("cxr_kermany_test", 0.2), ("covid_cxr_lungmask", 0.45)])
def test_letters_in_real_pictures(folder: str, least: float, shared_data: Any) -> None:
    """As often as they were seen by eye to be found; and hardly any of the picture is taken for letters."""
    paths = sorted(p for p in shared_data(folder).rglob("*.*") if p.suffix in (".png", ".jpg", ".jpeg"))
    paths = [p for p in paths if "mask" not in p.parent.name][::9]
    shares = [burnt_in(read_image(path).data.mean(0)).mean() for path in paths]
    assert np.mean(np.array(shares) > 0) >= least
    assert max(shares) < 0.05
