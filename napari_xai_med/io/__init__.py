"""Files to images on a grid, and attributions to files."""

from __future__ import annotations

from functools import lru_cache
from glob import escape
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


def read_label_map(path: str | Path) -> Image:
    """A label map from a file, which is read once as long as it stays the same; errors as for `read_image`.

    Each slice that is explained by the segments of a volume asks for it.
    """
    file = Path(path).expanduser().resolve()
    # A pair's other file may change alone.
    states = [each.stat() for each in sorted(file.parent.glob(f"{escape(file.stem)}.*"))] if file.is_file() else []
    return _read_label_map(str(path), file, tuple((state.st_mtime_ns, state.st_size) for state in states))


@lru_cache(maxsize=2)  # segments and where they may be
def _read_label_map(path: str, _: Path, __: tuple[tuple[int, int], ...]) -> Image:
    return read_image(path)
