"""What operators do to the geometry of tensors; see `napari_xai_med.models.geometry`.

Operators that have no rule are taken to work position by position. Where an operator's positions see
unevenly (interpolation, transposed convolution), the rule gives their mean.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import partial
from typing import Any

from torch import Tensor

from napari_xai_med.models.geometry import Axis, Factor, Geometry, Rule, Steps, size_of, steps_of, unknown
from napari_xai_med.models.geometry_axes import joined_axis, merged_axis, squeezed, within

Geometries = list[Geometry]
Arguments = tuple[Any, ...]
Keywords = dict[str, Any]
Change = Callable[[int, Steps], Steps]


def _at(args: Arguments, position: int, default: Any) -> Any:
    """An argument, of which PyTorch leaves out those at the end that have their default."""
    return args[position] if len(args) > position else default


def _each(values: Any, k: int, default: int) -> int:
    """Entry k of an operator's argument that may be a number, a list of one, or empty."""
    if isinstance(values, int):
        return values
    values = list(values or [])
    if not values:
        return default
    return int(values[k] if len(values) > 1 else values[0])


def _first(result: Any) -> Any:
    return result[0] if isinstance(result, tuple) else result


def _kept(axis: Axis, size: int) -> Axis:
    return axis if size_of(axis) == size else (Factor(size),)


def _moved(axis: Axis, size: int, first: float, step: float) -> Axis:
    steps = steps_of(axis)
    return (Factor(size, steps.window(first, first, step) if steps else None),)


def same_shape(before: Geometries, _: Arguments, __: Keywords, result: Any) -> list[Geometry | None]:
    """Operators that work position by position: what is broadcast or has another rank does not count."""
    results = result if isinstance(result, tuple | list) else [result]
    return [_merged(before, t.shape) if isinstance(t, Tensor) else None for t in results]


def _merged(geometries: Geometries, shape: Sequence[int]) -> Geometry | None:
    def fits(geometry: Geometry) -> bool:
        sizes = [size_of(axis) for axis in geometry]
        return len(sizes) == len(shape) and all(a in (1, b) for a, b in zip(sizes, shape, strict=True))

    parts = [g for g in geometries if fits(g)]
    if not parts:
        return None
    return tuple(merged_axis([g[k] for g in parts], n) for k, n in enumerate(shape))


def _per_axis(geometry: Geometry, result: Tensor, rank: int, change: Change) -> Geometry:
    """Change the steps of the last `rank` axes; k counts from the first of them."""
    first = result.ndim - rank
    axes: list[Axis] = []
    for position, (axis, size) in enumerate(zip(geometry, result.shape, strict=True)):
        steps = steps_of(axis)
        if position < first:
            axes.append(_kept(axis, size))
        else:
            axes.append((Factor(size, change(position - first, steps) if steps else None),))
    return tuple(axes)


def _convolution(before: Geometries, args: Arguments, _: Keywords, result: Tensor) -> Geometry:
    _input, weight, _bias, stride, padding, dilation, transposed = args[:7]

    def change(k: int, steps: Steps) -> Steps:
        step, pad = _each(stride, k, 1), _each(padding, k, 0)
        reach = _each(dilation, k, 1) * (weight.shape[2 + k] - 1)
        if transposed:
            return steps.window((pad - reach) / step, pad / step, 1 / step)
        return steps.window(-pad, reach - pad, step)

    batch, _channels, *spatial = _per_axis(before[0], result, weight.ndim - 2, change)
    return (batch, (Factor(result.shape[1]),), *spatial)


def _pool(before: Geometries, args: Arguments, _: Keywords, result: Any) -> list[Geometry]:
    kernel, stride, padding = args[1], _at(args, 2, []), _at(args, 3, 0)
    # Only max pooling has a dilation; in its place average pooling has a flag.
    dilation = _at(args, 4, 1) if isinstance(result, tuple) else 1

    def change(k: int, steps: Steps) -> Steps:
        size, pad = _each(kernel, k, 1), _each(padding, k, 0)
        return steps.window(-pad, _each(dilation, k, 1) * (size - 1) - pad, _each(stride, k, size))

    return [_per_axis(before[0], _first(result), len(kernel), change)]


