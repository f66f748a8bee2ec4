"""See and replace the attention matrices of a network while it runs, whatever its modules are called.

An attention matrix is what a softmax over the last axis gives with shape (N, heads, T, T), or (N * heads, T, T).
Fused attention, which never has its matrix in memory, is computed step by step instead.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

# Arguments of multi_head_attention_forward that PyTorch passes by position, and those that add something unusual.
_MULTI_HEAD = (
    *("query", "key", "value", "embed_dim_to_check", "num_heads", "in_proj_weight", "in_proj_bias", "bias_k"),
    *("bias_v", "add_zero_attn", "dropout_p", "out_proj_weight", "out_proj_bias"),
)
_UNUSUAL = ("bias_k", "bias_v", "add_zero_attn", "static_k", "static_v", "use_separate_proj_weight")

See = Callable[[Tensor], Tensor]
"""Gets each matrix, shape (N, heads, T, T), and returns the one that the network goes on with."""


class Attentions(TorchFunctionMode):
    """While active, shows every attention matrix.

    Parameters
    ----------
    see : callable
    batch : int
        Number of images.
    """

    def __init__(self, see: See, batch: int) -> None:
        super().__init__()
        self._see, self._batch = see, batch

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call the function, and show what it gives if that is an attention matrix."""
        kwargs = kwargs or {}
        # Operators of exported programs are called softmax.int or _softmax.default.
        name = str(getattr(function, "__name__", "")).split(".")[0].strip("_")
        if name == "scaled_dot_product_attention":
            return self._scaled_dot_product(*args, **kwargs)
        if name == "multi_head_attention_forward":
            return self._multi_head(function, args, kwargs)
        result = function(*args, **kwargs)
        if name == "softmax" and isinstance(result, Tensor) and _over_last(result, args, kwargs):
            return self._shown(result)
        return result

    def _shown(self, values: Tensor) -> Tensor:
        """What the network goes on with after a softmax."""
        if values.shape[-1] != values.shape[-2] or values.ndim not in (3, 4):
            return values
        if values.ndim == 4:
            return self._see(values)
        return values if len(values) % self._batch else self._see(values.unflatten(0, (self._batch, -1))).flatten(0, 1)

    def _scaled_dot_product(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        """The same as `torch.nn.functional.scaled_dot_product_attention` by its documentation."""
        if enable_gqa:
            repeats = query.shape[-3] // key.shape[-3]
            key, value = (each.repeat_interleave(repeats, -3) for each in (key, value))
        scores = query @ key.transpose(-2, -1) * (query.shape[-1] ** -0.5 if scale is None else scale)
        if is_causal:
            attn_mask = scores.new_ones(scores.shape[-2:], dtype=torch.bool).tril()
        if attn_mask is not None:
            hidden = attn_mask.dtype is torch.bool
            scores = scores.masked_fill(~attn_mask, -torch.inf) if hidden else scores + attn_mask
        return F.dropout(self._shown(scores.softmax(-1)), dropout_p) @ value

    def _multi_head(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """`torch.nn.MultiheadAttention`: its matrix, and from that what it gives, if nothing unusual is added to it."""
        given = dict(zip(_MULTI_HEAD, args, strict=False)) | kwargs
        if any(given.get(name) is not None and given.get(name) is not False for name in _UNUSUAL):
            return function(*args, **kwargs)
        told = kwargs | {"need_weights": True, "average_attn_weights": False}
        _, matrix = function(*args, **told)
        if matrix.ndim != 4:
            return function(*args, **kwargs)
        matrix = self._shown(matrix)
        # (T, N, C): the values come last in the weights of the projection.
        size = given["value"].shape[-1]
        bias = given["in_proj_bias"]
        values = F.linear(given["value"], given["in_proj_weight"][-size:], None if bias is None else bias[-size:])
        heads = values.unflatten(2, (given["num_heads"], -1)).permute(1, 2, 0, 3)
        mixed = (matrix @ heads).permute(2, 0, 1, 3).flatten(2)
        output = F.linear(mixed, given["out_proj_weight"], given["out_proj_bias"])
        if not kwargs.get("need_weights", True):
            return output, None
        return output, matrix.mean(1) if kwargs.get("average_attn_weights", True) else matrix


def _over_last(result: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    axis = args[1] if len(args) > 1 else kwargs.get("dim")
    return axis in (-1, result.ndim - 1)
