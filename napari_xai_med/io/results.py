"""An explanation to files: heatmap, figure and record."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from napari_xai_med.attribution import DISCLAIMER, Attribution
from napari_xai_med.bands import band_labels, band_names
from napari_xai_med.errors import InputError
from napari_xai_med.grid import Grid
from napari_xai_med.image import Image
from napari_xai_med.io.nifti import save_nifti
from napari_xai_med.record import Record
from napari_xai_med.segmenting import Regions
from napari_xai_med.segments.choice import BODY, SegmentChoice


@dataclass(frozen=True)
class ResultFiles:
    """The files of one explanation.

    Parameters
    ----------
    heatmap, figure, record : Path
        NIfTI, PNG and JSON.
    bands : Path, optional
        NIfTI labels of bands, if asked for.
    segments, table : Path, optional
        NIfTI labels and CSV of the segments, of methods that explain by these.
    best : Path, optional
        NIfTI labels of the best of these, if asked for.
    labels, mask : Path, optional
        NIfTI labels of what was drawn in memory.
    """

    heatmap: Path
    figure: Path
    record: Path
    bands: Path | None = None
    segments: Path | None = None
    table: Path | None = None
    best: Path | None = None
    labels: Path | None = None
    mask: Path | None = None

    @property
    def written(self) -> tuple[Path, ...]:
        """All of them."""
        return tuple(file for file in vars(self).values() if file is not None)


def file_stem(image: Image, attribution: Attribution) -> str:
    """A file name without suffix: which image, method, chosen layers, segments and class, in letters of any script."""
    record = attribution.record.request
    whole = attribution.values.shape == image.grid.shape
    place = "" if whole else f"_{record['plane']}{record['slice']}"
    if image.oblique is not None:
        place = f"_{_short_hash(image.oblique.to_dict())}"
    method = "-minus-".join(str(name) for name in (record["method"], record["minus"]) if name)
    parts = (f"{method}-{attribution.layers}-{_segments_told(attribution)}", attribution.about)
    return "_".join((image_stem(image, place), *map(clean, parts)))


def _segments_told(attribution: Attribution) -> str:
    """How the image was cut, if not in the usual way, as far as names of files have to tell it."""
    told = attribution.record.request.get("segments")
    if told is None or told == SegmentChoice().with_defaults().to_dict():
        return ""
    # What was drawn in memory has no path, and a file may hold something else next time.
    facts = attribution.record.method.get("segments", {})
    sums = {f"{what}_sha256": facts.get(f"{what}_sha256") for what in ("labels", "mask")}
    return f"{told['method']}-{_short_hash(told | {'labels': '', 'mask': told['mask'] == BODY} | sums)}"


def _short_hash(told: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:6]


def image_stem(image: Image, more: str = "") -> str:
    """How the names of files about an image begin."""
    return clean(image.name + ("" if image.volume is None else f"_volume{image.volume}") + more)


def clean(text: str) -> str:
    """A text as part of a file's name."""
    return re.sub(r"[^\w.]+", "-", text).strip("-.") or "x"


def save_results(
    image: Image,
    attribution: Attribution,
    folder: str | Path,
    bands: Sequence[float] = (),
    regions: Regions | None = None,
    best: tuple[int, str] | None = None,
) -> ResultFiles:
    """Write heatmap, figure of orthogonal views and record into a folder, and the segments if there are any.

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
    regions : Regions, optional
        What was drawn in memory; it is written as well, and the record names these files.
    best : (int, str), optional
        How many of the best segments are to be written as a mask, and by what; see `Attribution.best_segments`.

    Raises
    ------
    InputError
        If the folder can't be written, or there are no such bands or segments.
    """
    from napari_xai_med.figures import three_views

    target = Path(folder).expanduser()
    stem = file_stem(image, attribution)
    files = ResultFiles(*(target / f"{stem}{suffix}" for suffix in (".nii.gz", ".png", ".json")))
    labels = band_labels(attribution.values, bands, signed=attribution.signed) if bands else None
    chosen = None if best is None else attribution.best_segments(*best)
    # A section is shown flat and lies in its volume.
    grid = attribution.grid if image.oblique is None else image.oblique.grid
    try:
        target.mkdir(parents=True, exist_ok=True)
        values = attribution.values.reshape(grid.shape)
        save_nifti(files.heatmap, values, grid, f"{attribution.title}; {DISCLAIMER}")
        if labels is not None:
            files = replace(files, bands=target / f"{stem}_bands.nii.gz")
            names = "; ".join(band_names(bands, signed=attribution.signed))
            save_nifti(target / f"{stem}_bands.nii.gz", labels.reshape(grid.shape), grid, f"{names}; {DISCLAIMER}")
        three_views(image, attribution).savefig(files.figure, dpi=110)
        files = _write_segments(files, target / stem, attribution, grid)
        if chosen is not None and best is not None:
            files = replace(files, best=target / f"{stem}_best.nii.gz")
            told = f"Best {best[0]} segments, {best[1]}"
            save_nifti(target / f"{stem}_best.nii.gz", chosen.reshape(grid.shape), grid, f"{told}; {DISCLAIMER}")
        drawn = write_regions(target / stem, _in_volume(regions or Regions(), image))
        files = replace(files, **drawn)
        files.record.write_text(with_regions(attribution.record, drawn).to_json(), encoding="utf-8")
    except OSError as error:
        raise InputError(f"The results can't be written to {target}: {error.strerror or error}.") from error
    return files


def _write_segments(files: ResultFiles, stem: Path, attribution: Attribution, grid: Grid) -> ResultFiles:
    """Write labels and table of the segments, if there are any."""
    segments = attribution.segments
    if segments is None:
        return files
    files = replace(files, segments=Path(f"{stem}_segments.nii.gz"), table=Path(f"{stem}_segments.csv"))
    assert files.segments is not None
    save_nifti(files.segments, segments.labels.reshape(grid.shape), grid, f"Segments; {DISCLAIMER}")
    # The first row is of what is no segment.
    segments.table.iloc[1:].to_csv(files.table, index=False)
    return files


def _in_volume(regions: Regions, image: Image) -> Regions:
    """What was drawn on an oblique section where it lies in the volume, since a file tells nothing of the section."""
    if image.oblique is None:
        return regions
    found = {}
    for what, drawn in vars(regions).items():
        found[what] = drawn
        if drawn is not None and drawn.ndim == 2:
            to_section = np.linalg.inv(image.grid.affine) @ drawn.grid.affine
            grid = image.oblique.in_volume(to_section, drawn.grid.shape)
            found[what] = replace(drawn, data=drawn.data[:, np.newaxis], grid=grid)
    return Regions(**found)


def write_regions(stem: Path, regions: Regions) -> dict[str, Path]:
    """Write the labels and the mask that were drawn in memory; where each is by now."""
    written = {}
    for what, drawn in (("labels", regions.labels), ("mask", regions.mask)):
        if drawn is not None:
            written[what] = Path(f"{stem}_{what}.nii.gz")
            save_nifti(written[what], drawn.data[0].astype(np.int32), drawn.grid, f"Drawn {what}; {DISCLAIMER}")
    return written


def with_regions(record: Record, written: Mapping[str, Path]) -> Record:
    """A record that names what was drawn by its whole path, from wherever it is computed again."""
    if not written:
        return record
    paths = {what: str(path.resolve()) for what, path in written.items()}
    return replace(record, request={**record.request, "segments": {**record.request["segments"], **paths}})
