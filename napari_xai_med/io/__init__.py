"""Files to images on a grid, and attributions to files."""

from __future__ import annotations

from pathlib import Path

from napari_xai_med.errors import InputError
from napari_xai_med.image import Image
from napari_xai_med.io.nifti import NIFTI_SUFFIXES, read_nifti
from napari_xai_med.io.picture import PICTURE_SUFFIXES, read_picture


def read_image(path: str | Path, volume: int | None = None) -> Image:
    """Read a medical image from a file.

    Parameters
    ----------
    path : str or Path
        NIfTI (.nii, .nii.gz), Analyze pair (.hdr or .img), PNG, JPEG or TIFF.
    volume : int, optional
        Which volume of a four-dimensional file; needed where there is more than one.

    Returns
    -------
    Image

    Raises
    ------
    InputError
        If the file is missing, unreadable or of an unknown kind, or a volume has to be chosen.
    """
    file = Path(path).expanduser()
    name = file.name.lower()
    if not file.is_file():
        raise InputError(f"There is no file {file}; check the path.")
    if name.endswith(NIFTI_SUFFIXES):
        return read_nifti(file, volume)
    if name.endswith(PICTURE_SUFFIXES):
        return read_picture(file)
    known = ", ".join((*NIFTI_SUFFIXES, *PICTURE_SUFFIXES))
    raise InputError(f"{file.name} is not of a kind that can be read ({known}); convert it first.")
