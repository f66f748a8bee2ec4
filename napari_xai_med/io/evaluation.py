"""What metrics found about an explanation, to files."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_xai_med.attribution import DISCLAIMER, values_sha256
from napari_xai_med.errors import InputError
from napari_xai_med.options import values_of
from napari_xai_med.record import software

if TYPE_CHECKING:
    import pandas as pd

    from napari_xai_med.evaluation import Evaluation
    from napari_xai_med.metrics.case import Case

FORMAT = 1


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
        for metric, outcome in evaluation.outcomes.items():
            for k, plot in enumerate(outcome.plots, 1):
                files.append(target / f"{stem}_{metric.name}{k if len(outcome.plots) > 1 else ''}.png")
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


def evaluation_record(case: Case, evaluation: Evaluation) -> dict[str, Any]:
    """What was measured of what, with every option, and what came out in words.

    Parameters
    ----------
    case : Case
    evaluation : Evaluation
    """
    asked = case.asked
    return {
        "format": FORMAT,
        "map": {
            "sha256": values_sha256(case.values),
            "shape": list(case.grid.shape),
            "affine": case.grid.affine.tolist(),
        },
        "masks": {
            name: {"sha256": hashlib.sha256(np.packbits(mask).tobytes()).hexdigest(), "voxels": int(mask.sum())}
            for name, mask in case.masks.items()
        },
        "image": None if asked is None else {"source": asked.image.source, "sha256": asked.image.sha256},
        "model": None if asked is None else {"source": asked.classifier.source, "sha256": asked.classifier.sha256},
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


def _plain(value: Any) -> Any:
    """NumPy's numbers and arrays as JSON has them."""
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else str(value)
