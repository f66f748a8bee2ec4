"""The record of an explanation: everything that is needed to compute it again and to compare."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_xai_med.errors import InputError, told_as
from napari_xai_med.models.config_files import config_bytes
from napari_xai_med.request import ExplainRequest

if TYPE_CHECKING:
    import torch

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
        Name, source, volume, hash, shape and affine; sources and volumes of further channels.
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