def _slack(ratio: Fraction) -> float:
    """Mean of what rounding down takes from the multiples of a ratio."""
    return (ratio.denominator - 1) / (2 * ratio.denominator)


def _adaptive_pool(before: Geometries, args: Arguments, _: Keywords, result: Any) -> list[Geometry]:
    source, out = args[0], _first(result)
    rank = len(args[1])

    def change(k: int, steps: Steps) -> Steps:
        ratio = Fraction(source.shape[k - rank], out.shape[k - rank])
        return steps.window(-_slack(ratio), float(ratio) - 1 + _slack(ratio), float(ratio))

    return [_per_axis(before[0], out, rank, change)]


def _ratio(args: Arguments, result: Tensor, k: int, scales_at: int) -> Fraction:
    """Input positions per output position; a scale factor counts, even if the sizes do not divide so."""
    scale, rank = _at(args, scales_at + k, None), len(args[1])
    if scale:
        return Fraction(1 / scale).limit_denominator(1000)
    return Fraction(args[0].shape[k - rank], result.shape[k - rank])


def _nearest(before: Geometries, args: Arguments, _: Keywords, result: Tensor, *, exact: bool = False) -> Geometry:
    def change(k: int, steps: Steps) -> Steps:
        ratio = _ratio(args, result, k, 2)
        source = -_slack(ratio)
        if exact:
            even = ratio.numerator % 2 == 0
            source = (float(ratio) - 1) / 2 + (1 / (2 * ratio.denominator) if even else 0)
        return steps.window(source, source, float(ratio))

    return _per_axis(before[0], result, len(args[1]), change)


def _interpolate(
    before: Geometries, args: Arguments, _: Keywords, result: Tensor, *, support: float = 1, smooth: bool = False
) -> Geometry:
    """Linear and cubic interpolation, which see `support` on both sides, more if they smooth."""

    def change(k: int, steps: Steps) -> Steps:
        ratio = _ratio(args, result, k, 3)
        source = (ratio - 1) / 2
        if args[2]:
            old, new = (t.shape[k - len(args[1])] for t in (args[0], result))
            # A single output position is the input's first.
            ratio, source = Fraction(old - 1, new - 1) if min(old, new) > 1 else Fraction(old), Fraction(0)
        reach = support * (max(float(ratio), 1.0) if smooth else 1.0) - 0.5
        if ratio.denominator == source.denominator == 1 and not (smooth and ratio > 1):
            reach = 0.0
        return steps.window(float(source) - reach, float(source) + reach, float(ratio))

    return _per_axis(before[0], result, len(args[1]), change)


def _pixel_shuffle(before: Geometries, args: Arguments, _: Keywords, result: Tensor) -> Geometry:
    ratio = Fraction(1, args[1])
    return _per_axis(before[0], result, 2, lambda _, s: s.window(-_slack(ratio), -_slack(ratio), float(ratio)))


def _pixel_unshuffle(before: Geometries, args: Arguments, _: Keywords, result: Tensor) -> Geometry:
    return _per_axis(before[0], result, 2, lambda _, s: s.window(0, args[1] - 1, args[1]))


