"""Places of an image by name: the body, what is not the patient, and what experts drew."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray
from skimage.measure import label

from napari_xai_med.errors import InputError
from napari_xai_med.grid import Grid, Reorientation
from napari_xai_med.metrics.burnt_in import burnt_in
from napari_xai_med.metrics.case import Case, Mask
from napari_xai_med.options import option
from napari_xai_med.segments.body import body_mask
from napari_xai_med.segments.part import scaled

BODY, OUTSIDE, TABLE, TEXT, BORDER = "body", "outside the body", "table", "burnt-in text", "image border"
CORNERS = ("upper left corner", "upper right corner", "lower left corner", "lower right corner")
NOT_PATIENT = (OUTSIDE, TABLE, TEXT, BORDER, *CORNERS)
"""Regions that no class should lean on."""

_FLAT = 0.1
"""Share of the image's range that half of the surroundings lies within: air, or the glass of a slide."""
_MANY = 4e6
"""Voxels that a body is looked for in; of more, each second or third of a row and of a column will do."""
_TABLE_FROM = -700.0
"""Hounsfield units: well above air with its noise, and below what tables and blankets have."""
_LIKE_AIR = -900.0
"""Hounsfield units that hardly another modality's values reach."""
_TABLE_LEAST = 0.05
"""Of the plane's width, how far a piece of a table reaches at least; noise and markers are smaller."""


def border_option() -> float:
    """The option of how wide the border is."""
    width: float = option(0.05, "Width of the image border, as a share of each side.", limits=(0.0, 0.45))
    return width


def corner_option() -> float:
    """The option of how large the corners are."""
    size: float = option(0.15, "Size of the corners, as a share of each side.", limits=(0.0, 0.5))
    return size


@dataclass(frozen=True, eq=False)
class Places:
    """Regions of an image; they may overlap.

    Parameters
    ----------
    masks : mapping of str to ndarray of bool
        At least one voxel each, on the case's grid, experts' masks among them.
    missing : mapping of str to str
        Regions that are not there, and why, in one sentence.
    drawn : frozenset of str
        Names of experts' masks.
    bright : bool
        Whether the surroundings are brighter than the body.
    """

    masks: Mapping[str, Mask]
    missing: Mapping[str, str] = field(default_factory=dict)
    drawn: frozenset[str] = frozenset()
    bright: bool = False

    @property
    def patient(self) -> Mask:
        """The body, or all where it can't be told, without what is certainly not the patient."""
        shape = next(iter(self.masks.values())).shape
        inside = self.masks.get(BODY, np.ones(shape, bool)).copy()
        for name in NOT_PATIENT:
            if name in self.masks:
                inside &= ~self.masks[name]
        return inside


_FOUND: WeakKeyDictionary[Case, dict[tuple[float, float], Places]] = WeakKeyDictionary()
"""What was found, as long as the case is there: several metrics ask."""


def find_regions(case: Case, border: float = 0.05, corner: float = 0.15) -> Places:
    """The regions of a case's image, found once for each case.

    Body and surroundings by Li's threshold, see `napari_xai_med.segments.body`; they are told apart only where half
    of the surroundings has nearly the darkest or the brightest value of the image. Pictures that tissue fills, such as
    most ultrasound, have none. Border and corners are those of each plane: of the axial ones in a volume.

    Parameters
    ----------
    case : Case
        With its intensities.
    border, corner : float
        Share of each side of a plane.

    Returns
    -------
    Places
    """
    known = _FOUND.setdefault(case, {})
    if (border, corner) not in known:
        known[border, corner] = _find(case, border, corner)
    return known[border, corner]


def _find(case: Case, border: float, corner: float) -> Places:
    assert case.intensities is not None
    shown = _Shown.of(case.grid)
    data = np.stack([shown.array(channel) for channel in case.intensities])
    found: dict[str, NDArray[np.bool_]] = {}
    missing: dict[str, str] = {}
    step = max(1, round((data[0].size / _MANY) ** 0.5))
    try:
        body, bright, known = _body(data[..., ::step, ::step])
        body = body.repeat(step, -2).repeat(step, -1)[..., : data.shape[-2], : data.shape[-1]]
    except InputError as error:
        body, bright, known = np.ones(data.shape[1:], bool), False, str(error)
    if known:
        missing |= dict.fromkeys((BODY, OUTSIDE), known)
    else:
        found |= {BODY: body, OUTSIDE: ~body}
    found[TABLE], missing[TABLE] = (np.zeros(body.shape, bool), known) if known else _table(data, body)
    found[TEXT], missing[TEXT] = _text(data, None if known else body)
    found |= _frame(data.shape[1:], border, corner)
    empty = "It has no voxel in this image."
    there = {name: shown.back(mask) for name, mask in found.items() if mask.any()}
    for name in NOT_PATIENT:
        if name not in there:
            missing.setdefault(name, empty)
    drawn = {name: mask for name, mask in case.masks.items() if mask.any()}
    missing |= dict.fromkeys(set(case.masks) - set(drawn), empty)
    # What an expert drew counts under its name, whatever is found.
    masks = {**there, **drawn}
    return Places(masks, {k: why for k, why in missing.items() if k not in masks}, frozenset(drawn), bright)


