"""Whether a map adds up to what it explains."""

from __future__ import annotations

from typing import Any

MOST = 0.05
"""Share of the difference from which on users are told that the map does not add up to it."""

_OFF = "The map adds up to {:.4g} and not to {:.4g}, the difference between the image's answer and the baseline's{}."


def completeness(total: float, difference: float, advice: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Facts and notices about the sum of a map.

    Parameters
    ----------
    total : float
        Sum of the map over all voxels.
    difference : float
        What is explained at the image minus the same at the baseline: what the sum has to be.
    advice : str
        What to do if it is not, without a full stop.
    """
    off = abs(total - difference)
    relative = off / abs(difference) if difference else None
    facts = {"map_sum": total, "answer_difference": difference, "completeness_error": relative}
    wrong = off > MOST * abs(difference)
    return facts, (_OFF.format(total, difference, f"; {advice}" if advice else ""),) if wrong else ()
