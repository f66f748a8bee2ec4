"""The command evaluate: what metrics tell of a heatmap, and the published tables beside what is true."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_xai_med.attribution import DISCLAIMER
from napari_xai_med.commands.common import load_image, progress
from napari_xai_med.commands.explain import load_recorded
from napari_xai_med.errors import InputError

if TYPE_CHECKING:
    from napari_xai_med.evaluation import Evaluation
    from napari_xai_med.metrics.base import Metric
    from napari_xai_med.metrics.case import Case
    from napari_xai_med.metrics.outcome import Score


def add_command(commands: Any) -> None:
    """Add the command to those of the command line."""
    from napari_xai_med.metrics.case import Sign

    parser = commands.add_parser("evaluate", help="judge a heatmap by metrics, against masks or by asking the network")
    parser.set_defaults(run=_evaluate)
    parser.add_argument("heatmap", metavar="HEATMAP", nargs="?", help="file of the map that is judged")
    parser.add_argument(
        "--mask", action="append", default=[], metavar="[NAME=]FILE", help="an experts' mask; again for more"
    )
    parser.add_argument("--list", action="store_true", help="only tell which metrics there are")
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument(
        "--metrics",
        action="extend",
        type=lambda text: [word.strip() for word in text.split(",")],
        metavar="NAME,NAME",
        help="metrics or families of them; all that have what they need by default, but for those as published",
    )
    chosen.add_argument("--panel", action="store_true", help="the standard panel")
    chosen.add_argument(
        "--again",
        type=Path,
        metavar="FILE.json",
        help="measure what this record of an evaluation measured, with its options, evidence and seed, and compare",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="METRIC.OPTION=VALUE",
        help="an option of a metric, such as binary_overlap.lower=0.3; again for more",
    )
    sign = list(map(str, Sign))
    parser.add_argument("--sign", choices=sign, help=f"what of the map is evidence ({Sign.POSITIVE})")
    parser.add_argument("--seed", type=int, help="of what is drawn by chance (0)")
    parser.add_argument("--other", action="append", default=[], metavar="NAME=FILE", help="another map of the same")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="also write the table, the plots and a record here")
    parser.add_argument(
        "--as-published", type=Path, metavar="FOLDER", help="compute published tables again, from the studies' files"
    )
    _add_network(parser.add_argument_group("what was explained, and by whom"))


def _add_network(group: Any) -> None:
    group.add_argument(
        "--image", dest="images", action="append", default=[], metavar="IMAGE", help="the image; again for its channels"
    )
    group.add_argument("--volume", type=int, help="which volume of a 4D file")
    group.add_argument(
        "--model", metavar="M", help="the classifier, for metrics that ask it; that of --record by default"
    )
    group.add_argument("--second", metavar="M", help="a classifier that was trained on shuffled labels")
    group.add_argument(
        "--record", type=Path, help="how the map was made; the record beside the heatmap by default, for --model"
    )
    group.add_argument("--device", default="auto", help="cpu, cuda, mps; the fastest there is by default")
    group.add_argument("--trust", action="store_true", help="allow the bundles this once to run their authors' code")


def _evaluate(options: argparse.Namespace) -> int:
    from napari_xai_med.evaluation import evaluate_case
    from napari_xai_med.io.evaluation import check_same, save_evaluation
    from napari_xai_med.io.measured_again import compare, numbers_of
    from napari_xai_med.io.nifti import stem

    if options.list:
        return _list()
    if options.as_published is not None:
        return _as_published(options)
    if options.heatmap is None:
        raise InputError("Give the file of a heatmap, or --as-published with the folder of the published studies.")
    earlier = None if options.again is None else _as_recorded(options)
    case = _case(options)
    if earlier is not None:
        check_same(case, earlier)
    evaluation = evaluate_case(case, _chosen(options, case), progress())
    print(f"{options.heatmap}:")
    _tell(evaluation)
    if options.out is not None:
        for path in save_evaluation(case, evaluation, options.out, stem(Path(options.heatmap))):
            print(f"  {path}")
    again = None if earlier is None else compare(evaluation, numbers_of(earlier))
    if again is not None:
        print(again.sentence)
    print(DISCLAIMER)
    return 0 if again is None or again.same else 1


def _list() -> int:
    """Print all metrics, family by family."""
    from napari_xai_med.metrics.base import metrics

    known = metrics()
    width = max(map(len, known))
    # A dict keeps the order.
    for family in dict.fromkeys(kind.family for kind in known.values()):
        print(f"{family}:")
        for name, kind in known.items():
            if kind.family is family:
                print(f"  {name:<{width}}  {kind.about}")
    return 0


def _as_recorded(options: argparse.Namespace) -> dict[str, Any]:
    """The record that is measured again, whose metrics, evidence and seed become those of the command."""
    from napari_xai_med.io.evaluation import read_evaluation
    from napari_xai_med.io.measured_again import metrics_of

    given = {"--sign": options.sign is not None, "--seed": options.seed is not None, "--set": bool(options.set)}
    if refused := " and ".join(name for name, is_given in given.items() if is_given):
        raise InputError(f"The record says what to measure; leave out {refused}, or --again.")
    record = read_evaluation(options.again)
    options.sign, options.seed, options.metrics = record["sign"], record["seed"], metrics_of(record)
    # Metrics that asked the classifier ask it again.
    options.model = options.model or (record["model"] or {}).get("source")
    return record


def _case(options: argparse.Namespace) -> Case:
    from napari_xai_med.cases import case_of
    from napari_xai_med.metrics.case import Sign
    from napari_xai_med.models import load_model
    from napari_xai_med.record import Record

    image = classifier = record = second = None
    if options.model or options.record:
        name = options.heatmap.removesuffix(".gz").removesuffix(".nii")
        record = Record.read(options.record or f"{name}.json")
        image, classifier = load_recorded(options, record)
    elif options.images:
        image = load_image(options)
    if options.second is not None:
        second = load_model(options.second, trust=options.trust, device=options.device)
    others = _named(options.other, "--other")
    masks = _named(options.mask, "mask")
    sign, seed = options.sign or Sign.POSITIVE, options.seed or 0
    return case_of(options.heatmap, masks or None, image, classifier, others, second, sign, seed, record=record)


def _named(texts: Sequence[str], what: str) -> dict[str, str]:
    """Files by the names before them, or numbered."""
    from napari_xai_med.metrics.case import named

    found: dict[str, str] = {}
    for alone, text in zip(named(texts, what), texts, strict=True):
        name, sign, file = text.partition("=")
        # A path may have the sign as well.
        key, path = (alone, text) if not sign or Path(text).is_file() else (name, file)
        if key in found:
            raise InputError(f"There are two files named {key}; give each its own name, as NAME=FILE.")
        found[key] = path
    return found


def _chosen(options: argparse.Namespace, case: Case) -> list[Metric]:
    """The metrics that are meant, with the options that were set."""
    from napari_xai_med.evaluation import metrics_for, panel
    from napari_xai_med.metrics.base import make_metric
    from napari_xai_med.options import values_of

    chosen = panel() if options.panel else metrics_for(case, options.metrics)
    settings = _settings(options.set, {metric.name for metric in chosen})
    return [
        make_metric(metric.name, values_of(metric) | settings[metric.name]) if metric.name in settings else metric
        for metric in chosen
    ]


def _settings(texts: Iterable[str], chosen: set[str]) -> dict[str, dict[str, Any]]:
    from napari_xai_med.metrics.base import make_metric, metrics
    from napari_xai_med.options import entry_type, option_fields, parse

    found: dict[str, dict[str, Any]] = {}
    for text in texts:
        place, sign, value = text.partition("=")
        name, dot, option = place.partition(".")
        if not (sign and dot):
            raise InputError(f"{text} sets nothing; write METRIC.OPTION=VALUE, such as binary_overlap.lower=0.3.")
        known = option_fields(metrics()[name]) if name in metrics() else ()
        item = next((each for each in known if each.name == option), None)
        if item is None:
            # This says which metrics, or which options of one, there are.
            make_metric(name, {option: value})
            continue
        if name not in chosen:
            raise InputError(f"{name} is not among the metrics that are measured; choose it too.")
        try:
            found.setdefault(name, {})[option] = parse(value, item.default, entry_type(item))
        except ValueError as error:
            raise InputError(f"{text} can't be read: {error}; write a {type(item.default).__name__}.") from error
    return found


def _tell(evaluation: Evaluation) -> None:
    """Print the numbers of each metric, those of the controls beside them, and what they mean."""
    for metric, outcome in evaluation.outcomes.items():
        print(f"\n{metric.called} ({metric.family})")
        # A dict keeps the order.
        for of, at in dict.fromkeys((score.of, score.at) for score in outcome.scores):
            scores = [score for score in outcome.scores if (score.of, score.at) == (of, at)]
            if head := ", ".join(filter(None, (of, at))):
                print(f"  {head}:")
            _tell_scores(scores)
        for verdict in outcome.verdicts:
            print(f"  {'+' if verdict.good else '?' if verdict.good is None else '-'} {verdict.sentence}")
    if evaluation.skipped:
        print("\nNot measured")
        for reason in evaluation.skipped.values():
            print(f"  {reason}")
    print()
    for notice in evaluation.notices:
        print(f"Note: {notice}")


def _tell_scores(scores: Sequence[Score]) -> None:
    from napari_xai_med.metrics.outcome import EXPLANATION

    names = dict.fromkeys(score.name for score in scores if not score.reason)
    width = max(map(len, names), default=0)
    for name in names:
        same = [score for score in scores if score.name == name and not score.reason]
        own = "".join(_shown(score) for score in same if score.subject == EXPLANATION)
        controls = "; ".join(f"{score.subject} {_shown(score)}" for score in same if score.subject != EXPLANATION)
        print(f"    {name:<{width}}  {own:<24}  {controls}".rstrip())
    for reason in dict.fromkeys(score.reason for score in scores if score.reason):
        without = dict.fromkeys(score.name for score in scores if score.reason == reason)
        print(f"    {', '.join(without)}: none. {reason}")


def _shown(score: Score) -> str:
    ends = f" [{score.low:.4g}, {score.high:.4g}]" if score.low == score.low else ""
    return f"{score.value:.4g}{ends} {score.unit}".rstrip()


def _as_published(options: argparse.Namespace) -> int:
    from napari_xai_med.io.evaluation import save_table
    from napari_xai_med.metrics.as_published import LINES
    from napari_xai_med.published import published_tables

    frame = published_tables(options.as_published)
    heads = {"published": "published", "recomputed": "recomputed", "nothing": "marks nothing", "true": "true"}
    for what, title in (("dice", '"DICE"'), ("mse", "MSE")):
        columns = {f"{key}_{what}": head for key, head in heads.items()}
        if what == "dice":
            columns["chance"] = "true, by chance"
        print(f"{title:<16}" + "".join(f"{head:>16}" for head in columns.values()))
        for row in frame.to_dict("records"):
            numbers = "".join(f"{row[column]:>16.5f}" for column in columns)
            print(f"  {row['study']}, {row['cam']:<8}{numbers}")
        print()
    print(f"Note: {LINES}")
    if options.out is not None:
        print(f"  {save_table(frame, options.out, 'published')}")
    print(DISCLAIMER)
    return 0
