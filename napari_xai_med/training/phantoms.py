"""Chest-CT-like phantoms with and without lesions, in Hounsfield units.

Drawn, not scanned: no patient is in them. They have what a classifier of chest CT meets (body, lungs,
vessels, spine, table, noise) with natural variation, so that no single grey value tells the classes apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

KINDS = ("normal", "ground_glass", "nodule")

Array = NDArray[np.float64]

_AIR, _FAT, _TISSUE, _BONE, _TABLE = -1000.0, -100.0, 40.0, 450.0, -300.0


@dataclass(frozen=True)
class Phantom:
    """A drawn chest.

    Parameters
    ----------
    data : ndarray of int16
        Hounsfield units; (I, J, K) in the file order of NIfTI for a volume, (Y, X) for a slice.
    mask : ndarray of uint8
        1 in the lesion.
    lungs : ndarray of uint8
        1 in the lungs, vessels and lesions included.
    affine : ndarray
        Index to RAS millimetres, (4, 4), for a volume; index to plane millimetres, (3, 3), for a slice.
    kind : str
        One of `KINDS`.
    """

    data: NDArray[np.int16]
    mask: NDArray[np.uint8]
    lungs: NDArray[np.uint8]
    affine: Array
    kind: str


@dataclass(frozen=True)
class _Chest:
    """Tissue and anatomy on (Z, Y, X) coordinates in millimetres about the chest's centre."""

    z: Array
    y: Array
    x: Array
    values: Array
    lungs: NDArray[np.bool_]


def make_phantom(seed: int, kind: str, shape: tuple[int, int, int] = (96, 80, 40)) -> Phantom:
    """A volume of a chest.

    Parameters
    ----------
    seed : int
        Equal seeds give equal bits.
    kind : {"normal", "ground_glass", "nodule"}
    shape : tuple of int
        Voxels from left to right, front to back and feet to head.

    Returns
    -------
    Phantom
        In LPS or LAS axis order, with spacing of about 3.6 x 3.6 x 6 mm, both varied by the seed.
    """
    random = np.random.default_rng((seed, KINDS.index(kind), 3))
    spacing = np.array([6.0, 3.7, 3.7]) * random.uniform(0.93, 1.07, 3)
    counts = (shape[2], shape[1], shape[0])
    axes = [(np.arange(n) - (n - 1) / 2) * step for n, step in zip(counts, spacing, strict=True)]
    chest = _draw_chest(random, *np.meshgrid(*axes, indexing="ij", sparse=True))
    values, mask = _add_lesions(random, chest, kind)
    values = _finish(random, values, spacing)
    return _as_file(random, values, mask, chest.lungs, spacing, kind)


def make_slice(seed: int, kind: str, size: int = 128) -> Phantom:
    """An axial slice of a chest: rows to the back, columns to the patient's left; see `make_phantom`."""
    random = np.random.default_rng((seed, KINDS.index(kind), 2))
    step = 2.8 * random.uniform(0.95, 1.05)
    axis = (np.arange(size) - (size - 1) / 2) * step
    level = np.array([random.uniform(-45, 45)])
    chest = _draw_chest(random, *np.meshgrid(level, axis, axis, indexing="ij", sparse=True))
    values, mask = _add_lesions(random, chest, kind)
    values = _finish(random, values, np.array([step, step, step]))
    data = np.rint(values[0]).astype(np.int16)
    affine = np.diag([step, step, 1.0])
    return Phantom(data, mask[0].astype(np.uint8), chest.lungs[0].astype(np.uint8), affine, kind)


def _ellipsoid(chest: tuple[Array, Array, Array], centre: Array, radii: Array) -> Array:
    """Squared distance from the centre in units of the radii: below 1 is inside."""
    total: Array = sum(((c - m) / r) ** 2 for c, m, r in zip(chest, centre, radii, strict=True))
    return total


def _draw_chest(random: np.random.Generator, z: Array, y: Array, x: Array) -> _Chest:
    size, shift = random.uniform(0.92, 1.08), random.uniform(-6, 6, 2)
    place = (z, y - shift[0], x - shift[1])
    endless = np.array([1e6, 1.0, 1.0])
    values = np.full(np.broadcast_shapes(z.shape, y.shape, x.shape), _AIR)
    table = random.uniform(108, 116) * size
    values[np.broadcast_to((np.abs(y - shift[0] - table) < 5) & (np.abs(x - shift[1]) < 150), values.shape)] = _TABLE
    values[_ellipsoid(place, np.zeros(3), size * np.array([1, 103, 148]) * endless) < 1] = _FAT
    values[_ellipsoid(place, np.zeros(3), size * np.array([1, 95, 138]) * endless) < 1] = _TISSUE
    lungs = np.zeros(values.shape, bool)
    for side in (-1, 1):
        centre = np.array([random.uniform(-6, 6), random.uniform(-8, 0), side * random.uniform(64, 70)]) * size
        radii = np.array([random.uniform(120, 135), random.uniform(66, 74), random.uniform(45, 52)]) * size
        lungs |= _ellipsoid(place, centre, radii) < 1
    heart = _ellipsoid(place, np.array([-40, -25, 18]) * size, size * np.array([60, 42, 48]))
    lungs &= heart > 1
    spine = _ellipsoid(place, np.array([0, 62, 0]) * size, size * np.array([1, 17, 19]) * endless)
    values[spine < 1] = _BONE * random.uniform(0.6, 1.2)
    lungs &= spine > 1
    values[lungs] = random.uniform(-890, -800)
    _add_vessels(random, place, values, lungs, size)
    return _Chest(*place, values, lungs)


