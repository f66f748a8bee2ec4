"""What an explanation by segments rests on, in words."""

from __future__ import annotations

from collections.abc import Sequence

from napari_xai_med.attribution import Attribution


def evaluations(attribution: Attribution) -> int:
    """How many masked images an estimate rests on; 0 for methods that don't ask about these."""
    return int(attribution.record.method.get("evaluations", 0))


def basis(attributions: Sequence[Attribution]) -> str:
    """Segments and evaluations, and how sure maps of several classes are; empty for methods without evaluations.

    Parameters
    ----------
    attributions : sequence of Attribution
        Of one question.
    """
    count = evaluations(attributions[0])
    tables = [each.segments.table for each in attributions if each.segments is not None]
    if not count or not tables:
        return ""
    # The first row of each table is of what is no segment.
    made = len(tables[0]) - 1
    told = [f"{made} segment{'s' * (made != 1)}, {count} evaluations"]
    # Comparisons with NaN, where nothing is known of the errors, are false.
    largest = max((error for table in tables if (error := table["standard_error"].max()) > 0), default=0.0)
    if largest:
        told.append(f"largest standard error {largest:.2g}")
    fits = [r2 for each in attributions if (r2 := each.record.method.get("r2")) is not None]
    if fits:
        told.append(f"{'lowest ' if len(fits) > 1 else ''}R2 {min(fits):.2f}")
    ranks = [rank for each in attributions if (rank := each.record.method.get("expected_rank_correlation")) is not None]
    if ranks:
        told.append(f"rank correlation with another seed {min(ranks):.3f}")
    sums = [abs(each.record.method.get("additivity_residual", 0.0)) for each in attributions]
    if any("additivity_residual" in each.record.method for each in attributions):
        told.append(f"sum off by {max(sums):.1g}")
    return ", ".join(told)