def _pad(before: Geometries, args: Arguments, _: Keywords, result: Tensor) -> Geometry:
    geometry, widths = list(before[0]), args[1]
    for count in range(len(widths) // 2):
        position = result.ndim - 1 - count
        lead, trail = widths[2 * count : 2 * count + 2]
        if lead or trail:
            geometry[position] = _moved(geometry[position], result.shape[position], -lead, 1)
    return tuple(geometry)


def _slice(before: Geometries, args: Arguments, _: Keywords, result: Tensor) -> Geometry:
    geometry, source = list(before[0]), args[0]
    dim = _at(args, 1, 0) % source.ndim
    start, size = _at(args, 2, None) or 0, source.shape[dim]
    start = min(max(start + (size if start < 0 else 0), 0), size)
    if geometry[dim][0].inside and _at(args, 4, 1) == 1:
        geometry[dim] = within(geometry[dim][0], start, result.shape[dim])
    elif result.shape[dim] != size:
        geometry[dim] = _moved(geometry[dim], result.shape[dim], start, _at(args, 4, 1))
    return tuple(geometry)


def _split(before: Geometries, args: Arguments, _: Keywords, result: Any) -> list[Geometry]:
    geometry, dim = before[0], _at(args, 2, 0) % args[0].ndim
    parts, start = [], 0
    for part in result:
        cut = _moved(geometry[dim], part.shape[dim], start, 1)
        parts.append((*geometry[:dim], cut, *geometry[dim + 1 :]))
        start += part.shape[dim]
    return parts


def _flip(before: Geometries, args: Arguments, _: Keywords, result: Tensor) -> Geometry:
    geometry = list(before[0])
    for dim in args[1]:
        geometry[dim] = _moved(geometry[dim], result.shape[dim], result.shape[dim] - 1, -1)
    return tuple(geometry)


def _select(before: Geometries, args: Arguments, _: Keywords, __: Any) -> Geometry:
    geometry, dim = before[0], args[1] % args[0].ndim
    return (*geometry[:dim], *geometry[dim + 1 :])


def _unbind(before: Geometries, args: Arguments, _: Keywords, result: Any) -> list[Geometry]:
    geometry, dim = before[0], _at(args, 1, 0) % args[0].ndim
    return [(*geometry[:dim], *geometry[dim + 1 :])] * len(result)


def _cat(before: Geometries, args: Arguments, _: Keywords, result: Tensor) -> Geometry:
    dim = _at(args, 1, 0) % result.ndim
    parts = [g for g in before if len(g) == result.ndim]
    joined = joined_axis([g[dim] for g in parts], result.shape[dim])
    return tuple(joined if k == dim else merged_axis([g[k] for g in parts], n) for k, n in enumerate(result.shape))


def _stack(before: Geometries, args: Arguments, _: Keywords, result: Tensor) -> Geometry:
    dim = _at(args, 1, 0) % result.ndim
    sizes = [n for k, n in enumerate(result.shape) if k != dim]
    merged = tuple(merged_axis([g[k] for g in before], n) for k, n in enumerate(sizes))
    return (*merged[:dim], (Factor(result.shape[dim]),), *merged[dim:])


def _permute(before: Geometries, args: Arguments, _: Keywords, __: Tensor) -> Geometry:
    return tuple(before[0][d] for d in args[1])


def _transpose(before: Geometries, args: Arguments, _: Keywords, result: Tensor) -> Geometry:
    geometry = list(before[0])
    one, two = (args[1], args[2]) if len(args) > 2 else (0, result.ndim - 1)
    geometry[one], geometry[two] = geometry[two], geometry[one]
    return tuple(geometry)


def _reshaped(before: Geometries, _: Arguments, __: Keywords, result: Tensor) -> Geometry:
    """Put the factors of all axes in a row and deal them out anew."""
    if [size_of(axis) for axis in before[0]] == list(result.shape):
        return before[0]
    if (same := squeezed(before[0], result.shape)) is not None:
        return same
    factors = [f for axis in before[0] for f in axis]
    axes: list[Axis] = []
    for k, size in enumerate(result.shape):
        if size == 1:
            # One position of the image is no batch.
            fits = factors and factors[0].size == 1 and (k > 0 or not factors[0].known)
            axes.append((factors.pop(0) if fits else Factor(1),))
            continue
        axis = _dealt(factors, size)
        if axis is None:
            return unknown(result)
        axes.append((*axis, *_trailing(factors, axis, result.shape[k + 1 :])))
    return tuple(axes)


def _dealt(factors: list[Factor], size: int) -> Axis | None:
    """Take an axis of a size off a row of factors; None if their sizes have no common divisor."""
    axis: list[Factor] = []
    missing = size
    while factors and missing > 1:
        factor = factors.pop(0)
        if missing % factor.size:
            if factor.size % missing:
                return None
            factor, rest = _cut(factor, missing)
            factors.insert(0, rest)
        if factor.size > 1 or factor.known:
            axis.append(factor)
        missing //= factor.size
    return tuple(axis) or (Factor(size),)


def _trailing(factors: list[Factor], axis: Axis, further: Sequence[int]) -> Axis:
    """Take off what belongs to an axis of patches, too: the image's next axes, if the grid has one position there."""
    last = axis[-1].steps
    if last is None or 1 in further:
        return ()
    taken: list[Factor] = []
    while factors and factors[0].size == 1 and factors[0].steps and factors[0].steps.axis > last.axis:
        taken.append(factors.pop(0))
    return tuple(taken)


def _cut(factor: Factor, size: int) -> tuple[Factor, Factor]:
    """Cut into `size` blocks, which are known, and the positions in a block, which are not."""
    block = factor.size // size
    return Factor(size, factor.steps.window(0, block - 1, block) if factor.steps else None), Factor(block)


def _unsqueeze(before: Geometries, args: Arguments, _: Keywords, result: Tensor) -> Geometry:
    dim = args[1] % result.ndim
    return (*before[0][:dim], (Factor(1),), *before[0][dim:])


def _squeeze(before: Geometries, args: Arguments, _: Keywords, __: Tensor) -> Geometry:
    dims = _at(args, 1, range(len(before[0])))
    gone = {d % len(before[0]) for d in ([dims] if isinstance(dims, int) else dims)}
    return tuple(axis for k, axis in enumerate(before[0]) if k not in gone or size_of(axis) > 1)


def _repeated(before: Geometries, _: Arguments, __: Keywords, result: Tensor) -> Geometry:
    lead = result.ndim - len(before[0])
    kept = (_kept(axis, n) for axis, n in zip(before[0], result.shape[lead:], strict=True))
    return (*((Factor(n),) for n in result.shape[:lead]), *kept)


def _product(before: Geometries, _: Arguments, __: Keywords, result: Tensor) -> Geometry | None:
    """Matrix products: rows from the left factor, columns from the right one."""
    left, right = before[-2:]
    if len(left) != result.ndim or len(right) != result.ndim:
        return None
    batch = (merged_axis(both, n) for *both, n in zip(left[:-2], right[:-2], result.shape[:-2], strict=True))
    return (*batch, left[-2], right[-1])


def _reduced(
    before: Geometries, args: Arguments, _: Keywords, result: Any, *, dims_at: int = 1
) -> list[Geometry] | None:
    """Sums and means over axes, which leave the other axes as they are."""
    dims, out = _at(args, dims_at, None), _first(result)
    if isinstance(dims, int) and not isinstance(dims, bool):
        dims = [dims]
    if not isinstance(dims, tuple | list) or not dims:
        return None
    gone = {d % args[0].ndim for d in dims}
    axes = [(Factor(1),) if k in gone else axis for k, axis in enumerate(before[0])]
    if out.ndim < args[0].ndim:
        axes = [axis for k, axis in enumerate(axes) if k not in gone]
    return [tuple(axes)] * (len(result) if isinstance(result, tuple) else 1)


def _mixed(before: Geometries, args: Arguments, _: Keywords, result: Any, *, dim_at: int = 1) -> list[Geometry]:
    """Operators that move positions about along some axes, and leave the others."""
    dims, rank = _at(args, dim_at, -1), args[0].ndim
    gone = {d % rank for d in ([dims] if isinstance(dims, int) else dims or range(rank))}
    kept = zip(before[0], _first(result).shape, strict=True)
    geometry = tuple((Factor(n),) if k in gone else _kept(axis, n) for k, (axis, n) in enumerate(kept))
    return [geometry] * (len(result) if isinstance(result, tuple) else 1)


def _index(before: Geometries, args: Arguments, _: Keywords, result: Tensor) -> Geometry | None:
    """Indexing along one axis, such as that of channels."""
    used = [(k, index) for k, index in enumerate(args[1]) if index is not None]
    if len(used) != 1 or used[0][1].ndim != 1:
        return None
    k = used[0][0]
    return (*before[0][:k], (Factor(result.shape[k]),), *before[0][k + 1 :])


def _lost(*_: Any) -> None:
    """Operators that move positions about in ways that are not followed."""


def _named(rule: Rule, names: str) -> dict[str, Rule]:
    return dict.fromkeys(names.split(), rule)


RULES: dict[str, Rule] = {
    **_named(_convolution, "convolution _convolution convolution_overrideable cudnn_convolution"),
    **_named(_pool, "max_pool1d max_pool2d max_pool3d max_pool2d_with_indices max_pool3d_with_indices"),
    **_named(_pool, "avg_pool1d avg_pool2d avg_pool3d"),
    **_named(_adaptive_pool, "_adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_max_pool2d adaptive_max_pool3d"),
    **_named(_nearest, "upsample_nearest1d upsample_nearest2d upsample_nearest3d"),
    **_named(
        partial(_nearest, exact=True),
        "_upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d",
    ),
    **_named(_interpolate, "upsample_linear1d upsample_bilinear2d upsample_trilinear3d"),
    **_named(partial(_interpolate, support=2), "upsample_bicubic2d"),
    **_named(partial(_interpolate, smooth=True), "_upsample_bilinear2d_aa"),
    **_named(partial(_interpolate, support=2, smooth=True), "_upsample_bicubic2d_aa"),
    **_named(_pixel_shuffle, "pixel_shuffle"),
    **_named(_pixel_unshuffle, "pixel_unshuffle"),
    **_named(_pad, "constant_pad_nd reflection_pad1d reflection_pad2d reflection_pad3d"),
    **_named(_pad, "replication_pad1d replication_pad2d replication_pad3d"),
    **_named(_slice, "slice"),
    **_named(_split, "split split_with_sizes unsafe_split unsafe_split_with_sizes"),
    **_named(_flip, "flip"),
    **_named(_select, "select"),
    **_named(_unbind, "unbind"),
    **_named(_cat, "cat"),
    **_named(_stack, "stack"),
    **_named(_permute, "permute"),
    **_named(_transpose, "transpose t"),
    **_named(_reshaped, "view _unsafe_view reshape _reshape_alias"),
    **_named(_unsqueeze, "unsqueeze"),
    **_named(_squeeze, "squeeze"),
    **_named(_repeated, "expand repeat"),
    **_named(_product, "mm bmm addmm baddbmm"),
    **_named(_reduced, "mean sum nansum prod amax amin max min var std var_mean std_mean logsumexp"),
    **_named(_reduced, "any all argmax argmin median nanmedian"),
    **_named(partial(_reduced, dims_at=2), "linalg_vector_norm norm"),
    **_named(_mixed, "index_select gather glu cumsum cumprod logcumsumexp"),
    **_named(partial(_mixed, dim_at=2), "topk roll"),
    **_named(_index, "index"),
    **_named(_lost, "index_put scatter grid_sampler_2d grid_sampler_3d sort im2col col2im as_strided rot90"),
    **_named(_lost, "zeros_like ones_like empty_like full_like rand_like randn_like"),
    **_named(_lost, "new_zeros new_ones new_empty new_full _fft_r2c _fft_c2c _fft_c2r"),
}
"""Rules by operator."""
