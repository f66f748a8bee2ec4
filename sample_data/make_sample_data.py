"""Make everything in this folder anew: ``python sample_data/make_sample_data.py`` (some minutes on 2 cores).

The same seeds give the same files on the same machine and versions.
"""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel
import numpy as np
import tifffile
from numpy.typing import NDArray

from napari_xai_med.training.phantoms import make_phantom, make_slice
from napari_xai_med.training.reference import CHEST_CT_2D, CHEST_CT_3D, HELD_OUT_SEED, train, write_bundle

FOLDER = Path(__file__).parent
SAMPLE_SEED = HELD_OUT_SEED + 3
"""Among the held-out cases, so that no classifier has seen the samples."""


def main() -> None:
    """Write the samples, train both classifiers and print what accuracy they reached."""
    for name, kind in (("lesion", "ground_glass"), ("normal", "normal")):
        phantom = make_phantom(SAMPLE_SEED, kind)
        _save_volume(FOLDER / f"chest_ct_{name}.nii.gz", phantom.data, phantom.affine)
        _save_volume(FOLDER / f"chest_ct_{name}_mask.nii.gz", phantom.mask, phantom.affine)
    for kind in ("ground_glass", "nodule"):
        phantom = make_slice(SAMPLE_SEED, kind)
        tifffile.imwrite(FOLDER / f"slice_{kind}.tif", phantom.data, compression="zlib")
        tifffile.imwrite(FOLDER / f"slice_{kind}_mask.tif", phantom.mask, compression="zlib")
    for folder, recipe in (("chest_ct_3d", CHEST_CT_3D), ("chest_ct_2d", CHEST_CT_2D)):
        write_bundle(train(recipe, print), FOLDER / folder)


def _save_volume(path: Path, data: NDArray[np.generic], affine: NDArray[np.float64]) -> None:
    image = nibabel.Nifti1Image(data, affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    # No time of day and no file name in the archive: the same data gives the same bytes.
    path.write_bytes(gzip.compress(image.to_bytes(), 9, mtime=0))


if __name__ == "__main__":
    main()
