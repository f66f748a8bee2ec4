from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
from helpers import random_affine, world_of
from scipy.spatial.transform import Rotation

from napari_xai_med import Image, evaluate, explain, oblique_section, read_image
from napari_xai_med.cli import main
from napari_xai_med.errors import InputError
from napari_xai_med.grid import Grid, Reorientation
from napari_xai_med.image import PLANES
from napari_xai_med.io.results import save_results
from napari_xai_med.samples import sample_files

SHAPE = (24, 28, 30)


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("sign", [1, -3])
def test_along_the_axes_it_is_the_slice_itself(plane: str, sign: int) -> None:
    """Voxel for voxel, in the orientation of display, whichever way the normal points and however long it is."""
    data = np.random.default_rng(0).random((2, *SHAPE)).astype(np.float32)
    affine = np.array([[0, 0, 2, 5], [-2, 0, 0, 7], [0, 2, 0, -9], [0, 0, 0, 1]], float)
    image = Image(data, Grid(SHAPE, affine))
    shown = image.reoriented(Reorientation.between(image.grid))
    axis = PLANES.index(plane)
    corner = [10 if k == axis else 3 for k in range(3)]
    section, grid = oblique_section(image, shown.grid.to_world(corner), sign * shown.grid.affine[:3, axis])
    np.testing.assert_allclose(section.data, np.take(shown.data, 10, axis + 1), atol=1e-5)
    assert section.grid.spacing == (2, 2)
    first = [10 if k == axis else 0 for k in range(3)]
    np.testing.assert_allclose(grid.to_world((0, 0, 0)), shown.grid.to_world(first), atol=1e-6)


@pytest.mark.parametrize("seed", range(6))
def test_a_field_is_seen_where_it_lies(seed: int) -> None:
    """Of a volume that holds a linear function of the world each pixel has that function's value at its own place."""
    random = np.random.default_rng(seed)
    affine = random_affine(random)
    slope = random.normal(size=3)
    image = Image((world_of(SHAPE, affine) @ slope)[None].astype(np.float32), Grid(SHAPE, affine))
    middle = image.grid.to_world((np.array(SHAPE) - 1) / 2 + random.uniform(-3, 3, 3))
    normal = Rotation.random(random_state=seed).as_matrix()[0]
    section, grid = oblique_section(image, middle, normal)
    assert grid.shape[1:] == section.grid.shape
    assert grid.spacing == pytest.approx((min(image.grid.spacing),) * 3)
    world = world_of(grid.shape, grid.affine)[0]
    np.testing.assert_allclose((world - middle) @ normal, 0, atol=1e-6)
    index = image.grid.to_index(world)
    inside = ((index > 0) & (index < np.array(SHAPE) - 1)).all(-1)
    assert inside.mean() > 0.1
    tolerance = 1e-5 * np.abs(image.data).max()
    np.testing.assert_allclose(section.data[0][inside], (world @ slope)[inside], atol=tolerance)
    beyond = ((index < -0.6) | (index > np.array(SHAPE) - 0.4)).any(-1)
    assert (section.data[0][beyond] == image.data.min()).all()
    # The picture ends where the volume does: within two pixels of each side there is something of it.
    for side in (beyond[:2], beyond[-2:], beyond[:, :2], beyond[:, -2:]):
        assert not side.all()


def test_nothing_is_mirrored() -> None:
    """Rows and columns run as in the nearest slice, and the map's grid is right-handed as the display's is."""
    image = Image.from_array(np.zeros(SHAPE))
    for seed in range(20):
        normal = Rotation.random(random_state=seed).as_matrix()[0]
        _, grid = oblique_section(image, image.grid.to_world((12, 14, 15)), normal)
        shown = np.linalg.inv(image.grid.affine)[:3, :3] @ grid.affine[:3, :3]
        nearest = int(np.abs(shown[:, 0]).argmax())
        rows, columns = (k for k in range(3) if k != nearest)
        assert shown[nearest, 0] > 0
        assert shown[rows, 1] > 0
        assert shown[columns, 2] > 0
        # The axes of coronal slices, y z x, are an odd order of z y x.
        assert np.linalg.det(shown) == pytest.approx(-1 if nearest == 1 else 1)


