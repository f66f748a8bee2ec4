"""The record of an explanation: everything that is needed to compute it again and to compare."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_xai_med.attribution import DISCLAIMER, values_sha256
from napari_xai_med.errors import InputError, told_as
from napari_xai_med.models.config_files import config_bytes
from napari_xai_med.request import ExplainRequest

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from napari_xai_med.image import Image
    from napari_xai_med.models.classifier import Classifier, Prediction

FORMAT = 2
_MOST_THREADS = 1024
_NEEDED: tuple[tuple[str, str, Any], ...] = (
    ("image", "source", str),
    ("image", "volume", int | None),
    ("image", "sha256", str),
    ("model", "source", str),
    ("model", "sha256", str),
    ("result", "sha256", str),
    ("software", "threads", int),
    ("request", "method", str),
)
"""What computing again needs, with its type."""

_PACKAGES = ("napari-xai-med", "torch", "monai", "numpy", "scipy", "nibabel")


@dataclass(frozen=True)
class Record:
    """What was asked of whom, with which software, and what came out.

    Parameters
    ----------
    request : mapping
        The `ExplainRequest`, all options included.
    image : mapping
        Name, source, volume, hash, shape and affine; sources and volumes of further channels; of a section its plane.
    model : mapping
        Name, source, hash, head and class names of the classifier, and whether its code was trusted.
    method : mapping
        What the method did: the layer, and how its cells were placed.
    result : mapping
        Logits, probabilities, class, hash, minimum and maximum of the map.
    software : mapping
        Versions, device and number of threads.
    created : str
        When, ISO 8601 in UTC.
    seconds : float
        How long it took.
    disclaimer : str
    format : int
    """

    request: Mapping[str, Any]
    image: Mapping[str, Any]
    model: Mapping[str, Any]
    method: Mapping[str, Any]
    result: Mapping[str, Any]
    software: Mapping[str, Any]
    created: str
    seconds: float
    disclaimer: str
    format: int = FORMAT

    @property
    def explain_request(self) -> ExplainRequest:
        """The request to compute it again."""
        return ExplainRequest.from_dict(self.request)

    def to_json(self) -> str:
        """The record as indented JSON."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def read(cls, path: str | Path) -> Record:
        """Read a record from its file.

        Raises
        ------
        InputError
            If the file is missing or is not a record of this format.
        """
        if not Path(path).is_file():
            raise InputError(f"There is no record {path}; check the path.")
        with told_as(InputError, f"{path} is not a record of an explanation: {{}}"):
            values = json.loads(config_bytes(Path(path), InputError))
            if values["format"] != FORMAT:
                raise InputError(
                    f"{path} has record format {values['format']!r:.20}; this version reads format {FORMAT}."
                )
            _check(values)
            return cls(**values)


def _check(values: Mapping[str, Any]) -> None:
    """Raise a `ValueError` if what is needed to compute a record again is missing or of another kind."""
    for group, key, kinds in _NEEDED:
        if not isinstance(values[group], Mapping):
            raise ValueError(f"{group} has to be an object")
        if not isinstance(values[group][key], kinds) or isinstance(values[group][key], bool):
            raise ValueError(f"{key} of {group} is of the wrong kind")
    if not all(isinstance(path, str) for path in values["image"].get("others", [])):
        raise ValueError("others of image have to be paths")
    plane = values["image"].get("oblique") or {"point": [0.0] * 3, "normal": [0.0] * 3}
    if [len(plane[key]) for key in ("point", "normal")] != [3, 3] or not all(
        isinstance(number, int | float) for key in ("point", "normal") for number in plane[key]
    ):
        raise ValueError("the oblique plane of image has to be a point and a normal")
    if not 0 < values["software"]["threads"] <= _MOST_THREADS:
        raise ValueError(f"threads of software have to be from 1 to {_MOST_THREADS}")
    ExplainRequest.from_dict(values["request"])


@cache
def _versions() -> dict[str, str]:
    """Of the packages that took part; looked up once, since each look-up reads a file."""
    return {name: version(name) for name in _PACKAGES}


def software(device: torch.device) -> dict[str, Any]:
    """Versions of what took part, and where it ran."""
    import torch

    from napari_xai_med.models.devices import describe

    return {
        "python": platform.python_version(),
        **_versions(),
        "platform": platform.platform(),
        "device": describe(device),
        "threads": torch.get_num_threads(),
    }


def record_of(
    image: Image,
    classifier: Classifier,
    request: ExplainRequest,
    method: dict[str, Any],
    prediction: Prediction,
    values: NDArray[np.floating],
    seconds: float,
) -> Record:
    """The record of what was computed just now.

    Parameters
    ----------
    image : Image
        The whole.
    classifier : Classifier
    request : ExplainRequest
        With every option spelled out.
    method : dict
        What the method did.
    prediction : Prediction
    values : ndarray of float
        The result, whose hash tells whether it is the same when it is computed again.
    seconds : float
    """
    return Record(
        request=request.to_dict(),
        image={
            "name": image.name,
            "source": image.source,
            "others": list(image.others),
            "volume": image.volume,
            "other_volumes": list(image.other_volumes),
            "sha256": image.sha256,
            "shape": list(image.data.shape),
            "affine": image.grid.affine.tolist(),
            # Of the volume that the source holds.
            "oblique": None if image.oblique is None else image.oblique.to_dict(),
        },
        model={
            "name": classifier.name,
            "source": classifier.source,
            "sha256": classifier.sha256,
            "head": str(classifier.head),
            "ends_in": prediction.ending,
            "class_names": list(classifier.class_names),
            "trusted": classifier.trusted,
            # None where it is code.
            "preprocessing": None if classifier.steps is None else [step.config() for step in classifier.steps],
            "sliding_window": None if classifier.windows is None else classifier.windows.to_dict(),
        },
        method=method,
        result={
            "logits": prediction.logits.tolist(),
            "probabilities": prediction.probabilities.tolist(),
            "class": request.target,
            "minimum": float(values.min()),
            "maximum": float(values.max()),
            "sha256": values_sha256(values),
        },
        software=software(classifier.device),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=round(seconds, 3),
        disclaimer=DISCLAIMER,
    )
