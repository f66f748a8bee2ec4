"""Preprocessing from the command line: a preset by name, or a file."""

from __future__ import annotations

import json
from pathlib import Path

from napari_xai_med.errors import InputError, told_as
from napari_xai_med.models.config_files import config_bytes
from napari_xai_med.preprocessing.base import AnyStep, read_steps
from napari_xai_med.preprocessing.presets import PRESETS, preset


def read_preprocessing(source: str, spatial_dims: int) -> tuple[AnyStep, ...]:
    """Steps from a preset's name, or from a JSON file.

    Parameters
    ----------
    source : str
        A preset's name, or the path of a file that holds a list of transforms as a MONAI configuration has them,
        or an ``inference.json`` with its ``preprocessing``.
    spatial_dims : int
        2 or 3, for presets.

    Raises
    ------
    InputError
        If there is no such preset or file, or the file holds something else.
    """
    path = Path(source).expanduser()
    if source in PRESETS and not path.is_file():
        return preset(source, spatial_dims)
    if not path.is_file():
        raise InputError(f"There is no preset or file {source!r}; the presets are {', '.join(PRESETS)}.")
    with told_as(InputError, f"{path} is not valid JSON: {{}}"):
        content = json.loads(config_bytes(path, InputError))
    if isinstance(content, dict):
        content = content.get("preprocessing", content)
        content = content.get("transforms") if isinstance(content, dict) else content
    if not isinstance(content, list):
        raise InputError(f"{path} holds no list of transforms; see docs/bundles.md.")
    return read_steps(content)
