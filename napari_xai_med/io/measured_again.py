"""The numbers of an evaluation beside those of an earlier one's record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf, isclose, isnan, nan
from typing import TYPE_CHECKING, Any

from napari_xai_med.metrics.base import Metric, make_metric
from napari_xai_med.metrics.controls import apart
from napari_xai_med.metrics.outcome import EXPLANATION

if TYPE_CHECKING:
    from napari_xai_med.evaluation import Evaluation

TOLD = ("facts", "verdicts", "notices", "reason", "scores")
"""What a record tells of a metric besides its options."""
_ROUNDING = 1e-6
"""Relative difference that another number of threads or another processor makes."""
_ZERO = 1e-12
"""Up to which a number is what rounding leaves of zero."""

Place = tuple[Metric, str, str, str, str]
"""A metric, and of its score the name, `subject`, `of` and `at`."""


def metrics_of(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The metrics of a record with their options, as `napari_xai_med.evaluate` takes them."""
    return [
        {key: value for key, value in each.items() if key not in TOLD}
        for each in (*record["metrics"], *record["skipped"])
    ]


def numbers_of(record: Mapping[str, Any]) -> dict[Place, float]:
    """The numbers of a record, NaN where one is not defined; none in records from before these held any."""
    found = {}
    # Those that were skipped come last.
    for options, told in zip(metrics_of(record), record["metrics"], strict=False):
        metric = make_metric(str(options.pop("metric", "")), options)
        for score in told.get("scores", ()):
            value = nan if score["value"] is None else float(score["value"])
            found[metric, score["score"], score["subject"], score["of"], score["at"]] = value
    return found


@dataclass(frozen=True)
class Comparison:
    """Whether numbers are those of a record.

    Parameters
    ----------
    same : bool
        To rounding.
    sentence : str
    """

    same: bool
    sentence: str


def compare(evaluation: Evaluation, there: Mapping[Place, float]) -> Comparison:
    """Compare the numbers of an evaluation with those of a record.

    Parameters
    ----------
    evaluation : Evaluation
    there : mapping of tuple to float
        Of `numbers_of`; a missing number is the same as one that is not defined.
    """
    now = {
        (metric, score.name, score.subject, score.of, score.at): score.value
        for metric, outcome in evaluation.outcomes.items()
        for score in outcome.scores
    }
    if not there:
        return Comparison(True, "The record holds no numbers to compare with; write a new one with --out.")
    pairs = {place: (now.get(place, nan), there.get(place, nan)) for place in {**there, **now}}
    pairs = {place: pair for place, pair in pairs.items() if not all(map(isnan, pair))}
    others = {place: pair for place, pair in pairs.items() if pair[0] != pair[1]}
    different = {place: _difference(*pair) for place, pair in others.items() if not _alike(*pair)}
    if not different:
        return Comparison(True, f"All {len(pairs)} numbers are those of the record{' to rounding' if others else ''}.")
    most = max(different, key=lambda place: different[place])
    own, told = ("none" if text == "nan" else text for text in apart(*pairs[most]))
    count = f"{len(different)} of {len(pairs)} numbers {'differs' if len(different) == 1 else 'differ'} from the record"
    return Comparison(False, f"{count}, the most {_called(most)}: {own} now, {told} there.")


def _alike(one: float, other: float) -> bool:
    return isclose(one, other, rel_tol=_ROUNDING, abs_tol=_ZERO)


def _difference(one: float, other: float) -> float:
    """Relative to the larger one; infinite if one is not defined."""
    found = abs(one - other) / max(abs(one), abs(other))
    return inf if isnan(found) else found


def _called(place: Place) -> str:
    """A score's name, with what tells it from others of the name."""
    _, name, subject, *more = place
    told = ", ".join(filter(None, (*more, subject if subject != EXPLANATION else "")))
    return f"{name} ({told})" if told else name
