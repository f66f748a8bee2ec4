"""The record of an explanation: everything that is needed to compute it again and to compare."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_xai_med.errors import InputError
from napari_xai_med.request import ExplainRequest

if TYPE_CHECKING:
    import torch

FORMAT = 1
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
        try:
            values = json.loads(Path(path).read_text(encoding="utf-8"))
            if values["format"] != FORMAT:
                raise InputError(f"{path} has record format {values['format']}; this version reads format {FORMAT}.")
            return cls(**values)
        except OSError as error:
            raise InputError(f"There is no record {path}; check the path.") from error
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path} is not a record of an explanation: {error}.") from error


def software(device: torch.device) -> dict[str, Any]:
    """Versions of what took part, and where it ran."""
    import torch

    from napari_xai_med.models.devices import describe

    return {
        "python": platform.python_version(),
        **{name: version(name) for name in _PACKAGES},
        "platform": platform.platform(),
        "device": describe(device),
        "threads": torch.get_num_threads(),
    }