def _add_vessels(
    random: np.random.Generator, place: tuple[Array, Array, Array], values: Array, lungs: NDArray[np.bool_], size: float
) -> None:
    """Vessels run from the middle of the chest outwards and get thinner."""
    z, y, x = place
    for _ in range(int(random.integers(10, 20))):
        side = random.choice((-1, 1))
        root = np.array([random.uniform(-90, 90), random.uniform(-20, 20), side * 20]) * size
        way = np.array([random.uniform(-0.5, 0.5), random.uniform(-0.8, 0.8), side])
        way /= np.linalg.norm(way)
        along = (z - root[0]) * way[0] + (y - root[1]) * way[1] + (x - root[2]) * way[2]
        off = (z - root[0]) ** 2 + (y - root[1]) ** 2 + (x - root[2]) ** 2 - along**2
        radius = np.clip(random.uniform(2.0, 4.5) * (1 - along / random.uniform(70, 110)), 0, None)
        values[(off < radius**2) & (along > 0) & lungs] = random.uniform(-20, 60)


def _add_lesions(random: np.random.Generator, chest: _Chest, kind: str) -> tuple[Array, NDArray[np.bool_]]:
    values, mask = chest.values, np.zeros(chest.values.shape, bool)
    if kind == "normal":
        return values, mask
    for _ in range(int(random.integers(1, 4))):
        distance, depth = _lesion_shape(random, chest, kind)
        if kind == "ground_glass":
            # Soft edge, and vessels stay visible: the lesion is added to what is there, not put over it.
            weight = np.clip(1.6 * (1 - distance), 0, 1) * chest.lungs
            values = np.where(values < depth, values + weight * (depth - values), values)
            mask |= weight > 0.5
        else:
            inside = (distance < 1) & chest.lungs
            values = np.where(inside, depth, values)
            mask |= inside
    return values, mask


def _lesion_shape(random: np.random.Generator, chest: _Chest, kind: str) -> tuple[Array, float]:
    """Distance from a lesion's centre in units of its radius, and its Hounsfield units."""
    place = (chest.z, chest.y, chest.x)
    deep = gaussian_filter(chest.lungs.astype(float), 2) > 0.9
    spots = np.argwhere(deep if deep.any() else chest.lungs)
    spot = spots[random.integers(len(spots))]
    centre = np.array([c[tuple(s if n > 1 else 0 for s, n in zip(spot, c.shape, strict=True))] for c in place])
    if kind == "nodule":
        return np.sqrt(_ellipsoid(place, centre, np.full(3, random.uniform(6, 12)))), random.uniform(0, 70)
    radii = random.uniform(26, 44, 3)
    bumps = gaussian_filter(random.normal(size=chest.values.shape), 3)
    bumps *= 0.15 / max(bumps.std(), 1e-9)
    return np.sqrt(_ellipsoid(place, centre, radii)) + bumps, random.uniform(-560, -250)


def _finish(random: np.random.Generator, values: Array, spacing: Array) -> Array:
    """Blur of the scanner and noise."""
    sharp = 2.2 / spacing
    if values.shape[0] == 1:
        sharp[0] = 0
    noisy: Array = gaussian_filter(values, sharp) + random.normal(0, random.uniform(12, 35), values.shape)
    return np.clip(noisy, -1024, 1500)


def _as_file(
    random: np.random.Generator,
    values: Array,
    mask: NDArray[np.bool_],
    lungs: NDArray[np.bool_],
    spacing: Array,
    kind: str,
) -> Phantom:
    """Drawn (Z, Y, X), to head, back and left, as a file with its affine: axes L, P or A, S."""
    to_front = bool(random.integers(2))
    start = np.array([n - 1 for n in values.shape]) / 2 * spacing
    affine = np.diag([-spacing[2], spacing[1] if to_front else -spacing[1], spacing[0], 1.0])
    affine[:3, 3] = start[2], -start[1] if to_front else start[1], -start[0] + random.uniform(-300, 300)

    def turned(array: NDArray[np.generic]) -> NDArray[np.generic]:
        moved = array.transpose(2, 1, 0)
        return np.ascontiguousarray(moved[:, ::-1] if to_front else moved)

    data = turned(np.rint(values)).astype(np.int16)
    return Phantom(data, turned(mask).astype(np.uint8), turned(lungs).astype(np.uint8), affine, kind)
