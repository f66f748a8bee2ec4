from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import binary_dilation

from napari_xai_med import Image, explain, load_model, predict, read_image
from napari_xai_med.grid import Grid
from napari_xai_med.samples import SAMPLES, embedded_classifiers, sample_files
from napari_xai_med.training.phantoms import make_phantom, make_slice
from napari_xai_med.training.reference import HELD_OUT_SEED


@pytest.mark.parametrize("name", ["chest_ct_2d", "chest_ct_3d"])
def test_bundles_are_small_and_state_their_accuracy(name: str) -> None:
    folder = embedded_classifiers()[name]
    assert sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) <= 2_000_000
    facts = load_model(name).facts
    assert facts["napari_xai_med"]["held_out_accuracy"] >= 0.9
    assert facts["napari_xai_med"]["held_out_cases"] >= 200
    assert "Not for diagnosis" in facts["intended_use"]


@pytest.mark.parametrize(
    ("sample", "model", "expected"),
    [
        ("chest_ct_lesion", "chest_ct_3d", "ground glass"),
        ("chest_ct_normal", "chest_ct_3d", "normal"),
        ("slice_ground_glass", "chest_ct_2d", "ground glass"),
        ("slice_nodule", "chest_ct_2d", "nodule"),
    ],
)
def test_samples_are_classified_as_what_they_are(sample: str, model: str, expected: str) -> None:
    image, mask = (read_image(path) for path in sample_files(sample))
    assert predict(image, model).ranked[0][0] == expected
    np.testing.assert_array_equal(mask.grid.affine, image.grid.affine)
    assert bool(mask.data.any()) == (expected != "normal")


@pytest.mark.parametrize("sample", [name for name in SAMPLES if name != "chest_ct_normal"])
def test_the_map_of_a_sample_peaks_on_its_lesion(sample: str) -> None:
    image, mask = (read_image(path) for path in sample_files(sample))
    values = explain(image, "chest_ct_3d" if image.ndim == 3 else "chest_ct_2d").values
    near = binary_dilation(mask.data[0] > 0, iterations=3)
    assert near[np.unravel_index(values.argmax(), values.shape)]


@pytest.mark.slow
@pytest.mark.parametrize(("dims", "kind"), [(2, "ground_glass"), (2, "nodule"), (3, "ground_glass")])
def test_maps_of_held_out_cases_peak_on_their_lesions(dims: int, kind: str) -> None:
    make, model = (make_slice, "chest_ct_2d") if dims == 2 else (make_phantom, "chest_ct_3d")
    classifier, hits = load_model(model), []
    for seed in range(HELD_OUT_SEED, HELD_OUT_SEED + 20):
        phantom = make(seed, kind)
        image = Image(phantom.data[None].astype(np.float32), Grid(phantom.data.shape, phantom.affine))
        values = explain(image, classifier, target=kind.replace("_", " ")).values
        near = binary_dilation(phantom.mask > 0, iterations=4)
        hits.append(bool(near[np.unravel_index(values.argmax(), values.shape)]))
    assert np.mean(hits) >= 0.8
