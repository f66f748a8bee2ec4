"""Shares of the voxels, as options have them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from napari_xai_med.errors import InputError


def checked_shares(shares: Sequence[float], title: str) -> None:
    """Raise an `InputError` if there are no shares, or they do not rise."""
    if not shares or any(one >= other for one, other in pairwise(shares)):
        raise InputError(f"{title} can't have shares {list(shares)}; give it some that rise, such as 0.1, 0.3.")
