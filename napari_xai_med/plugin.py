"""What napari calls, by its manifest: reader, writer and sample data. Everything heavy is imported late."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_xai_med.layers import LayerTuple

ReaderFunction = Callable[[str | Sequence[str]], "list[LayerTuple]"]


def get_reader(path: str | Sequence[str]) -> ReaderFunction | None:
    """A reader for NIfTI files and Analyze pairs, or None for anything else."""
    suffixes = (".nii", ".nii.gz", ".hdr", ".img")
    paths = [path] if isinstance(path, str) else path
    return _read_layers if all(str(p).lower().endswith(suffixes) for p in paths) else None


def _read_layers(path: str | Sequence[str]) -> list[LayerTuple]:
    paths = [path] if isinstance(path, str) else path
    # The two files of an Analyze pair are one image.
    pairs = {str(p).lower().removesuffix(".hdr").removesuffix(".img"): Path(p) for p in paths}
    return [read_layer(p) for p in pairs.values()]


def read_layer(path: Path, *, labels: bool = False) -> LayerTuple:
    """A NIfTI or Analyze file as a layer that lies where the patient lies, in millimetres."""
    from napari_xai_med.io.nifti import read_volumes, stem
    from napari_xai_med.layers_images import volumes_to_layer

    return volumes_to_layer(read_volumes(path), stem(path), str(path), labels=labels)


def write_image(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """Write an image layer as NIfTI, in the orientation of the file that it came from."""
    return _write(path, data, attributes, "image")


def write_labels(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """Write a labels layer as NIfTI, in the orientation of the file that it came from."""
    return _write(path, data.astype("uint16"), attributes, "labels")


def _write(path: str, data: Any, attributes: dict[str, Any], kind: str) -> list[str]:
    from napari.layers import Layer

    from napari_xai_med.errors import InputError
    from napari_xai_med.io.nifti import save_nifti
    from napari_xai_med.layers import LayerView

    layer = Layer.create(data, attributes, kind)
    if layer.ndim not in (2, 3) or attributes.get("rgb"):
        raise InputError(f"Layer {layer.name} has {layer.ndim} axes or colours; save a layer with 2 or 3 grey axes.")
    view = LayerView(layer, "ZYX"[-layer.ndim :])
    values, grid = layer.data, view.grid(layer.data.shape)
    if view.turn is not None:
        values, grid = view.turn.inverse.array(values), view.turn.inverse.grid(grid)
    save_nifti(Path(path), values, grid)
    return [path]


def _sample(name: str) -> list[LayerTuple]:
    from napari_xai_med.io import read_image
    from napari_xai_med.layers_images import picture_to_layers
    from napari_xai_med.samples import sample_files

    image, mask = sample_files(name)
    if image.name.endswith(".nii.gz"):
        return [read_layer(image), read_layer(mask, labels=True)]
    return picture_to_layers(read_image(image), read_image(mask))


def chest_ct_lesion() -> list[LayerTuple]:
    """A chest CT phantom with a ground-glass lesion, and the lesion's mask."""
    return _sample("chest_ct_lesion")


def chest_ct_normal() -> list[LayerTuple]:
    """A chest CT phantom without a lesion, and its empty mask."""
    return _sample("chest_ct_normal")


def slice_ground_glass() -> list[LayerTuple]:
    """A slice of a chest CT phantom with a ground-glass lesion, and the lesion's mask."""
    return _sample("slice_ground_glass")


def slice_nodule() -> list[LayerTuple]:
    """A slice of a chest CT phantom with a nodule, and the nodule's mask."""
    return _sample("slice_nodule")
