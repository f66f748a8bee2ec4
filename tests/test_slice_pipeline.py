"""From a volume to its slices and back: the right slices, and their maps at the right place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import MeanOf, centre_of_mass, classifier_of, ones, random_affine, world_of
from torch import nn

from napari_xai_med import Attribution, Image, choose_slices, explain, explain_slices, read_image
from napari_xai_med.errors import Cancelled, InputError
from napari_xai_med.grid import Grid, Reorientation
from napari_xai_med.image import PLANES
from napari_xai_med.models.classifier import Classifier
from napari_xai_med.samples import sample_files
from napari_xai_med.slice_pipeline import SliceChoice

LESION, MASK = map(str, sample_files("chest_ct_lesion"))


def identity(dims: int) -> Classifier:
    """Its Grad-CAM is the image where that is above zero."""
    return classifier_of(MeanOf(ones((nn.Conv2d, nn.Conv3d)[dims - 2](1, 1, 1))), dims)


def planted(seed: int) -> tuple[Image, np.ndarray]:
    """Two blobs of different size on a grid that is anisotropic, turned and flipped; and the centre of the larger."""
    affine = random_affine(np.random.default_rng(seed))
    data = np.zeros((1, 22, 26, 30), np.float32)
    data[0, 4:9, 15:20, 20:25], data[0, 5:8, 16:19, 21:24], data[0, 6, 17, 22] = 1, 2, 3
    larger = np.array([6, 17, 22])
    data[0, 15:18, 4:7, 5:8], data[0, 16, 5, 6] = 1, 2
    return Image(data, Grid(data.shape[1:], affine)), affine[:3, :3] @ larger + affine[:3, 3]


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("by", ["sum", "max"])
def test_a_planted_blob_is_found_and_explained_at_its_place_in_the_patient(plane: str, seed: int, by: str) -> None:
    image, centre = planted(seed)
    axis, turn = PLANES.index(plane), Reorientation.between(image.grid)
    shown = turn.grid(image.grid)
    far = 5.5 * shown.spacing[axis]
    found = explain_slices(
        image,
        identity(2),
        "gradcam",
        target=1,
        plane=plane,
        count=2,
        minimum_distance=far,
        rule_options={"by": by},
        volume_classifier=identity(3),
        volume_target=1,
    )
    first, second = found.slices.indices
    # The slice through the centre of the larger blob, and then that of the smaller one.
    assert first == round(float(shown.to_index(centre)[axis]))
    assert abs(first - second) >= 5.5
    heatmap = found.slices.heatmap
    assert heatmap is not None
    np.testing.assert_allclose(3 * heatmap.values / heatmap.values.max(), image.data[0], atol=1e-5)
    large, _ = found.attributions
    assert sorted(large.values.shape)[0] == 1
    np.testing.assert_allclose(centre_of_mass(large.values, large.grid.affine), centre, atol=1e-3)
    # What is on the slab is what the volume has there.
    there = np.rint(image.grid.to_index(world_of(large.values.shape, large.grid.affine))).astype(int)
    expected = image.data[0][tuple(np.moveaxis(there, -1, 0))]
    np.testing.assert_allclose(3 * large.values / large.values.max(), expected, atol=1e-5)


def test_the_slices_are_explained_as_each_of_them_alone() -> None:
    """And the 3D heatmap is that of the 3D classifier alone; a mask as a file, an image or an array is the same."""
    segments = {"method": "slic", "number": 20}
    found = explain_slices(LESION, "chest_ct_2d", segments=segments, count=2, volume_classifier="chest_ct_3d")
    heatmap = found.slices.heatmap
    assert heatmap is not None
    np.testing.assert_array_equal(heatmap.values, explain(LESION, "chest_ct_3d").values)
    for index, each in zip(found.slices.indices, found.attributions, strict=True):
        alone = explain(LESION, "chest_ct_2d", "shapley", slice=index, segments=segments)
        np.testing.assert_array_equal(each.values, alone.values)
        assert each.record.request == alone.record.request
        assert each.record.result["sha256"] == alone.record.result["sha256"]
    notices = [each.notices for each in found.attributions]
    for index, told in zip(found.slices.indices, notices, strict=True):
        assert all(
            (notice if all(notice in each for each in notices) else f"axial {index}: {notice}") in found.slice_notices
            for notice in told
        )
    mask = read_image(MASK)
    chosen = [choose_slices(LESION, "mask", rule_mask=each) for each in (MASK, mask, mask.data[0])]
    assert len({(each.indices, each.scores) for each in chosen}) == 1
    axial = Reorientation.between(mask.grid).array(mask.data[0])
    assert chosen[0].scores == tuple(np.count_nonzero(axial[k]) for k in chosen[0].indices)
    assert chosen[0].mask_sha256 == mask.sha256


def test_a_mask_lies_anywhere_in_the_world() -> None:
    """Cropped and flipped, it still tells the same slices."""
    mask = read_image(MASK)
    low, high = (f(np.argwhere(mask.data[0]), 0) for f in (np.min, np.max))
    part = tuple(slice(a, b + 1) for a, b in zip(low, high, strict=True))
    affine = mask.grid.affine.copy()
    affine[:3, 3] = mask.grid.to_world(low)
    turn = Reorientation((2, 0, 1), (True, False, True))
    cropped = Image(mask.data[(slice(None), *part)], Grid(mask.data[0][part].shape, affine)).reoriented(turn)
    whole, other = (choose_slices(LESION, "mask", rule_mask=each, plane="coronal") for each in (mask, cropped))
    assert (whole.indices, whole.scores) == (other.indices, other.scores)


def test_the_body_is_a_mask_and_a_rule() -> None:
    anywhere = choose_slices(LESION, "intensity", count=1)
    inside = choose_slices(LESION, "intensity", count=1, rule_mask="body")
    assert 0 < inside.scores[0] <= anywhere.scores[0]
    assert len(choose_slices(LESION, "body").indices) == 3


def test_attributions_come_one_by_one_and_the_work_can_be_stopped() -> None:
    image, _ = planted(0)
    seen: list[int] = []
    steps: list[float] = []

    def show(found: list[Attribution]) -> None:
        seen.append(len(found))

    explain_slices(
        image,
        identity(2),
        "gradcam",
        minimum_distance=0,
        volume_classifier=identity(3),
        volume_target=1,
        partial=show,
        progress=lambda done, _: steps.append(done),
    )
    assert seen == [1, 2, 3]
    assert steps == sorted(steps)
    assert steps[-1] == 1

    class Token:
        def is_set(self) -> bool:
            return bool(seen[3:])

    with pytest.raises(Cancelled):
        explain_slices(
            image, identity(2), "gradcam", volume_classifier=identity(3), volume_target=1, partial=show, cancel=Token()
        )
    assert seen == [1, 2, 3, 1]


def test_a_bare_network_gets_the_shape_of_a_slice() -> None:
    image, _ = planted(1)
    network = MeanOf(ones(nn.Conv2d(1, 1, 1)))
    found = explain_slices(image, network, "gradcam", rule="intensity", rule_options={"low": 1.0, "high": 3.0}, count=1)
    assert len(found.attributions) == 1


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, "looks at a heatmap; choose a 3D classifier"),
        ({"volume_classifier": "chest_ct_2d"}, "looks at slices; choose a 3D classifier"),
        ({"volume_classifier": "chest_ct_3d", "slice_classifier": "chest_ct_3d"}, "choose a 2D classifier"),
        ({"volume_classifier": "chest_ct_3d", "rule": "body"}, "looks at no heatmap; leave the 3D classifier out"),
        ({"rule": "body", "rule_mask": MASK}, "looks at no mask; leave it out"),
        ({"rule": "mask"}, "needs a mask; choose one"),
        ({"rule": "mask", "rule_mask": np.zeros((96, 80, 40))}, "The mask is empty where the image is"),
        ({"rule": "mask", "rule_mask": str(sample_files("slice_nodule")[1])}, "is 2D and chest_ct_lesion is 3D"),
        ({"rule": "intensity", "rule_options": {"low": 5000.0, "high": 6000.0}}, "finds nothing in any axial slice"),
        ({"rule": "x"}, "There is no rule 'x'"),
        ({"plane": "oblique"}, "There is no plane 'oblique'"),
        ({"image": str(sample_files("slice_nodule")[0])}, "is 2D and has no slices to choose from"),
    ],
)
def test_what_can_not_be_is_one_sentence(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence.replace("(", r"\(")):
        explain_slices(**({"image": LESION, "slice_classifier": "chest_ct_2d"} | changes))


def test_a_choice_is_plain_values(tmp_path: Path) -> None:
    choice = SliceChoice("intensity", {"low": -500.0}, "coronal", 2, 5.0, str(tmp_path))
    told = choice.to_dict()
    assert told["options"] == {"low": -500.0, "high": -300.0}
    assert SliceChoice.from_dict(told).to_dict() == told
    for key, value in {"rule": 1, "count": True, "x": 0, "options": []}.items():
        with pytest.raises(InputError, match=f"A choice of slices can't have {key}"):
            SliceChoice.from_dict({key: value})


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"target": "cat"}, "has no class 'cat'"),
        ({"method": "cat"}, "no method 'cat'|no method cat"),
        ({"method": "gradcam", "layers": ("a", "b"), "separate": True}, "several maps"),
        ({"numbr": 5}, "numbr"),
        ({"segments": {"method": "slic", "numbr": 5}}, "numbr"),
        ({"segments": "nothing.nii.gz"}, "no file .*nothing.nii.gz"),
        ({"mask": "nothing.nii.gz"}, "no file .*nothing.nii.gz"),
        ({"method": "gradcam", "segments": "slic"}, "does not explain by segments"),
    ],
)
def test_mistakes_about_the_slices_are_told_before_the_volume_is_explained(
    changes: dict[str, Any], sentence: str
) -> None:
    steps: list[float] = []
    asked: dict[str, Any] = {"volume_classifier": "chest_ct_3d", "progress": lambda done, _: steps.append(done)}
    with pytest.raises(InputError, match=sentence):
        explain_slices(LESION, "chest_ct_2d", **asked | changes)
    assert steps == []
