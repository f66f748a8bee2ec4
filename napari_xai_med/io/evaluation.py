"""What metrics found about an explanation, to files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_xai_med.attribution import DISCLAIMER, values_sha256
from napari_xai_med.errors import InputError, told_as
from napari_xai_med.io.measured_again import numbers_of
from napari_xai_med.io.results import clean
from napari_xai_med.masks import called
from napari_xai_med.models.config_files import config_bytes
from napari_xai_med.options import changed_of, values_of
from napari_xai_med.record import software

if TYPE_CHECKING:
    import pandas as pd

    from napari_xai_med.evaluation import Evaluation
    from napari_xai_med.metrics.case import Case, Mask
    from napari_xai_med.metrics.outcome import Score

FORMAT = 1
_LONGEST = 80
"""Letters of options in a file's name."""
_NEEDED = {
    "map": dict,
    "masks": dict,
    "others": dict,
    "metrics": list,
    "skipped": list,
    "sign": str,
    "seed": int,
    "second": dict | None,
    "model": dict | None,
}
"""What measuring the same again needs, with its type."""


def save_evaluation(case: Case, evaluation: Evaluation, folder: str | Path, stem: str) -> list[Path]:
    """Write the table as CSV, the plots as PNG and the record as JSON.

    Parameters
    ----------
    case : Case
        What was judged.
    evaluation : Evaluation
    folder : str or Path
        Made where it does not exist. Files of the same name are replaced.
    stem : str
        How the files' names begin.

    Returns
    -------
    list of Path
        The table first, then the record, then the plots.

    Raises
    ------
    InputError
        If the folder can't be written.
    """
    from napari_xai_med.figures_metrics import draw_plot

    target = Path(folder).expanduser()
    record = target / f"{stem}_metrics.json"
    files = [save_table(evaluation.frame, target, f"{stem}_metrics"), record]
    try:
        text = json.dumps(evaluation_record(case, evaluation), indent=2, ensure_ascii=False, default=_plain)
        record.write_text(text + "\n", encoding="utf-8")
        for metric in evaluation.outcomes:
            for k, plot in enumerate(plots := evaluation.plots(metric), 1):
                changed = f"_{clean(changed_of(metric))[:_LONGEST]}" if changed_of(metric) else ""
                number = k if len(plots) > 1 else ""
                files.append(target / f"{stem}_{metric.name}{changed}{number}.png")
                draw_plot(plot).savefig(files[-1], dpi=110)
    except OSError as error:
        raise InputError(f"The results can't be written to {target}: {error.strerror or error}.") from error
    return files


def save_table(frame: pd.DataFrame, folder: Path, stem: str) -> Path:
    """Write a table as CSV into a folder, which is made where it does not exist.

    Raises
    ------
    InputError
        If the folder can't be written.
    """
    path = folder / f"{stem}.csv"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        frame.to_csv(path, index=False)
    except OSError as error:
        raise InputError(f"The results can't be written to {folder}: {error.strerror or error}.") from error
    return path


def read_evaluation(path: Path) -> dict[str, Any]:
    """The record of an earlier evaluation; see `evaluation_record`.

    Raises
    ------
    InputError
        If the file is missing or is no such record.
    """
    if not path.is_file():
        raise InputError(f"There is no record {path}; check the path.")
    with told_as(InputError, f"{path} is not a record of an evaluation: {{}}"):
        found = json.loads(config_bytes(path, InputError))
        if found["format"] != FORMAT or not all(isinstance(found[key], kind) for key, kind in _NEEDED.items()):
            raise ValueError(f"its format is not {FORMAT}")
        parts = (*found["metrics"], *found["skipped"], *found["masks"].values(), *found["others"].values())
        if not all(isinstance(part, dict) for part in parts):
            raise ValueError("its metrics, masks and other maps have to be objects")
        if not all(isinstance(part.get("scores", []), list) for part in found["metrics"]):
            raise ValueError("the scores of its metrics have to be lists")
        numbers_of(found)  # raises if one is none
    return dict(found)


def evaluation_record(case: Case, evaluation: Evaluation) -> dict[str, Any]:
    """What was measured of what, with every option, and what came out in words.

    Parameters
    ----------
    case : Case
    evaluation : Evaluation
    """
    asked, second = case.asked, case.second
    return {
        "format": FORMAT,
        "map": {
            "sha256": values_sha256(case.values),
            "shape": list(case.grid.shape),
            "affine": case.grid.affine.tolist(),
        },
        "masks": {name: {"sha256": _mask_sha256(mask), "voxels": int(mask.sum())} for name, mask in case.masks.items()},
        "image": None if asked is None else {"source": asked.image.source, "sha256": asked.image.sha256},
        "model": None if asked is None else {"source": asked.classifier.source, "sha256": asked.classifier.sha256},
        "second": None if second is None else {"source": second.source, "sha256": second.sha256},
        "others": {name: {"sha256": values_sha256(values)} for name, values in case.others.items()},
        "request": None if asked is None else asked.request.to_dict(),
        "sign": str(case.sign),
        "seed": case.seed,
        "metrics": [
            {
                "metric": metric.name,
                **values_of(metric),
                "facts": dict(outcome.facts),
                "verdicts": [verdict.sentence for verdict in outcome.verdicts],
                "notices": list(outcome.notices),
                "scores": [_score(score) for score in outcome.scores],
            }
            for metric, outcome in evaluation.outcomes.items()
        ],
        "skipped": [
            {"metric": metric.name, **values_of(metric), "reason": reason}
            for metric, reason in evaluation.skipped.items()
        ],
        "software": software(torch.device("cpu") if asked is None else asked.classifier.device),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "disclaimer": DISCLAIMER,
    }


def _score(score: Score) -> dict[str, Any]:
    """What a number is and where it belongs; JSON has no NaN."""
    value = None if isnan(score.value) else score.value
    return {"score": score.name, "value": value, "subject": score.subject, "of": score.of, "at": score.at}


def check_same(case: Case, record: Mapping[str, Any]) -> None:
    """Raise an `InputError` if a case is not the one of a record."""
    masks = {name: _mask_sha256(mask) for name, mask in case.masks.items()}
    others = {name: values_sha256(values) for name, values in case.others.items()}
    given = (("mask", masks, record["masks"]), ("other map", others, record["others"]))
    # First, since a mask or an image that is a picture makes one of a map that was saved as a volume of one slice.
    for what, sums, told in given:
        if set(sums) != set(told):
            names = ", ".join(told) or "none"
            raise InputError(f"The {what}s are not those in the record; give them under the same names ({names}).")
    if values_sha256(case.values) != record["map"].get("sha256"):
        raise InputError(
            "The map is not the one in the record; give the heatmap that was judged, and its image if that was given."
        )
    for what, sums, told in given:
        changed = [name for name, each in told.items() if each.get("sha256") != sums[name]]
        if changed:
            name = called(changed[0]) if what == "mask" else f"The other map {changed[0]}"
            raise InputError(f"{name} has changed since the record was made; give it as it was, or measure anew.")
    known = None if case.second is None else case.second.sha256
    if known != (record["second"] or {}).get("sha256"):
        name = (record["second"] or {}).get("source", "none")
        raise InputError(f"The second classifier is not the one in the record; give that one ({name}).")


def _mask_sha256(mask: Mask) -> str:
    return hashlib.sha256(np.packbits(mask).tobytes()).hexdigest()


def _plain(value: Any) -> Any:
    """NumPy's numbers and arrays as JSON has them."""
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else str(value)
