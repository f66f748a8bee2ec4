"""PNG, JPEG and TIFF files, in grey and colour."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_xai_med.errors import InputError, told_as
from napari_xai_med.image import Image
from napari_xai_med.io.claims import check_claim

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")


def read_picture(path: Path) -> Image:
    """Read a picture or a TIFF stack; see `napari_xai_med.io.read_image`.

    A TIFF says itself what its axes are; only its first series is read. An alpha channel is dropped.
    """
    with told_as(InputError, f"{path.name} can't be read as a picture: {{}}"):
        array, axes = _read_tiff(path) if path.suffix.lower() in (".tif", ".tiff") else _read_flat(path)
    channel = axes.index("C") if "C" in axes else None
    image = Image.from_array(_without_alpha(array, channel), channel_axis=channel)
    return Image(image.data, image.grid, path.stem, str(path))


def _read_flat(path: Path) -> tuple[NDArray[Any], str]:
    import imageio.v3

    array = np.asarray(imageio.v3.imread(path, index=0, plugin="pillow"))
    return array, "YX" if array.ndim == 2 else "YXC"


def _read_tiff(path: Path) -> tuple[NDArray[Any], str]:
    import tifffile

    with tifffile.TiffFile(path) as file:
        series = file.series[0]
        check_claim(series.nbytes, path)
        array, axes = series.asarray(), series.axes
    # S are samples of a pixel, C planes of a channel; Q and I are stacks without a stated meaning.
    axes = axes.replace("S", "C").replace("Q", "Z").replace("I", "Z")
    keep = tuple(0 if n == 1 and a not in "YX" else slice(None) for a, n in zip(axes, array.shape, strict=True))
    axes = "".join(a for a, k in zip(axes, keep, strict=True) if k != 0)
    if sorted(axes.replace("C", "", 1)) not in (["X", "Y"], ["X", "Y", "Z"]):
        raise InputError(f"{path.name} has axes {axes}; save one 2D or 3D image of it first.")
    return array[keep], axes


def _without_alpha(array: NDArray[Any], channel: int | None) -> NDArray[Any]:
    if channel is None or array.shape[channel] not in (2, 4) or array.dtype != np.uint8:
        return array
    return np.take(array, range(array.shape[channel] - 1), channel)
