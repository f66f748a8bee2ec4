"""Explained slices of a volume to files, and what such files say."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from napari_xai_med.attribution import DISCLAIMER
from napari_xai_med.errors import InputError, told_as
from napari_xai_med.image import Image
from napari_xai_med.io.nifti import read_nifti, save_nifti
from napari_xai_med.io.results import ResultFiles, image_stem, save_results, with_regions, write_regions
from napari_xai_med.models.config_files import config_bytes
from napari_xai_med.record import Record
from napari_xai_med.segmenting import Regions
from napari_xai_med.segments.choice import BODY, GIVEN
from napari_xai_med.slice_pipeline import ExplainedSlices, SliceChoice

FORMAT = 1


@dataclass(frozen=True)
class SlicesRecord:
    """What slices were chosen by which rule, and the records of their explanations.

    Parameters
    ----------
    choice : SliceChoice
        With the path of its mask.
    mask_sha256 : str
        Hash of that mask; empty if there is none.
    volume : Record, optional
        Of the heatmap that they were chosen by.
    indices : tuple of int
    scores : tuple of float
    slices : tuple of Record
    """

    choice: SliceChoice
    mask_sha256: str
    volume: Record | None
    indices: tuple[int, ...]
    scores: tuple[float, ...]
    slices: tuple[Record, ...]

    @classmethod
    def read(cls, path: str | Path) -> SlicesRecord:
        """Read what `save_slices` wrote, with the records beside it.

        Raises
        ------
        InputError
            If the file is missing or is no such record.
        """
        file = Path(path)
        if not file.is_file():
            raise InputError(f"There is no record {file}; check the path.")
        with told_as(InputError, f"{file} is not a record of explained slices: {{}}"):
            values = json.loads(config_bytes(file, InputError))
            if values["format"] != FORMAT:
                raise InputError(
                    f"{file} has format {values['format']!r:.20}; this version reads slices of format {FORMAT}."
                )
            choice = dict(values["choice"])
            if choice["mask"] not in ("", BODY):
                choice["mask"] = str(file.parent / choice["mask"])
            rows = values["slices"]
            return cls(
                SliceChoice.from_dict(choice),
                str(values["mask_sha256"]),
                None if values["volume"] is None else _beside(file, values["volume"]["record"]),
                tuple(int(row["slice"]) for row in rows),
                tuple(float(row["score"]) for row in rows),
                tuple(_beside(file, row["record"]) for row in rows),
            )


def _beside(file: Path, name: str) -> Record:
    return Record.read(file.parent / Path(name).name)


def save_slices(
    image: Image,
    explained: ExplainedSlices,
    folder: str | Path,
    mask: Image | None = None,
    regions: Regions | None = None,
) -> list[Path]:
    """Write heatmap, figure and record of the volume and of each slice, and a summary of all.

    Parameters
    ----------
    image : Image
        What was explained, in the orientation in which the heatmaps are to be saved.
    explained : ExplainedSlices
    folder : str or Path
        Made where it does not exist. Files of the same explanation are replaced.
    mask : Image, optional
        The label map in memory where the rule looked; it is written as well, so that all can be computed again.
    regions : Regions, optional
        What was drawn in memory for the segments of the slices, likewise.

    Returns
    -------
    list of Path
        The summary, ``<image>_slices.json``, is the last one.

    Raises
    ------
    InputError
        If the folder can't be written.
    """
    heatmap, regions = explained.slices.heatmap, regions or Regions()
    first = None if heatmap is None else save_results(image, heatmap, folder)
    target = Path(folder).expanduser()
    summary = target / f"{image_stem(image)}_slices.json"
    masks, choice, sha256 = [], explained.choice.to_dict(), explained.slices.mask_sha256
    try:
        target.mkdir(parents=True, exist_ok=True)
        # Once for all slices; files of other drawings stay.
        drawn = write_regions(target / f"{summary.stem}_{_sums(regions)}", regions)
        records = [with_regions(each.record, drawn) for each in explained.attributions]
        maps = [replace(each, record=record) for each, record in zip(explained.attributions, records, strict=True)]
        files = [save_results(image, each, folder) for each in maps]
        if choice["mask"] == GIVEN and mask is not None:
            masks = [summary.with_name(f"{summary.stem}_mask.nii.gz")]
            save_nifti(masks[0], (mask.data[0] != 0).astype(np.uint8), mask.grid, f"mask; {DISCLAIMER}")
            # NIfTI keeps fewer digits of where it lies.
            choice["mask"], sha256 = masks[0].name, read_nifti(masks[0]).sha256
        elif choice["mask"] not in ("", BODY):
            choice["mask"] = str(Path(choice["mask"]).resolve())
        told = _summary(image, explained, choice, sha256, first, files)
        summary.write_text(json.dumps(told, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(f"The results can't be written to {target}: {error.strerror or error}.") from error
    results = files if first is None else [first, *files]
    return [*(path for each in results for path in each.written), *drawn.values(), *masks, summary]


def _sums(regions: Regions) -> str:
    """What tells drawings apart in names of files."""
    return "-".join(drawn.sha256[:6] for drawn in (regions.labels, regions.mask) if drawn is not None)


def _summary(
    image: Image,
    explained: ExplainedSlices,
    choice: Mapping[str, Any],
    mask_sha256: str,
    first: ResultFiles | None,
    files: list[ResultFiles],
) -> dict[str, Any]:
    slices = explained.slices
    rows = zip(slices.indices, slices.scores, explained.attributions, files, strict=True)
    return {
        "image": image.name,
        "choice": choice,
        "mask_sha256": mask_sha256,
        "volume": None if first is None else _names(first),
        "slices": [
            {
                "slice": index,
                "score": score,
                "explained": each.about,
                each.prediction.quantity: dict(each.prediction.ranked),
                **_names(file),
            }
            for index, score, each, file in rows
        ],
        "notices": list(slices.notices),
        "disclaimer": DISCLAIMER,
        "format": FORMAT,
    }


def _names(files: ResultFiles) -> dict[str, str]:
    return {"heatmap": files.heatmap.name, "figure": files.figure.name, "record": files.record.name}
