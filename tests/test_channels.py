from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from helpers import classifier_of, ones, random_affine, world_of, write_bundle
from nibabel.processing import resample_from_to
from torch import nn

from napari_xai_med import explain, load_model, predict, read_image
from napari_xai_med.channels import stack_channels
from napari_xai_med.cli import main
from napari_xai_med.errors import InputError
from napari_xai_med.grid import Grid
from napari_xai_med.image import Image


def plane_of(affine: np.ndarray, shape: tuple[int, ...], name: str) -> Image:
    """World coordinates' sum, which linear interpolation gives back exactly."""
    values = world_of(shape, affine) @ [1.0, 2.0, -0.5]
    return Image(values[None].astype(np.float32), Grid(shape, affine), name, f"/there/{name}.nii", notices=("told",))


def test_other_channels_are_sampled_where_the_first_lies() -> None:
    random = np.random.default_rng(0)
    for _ in range(10):
        affine, shape = random_affine(random), (9, 10, 11)
        first = plane_of(affine, shape, "t1")
        other = random_affine(random)
        # Around the same centre, and large enough to cover the first.
        other[:3, 3] = affine[:3] @ [4, 4.5, 5, 1] - other[:3, :3] @ [40, 40, 40]
        second = plane_of(other, (81, 81, 81), "t2")
        both = stack_channels([first, second])
        assert both.grid is first.grid
        inside = _inside(first, second)
        assert inside.mean() > 0.1
        tolerance = 1e-4 * np.abs(second.data).max()
        np.testing.assert_allclose(both.data[1][inside], both.data[0][inside], atol=tolerance)
        outside = ~_inside(first, second, slack=-1)
        assert (both.data[1][outside] == second.data.min()).all()
        assert both.others == ("/there/t2.nii",)
        # An image goes on for half a voxel beyond its outermost centres.
        uncovered = 1 - _inside(first, second, slack=-0.5).mean()
        assert both.notices[0] == "told"
        assert (f"t2 does not cover {uncovered:.0%} of t1" in " ".join(both.notices)) == (uncovered > 0.01)


@pytest.mark.parametrize("shift", [0.25, 0.4, 0.75])
def test_faces_of_a_shifted_image_keep_their_values(shift: float) -> None:
    """Within half a voxel of its outermost centres an image goes on; scipy's own filling mixes something in."""
    random = np.random.default_rng(3)
    affine = np.diag([2.0, 3.0, 4.0, 1.0])
    moved = affine.copy()
    moved[:3, 3] = shift * np.diag(affine)[:3]
    first = Image(np.zeros((1, 6, 7, 8), np.float32), Grid((6, 7, 8), affine))
    second = Image(random.uniform(50, 100, (1, 6, 7, 8)).astype(np.float32), Grid((6, 7, 8), moved))
    found = stack_channels([first, second]).data[1]
    file = nib.Nifti1Image(second.data[0], moved)
    expected = resample_from_to(file, ((6, 7, 8), affine), order=1, mode="nearest").get_fdata()
    # Index 0 of the first lies shift voxels before index 0 of the second: inside it up to half a voxel.
    if shift > 0.5:
        expected[0], expected[:, 0], expected[:, :, 0] = (second.data.min(),) * 3
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize(("shift", "told"), [(0, ""), (5, "t2 does not cover 25% of t1"), (40, "elsewhere")])
def test_a_channel_that_covers_a_part_only_is_told(shift: int, told: str) -> None:
    affine = np.eye(4)
    affine[0, 3] = shift
    first = Image(np.ones((1, 20, 6, 7), np.float32), Grid((20, 6, 7), np.eye(4)), "t1")
    second = Image(np.ones((1, 20, 6, 7), np.float32), Grid((20, 6, 7), affine), "t2")
    if told == "elsewhere":
        with pytest.raises(InputError, match=told):
            stack_channels([first, second])
    else:
        notices = stack_channels([first, second]).notices
        assert told in " ".join(notices)
        assert bool(notices) is bool(told)


