"""What is inside of a network to files."""

from __future__ import annotations

import re
from pathlib import Path

from napari_xai_med.attribution import DISCLAIMER
from napari_xai_med.errors import InputError
from napari_xai_med.image import Image
from napari_xai_med.io.nifti import save_nifti


def save_maps(maps: Image, folder: str | Path) -> tuple[Path, Path]:
    """Write a layer's feature maps as NIfTI, a volume for each channel, and a contact sheet as PNG.

    Parameters
    ----------
    maps : Image
        As `napari_xai_med.feature_maps` gives it.
    folder : str or Path
        Made where it does not exist. Files of the same maps are replaced.

    Returns
    -------
    (Path, Path)
        Of the NIfTI file and the sheet.

    Raises
    ------
    InputError
        If the folder can't be written.
    """
    from napari_xai_med.figures_inside import contact_sheet

    target = Path(folder).expanduser()
    stem = re.sub(r"[^\w.]+", "-", maps.name).strip("-.") or "maps"
    volumes, sheet = target / f"{stem}.nii.gz", target / f"{stem}.png"
    try:
        target.mkdir(parents=True, exist_ok=True)
        save_nifti(volumes, maps.data, maps.grid, f"feature maps; {DISCLAIMER}")
        contact_sheet(maps).savefig(sheet, dpi=110)
    except OSError as error:
        raise InputError(f"The results can't be written to {target}: {error.strerror or error}.") from error
    return volumes, sheet