@dataclass(frozen=True)
class _Shown:
    """How an array of a grid becomes planes as they are looked at: (rows, columns), or (slices, rows, columns)."""

    turn: Reorientation | None
    axis: int | None

    @classmethod
    def of(cls, grid: Grid) -> _Shown:
        if grid.ndim == 2:
            return cls(None, None)
        turn = Reorientation.between(grid)
        thin = [axis for axis, n in enumerate(turn.grid(grid).shape) if n == 1]
        return cls(turn, thin[0] if thin else None)

    def array(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        if self.turn is None:
            return values
        turned = cast("NDArray[np.float32]", self.turn.array(values))
        return turned if self.axis is None else np.take(turned, 0, self.axis)

    def back(self, mask: NDArray[np.bool_]) -> Mask:
        if self.turn is None:
            return mask
        whole = mask if self.axis is None else np.expand_dims(mask, self.axis)
        return cast("Mask", np.ascontiguousarray(self.turn.inverse.array(whole)))


def _body(data: NDArray[np.float32]) -> tuple[NDArray[np.bool_], bool, str]:
    """The body, whether its surroundings are bright, and why it can't be told; empty if it can."""
    grey = scaled(data, np.ones(data.shape[1:], bool)).sum(0)
    top = float(grey.max())
    edge = _frame(grey.shape, 0.02, 0.0)[BORDER]
    bright = bool(np.median(grey[edge]) > top / 2)
    # A bright edge may also be the patient, as in most X-rays.
    for each in (True, False) if bright else (False,):
        body = body_mask(data, bright=each)
        level = float(np.median(grey[~body])) if not body.all() else top / 2
        if (top - level if each else level) <= _FLAT * top:
            return body, each, ""
    return body, False, "What is around the body is neither dark nor bright throughout, so it can't be told apart."


def _text(data: NDArray[np.float32], body: NDArray[np.bool_] | None) -> tuple[NDArray[np.bool_], str]:
    """Letters and marks, and why there are none."""
    nothing = np.zeros(data.shape[1:], bool)
    if data.ndim > 3:
        return nothing, "Letters are looked for in pictures and single slices only."
    if not (data == data[:1]).all():
        return nothing, "Letters are looked for in grey pictures only: gaps in stained tissue look like them."
    letters = burnt_in(data[0])
    if body is not None:
        # Vessels and fat in MR look like letters, where what is written stands beside the body.
        pieces = label(letters, connectivity=2)
        beside = np.setdiff1d(pieces[~body], [0])
        letters = np.isin(pieces, beside)
    return letters, "No bright letters or marks were found."


def _table(data: NDArray[np.float32], body: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], str]:
    """Bright pieces behind the body in CT, and why there are none."""
    if data.min() > _LIKE_AIR or len(data) > 1:
        return np.zeros(body.shape, bool), "It is looked for in CT in Hounsfield units only."
    behind = np.arange(body.shape[-2])[:, None] > np.nonzero(body)[-2].mean()
    pieces = label((data[0] > _TABLE_FROM) & ~body & behind, connectivity=1)
    sizes = np.bincount(pieces.ravel())
    # Its width is what tells a table from noise; no piece is that wide with fewer voxels.
    large = sizes >= max(2.0, _TABLE_LEAST * body.shape[-1])
    large[0] = False
    return large[pieces], "Nothing as dense as a table lies behind the body."


def _frame(shape: tuple[int, ...], border: float, corner: float) -> dict[str, NDArray[np.bool_]]:
    """Border and corners of each plane, some of them empty where the shares are 0."""
    rows, columns = shape[-2:]
    found = {name: np.zeros(shape, bool) for name in (BORDER, *CORNERS)}
    high, wide = (min(round(border * n) or int(border > 0), (n - 1) // 2) for n in (rows, columns))
    found[BORDER][...] = True
    found[BORDER][..., high : rows - high, wide : columns - wide] = False
    high, wide = round(corner * rows), round(corner * columns)
    places = [(slice(0, high), slice(0, wide)), (slice(0, high), slice(columns - wide, None))]
    places += [(slice(rows - high, None), slice(0, wide)), (slice(rows - high, None), slice(columns - wide, None))]
    for name, place in zip(CORNERS, places, strict=True):
        found[name][(..., *place)] = True
    return found
