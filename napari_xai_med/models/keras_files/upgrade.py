"""Bring a layer's settings of Keras 1 and 2 up to date.

Keras 1 called them otherwise (https://keras.io/1.2.2), Keras 2 stored some that Keras 3 does not know.
"""

from __future__ import annotations

from typing import Any

RENAMED = {
    "Convolution2D": "Conv2D",
    "Convolution3D": "Conv3D",
    "AtrousConvolution2D": "Conv2D",
    "SeparableConvolution2D": "SeparableConv2D",
    "BatchNormalizationV1": "BatchNormalization",
    "BatchNormalizationV2": "BatchNormalization",
    "SyncBatchNormalization": "BatchNormalization",
}
"""Classes by their former names."""

MERGES = {
    "concat": "Concatenate",
    "sum": "Add",
    "mul": "Multiply",
    "ave": "Average",
    "max": "Maximum",
}
"""What Keras 1's layer Merge does, by its mode."""

_KEYS = {
    "nb_filter": "filters",
    "subsample": "strides",
    "border_mode": "padding",
    "bias": "use_bias",
    "output_dim": "units",
    "p": "rate",
    "atrous_rate": "dilation_rate",
    "concat_axis": "axis",
}
_ORDERINGS = {"th": "channels_first", "tf": "channels_last"}
_KERNELS = (("nb_row", "nb_col"), ("kernel_dim1", "kernel_dim2", "kernel_dim3"))
_OF_MERGE = ("mode_type", "dot_axes", "output_mask_type", "arguments", "output_mask", "output_shape")
_PLACED = (
    "Conv",
    "SeparableConv",
    "DepthwiseConv",
    "MaxPooling",
    "AveragePooling",
    "Global",
    "ZeroPadding",
    "Cropping",
    "UpSampling",
    "Flatten",
    "SpatialDropout",
)


def upgraded(kind: str, config: dict[str, Any]) -> dict[str, Any]:
    """A layer's settings as Keras 3 calls them.

    Parameters
    ----------
    kind : str
        The class of Keras 3.
    config : dict
        Settings in the file.

    Raises
    ------
    ValueError
        If a setting has no counterpart.
    """
    new = {_KEYS.get(key, key): value for key, value in config.items()}
    for sizes in _KERNELS:
        if sizes[0] in new:
            new["kernel_size"] = [new.pop(size) for size in sizes]
    if (ordering := new.pop("dim_ordering", "default")) != "default":
        new["data_format"] = _ORDERINGS[ordering]
    if kind.startswith(_PLACED) and not new.get("data_format"):
        # Keras takes what the user's settings say; a file must mean the same everywhere.
        new["data_format"] = "channels_last"
    if kind == "BatchNormalization":
        _normalization(new)
    if kind in MERGES.values():
        new = {key: value for key, value in new.items() if not key.startswith(_OF_MERGE)}
        new = new if kind == "Concatenate" else {key: value for key, value in new.items() if key != "axis"}
    if kind == "LeakyReLU" and "alpha" in new:
        new["negative_slope"] = new.pop("alpha")
    if kind in ("SeparableConv2D", "DepthwiseConv2D"):
        if new.pop("groups", 1) != 1:
            raise ValueError("groups in a depthwise convolution")
        if kind == "DepthwiseConv2D":
            new.pop("filters", None)
    if kind == "ZeroPadding2D" and isinstance(new.get("padding"), list) and len(new["padding"]) == 4:
        top, bottom, left, right = new["padding"]
        new["padding"] = [[top, bottom], [left, right]]
    return new


def _normalization(config: dict[str, Any]) -> None:
    # 1 is over each image, and 2 takes the batch's own statistics even when the network is asked.
    if mode := config.pop("mode", 0):
        raise ValueError(f"a BatchNormalization of mode {mode}")
    axis = config.get("axis", -1)
    if isinstance(axis, list):
        if len(axis) != 1:
            raise ValueError("a BatchNormalization of several axes")
        config["axis"] = axis[0]
    if config.get("renorm"):
        raise ValueError("a BatchNormalization with renorm")
