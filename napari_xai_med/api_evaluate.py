"""The verbs of scripts that judge explanations: `evaluate` and `check_explanation`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from napari_xai_med.api_inputs import AnyClassifier, AnyImage, classifier_of, image_of
from napari_xai_med.cases import AnyMap, AnyMasks, case_of
from napari_xai_med.evaluation import Evaluation, evaluate_case, metrics_for, panel
from napari_xai_med.job import CancelToken, Job, Progress
from napari_xai_med.metrics.base import Metric
from napari_xai_med.models.devices import AUTO

if TYPE_CHECKING:
    import pandas as pd

    from napari_xai_med.metrics.case import Case


def evaluate(
    attribution: AnyMap,
    *,
    mask: AnyMasks | None = None,
    metrics: Sequence[str | Mapping[str, Any] | Metric] | None = None,
    image: AnyImage | None = None,
    classifier: AnyClassifier | None = None,
    others: Mapping[str, AnyMap] | None = None,
    second: AnyClassifier | None = None,
    sign: str = "positive",
    seed: int = 0,
    progress: Progress | None = None,
    cancel: CancelToken | None = None,
    device: str = AUTO,
) -> pd.DataFrame:
    """Judge an explanation by metrics, as a tidy table. Research use only. Not for diagnosis.

    Parameters
    ----------
    attribution : Attribution, Image, ndarray or path
        The map. One from a file is explained again, where a metric has to, as the record beside it says. Volumes and
        distances of an array go by voxels of 1 mm; give an `Image` with its grid where they have another size.
    mask : label map or path, or mapping or sequence of these, optional
        Experts' masks: where they are not 0. Arrays have the map's axes; files and images lie where their world
        coordinates say, on any grid.
    metrics : sequence of str, mapping or Metric, optional
        Names of metrics or of families, such as ``["overlap", {"metric": "deletion", "steps": 50}]``; by
        default all that have what they need but for those as published.
    image, classifier
        What was explained and by whom, as for `explain`; for metrics that ask the classifier.
    others : mapping of str to attribution, optional
        Other explanations of the same image, which this one is compared with.
    second : Classifier, path, name or torch.nn.Module, optional
        A classifier that was trained on shuffled labels.
    sign : {"positive", "negative", "absolute"}
        Which part of the map counts as evidence.
    seed : int
        Of everything that is drawn by chance.
    progress, cancel, device
        As for `predict`.

    Returns
    -------
    DataFrame
        A row for each number; see `napari_xai_med.evaluation.COLUMNS`. A value that is not defined is NaN, and
        `reason` says why.

    Raises
    ------
    InputError, ModelError, Cancelled
        As for `predict`; also for an unknown metric or option, and if nothing could be measured.
    """
    case = _case(attribution, mask, image, classifier, others, second, sign, seed, device)
    return evaluate_case(case, metrics_for(case, metrics), Job(progress, cancel)).frame


def check_explanation(
    attribution: AnyMap,
    *,
    mask: AnyMasks | None = None,
    image: AnyImage | None = None,
    classifier: AnyClassifier | None = None,
    others: Mapping[str, AnyMap] | None = None,
    second: AnyClassifier | None = None,
    sign: str = "positive",
    seed: int = 0,
    progress: Progress | None = None,
    cancel: CancelToken | None = None,
    device: str = AUTO,
) -> Evaluation:
    """Judge an explanation by the standard panel, with a verdict for each line. Research use only. Not for diagnosis.

    Parameters
    ----------
    attribution, mask, image, classifier, others, second, sign, seed, progress, cancel, device
        As for `evaluate`.

    Returns
    -------
    Evaluation
        Its table is `frame`; each of its `outcomes` has verdicts, and what can be drawn of it.

    Raises
    ------
    InputError, ModelError, Cancelled
        As for `evaluate`.
    """
    case = _case(attribution, mask, image, classifier, others, second, sign, seed, device)
    return evaluate_case(case, panel(), Job(progress, cancel))


def _case(
    attribution: AnyMap,
    mask: AnyMasks | None,
    image: AnyImage | None,
    classifier: AnyClassifier | None,
    others: Mapping[str, AnyMap] | None,
    second: AnyClassifier | None,
    sign: str,
    seed: int,
    device: str,
) -> Case:
    chosen = None if image is None else image_of(image)
    known = None if classifier is None else classifier_of(classifier, chosen, device)
    shuffled = None if second is None else classifier_of(second, chosen, device)
    return case_of(attribution, mask, chosen, known, others, shuffled, sign, seed)
