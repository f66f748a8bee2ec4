"""The files of a bundle, in a folder or a zip archive."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

from napari_xai_med.errors import ModelError, UntrustedError
from napari_xai_med.models.formats.base import NetworkFormat, formats
from napari_xai_med.models.own_code import CODE_SUFFIXES

LARGEST_ARCHIVE = 8_000_000_000
"""Bytes that a zip may unpack to; far more than any classifier, far less than a disk."""

_SYMLINK = 0o120000


@contextmanager
def opened(source: Path) -> Iterator[Path]:
    """The bundle's folder; that of a zip is a temporary one.

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
        try:
            with zipfile.ZipFile(source) as archive:
                check_archive(archive, source)
                archive.extractall(temporary)
        except (zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError, EOFError) as error:
            raise ModelError(f"{source} can't be unpacked: {error}.") from error
        yield _top(Path(temporary))


def check_archive(archive: zipfile.ZipFile, source: Path) -> None:
    """Raise a `ModelError` if a zip is too large, an `UntrustedError` if it would be unpacked outside of its folder."""
    if sum(entry.file_size for entry in archive.infolist()) > LARGEST_ARCHIVE:
        raise ModelError(f"{source} unpacks to more than {LARGEST_ARCHIVE / 1e9:.0f} GB; unpack it yourself first.")
    for entry in archive.infolist():
        path = PurePosixPath(entry.filename.replace("\\", "/"))
        outside = path.is_absolute() or ".." in path.parts or ":" in path.parts[0]
        if outside or (entry.external_attr >> 16) & 0o170000 == _SYMLINK:
            raise UntrustedError(f"{source} was refused because {entry.filename!r} leads out of it.")


def _top(folder: Path) -> Path:
    """Archives often hold one folder that holds everything."""
    inside = list(folder.iterdir())
    return inside[0] if len(inside) == 1 and inside[0].is_dir() and inside[0].name != "configs" else folder


def find_config(folder: Path, name: str) -> Path:
    """The file of a configuration, JSON or YAML."""
    for suffix in (".json", ".yaml", ".yml"):
        path = folder / "configs" / f"{name}{suffix}"
        if path.is_file():
            return path
    raise ModelError(f"{folder} is not a MONAI bundle folder: configs/{name}.json is missing.")


def read_config(folder: Path, name: str) -> dict[str, Any]:
    """The content of a configuration."""
    path = find_config(folder, name)
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text) if path.suffix == ".json" else _yaml(text)
    except (OSError, ValueError) as error:
        kind = "JSON" if path.suffix == ".json" else "YAML"
        raise ModelError(f"{path} is not valid {kind}: {error}.") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path} does not hold an object; see the MONAI bundle specification.")
    return content


def _yaml(text: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error


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


def content_hash(folder: Path) -> str:
    """Hash of everything that decides what the classifier answers, code of a trusted bundle included."""
    weights = find_weights(folder)[0]
    deciding = {find_config(folder, "inference"), find_config(folder, "metadata"), weights}
    if weights.suffix == ".onnx":
        # Its weights may lie in other files of its folder.
        deciding |= {path for path in weights.parent.rglob("*") if path.is_file()}
    digest = hashlib.sha256()
    code = {path for path in folder.rglob("*") if path.suffix in CODE_SUFFIXES and path.is_file()}
    for path in sorted(deciding | code):
        digest.update(path.relative_to(folder).as_posix().encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
