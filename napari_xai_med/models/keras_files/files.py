"""Open the files that Keras writes: HDF5, and a zip that holds JSON and HDF5. Nothing in them is trusted."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from napari_xai_med.errors import ModelError, one_line
from napari_xai_med.models import archives

WEIGHTS = "model.weights.h5"
LARGEST_CONFIG = 200_000_000
"""Bytes of a configuration; networks of hundreds of layers have some hundred thousand."""

_HDF5 = b"\x89HDF\r\n\x1a\n"
# Deflate, which Keras offers, can't make more of a byte.
_DEFLATE = 1100
_FAILURES = (OSError, KeyError, ValueError, RuntimeError, TypeError, EOFError, NotImplementedError, RecursionError)


@dataclass(frozen=True)
class Content:
    """What a file holds.

    Parameters
    ----------
    config : object
        The network's configuration, read from JSON.
    weights : Path
        The HDF5 file with the weights.
    old : bool
        Whether the weights lie in that file by layers' names, as Keras stored them before its own format.
    version, backend : str
        Of the Keras that wrote it; empty if it does not say.
    """

    config: Any
    weights: Path
    old: bool
    version: str
    backend: str


@contextmanager
def opened(path: Path) -> Iterator[Content]:
    """Open a network's file, whatever its suffix; its weights have been checked by `check_weights`.

    Raises
    ------
    ModelError
        If it is damaged or holds no network.
    UntrustedError
        If it is a zip that leads out of itself.
    """
    try:
        with path.open("rb") as file:
            start = file.read(8)
    except OSError as error:
        raise ModelError(f"{path} can't be read: {error.strerror or error}.") from error
    if start == _HDF5:
        yield _of_hdf5(path)
    elif start.startswith(b"PK"):
        with TemporaryDirectory(prefix="napari-xai-med-") as folder:
            yield _of_zip(path, Path(folder))
    else:
        raise ModelError(f"{path} is not a Keras file; save the network with model.save('network.keras').")


def import_h5py(path: Path) -> Any:
    """The package h5py; a `ModelError` that says how to get it if it is missing."""
    try:
        import h5py
    except ImportError as error:
        raise ModelError(f"{path.name} needs the packages keras and h5py: pip install keras h5py.") from error
    return h5py


def _of_hdf5(path: Path) -> Content:
    h5py = import_h5py(path)
    check_weights(path, path)
    try:
        with h5py.File(path, "r") as file:
            text = _text(file.attrs.get("model_config"))
            version, backend = (_text(_attribute(file, name)) for name in ("keras_version", "backend"))
    except _FAILURES as error:
        raise _damaged(path, error) from error
    if not text:
        raise ModelError(f"{path} holds weights without their network; save the whole network with model.save.")
    return Content(_json(text, path), path, True, version, backend)


def _attribute(file: Any, name: str) -> Any:
    """An attribute that some versions store at the file, others at its weights."""
    return file.attrs.get(name, file["model_weights"].attrs.get(name) if "model_weights" in file else None)


def _text(value: Any) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value or "")


def _json(text: str | bytes, path: Path) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is damaged: its configuration is not valid JSON; save it again.") from error


def _of_zip(path: Path, folder: Path) -> Content:
    import_h5py(path)
    try:
        with zipfile.ZipFile(path) as archive:
            archives.check_archive(archive, path)
            names = archive.namelist()
            if "config.json" not in names or WEIGHTS not in names:
                raise ModelError(
                    f"{path} is not a Keras file: it holds no config.json or no {WEIGHTS}; save the network again "
                    "with model.save('network.keras')."
                )
            if archive.getinfo("config.json").file_size > LARGEST_CONFIG:
                raise ModelError(f"{path} has a configuration of more than {LARGEST_CONFIG // 1_000_000} MB.")
            config, metadata = archive.read("config.json"), _metadata(archive, path)
            archive.extract(WEIGHTS, folder)
    except (zipfile.BadZipFile, *_FAILURES) as error:
        raise _damaged(path, error) from error
    check_weights(folder / WEIGHTS, path)
    return Content(_json(config, path), folder / WEIGHTS, False, str(metadata.get("keras_version", "")), "")


def _metadata(archive: zipfile.ZipFile, path: Path) -> dict[str, Any]:
    if "metadata.json" not in archive.namelist() or archive.getinfo("metadata.json").file_size > LARGEST_CONFIG:
        return {}
    content = _json(archive.read("metadata.json"), path)
    return content if isinstance(content, dict) else {}


def check_weights(weights: Path, path: Path) -> None:
    """Raise a `ModelError` if an HDF5 file leads elsewhere, or to more memory than what it holds can fill."""
    h5py = import_h5py(path)
    groups: list[Any] = []
    arrays: list[Any] = []
    try:
        with h5py.File(weights, "r") as file:
            # Every group once, however they are linked.
            groups.append(file)
            file.visititems(lambda _, item: (arrays if isinstance(item, h5py.Dataset) else groups).append(item))
            if any(not isinstance(group.get(name, getlink=True), h5py.HardLink) for group in groups for name in group):
                raise ModelError(f"{path} was refused because it leads to another file; save the network again.")
            for array in arrays:
                _check_array(array, path)
            if sum(array.nbytes for array in arrays) > archives.LARGEST_ARCHIVE:
                raise ModelError(f"{path} holds more than {archives.LARGEST_ARCHIVE / 1e9:.0f} GB.")
            if sum(array.id.get_storage_size() for array in arrays) > weights.stat().st_size:
                raise ModelError(f"{path} is damaged: parts of it are missing; get it again.")
    except _FAILURES as error:
        raise _damaged(path, error) from error


def _check_array(array: Any, path: Path) -> None:
    if array.is_virtual or array.external:
        raise ModelError(f"{path} was refused because {array.name} leads to another file; save the network again.")
    if array.dtype.kind not in "fiub":
        raise ModelError(f"{path} was refused because {array.name} holds no numbers; save the network again.")
    stored = array.id.get_storage_size()
    if array.nbytes > stored * (1 if array.chunks is None else _DEFLATE):
        raise ModelError(f"{path} is damaged: {array.name} says that it is larger than what is stored; get it again.")


def _damaged(path: Path, error: BaseException) -> ModelError:
    return ModelError(f"{path} is not a Keras file that can be read: {one_line(error)}; get it or save it again.")
