"""An explanation to files: heatmap, figure and record."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from napari_xai_med.attribution import DISCLAIMER, Attribution
from napari_xai_med.bands import band_labels, band_names
from napari_xai_med.errors import InputError
from napari_xai_med.image import Image
from napari_xai_med.io.nifti import save_nifti


@dataclass(frozen=True)
class ResultFiles:
    """The files of one explanation: NIfTI heatmap, PNG figure and JSON record; NIfTI labels of bands if asked for."""

    heatmap: Path
    figure: Path
    record: Path
    bands: Path | None = None

    @property
    def written(self) -> tuple[Path, ...]:
        """All of them."""
        files = (self.heatmap, self.figure, self.record, self.bands)
        return tuple(file for file in files if file is not None)


def file_stem(image: Image, attribution: Attribution) -> str:
    """A file name without suffix that says which image, method, chosen layers and class, in letters of any script."""
    record = attribution.record.request
    whole = attribution.values.shape == image.grid.shape
    place = "" if whole else f"_{record['plane']}{record['slice']}"
    method = "-minus-".join(str(name) for name in (record["method"], record["minus"]) if name)
    parts = (f"{method}-{attribution.layers}", attribution.about)
    return "_".join((image_stem(image, place), *map(_clean, parts)))


def image_stem(image: Image, more: str = "") -> str:
    """How the names of files about an image begin."""
    return _clean(image.name + ("" if image.volume is None else f"_volume{image.volume}") + more)


def _clean(text: str) -> str:
    return re.sub(r"[^\w.]+", "-", text).strip("-.") or "x"


def save_results(
    image: Image, attribution: Attribution, folder: str | Path, bands: Sequence[float] = ()
) -> ResultFiles:
    """Write heatmap, figure of orthogonal views and record into a folder.

    Parameters
    ----------
    image : Image
        What was explained, in the orientation in which the heatmap is to be saved.
    attribution : Attribution
        On the image's grid.
    folder : str or Path
        Made where it does not exist. Files of the same explanation are replaced.
    bands : sequence of float
        Edges of intensity bands that are to be written as labels; see `band_labels`. None by default.

    Raises
    ------
    InputError
        If the folder can't be written.
    """
    from napari_xai_med.figures import three_views

    target = Path(folder).expanduser()
    stem = file_stem(image, attribution)
    files = ResultFiles(*(target / f"{stem}{suffix}" for suffix in (".nii.gz", ".png", ".json")))
    labels = band_labels(attribution.values, bands, signed=attribution.signed) if bands else None
    try:
        target.mkdir(parents=True, exist_ok=True)
        save_nifti(files.heatmap, attribution.values, attribution.grid, f"{attribution.title}; {DISCLAIMER}")
        if labels is not None:
            files = replace(files, bands=target / f"{stem}_bands.nii.gz")
            names = "; ".join(band_names(bands, signed=attribution.signed))
            save_nifti(target / f"{stem}_bands.nii.gz", labels, attribution.grid, f"{names}; {DISCLAIMER}")
        three_views(image, attribution).savefig(files.figure, dpi=110)
        files.record.write_text(attribution.record.to_json(), encoding="utf-8")
    except OSError as error:
        raise InputError(f"The results can't be written to {target}: {error.strerror or error}.") from error
    return files
