"""ONNX's Resize and Upsample in PyTorch, of those kinds in which both agree at every size.

PyTorch's functions for users take a size or scales; ONNX counts coordinates by the scales even where these do not
lead to a whole size, as PyTorch's operators behind these functions do as well.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from napari_xai_med.models.graphs.onnx_layers import Attributes, Inputs, Unsupported, at, ints

_OPERATORS: dict[str, tuple[str, str, str]] = {
    "nearest": ("upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d"),
    "nearest exact": ("_upsample_nearest_exact1d", "_upsample_nearest_exact2d", "_upsample_nearest_exact3d"),
    "linear": ("upsample_linear1d", "upsample_bilinear2d", "upsample_trilinear3d"),
}
"""PyTorch's operators for one, two and three axes of space."""

_HALF_PIXELS = ("half_pixel", "pytorch_half_pixel")


def resize(inputs: Inputs, attributes: Attributes) -> Tensor:
    """Resize."""
    if int(attributes["opset"]) < 11:
        return upsample(inputs, attributes)
    if attributes.get("antialias", 0) or attributes.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise Unsupported("Resize with antialiasing or a kept aspect ratio")
    x = inputs[0]
    scales, target = _targets(x, at(inputs, 2), at(inputs, 3), attributes.get("axes"))
    place = attributes.get("coordinate_transformation_mode", "half_pixel")
    if place == "pytorch_half_pixel" and any(n == 1 < m for n, m in zip(target, x.shape[2:], strict=True)):
        raise Unsupported("Resize of the kind pytorch_half_pixel to a length of 1")
    mode = attributes.get("mode", "nearest")
    if mode == "linear" and place in (*_HALF_PIXELS, "align_corners"):
        corners = place == "align_corners"
        return _run("linear", x, target, [None] * len(target) if corners else scales, corners)
    rounding = attributes.get("nearest_mode", "round_prefer_floor")
    if mode == "nearest" and place == "asymmetric" and rounding == "floor":
        return _run("nearest", x, target, scales)
    # Rounding half down differs from PyTorch's half up only where a coordinate is half: never if voxels are repeated.
    repeated = all(n % m == 0 and s in (None, n // m) for n, m, s in zip(target, x.shape[2:], scales, strict=True))
    exact = rounding == "round_prefer_ceil" or (rounding == "round_prefer_floor" and repeated)
    if mode == "nearest" and place in _HALF_PIXELS and exact:
        return _run("nearest exact", x, target, scales)
    raise Unsupported(f"Resize of the kind {mode} {place} {rounding if mode == 'nearest' else ''}".rstrip())


def upsample(inputs: Inputs, attributes: Attributes) -> Tensor:
    """Upsample, and Resize before opset 11, of the kind nearest."""
    x, given = inputs[0], attributes.get("scales", at(inputs, 1))
    scales, target = _targets(x, torch.as_tensor(given, dtype=torch.float32), None, None)
    # Smaller images round otherwise there.
    if attributes.get("mode", "nearest") != "nearest" or min(s or 1.0 for s in scales) < 1:
        raise Unsupported("Upsample of another kind than nearest")
    return _run("nearest", x, target, scales)


def _targets(x: Tensor, scales: Any, sizes: Any, axes: list[int] | None) -> tuple[list[float | None], list[int]]:
    """Scale, None where only the size is given, and new length of each axis of space."""
    chosen = [axis % x.ndim for axis in axes] if axes else list(range(x.ndim))
    by_scale: list[float | None] = [None] * x.ndim
    target = list(x.shape)
    if sizes is not None and len(sizes):
        for axis, n in zip(chosen, ints(sizes), strict=True):
            target[axis] = n
    else:
        for axis, scale in zip(chosen, scales, strict=True):
            # In single precision, as onnxruntime multiplies.
            by_scale[axis], target[axis] = float(scale), math.floor(float(x.shape[axis] * scale))
    if target[:2] != list(x.shape[:2]):
        raise Unsupported("Resize of channels")
    return by_scale[2:], target[2:]


def _run(kind: str, x: Tensor, target: list[int], scales: list[float | None], *corners: bool) -> Tensor:
    if not 1 <= len(target) <= 3:
        raise Unsupported("Resize of more than three axes")
    operator = getattr(torch.ops.aten, _OPERATORS[kind][len(target) - 1])
    result: Tensor = operator(x, target, *corners, *scales)
    return result
