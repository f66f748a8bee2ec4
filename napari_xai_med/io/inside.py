"""What is inside of a network to files."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from napari_xai_med.activation_maximisation import Drawing
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

    volumes, sheet = _files(maps, folder, ".nii.gz", ".png")
    with _writing(volumes.parent):
        save_nifti(volumes, maps.data, maps.grid, f"feature maps; {DISCLAIMER}")
        contact_sheet(maps).savefig(sheet, dpi=110)
    return volumes, sheet


def save_drawing(drawing: Drawing, folder: str | Path) -> tuple[Path, Path, Path]:
    """Write a drawing as NIfTI, a figure of it as PNG, and what was done as JSON; as `save_maps`."""
    from napari_xai_med.figures_inside import drawing_sheet

    values, figure, record = _files(drawing.image, folder, ".nii.gz", ".png", ".json")
    told = {
        "what": drawing.sentence,
        "method": drawing.facts,
        "result": {
            "logit_before": drawing.score_before,
            "logit_after": drawing.score_after,
            "probabilities": drawing.probabilities,
        },
        "disclaimer": DISCLAIMER,
    }
    data = drawing.image.data
    with _writing(values.parent):
        save_nifti(values, data[0] if len(data) == 1 else data, drawing.image.grid, f"no patient; {DISCLAIMER}")
        drawing_sheet(drawing).savefig(figure, dpi=110)
        record.write_text(json.dumps(told, indent=2), encoding="utf-8")
    return values, figure, record


def _files(image: Image, folder: str | Path, *suffixes: str) -> list[Path]:
    """Paths of the files of an image in a folder."""
    stem = re.sub(r"[^\w.]+", "-", image.name).strip("-.") or "image"
    return [Path(folder).expanduser() / f"{stem}{suffix}" for suffix in suffixes]


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Make a folder, and say in one sentence if it can't be written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise InputError(f"The results can't be written to {folder}: {error.strerror or error}.") from error
