"""The command slices: from a volume to the slices that matter, and what a 2D classifier sees there."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_xai_med.attribution import DISCLAIMER
from napari_xai_med.commands.common import add_common, load, progress, steps_of
from napari_xai_med.commands.explain import (
    METHOD,
    add_method,
    add_question,
    check_same,
    chosen_segments,
    load_recorded,
)
from napari_xai_med.commands.options import add_options, chosen_options
from napari_xai_med.errors import InputError

if TYPE_CHECKING:
    from napari_xai_med.attribution import Attribution
    from napari_xai_med.image import Image
    from napari_xai_med.io.slices import SlicesRecord
    from napari_xai_med.models.classifier import Classifier
    from napari_xai_med.record import Record
    from napari_xai_med.request import ExplainRequest
    from napari_xai_med.slice_pipeline import ExplainedSlices

RULE = "activation"
_RULE, _VOLUME = "rule-", "volume-"
"""What the options of rules and of the volume's method begin with."""


def add_command(commands: Any, kinds: argparse.Namespace) -> None:
    """Add the command, with the options of the rule, of both methods and of the segmenter, to the command line.

    Parameters
    ----------
    commands : argparse subparsers
    kinds : argparse.Namespace
        ``method``, ``segments``, ``volume_method`` and ``rule`` that the command names.
    """
    from napari_xai_med.explainers.base import explainers
    from napari_xai_med.slice_pipeline import METHOD as SLICE_METHOD  # one of the same name is above
    from napari_xai_med.slice_pipeline import SliceChoice
    from napari_xai_med.slices import slice_rules

    parser = commands.add_parser(
        "slices", help="choose slices of a volume, and explain what a 2D classifier sees there"
    )
    parser.set_defaults(run=_slices)
    add_common(parser, image_needed=False, one_slice=False)
    parser.add_argument("--rule", choices=list(slice_rules()), default=RULE, help="what makes a slice (%(default)s)")
    parser.add_argument(
        "--rule-mask", metavar="FILE", default="", help="where the rule looks, or what it measures; body for the body"
    )
    parser.add_argument("--count", type=int, default=SliceChoice.count, help="how many slices (%(default)s)")
    parser.add_argument(
        "--minimum-distance",
        type=float,
        metavar="MM",
        default=SliceChoice.minimum_distance,
        help="millimetres between two of them at least (%(default)s)",
    )
    parser.add_argument("--volume-model", metavar="M", help="3D classifier whose heatmap the rule looks at")
    known = explainers()
    parser.add_argument("--volume-method", choices=sorted(known), default=METHOD, help="of that heatmap (%(default)s)")
    parser.add_argument("--volume-target", metavar="CLASS", help="its class; the most probable one by default")
    parser.add_argument("--volume-preprocessing", metavar="P", help="as --preprocessing, for the 3D classifier")
    parser.add_argument("--target", metavar="CLASS", help="class to explain; the most probable one of each slice")
    add_question(parser, SLICE_METHOD)
    parser.add_argument("--out", type=Path, default=Path(), help="folder for the results (the current one)")
    parser.add_argument("--record", type=Path, help="compute again what this summary says, and compare")
    if kinds.rule in slice_rules():
        add_options(parser.add_argument_group(f"options of the rule {kinds.rule}"), slice_rules()[kinds.rule], _RULE)
    if kinds.volume_method in known:
        group = parser.add_argument_group(f"options of the volume's {kinds.volume_method}")
        add_options(group, known[kinds.volume_method], _VOLUME)
    add_method(parser, kinds.method or SLICE_METHOD, kinds.segments)


def _slices(options: argparse.Namespace) -> int:
    from napari_xai_med.io.slices import SlicesRecord
    from napari_xai_med.slice_pipeline import SliceChoice, explain_slices

    if options.record is not None:
        return _rerun(options, SlicesRecord.read(options.record))
    if not options.images or options.model is None:
        raise InputError("Give an image and --model, a 2D classifier, or a --record to compute again.")
    image, classifier = load(options)
    rule = chosen_options(options, _RULE)
    choice = SliceChoice(options.rule, rule, options.plane, options.count, options.minimum_distance, options.rule_mask)
    asked = (classifier, _request(options, classifier))
    _save(image, explain_slices(image, choice, _volume(options), asked, progress()), options.out)
    return 0


