"""Classifiers: a network, its preprocessing and its class names."""

from __future__ import annotations

from pathlib import Path

from napari_xai_med.errors import ModelError
from napari_xai_med.models.bundle import load_bundle, read_class_names
from napari_xai_med.models.bundle_files import opened, read_files
from napari_xai_med.models.classifier import Classifier
from napari_xai_med.models.devices import AUTO, pick
from napari_xai_med.models.formats.base import formats
from napari_xai_med.models.trusted import remember
from napari_xai_med.samples import embedded_classifiers


def load_model(source: str | Path, *, trust: bool = False, device: str = AUTO) -> Classifier:
    """Load a classifier.

    Parameters
    ----------
    source : str or Path
        A MONAI bundle folder or its zip archive, or the name of an embedded classifier such as ``chest_ct_3d``.
    trust : bool
        Allow a bundle to run its author's code; never for a file of unknown origin.
    device : str
        Where to run it, such as ``"cpu"`` or ``"cuda"``; the fastest device that there is by default.

    Raises
    ------
    InputError
        If there is no such device.
    ModelError
        If there is no such classifier or it can't be loaded.
    UntrustedError
        If loading would run code and `trust` is False.
    """
    chosen = pick(device)
    return load_bundle(_folder(source), trust=trust).on(chosen)


def trust_bundle(source: str | Path) -> None:
    """Let a bundle run its author's code from now on, as long as nothing in it changes.

    Raises
    ------
    ModelError
        If there is no such bundle.
    """
    folder = _folder(source)
    with opened(folder) as files:
        remember(read_files(files).sha256, folder.name)


def class_names_of(source: str | Path) -> tuple[str, ...]:
    """The class names of a classifier, without loading it.

    Raises
    ------
    ModelError
        If there is no such classifier or its metadata can't be read.
    """
    return read_class_names(_folder(source))


def _folder(source: str | Path) -> Path:
    folder = Path(source).expanduser()
    embedded = embedded_classifiers()
    if not folder.exists() and str(source) in embedded:
        return embedded[str(source)]
    if not folder.is_dir() and not (folder.is_file() and folder.suffix.lower() == ".zip"):
        if folder.is_file() and any(folder.suffix.lower() in kind.suffixes for kind in formats().values()):
            raise ModelError(
                f"{source} is a network's file and has to be packed first: napari-xai-med pack {source} --classes … "
                "--out FOLDER, or Plugins > XAI Med > Pack a classifier; then give that folder."
            )
        raise ModelError(f"There is no bundle folder or zip {source}; give its path, or one of {', '.join(embedded)}.")
    return folder
