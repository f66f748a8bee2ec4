"""Zip archives, looked at before anything in them is unpacked."""

from __future__ import annotations

import zipfile
from pathlib import Path, PurePosixPath

from napari_xai_med.errors import ModelError, UntrustedError

LARGEST_ARCHIVE = 8_000_000_000
"""Bytes that a zip may unpack to; far more than any classifier, far less than a disk."""

MOST_FILES = 10_000

_LARGEST_SMALL, _MOST_TIMES = 100_000_000, 100
"""Above so many bytes a zip may not unpack to more times its size; weights hardly get smaller at all."""

_SYMLINK = 0o120000


def check_archive(archive: zipfile.ZipFile, source: Path) -> None:
    """Raise a `ModelError` if a zip is too large, an `UntrustedError` if it would be unpacked outside of its folder."""
    entries = archive.infolist()
    total = sum(entry.file_size for entry in entries)
    if total > LARGEST_ARCHIVE or len(entries) > MOST_FILES:
        raise ModelError(
            f"{source} unpacks to more than {LARGEST_ARCHIVE / 1e9:.0f} GB or {MOST_FILES} files; unpack it yourself "
            "first."
        )
    if total > max(_LARGEST_SMALL, _MOST_TIMES * source.stat().st_size):
        raise ModelError(
            f"{source} was refused because it unpacks to more than {_MOST_TIMES} times its size, as no network does; "
            "get it again."
        )
    for entry in entries:
        path = PurePosixPath(entry.filename.replace("\\", "/"))
        outside = path.is_absolute() or not path.parts or ".." in path.parts or ":" in path.parts[0]
        if outside or (entry.external_attr >> 16) & 0o170000 == _SYMLINK:
            raise UntrustedError(f"{source} was refused because {entry.filename!r} leads out of it.")


def check_swelling(archive: zipfile.ZipFile, source: Path) -> None:
    """Raise a `ModelError` if a zip that PyTorch wrote is larger inside: it writes without compression."""
    if sum(entry.file_size for entry in archive.infolist()) > source.stat().st_size:
        raise ModelError(f"{source} claims to hold more than its size; save it again.")
