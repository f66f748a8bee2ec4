"""Metrics on one explanation: what each found, as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import nan
from typing import TYPE_CHECKING, Any

from napari_xai_med.errors import Cancelled, InputError, XAIMedError
from napari_xai_med.job import Job
from napari_xai_med.metrics.base import Family, Metric, make_metric, metrics, missing
from napari_xai_med.metrics.outcome import Outcome, Plot, Score
from napari_xai_med.options import changed_of

if TYPE_CHECKING:
    import pandas as pd

    from napari_xai_med.metrics.case import Case

COLUMNS = (
    "family",
    "metric",
    "options",
    "score",
    "value",
    "unit",
    "subject",
    "of",
    "at",
    "low",
    "high",
    "better",
    "reason",
)


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What metrics found about one explanation. Research use only. Not for diagnosis.

    Parameters
    ----------
    outcomes : mapping of Metric to Outcome
        In the order in which they were asked for.
    skipped : mapping of Metric to str
        Those that could not be measured, and why.
    """

    outcomes: Mapping[Metric, Outcome] = field(repr=False)
    skipped: Mapping[Metric, str] = field(default_factory=dict)

    @cached_property
    def frame(self) -> pd.DataFrame:
        """A row for each number, with the columns of `COLUMNS`; `reason` tells why a value is NaN.

        `options` are those of the metric that are not at their defaults.
        """
        import pandas as pd

        rows = [_row(metric, score) for metric, outcome in self.outcomes.items() for score in outcome.scores]
        rows += [_row(metric, Score(metric.name, nan, reason)) for metric, reason in self.skipped.items()]
        return pd.DataFrame(rows, columns=list(COLUMNS))

    def plots(self, metric: Metric) -> tuple[Plot, ...]:
        """What can be drawn of a metric; titles tell its options that are not at their defaults."""
        found, changed = self.outcomes[metric].plots, changed_of(metric)
        return tuple(replace(plot, title=f"{plot.title}, {changed}") for plot in found) if changed else found

    @property
    def notices(self) -> tuple[str, ...]:
        """Sentences that the user should read, each once."""
        return tuple(dict.fromkeys(text for outcome in self.outcomes.values() for text in outcome.notices))


def _row(metric: Metric, score: Score) -> dict[str, Any]:
    told = {"family": str(metric.family), "metric": metric.name, "options": changed_of(metric), "score": score.name}
    own = {name: getattr(score, name) for name in COLUMNS[len(told) :]}
    return told | own | {"better": str(score.better)}


def evaluate_case(case: Case, chosen: Sequence[Metric], job: Job) -> Evaluation:
    """Measure one explanation.

    What one metric can't do does not keep the others from being measured.

    Parameters
    ----------
    case : Case
    chosen : sequence of Metric
    job : Job
        Its `partial` gets the evaluation so far after each metric.

    Raises
    ------
    InputError
        If none of the metrics could be measured.
    Cancelled
    """
    if not chosen:
        raise InputError("No metric was chosen; choose at least one.")
    outcomes: dict[Metric, Outcome] = {}
    skipped: dict[Metric, str] = {}
    for k, metric in enumerate(chosen):
        part = job.part(k / len(chosen), (k + 1) / len(chosen))
        part.step(0.0, metric.title)
        if reason := missing(type(metric), case):
            skipped[metric] = reason
            continue
        try:
            outcomes[metric] = metric.measure(case, part)
        except Cancelled:
            raise
        except XAIMedError as error:
            skipped[metric] = str(error)
        job.show(lambda: Evaluation(dict(outcomes), dict(skipped)))
    job.step(1.0, "Done")
    if not outcomes:
        raise InputError(" ".join(dict.fromkeys(skipped.values())))
    return Evaluation(outcomes, skipped)


def metrics_for(case: Case, names: Sequence[str | Mapping[str, Any] | Metric] | None = None) -> list[Metric]:
    """The metrics that are meant.

    Parameters
    ----------
    case : Case
    names : sequence of str, mapping or Metric, optional
        Names; or mappings with the name as ``metric`` and options; or families. By default all that have what they
        need but for those as published, whose names promise something else than they are.

    Raises
    ------
    InputError
        If there is no such metric or option.
    """
    known = metrics()
    if names is None:
        chosen = (kind for kind in known.values() if kind.family is not Family.AS_PUBLISHED)
        return [kind() for kind in chosen if not missing(kind, case)]
    found: list[Metric] = []
    for name in [names] if isinstance(names, str) else names:
        if isinstance(name, Metric):
            found.append(name)
        elif isinstance(name, Mapping):
            options = dict(name)
            if "metric" not in options:
                raise InputError(f"{options} names no metric; write its name as 'metric' beside its options.")
            found.append(make_metric(str(options.pop("metric")), options))
        else:
            family = [kind() for kind in known.values() if kind.family == name]
            found += family or [make_metric(name, {})]
    return found


def panel() -> list[Metric]:
    """The metrics of the standard panel; what those of them need that is not there is told when they are measured."""
    return [kind() for kind in metrics().values() if kind.panel]
