"""Which bundles the user trusts: by the hash of their content, so that a changed bundle is trusted no more."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path

from napari_xai_med.errors import InputError

Trusted = dict[str, dict[str, str]]


def settings_file() -> Path:
    """The user's file; its folder can be set with the environment variable XAI_MED_SETTINGS."""
    from platformdirs import user_config_path

    folder = os.environ.get("XAI_MED_SETTINGS")
    return (Path(folder) if folder else user_config_path("napari-xai-med")) / "trusted_bundles.json"


def trusted_bundles() -> Trusted:
    """Hashes of the trusted bundles, each with the bundle's name and the day.

    Raises
    ------
    InputError
        If the user's file is damaged.
    """
    path = settings_file()
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise InputError(f"{path} can't be read; delete it to trust no bundle: {error}.") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} does not hold what it should; delete it to trust no bundle.")
    return content


def remember(sha256: str, name: str) -> None:
    """Trust a bundle from now on."""
    _write(trusted_bundles() | {sha256: {"name": name, "since": datetime.now(UTC).date().isoformat()}})


def revoke(start: str) -> str:
    """Trust a bundle no more.

    Parameters
    ----------
    start : str
        Its hash, or the beginning of it.

    Returns
    -------
    str
        Its name.

    Raises
    ------
    InputError
        If no trusted bundle's hash starts like that, or more than one.
    """
    bundles = trusted_bundles()
    found = [sha256 for sha256 in bundles if sha256.startswith(start)]
    if len(found) != 1:
        raise InputError(f"{len(found)} trusted bundles have a hash that starts with {start!r}; see the list.")
    name = bundles.pop(found[0])["name"]
    _write(bundles)
    return name


def _write(bundles: Trusted) -> None:
    path = settings_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Whole or not at all: two programs may write at the same time.
        part = path.with_suffix(f".{os.getpid()}")
        part.write_text(json.dumps(bundles, indent=2) + "\n", encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise InputError(f"{path} can't be written: {error.strerror or error}.") from error
