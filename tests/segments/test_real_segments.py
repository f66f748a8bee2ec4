"""Real CT, MR and photographs: segments, bodies and the slices that are chosen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from label_maps import check_labels
from scipy.cluster.hierarchy import is_monotonic, is_valid_linkage

from napari_xai_med import Image, read_image
from napari_xai_med.grid import Reorientation
from napari_xai_med.samples import sample_files
from napari_xai_med.segments.base import make_segmenter, segmenters
from napari_xai_med.segments.body import body_mask
from napari_xai_med.segments.given import given_segments
from napari_xai_med.segments.table import segments_table
from napari_xai_med.segments.tree import partition_tree
from napari_xai_med.slices import make_slice_rule, top_slices

Folder = Callable[[str], Path]

PICTURES = ("brain_mri_253/yes/Y1.jpg", "deeplesion_keyslices/images/*", "monuseg_mini/images/*", "busi/*/images/*")


def picture(shared_data: Folder, pattern: str) -> Image:
    folder, _, names = pattern.partition("/")
    return read_image(sorted(shared_data(folder).glob(names))[0])


def displayed(path: Path) -> Image:
    image = read_image(path)
    return image.reoriented(Reorientation.between(image.grid))


def explained(labels: np.ndarray, data: np.ndarray) -> float:
    """Which share of the intensities' variance lies between segments, not inside of them."""
    inside = labels > 0
    index, values = labels[inside] - 1, data[0][inside].astype(float)
    sums, counts = np.bincount(index, values), np.bincount(index)
    return float((sums**2 / counts).sum() / counts.sum() - values.mean() ** 2) / float(values.var())


@pytest.mark.parametrize("pattern", PICTURES)
@pytest.mark.parametrize("name", segmenters())
def test_pictures(name: str, pattern: str, shared_data: Folder) -> None:
    image = picture(shared_data, pattern)
    # The largest is 1000 x 1000, for which quickshift takes half a minute.
    data = image.data[:, :400, :400]
    found = make_segmenter(name, {}).segments(data, image.grid.spacing)
    check_labels(found.labels, np.ones(data.shape[1:], bool))
    assert 5 < found.count < 400
    assert len(segments_table(found.labels, data)) == found.count + 1
    tree = partition_tree(found.labels, data, image.grid.spacing)
    assert is_valid_linkage(tree)
    assert is_monotonic(tree)
    if name != "grid":
        # Better than boxes, of which there are no fewer.
        boxes = make_segmenter("grid", {"number": found.count}).segments(data, image.grid.spacing).labels
        assert explained(found.labels, data) > explained(boxes, data)


@pytest.mark.parametrize("name", ["slic", "watershed", "grid"])
@pytest.mark.parametrize(
    "file",
    [
        "ct_totalsegmentator/example_ct_sm.nii.gz",
        "ct_totalsegmentator/example_mr_sm.nii.gz",
        "msd_hippocampus/images/*",
    ],
)
def test_volumes_inside_of_the_body(name: str, file: str, shared_data: Folder) -> None:
    folder, _, pattern = file.partition("/")
    image = displayed(sorted(shared_data(folder).glob(pattern))[0])
    body = body_mask(image.data)
    found = make_segmenter(name, {"number": 60}).segments(image.data, image.grid.spacing, body)
    check_labels(found.labels, body)
    assert 30 < found.count < 120


def test_the_body_in_ct(shared_data: Folder) -> None:
    """Organs lie in it, and tissue is more than -500 HU; what is not in it is air or the table."""
    folder = shared_data("ct_totalsegmentator")
    image, organs = displayed(folder / "example_ct.nii.gz"), displayed(folder / "example_seg_fast_force_split.nii.gz")
    body = body_mask(image.data)
    assert body[organs.data[0] > 0].mean() > 0.99
    assert 0.3 < body.mean() < 0.9
    assert np.median(image.data[0][~body]) < -900
    assert (image.data[0][~body] > -500).mean() < 0.1


@pytest.mark.slow
def test_the_body_in_mr_and_photographs(shared_data: Folder) -> None:
    """Of 253 heads that were photographed from screens, some are cropped or framed: nine of ten are found whole."""
    shares = [body_mask(read_image(path).data).mean() for path in sorted(shared_data("brain_mri_253").glob("*/*"))]
    assert np.mean([0.3 < share < 0.9 for share in shares]) > 0.9
    tissue = read_image(sorted(shared_data("monuseg_mini").glob("images/*"))[0]).data
    assert body_mask(tissue, bright=True).any()


def test_organs_as_segments(shared_data: Folder) -> None:
    folder = shared_data("ct_totalsegmentator")
    image, organs = displayed(folder / "example_ct.nii.gz"), displayed(folder / "example_seg_fast_force_split.nii.gz")
    found = given_segments(organs.data[0].astype(np.int64))
    assert found.facts["original"] == np.unique(organs.data[organs.data > 0]).tolist()
    table = segments_table(found.labels, image.data, image.grid.spacing)
    # Voxels of 3 x 3 x 3 mm.
    assert table["size_mL"].sum() == pytest.approx(organs.data[0].size * 0.027, rel=1e-4)
    assert is_valid_linkage(partition_tree(found.labels, image.data, image.grid.spacing))


@pytest.mark.parametrize("study", ["0255", "0256", "0258", "0260"])
def test_slices_of_published_maps(study: str, shared_data: Folder) -> None:
    """The slices with most activation hold more than as many slices would on average, 8 apart."""
    folder = shared_data("mosmed_thesis")
    volume, heatmap = (read_image(folder / f"study_{study}_{kind}.nii.gz").data for kind in ("resz", "cam"))
    scores = make_slice_rule("activation", {}).scores(volume, heatmap[0], axis=2)
    assert len(scores) == 64
    chosen = top_slices(scores, 3, 8.0)
    assert len(chosen.indices) == 3
    assert min(abs(a - b) for a in chosen.indices for b in chosen.indices if a != b) >= 8
    assert scores[list(chosen.indices)].mean() > scores.mean()
    assert scores[chosen.indices[0]] == scores.max()


def test_the_sample_s_lesion_is_in_the_chosen_slice() -> None:
    """By its mask, and by the intensities of ground glass in the lungs, which lie in the body."""
    image, mask = (displayed(path) for path in sample_files("chest_ct_lesion"))
    by_mask = make_slice_rule("mask", {}).scores(image.data, mask=mask.data[0] > 0)
    (best,) = top_slices(by_mask, 1).indices
    assert by_mask[best] == by_mask.max() > 0
    by_intensity = make_slice_rule("intensity", {}).scores(image.data, mask=mask.data[0] > 0)
    (other,) = top_slices(by_intensity, 1).indices
    assert by_mask[other] > 0.5 * by_mask[best]


def test_the_lesion_of_the_sample_slice_gets_segments_of_its_own() -> None:
    """Ground glass: the segments that lie mostly in it hold most of it."""
    image, mask = (read_image(path) for path in sample_files("slice_ground_glass"))
    labels = make_segmenter("slic", {}).segments(image.data, image.grid.spacing).labels
    lesion = mask.data[0] > 0
    shares = np.bincount(labels.ravel(), lesion.ravel()) / np.maximum(np.bincount(labels.ravel()), 1)
    own = (shares > 0.5)[labels]
    assert np.count_nonzero(own & lesion) / np.count_nonzero(own | lesion) > 0.6
