"""In which precision a network computes."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

LEAST_CORRELATION = 0.995
"""Spearman's rank correlation with the map in float32 from which on a map in reduced precision is shown."""


class Precision(StrEnum):
    """What a network computes in; less than float32 is faster on some devices."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"

    def context(self, device: torch.device) -> AbstractContextManager[object]:
        """While active, PyTorch casts the operators that it holds safe; nothing for float32."""
        import torch

        if self is Precision.FLOAT32:
            return nullcontext()
        # Without a cache: it would keep casted weights that have no gradient, and those are cast anyway.
        return torch.autocast(device.type, getattr(torch, self), cache_enabled=False)
