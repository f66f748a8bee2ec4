"""Whether a file can hold what its header says, before memory is taken for it."""

from __future__ import annotations

from pathlib import Path

from napari_xai_med.errors import InputError

_COMPRESSED = (".gz", ".tif", ".tiff")

_SMALL = 2**30
"""Bytes that a compressed image may always have."""

_MOST_TIMES = 200
"""How many times its size a larger one may unpack to; scans get three times smaller, masks at most some hundred."""


def check_claim(claimed: int, path: Path) -> None:
    """Raise an `InputError` if a file is far too small for its image.

    Parameters
    ----------
    claimed : int
        Bytes of the image, as its header says.
    path : Path
        The file that holds its values.
    """
    stored = path.stat().st_size
    most = max(_SMALL, _MOST_TIMES * stored) if path.suffix.lower() in _COMPRESSED else stored
    if claimed > most:
        raise InputError(
            f"{path.name} says that its image has {claimed:.2g} bytes, which {stored} bytes of a file can't hold; get "
            "it again."
        )