@pytest.mark.parametrize("spacing", [None, (2.0, 2.0)])
def test_pictures_of_several_sizes_need_a_spacing(spacing: tuple[float, float] | None) -> None:
    small = Image.from_array(np.arange(30, dtype=np.float32).reshape(5, 6), spacing)
    large = Image.from_array(np.zeros((10, 12), np.float32))
    if spacing is None:
        with pytest.raises(InputError, match="image has 5 x 6 pixels and image 10 x 12, and neither says how large"):
            stack_channels([large, small])
    else:
        np.testing.assert_array_equal(stack_channels([large, small]).data[1, ::2, ::2], small.data[0])
    assert len(stack_channels([large, large]).data) == 2


def test_a_record_tells_the_volume_of_every_channel(tmp_path: Path) -> None:
    path = tmp_path / "series.nii.gz"
    values = np.random.default_rng(0).random((8, 9, 10, 3)).astype(np.float32)
    nib.Nifti1Image(values, np.eye(4)).to_filename(path)
    bundle = write_bundle(tmp_path / "b", {"preprocessing": {"_target_": "Compose"}}, ("a", "b"), channels=2)
    network = nn.Sequential(nn.Conv3d(2, 2, 3), nn.AdaptiveAvgPool3d(1), nn.Flatten())
    torch.export.save(torch.export.export(network, (torch.rand(1, 2, 8, 9, 10),)), bundle / "models" / "model.pt2")
    attribution = explain([read_image(path, 2), read_image(path, 1)], load_model(bundle))
    told = attribution.record.image
    assert (told["volume"], told["others"], told["other_volumes"]) == (2, [str(path)], [1])
    record = tmp_path / "record.json"
    record.write_text(attribution.record.to_json())
    # The bits are compared by the command itself.
    assert main(["explain", "--record", str(record), "--out", str(tmp_path / "out")]) == 0


def _inside(first: Image, second: Image, slack: float = 0.0) -> np.ndarray:
    index = world_of(first.grid.shape, np.linalg.inv(second.grid.affine) @ first.grid.affine)
    return ((index >= slack) & (index <= np.array(second.grid.shape) - 1 - slack)).all(-1)


def test_the_same_grid_keeps_every_bit() -> None:
    affine = random_affine(np.random.default_rng(1))
    images = [
        Image(np.random.default_rng(k).random((1, 4, 5, 6), np.float32), Grid((4, 5, 6), affine)) for k in range(3)
    ]
    np.testing.assert_array_equal(stack_channels(images).data, np.concatenate([image.data for image in images]))
    assert stack_channels(images[:1]) is images[0]


def test_images_that_do_not_belong_together_are_told() -> None:
    here = Image.from_array(np.zeros((4, 4, 4), np.float32))
    away = Image(here.data, Grid((4, 4, 4), here.grid.affine + np.diag([0, 0, 0, 0]) + _moved(100)), "other")
    with pytest.raises(InputError, match="other lies elsewhere than image; give images of one patient"):
        stack_channels([here, away])
    with pytest.raises(InputError, match="image is 2D and image is 3D"):
        stack_channels([here, Image.from_array(np.zeros((4, 4), np.float32))])
    with pytest.raises(InputError, match="There is no image"):
        stack_channels([])


def _moved(by: float) -> np.ndarray:
    change = np.zeros((4, 4))
    change[0, 3] = by
    return change


def test_scripts_and_files_give_the_same_answer(tmp_path: Path) -> None:
    network = nn.Sequential(ones(nn.Conv3d(2, 1, 3, padding=1)), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(1, 2))
    classifier = classifier_of(network, 3, channels=2)
    paths = []
    for k, spacing in enumerate((1.0, 2.0)):
        paths.append(tmp_path / f"t{k + 1}.nii.gz")
        values = np.random.default_rng(k).random((12 // (k + 1),) * 3).astype(np.float32)
        nib.Nifti1Image(values, np.diag([spacing] * 3 + [1])).to_filename(paths[-1])
    attribution = explain(paths, classifier)
    assert attribution.grid.shape == (12, 12, 12)
    assert attribution.record.image["others"] == [str(paths[1])]
    np.testing.assert_array_equal(
        predict([str(path) for path in paths], classifier).logits, attribution.prediction.logits
    )


def test_the_command_line_takes_several_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "one.nii.gz"
    nib.Nifti1Image(np.zeros((8, 8, 8), np.float32), np.eye(4)).to_filename(path)
    assert main(["predict", str(path), str(path), "--model", "chest_ct_3d"]) == 2
    assert "takes images with 1 channel(s) and one has 2" in capsys.readouterr().err