@pytest.mark.parametrize(
    ("point", "normal", "sentence"),
    [
        ((500, 0, 0), (1, 0, 0), "The plane passes the volume by"),
        ((0, 0, 0), (0, 0, 0), "No plane goes through"),
        ((0, 0), (0, 0, 1), "No plane goes through"),
        ((0, 0, np.nan), (0, 0, 1), "No plane goes through"),
    ],
)
def test_what_can_not_be_is_one_sentence(point: tuple[float, ...], normal: tuple[float, ...], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        oblique_section(Image.from_array(np.zeros(SHAPE)), point, normal)
    with pytest.raises(InputError, match="has no oblique slices"):
        oblique_section(Image.from_array(np.zeros((4, 4))), (0, 0, 0), (0, 0, 1))


def test_a_section_is_explained_saved_in_its_place_and_computed_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = sample_files("chest_ct_lesion")[0]
    image, normal = read_image(path), [0.3, 0.1, -1.0]
    point = image.grid.to_world((np.array(image.grid.shape) - 1) / 2 + 1.5).tolist()
    section, grid = oblique_section(image, point, normal)
    words = ["explain", str(path), "--model", "chest_ct_2d", "--method", "segment_occlusion", "--out", str(tmp_path)]
    words += ["--oblique-normal", *map(str, normal)]
    assert main([*words, "--oblique-point", *map(str, point), "--best", "2"]) == 0
    (record,) = tmp_path.glob("*.json")
    expected = explain(section, "chest_ct_2d", "segment_occlusion")
    assert expected.segments is not None
    stem = str(record).removesuffix(".json")
    for suffix, values in {
        "": expected.values,
        "_segments": expected.segments.labels,
        "_best": expected.best_segments(2),
    }.items():
        saved = nibabel.load(f"{stem}{suffix}.nii.gz")
        np.testing.assert_array_equal(np.asarray(saved.dataobj).ravel(), values.ravel())
        np.testing.assert_allclose(saved.affine, grid.affine, atol=1e-4)
    assert main(["explain", "--record", str(record), "--out", str(tmp_path / "again")]) == 0
    assert "bit for bit" in capsys.readouterr().out
    # Another section has files of its own, here that through the centre.
    assert main(words) == 0
    assert len(list(tmp_path.glob("*.json"))) == 2


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--oblique-point", "1", "2", "3"), "give --oblique-normal"),
        (("--oblique-normal", "0", "0", "1", "--slice", "3"), "leave out --slice or"),
        (("--oblique-normal", "0", "0", "0"), "not all zero"),
        (("--oblique-normal", "0", "0", "1", "--oblique-point", "0", "0", "9999"), "passes the volume by"),
    ],
)
def test_a_section_that_can_not_be_is_a_sentence(
    words: tuple[str, ...], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", "chest_ct_lesion", "--model", "chest_ct_2d", *words]) == 2
    assert sentence in capsys.readouterr().err


def lesion_plane() -> tuple[list[float], list[float]]:
    """A plane through the middle of the sample's lesion."""
    mask = read_image(sample_files("chest_ct_lesion")[1])
    return mask.grid.to_world(np.argwhere(mask.data[0]).mean(0)).tolist(), [0.3, 0.1, -1.0]


def test_labels_and_masks_of_the_volume_mean_what_the_section_shows_of_them() -> None:
    path, mask = sample_files("chest_ct_lesion")
    image, (middle, normal) = read_image(path), lesion_plane()
    labels = np.zeros(image.grid.shape, np.float32)
    labels[: labels.shape[0] // 2], labels[labels.shape[0] // 2 :] = 2, 5
    section, grid = oblique_section(image, middle, normal)
    units = Image(labels[np.newaxis], image.grid, "units")
    found = explain(section, "chest_ct_2d", "segment_occlusion", segments={"labels": units})
    assert found.segments is not None
    assert found.segments.table["label"].tolist()[1:] == [2, 5]
    index = np.rint(image.grid.to_index(world_of(grid.shape, grid.affine)[0])).astype(int)
    inside = ((index >= 0) & (index < image.grid.shape)).all(-1)
    truth = np.zeros(inside.shape, int)
    truth[inside] = np.where(labels[tuple(index[inside].T)] == 2, 1, 2)
    # The network's pixels are coarser: one of them to each side of a border.
    assert (truth == found.segments.labels).mean() > 0.95
    limited = explain(section, "chest_ct_2d", "segment_occlusion", segments={"method": "grid"}, mask=mask)
    assert limited.segments is not None
    inside = oblique_section(read_image(mask), middle, normal)[0].data[0] > 0.5
    marked = limited.segments.labels > 0
    assert 2 * (marked & inside).sum() / (marked.sum() + inside.sum()) > 0.8
    with pytest.raises(InputError, match="The mask is empty where the image is"):
        explain(section, "chest_ct_2d", "segment_occlusion", mask=Image(0 * labels[np.newaxis], image.grid, "none"))


def test_slices_of_a_volume_of_1_mm_are_measured_in_mm2() -> None:
    """A picture that does not know its spacing has the same grid."""
    data = np.random.default_rng(0).random((12, 64, 64)).astype(np.float32) * 1000 - 800
    volume = Image.from_array(data, (1.0, 1.0, 1.0))
    section, _ = oblique_section(volume, volume.grid.to_world((6, 32, 32)), (0.1, 0, 1))
    options = {"segments": {"method": "grid"}}
    of_slice = explain(volume, "chest_ct_2d", "segment_occlusion", slice=6, **options)
    of_section = explain(section, "chest_ct_2d", "segment_occlusion", **options)
    of_picture = explain(Image.from_array(data[6]), "chest_ct_2d", "segment_occlusion", **options)
    for found, unit in ((of_slice, "mm2"), (of_section, "mm2"), (of_picture, "px")):
        assert found.segments is not None
        assert f"size_{unit}" in found.segments.table


def test_a_saved_map_of_a_section_is_measured_on_its_plane(tmp_path: Path) -> None:
    path, mask = sample_files("chest_ct_lesion")
    image, (point, normal) = read_image(path), lesion_plane()
    section, _ = oblique_section(image, point, normal)
    expected = evaluate(explain(section, "chest_ct_2d"), mask=mask, image=section, metrics=["binary_overlap"])
    scores = expected.set_index(["subject", "score"])["value"]
    assert scores["explanation", "dice"] > 0.5 > scores["chance", "dice"]
    of_volume = evaluate(explain(section, "chest_ct_2d"), mask=mask, image=image, metrics=["binary_overlap"])
    assert of_volume.equals(expected), "the volume stands for its section"

    words = ["--oblique-normal", *map(str, normal), "--oblique-point", *map(str, point)]
    assert main(["explain", str(path), "--model", "chest_ct_2d", "--out", str(tmp_path), *words]) == 0
    (record,) = tmp_path.glob("*.json")
    heatmap = str(record).replace(".json", ".nii.gz")
    measured = ["evaluate", heatmap, "--mask", str(mask), "--metrics", "binary_overlap,deletion"]
    assert main([*measured, "--model", "chest_ct_2d", "--out", str(tmp_path / "told")]) == 0
    (table,) = (tmp_path / "told").glob("*.csv")
    saved = pd.read_csv(table, comment="#")
    overlap = saved[saved["metric"] == "binary_overlap"].set_index(["subject", "score"])["value"]
    np.testing.assert_allclose(overlap, scores, rtol=1e-5)
    assert saved["metric"].eq("deletion").any()
    # Without the image it is a slab in the volume, whose voxels are those pixels.
    slab = evaluate(heatmap, mask=mask, metrics=["binary_overlap"]).set_index(["subject", "score"])["value"]
    dice = [("explanation", "dice"), ("explanation", "iou"), ("explanation", "recall")]
    np.testing.assert_allclose(slab[dice], scores[dice], rtol=1e-5)
    with pytest.raises(InputError, match="does not lie on the plane that was explained"):
        evaluate(image, mask=mask, image=section, metrics=["binary_overlap"])


def test_what_was_drawn_on_a_section_is_saved_where_it_lies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    section, _ = oblique_section(read_image(sample_files("chest_ct_lesion")[0]), *lesion_plane())
    labels = np.zeros(section.grid.shape, np.uint8)
    labels[:, : labels.shape[1] // 2], labels[:, labels.shape[1] // 2 :] = 4, 9
    for name, drawn in {"labels": {"segments": {"labels": labels}}, "mask": {"mask": labels == 4}}.items():
        found = explain(section, "chest_ct_2d", "segment_occlusion", **drawn)
        files = save_results(section, found, tmp_path / name, regions=found.regions)
        assert main(["explain", "--record", str(files.record), "--out", str(tmp_path / "again")]) == 0
        assert "bit for bit" in capsys.readouterr().out
        saved = {"segments": {"labels": files.labels}} if name == "labels" else {"mask": files.mask}
        again = explain(section, "chest_ct_2d", "segment_occlusion", **saved)
        np.testing.assert_array_equal(again.values, found.values)


def test_maps_and_masks_that_are_not_of_this_plane_are_told() -> None:
    path, mask = sample_files("chest_ct_lesion")
    image, (point, normal) = read_image(path), lesion_plane()
    higher = [point[0], point[1], point[2] + 20]
    sections = [oblique_section(image, each, normal)[0] for each in (point, higher)]
    one, other = (explain(section, "chest_ct_2d") for section in sections)
    with pytest.raises(InputError, match="other is of another plane than the explanation"):
        evaluate(one, image=sections[0], others={"other": other}, metrics=["agreement"])
    with pytest.raises(InputError, match="give the image as well"):
        evaluate(one, mask=mask, metrics=["binary_overlap"])
    shift = np.eye(4)
    shift[2, 3] = 5
    moved = replace(image, grid=Grid(image.grid.shape, shift @ image.grid.affine))
    with pytest.raises(InputError, match="The image chest_ct_lesion, oblique is not as it was"):
        evaluate(one, mask=mask, image=moved, metrics=["binary_overlap"])
    # Of pixels of a millimetre it is known that they are.
    fine = Image.from_array(np.random.default_rng(0).random((8, 32, 32)) * 1000 - 900, (1.0, 1.0, 1.0))
    section, _ = oblique_section(fine, fine.grid.to_world((4, 16, 16)), (0.1, 0, 1))
    drawn = np.zeros(section.grid.shape, bool)
    drawn[8:20, 8:20] = True
    table = evaluate(explain(section, "chest_ct_2d"), mask=drawn, metrics=["binary_overlap"])
    assert set(table["unit"]) == {"", "mm2"}