def _request(options: argparse.Namespace, classifier: Classifier) -> ExplainRequest:
    """What is asked about each slice."""
    from napari_xai_med.explainers.base import preset_options
    from napari_xai_med.request import ExplainRequest

    return ExplainRequest(
        options.method,
        {**preset_options(options.method, options.preset), **chosen_options(options)},
        options.target,
        options.against,
        options.quantity,
        options.opposite,
        preprocessing=steps_of(options.preprocessing, classifier),
        segments=chosen_segments(options),
    )


def _volume(options: argparse.Namespace) -> tuple[Classifier, ExplainRequest] | None:
    """The 3D classifier and what is asked of it."""
    from napari_xai_med.models import load_model
    from napari_xai_med.request import ExplainRequest

    if options.volume_model is None:
        return None
    classifier = load_model(options.volume_model, trust=options.trust, device=options.device)
    steps = steps_of(options.volume_preprocessing, classifier)
    chosen = chosen_options(options, _VOLUME)
    return classifier, ExplainRequest(options.volume_method, chosen, options.volume_target, preprocessing=steps)


def _save(image: Image, explained: ExplainedSlices, folder: Path) -> None:
    from napari_xai_med.basis import basis
    from napari_xai_med.io.slices import save_slices

    slices = explained.slices
    for index, score, each in zip(slices.indices, slices.scores, explained.attributions, strict=True):
        told = ", ".join(f"{name} {value:.4f}" for name, value in each.prediction.ranked)
        rests_on = basis([each])
        print(
            f"{slices.plane} {index}: score {score:.6g}; {each.prediction.quantity} {told}; {each.about} explained"
            f"{rests_on and f' ({rests_on})'}"
        )
    _tell_notices(explained)
    for path in save_slices(image, explained, folder):
        print(f"  {path}")
    print(DISCLAIMER)


def _tell_notices(explained: ExplainedSlices) -> None:
    heatmap = () if explained.slices.heatmap is None else explained.slices.heatmap.notices
    # A dict keeps each sentence once, in order.
    for notice in dict.fromkeys((*explained.slices.notices, *heatmap, *explained.slice_notices)):
        print(f"Note: {notice}")


def _rerun(options: argparse.Namespace, told: SlicesRecord) -> int:
    """Compute a summary again, and say whether the slices and all maps are the same."""
    from napari_xai_med.slice_pipeline import ExplainedSlices, slices_by

    image, classifier = load_recorded(options, told.slices[0])
    heatmap = None if told.volume is None else _again(image, _recorded_volume(options, told.volume), told.volume)
    slices = slices_by(image, told.choice, heatmap)
    check_same("mask", slices.mask_sha256, told.mask_sha256)
    if (slices.indices, slices.scores) != (told.indices, told.scores):
        print("The slices DIFFER from the recorded ones.")
        return 1
    maps = tuple(_again(image, classifier, record) for record in told.slices)
    _save(image, ExplainedSlices(told.choice, slices, maps), options.out)
    pairs = [*zip(maps, told.slices, strict=True)]
    if heatmap is not None and told.volume is not None:
        pairs.append((heatmap, told.volume))
    same = all(found.record.result["sha256"] == record.result["sha256"] for found, record in pairs)
    print("All maps equal the recorded ones bit for bit." if same else "The maps DIFFER from the recorded ones.")
    return 0 if same else 1


def _again(image: Image, classifier: Classifier, record: Record) -> Attribution:
    from napari_xai_med.explanation import explain_request

    return explain_request(image, classifier, record.explain_request, progress())


def _recorded_volume(options: argparse.Namespace, record: Record) -> Classifier:
    """The 3D classifier of a record, or the one that the options name, if it is the same."""
    from napari_xai_med.models import load_model

    source = options.volume_model or record.model["source"]
    classifier = load_model(source, trust=options.trust, device=options.device)
    check_same("3D classifier", classifier.sha256, record.model["sha256"])
    return classifier
