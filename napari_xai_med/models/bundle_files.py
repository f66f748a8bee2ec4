"""The files of a bundle, in a folder or a zip archive."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

from napari_xai_med.errors import ModelError, UntrustedError, told_as
from napari_xai_med.models.archives import LARGEST_ARCHIVE, MOST_FILES, check_archive
from napari_xai_med.models.config_files import config_bytes, find_config, parsed_config
from napari_xai_med.models.formats.base import NetworkFormat, formats


@contextmanager
def opened(source: Path, *, only: str = "") -> Iterator[Path]:
    """The bundle's folder; that of a zip is a temporary one.

    Parameters
    ----------
    source : Path
        Folder or zip archive.
    only : str
        The folder in the archive whose files are needed; all by default.

    Raises
    ------
    ModelError
        If the archive is damaged or too large.
    UntrustedError
        If a file in it would be written outside the folder.
    """
    if source.is_dir():
        yield source
        return
    with TemporaryDirectory(prefix="napari-xai-med-") as temporary:
        with told_as(ModelError, f"{source} can't be unpacked: {{}}"), zipfile.ZipFile(source) as archive:
            check_archive(archive, source)
            names = [name for name in archive.namelist() if not only or only in PurePosixPath(name).parts]
            # Under the archive's own name, so that sentences about files in it tell where they are.
            folder = Path(temporary) / source.name
            folder.mkdir()
            archive.extractall(folder, names)
        yield _top(folder)


def _top(folder: Path) -> Path:
    """Archives often hold one folder that holds everything."""
    inside = list(folder.iterdir())
    return inside[0] if len(inside) == 1 and inside[0].is_dir() and inside[0].name != "configs" else folder


def find_weights(folder: Path) -> tuple[Path, type[NetworkFormat]]:
    """The file ``models/model.*``; of several the one whose format lets methods have most, weights first."""
    for kind in sorted(formats().values(), key=lambda kind: (-len(kind.gives), kind.has_architecture)):
        for suffix in kind.suffixes:
            path = folder / "models" / f"model{suffix}"
            if path.is_file():
                return path, kind
    known = ", ".join(f"model{suffix}" for kind in formats().values() for suffix in kind.suffixes)
    raise ModelError(f"The bundle has no weights: {folder / 'models'} holds none of {known}.")


def format_of(path: Path) -> type[NetworkFormat]:
    """The format of a network's file.

    Raises
    ------
    ModelError
        If there is no such file, or it is of no format that can be loaded.
    """
    if not path.is_file():
        raise ModelError(f"There is no file {path}; check the path.")
    for kind in formats().values():
        if path.suffix.lower() in kind.suffixes:
            return kind
    known = ", ".join(suffix for kind in formats().values() for suffix in kind.suffixes)
    raise ModelError(f"{path.name} is of no format that can be loaded ({known}); save the network in one of them.")


@dataclass(frozen=True)
class Files:
    """What a bundle's files hold that decides what it is, read once.

    Parameters
    ----------
    inference, metadata : mapping
        The configurations.
    sha256 : str
        Of all files of the bundle: of these configurations as they were read, of code wherever it lies, of weights.
    """

    inference: dict[str, Any]
    metadata: dict[str, Any]
    sha256: str


def read_files(folder: Path) -> Files:
    """Read the configurations of a bundle, and hash them together with all other files.

    Raises
    ------
    ModelError
        If a file is missing, damaged or not a plain file.
    UntrustedError
        If a link leads to another folder.
    """
    contents = {
        path: config_bytes(path) for path in (find_config(folder, "inference"), find_config(folder, "metadata"))
    }
    inference, metadata = (parsed_config(content, path) for path, content in contents.items())
    digest = hashlib.sha256()
    for path in _all_files(folder):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
        if path in contents:
            digest.update(hashlib.sha256(contents[path]).digest())
        else:
            with told_as(ModelError, f"{path} can't be read: {{}}"), path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return Files(inference, metadata, digest.hexdigest())


def _all_files(folder: Path) -> list[Path]:
    """Every file, since code can lie in any; the target of a link to a file counts."""
    found: list[Path] = []
    total = 0
    for path in folder.rglob("*"):
        if path.is_symlink() and path.is_dir():
            raise UntrustedError(
                f"{folder.name} was refused because {path.relative_to(folder)} is a link to another folder; copy what "
                "it leads to into the bundle."
            )
        if path.is_dir():
            continue
        if not path.is_file():
            raise ModelError(f"{folder.name} can't be used: {path.relative_to(folder)} is no plain file; take it away.")
        found.append(path)
        total += path.stat().st_size
        if len(found) > MOST_FILES or total > LARGEST_ARCHIVE:
            raise ModelError(
                f"{folder.name} holds more than {MOST_FILES} files or {LARGEST_ARCHIVE / 1e9:.0f} GB; leave only what "
                "belongs to the network in it."
            )
    return sorted(found)
