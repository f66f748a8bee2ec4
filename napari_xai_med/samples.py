"""The images and classifiers that come with the package; the project made all of them itself."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

SAMPLES = {
    "chest_ct_lesion": ("chest_ct_lesion.nii.gz", "chest_ct_lesion_mask.nii.gz"),
    "chest_ct_normal": ("chest_ct_normal.nii.gz", "chest_ct_normal_mask.nii.gz"),
    "slice_ground_glass": ("slice_ground_glass.tif", "slice_ground_glass_mask.tif"),
    "slice_nodule": ("slice_nodule.tif", "slice_nodule_mask.tif"),
}
"""Sample names, each with the files of its image and its mask."""


def sample_folder() -> Path:
    """The folder of the embedded data."""
    return Path(str(files("napari_xai_med.sample_data")))


def sample_files(name: str) -> tuple[Path, Path]:
    """Image and mask of a sample."""
    image, mask = SAMPLES[name]
    return sample_folder() / image, sample_folder() / mask


def embedded_classifiers() -> dict[str, Path]:
    """Names and bundle folders of the classifiers that come with the package."""
    return {
        path.parent.parent.name: path.parent.parent for path in sorted(sample_folder().glob("*/configs/metadata.json"))
    }
