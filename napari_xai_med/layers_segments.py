"""Labels layers as the segments and the mask of a request, and segments as Labels layers; without napari."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import pandas as pd

from napari_xai_med.attribution import SegmentMap
from napari_xai_med.errors import InputError
from napari_xai_med.grid import Grid
from napari_xai_med.image import Image
from napari_xai_med.io import read_label_map
from napari_xai_med.layers import METADATA_KEY, LayerTuple, LayerView
from napari_xai_med.segmenting import Regions
from napari_xai_med.segments.base import Labels
from napari_xai_med.segments.best import Best, best_of, painted
from napari_xai_med.segments.choice import GIVEN, SegmentChoice


@dataclass(frozen=True)
class Drawn:
    """The Labels layers that a request means by ``"given"``.

    Parameters
    ----------
    labels, mask : napari.layers.Labels, optional
    """

    labels: Any = None
    mask: Any = None

    def read(self, view: LayerView, choice: SegmentChoice) -> tuple[SegmentChoice, Regions]:
        """What is drawn, over an image; a layer that is still what its file holds is meant by the file's path."""
        found: dict[str, Image] = {}
        paths: dict[str, str] = {}
        for what, layer in (("labels", self.labels), ("mask", self.mask)):
            if layer is None:
                continue
            image = view.labels(layer)
            if _is_as_in_file(image):
                paths[what] = image.source
            else:
                found[what], paths[what] = image, GIVEN
        return replace(choice, **cast("dict[str, Any]", paths)), Regions(**found)

    def as_python(self, view: LayerView) -> dict[str, str]:
        """Python expressions that give what is drawn, over an image."""
        layers = {"labels": self.labels, "mask": self.mask}
        return {what: view.labels_as_python(layer) for what, layer in layers.items() if layer is not None}


def _is_as_in_file(image: Image) -> bool:
    if not image.source or image.volume is not None:
        return False
    try:
        return read_label_map(image.source).sha256 == image.sha256
    except InputError:
        return False


@dataclass(frozen=True)
class LayerSegments:
    """The segments under a heatmap layer, which keeps them in its metadata.

    Parameters
    ----------
    labels : ndarray of int32
        Of the same shape as the layer's data.
    table : DataFrame
        Row k is about label k.
    """

    labels: Labels
    table: pd.DataFrame

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.table) - 1

    def shown(self, ranks: tuple[int, int] | None) -> np.ndarray[Any, Any]:
        """The heatmap's values, 0 outside of the segments from one rank to another; of all if None."""
        return painted(self.labels, self.table, ranks)

    def best(self, count: int, which: Best) -> Labels:
        """The labels of the best segments alone."""
        return best_of(self.labels, self.table, count, which)


def segments_to_layer(view: LayerView, segments: SegmentMap, grid: Grid, name: str) -> LayerTuple:
    """Segments as a Labels layer of contours exactly on the image, whose features are the segments' table.

    Parameters
    ----------
    view : LayerView
        The image's layer.
    segments : SegmentMap
        On `grid`.
    grid : Grid
        As `view.place` takes it.
    name : str
    """
    data, options = view.place(cast("Any", segments.labels), grid)
    options |= {"name": name, "features": features_of(segments.table), "opacity": 0.4}
    # A copy: it can be painted in. napari draws small types much faster.
    return np.array(data, np.min_scalar_type(len(segments.table) - 1)), options, "labels"


def best_to_layer(heatmap: Any, count: int, which: Best) -> LayerTuple:
    """The best segments under a heatmap layer as a Labels layer, which can serve as a mask.

    Parameters
    ----------
    heatmap : napari.layers.Image
        With `LayerSegments` in its metadata.
    count : int
        How many segments at most.
    which : Best
    """
    own = heatmap.metadata[METADATA_KEY]
    segments: LayerSegments = own["segments"]
    options: dict[str, Any] = transform_of(heatmap)
    options |= {
        "name": f"{heatmap.name}, best {count}" + ("" if which is Best.LARGEST else f" {which}"),
        "features": features_of(segments.table),
        "opacity": 0.5,
        "metadata": {
            METADATA_KEY: {key: own[key] for key in ("turn", "affine", "display", "record", "plane") if key in own}
        },
    }
    return segments.best(count, which), options, "labels"


def transform_of(layer: Any) -> dict[str, Any]:
    """Where a layer lies, as napari takes it for a new one."""
    names = ("scale", "translate", "rotate", "shear", "units", "axis_labels")
    return {name: getattr(layer, name) for name in names} | {"affine": layer.affine.affine_matrix}


def features_of(table: pd.DataFrame) -> pd.DataFrame:
    """A table as features of a Labels layer: what contributions there are first, since a status bar is short."""
    first = [name for name in ("contribution", "standard_error", "rank") if name in table]
    return table[[*first, *(name for name in table if name not in first)]]
