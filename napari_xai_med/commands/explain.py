"""The command explain: maps, and records that are computed again."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_xai_med.commands.common import add_common, load, progress, show_prediction, steps_of
from napari_xai_med.commands.options import add_options, chosen_options, reader
from napari_xai_med.errors import InputError

if TYPE_CHECKING:
    from napari_xai_med.attribution import Attribution
    from napari_xai_med.image import Image
    from napari_xai_med.models.classifier import Classifier
    from napari_xai_med.record import Record
    from napari_xai_med.request import ExplainRequest
    from napari_xai_med.segments.choice import SegmentChoice
    from napari_xai_med.targets import Targets

METHOD, SEGMENTER = "gradcam", "slic"

_SEGMENTS = "segments-"
"""What the options of segmenters begin with."""


def add_command(commands: Any, method: str, segmenter: str) -> None:
    """Add the command, with the options of a method and of a segmenter, to those of the command line."""
    from napari_xai_med.bands import DEFAULT_EDGES
    from napari_xai_med.explainers.base import explainers
    from napari_xai_med.models.precision import Precision
    from napari_xai_med.segments.best import Best

    parser = commands.add_parser("explain", help="write heatmap, figure and record of an explanation")
    parser.set_defaults(run=_explain)
    add_common(parser, image_needed=False)
    classes = parser.add_mutually_exclusive_group()
    classes.add_argument(
        "--target",
        action="append",
        metavar="CLASS",
        help="class to explain, by name or number, the most probable one by default; several from one pass by giving "
        "it again",
    )
    classes.add_argument(
        "--top-classes", type=int, metavar="K", help="explain the K most probable classes, from one pass"
    )
    classes.add_argument("--each-class", action="store_true", help="explain all classes, from one pass")
    add_question(parser, METHOD)
    parser.add_argument(
        "--minus", choices=sorted(explainers()), default="", metavar="METHOD", help="take the map of this method off"
    )
    for name, told in (
        ("normal", "explain the section of a volume across this direction, in RAS millimetres, for a 2D classifier"),
        ("point", "a point of that section, in RAS millimetres; the volume's centre by default"),
    ):
        parser.add_argument(f"--oblique-{name}", type=float, nargs=3, metavar=("X", "Y", "Z"), help=told)
    parser.add_argument("--out", type=Path, default=Path(), help="folder for the results (the current one)")
    parser.add_argument("--record", type=Path, help="compute again what this record says, and compare")
    parser.add_argument(
        "--precision",
        choices=list(map(str, Precision)),
        default="float32",
        help="less than %(default)s is used only where it was measured to give the same map",
    )
    parser.add_argument(
        "--bands",
        type=reader(DEFAULT_EDGES),
        default=(),
        metavar="N,N",
        help="also write which voxels lie between these shares of the maximum, such as 0.3,0.7",
    )
    parser.add_argument(
        "--best", type=int, metavar="N", help="also write a mask of the N segments that contribute most"
    )
    parser.add_argument(
        "--best-of",
        choices=list(map(str, Best)),
        default=str(Best.LARGEST),
        help="by absolute value, or only those that speak for the class, or against it (%(default)s)",
    )
    add_method(parser, method, segmenter)


def add_question(parser: argparse.ArgumentParser, method: str) -> None:
    """Add what an explanation is asked besides the class: the method, and in which form the answer counts."""
    from napari_xai_med.explainers.base import explainers
    from napari_xai_med.models.target import Quantity

    known, quantities = sorted(explainers()), list(map(str, Quantity))
    parser.add_argument("--method", choices=known, default=method, help="explanation method (%(default)s)")
    parser.add_argument("--against", metavar="CLASS", help="explain the class rather than this one")
    parser.add_argument("--quantity", choices=quantities, default="logit", help="what of the answer (%(default)s)")
    parser.add_argument("--opposite", action="store_true", help="explain what speaks against the class")
    parser.add_argument("--preset", default="", help="a set of the method's options, such as a library's defaults")


def add_method(parser: argparse.ArgumentParser, method: str, segmenter: str) -> None:
    """Add the options of a method, and of a segmenter if it uses one."""
    from napari_xai_med.explainers.base import explainers

    group = parser.add_argument_group(f"options of {method}", "other methods have others: --method lime --help")
    if method in explainers():
        add_options(group, explainers()[method])
        if explainers()[method].uses_segments:
            _add_segments(parser, segmenter)


def _add_segments(parser: argparse.ArgumentParser, segmenter: str) -> None:
    from napari_xai_med.segments.base import segmenters

    known = segmenters()
    group = parser.add_argument_group("segments")
    group.add_argument(
        "--segments",
        metavar="S",
        default=SEGMENTER,
        help=f"how the image is cut: {', '.join(known)}; or a file of labels (%(default)s)",
    )
    group.add_argument("--background", action="store_true", help="0 in the file of labels is one more segment")
    group.add_argument(
        "--mask", metavar="FILE", default="", help="only where this file is not 0, or body for where a body is found"
    )
    if segmenter in known:
        add_options(group, known[segmenter], _SEGMENTS)


def _explain(options: argparse.Namespace) -> int:
    from napari_xai_med.bands import check_edges
    from napari_xai_med.explainers.base import preset_options
    from napari_xai_med.request import ExplainRequest

    if options.bands:
        # Before the map is computed, which can take long.
        check_edges(options.bands)
    if options.record is not None:
        return _rerun(options)
    if not options.images or options.model is None:
        raise InputError("Give an image and --model, or a --record to compute again.")
    image, classifier = load(options)
    image = _section(image, options)
    steps = steps_of(options.preprocessing, classifier)
    request = ExplainRequest(
        options.method,
        {**preset_options(options.method, options.preset), **chosen_options(options)},
        against=options.against,
        quantity=options.quantity,
        opposite=options.opposite,
        minus=options.minus,
        precision=options.precision,
        plane=options.plane,
        slice=options.slice,
        preprocessing=steps,
        segments=chosen_segments(options),
    )
    explain_and_save(image, classifier, request, options.out, _targets(options), options.bands, _best(options, request))
    return 0


def _section(image: Image, options: argparse.Namespace) -> Image:
    """The oblique section of a volume that the options name, or all of it."""
    import numpy as np

    from napari_xai_med.oblique import oblique_section

    if options.oblique_normal is None:
        if options.oblique_point is not None:
            raise InputError("An oblique section needs a direction; give --oblique-normal.")
        return image
    if options.slice is not None:
        raise InputError("A slice is either oblique or one of the image's own; leave out --slice or --oblique-normal.")
    centre = image.grid.to_world((np.array(image.grid.shape) - 1) / 2).tolist()
    return oblique_section(image, options.oblique_point or centre, options.oblique_normal)[0]


def _best(options: argparse.Namespace, request: ExplainRequest) -> tuple[int, str] | None:
    """How many of the best segments are to be written, and by what; checked before the map is computed."""
    from napari_xai_med.explainers.base import explainers

    if options.best is None:
        return None
    known = explainers()
    if not any(name in known and known[name].uses_segments for name in (request.method, request.minus)):
        raise InputError(f"{known[request.method].title} does not explain by segments; leave --best out.")
    if options.best < 1:
        raise InputError(f"The best {options.best} segments are none; give --best at least 1.")
    return options.best, options.best_of


def chosen_segments(options: argparse.Namespace) -> SegmentChoice | None:
    """The segments that a method explains by, if it uses some."""
    from napari_xai_med.segments.choice import SegmentChoice

    if "segments" not in options:
        return None
    choice = SegmentChoice.of(options.segments, options.mask)
    return replace(choice, options=chosen_options(options, _SEGMENTS), background=options.background)


def _targets(options: argparse.Namespace) -> Targets:
    """Which classes to explain."""
    from napari_xai_med.targets import MostProbable

    if options.top_classes is not None:
        return MostProbable(options.top_classes)
    return None if options.each_class else options.target or [None]


def explain_and_save(
    image: Image,
    classifier: Classifier,
    request: ExplainRequest,
    folder: Path,
    targets: Targets = (None,),
    bands: tuple[float, ...] = (),
    best: tuple[int, str] | None = None,
) -> list[Attribution]:
    """Write the results for some classes, and print what was written."""
    from napari_xai_med.basis import basis
    from napari_xai_med.explanation import explain_requests
    from napari_xai_med.io.results import save_results
    from napari_xai_med.segments.best import fewer_segments

    attributions = explain_requests(image, classifier, request, targets, progress())
    prediction = attributions[0].prediction
    show_prediction(image, classifier, prediction)
    told = set(prediction.notices)
    for attribution in attributions:
        for notice in attribution.notices:
            if notice not in told:
                print(f"Note: {notice}")
        told.update(attribution.notices)
        files = save_results(image, attribution, folder, bands, best=best)
        rests_on = basis([attribution])
        print(f"{attribution.full_title} for {attribution.about}{rests_on and f' ({rests_on})'}:")
        for path in files.written:
            print(f"  {path}")
        if best and attribution.segments and (fewer := fewer_segments(attribution.segments.table, *best)):
            print(f"Note: {fewer}")
    return attributions


def _rerun(options: argparse.Namespace) -> int:
    """Compute a record again, from its own sources or those given, and say whether the map is the same."""
    from napari_xai_med.record import Record

    record = Record.read(options.record)
    if record.method.get("stopped"):
        raise InputError(
            f"{options.record} is of an estimate that was stopped before its end, which can't be computed again; "
            "explain anew, with fewer evaluations if it took too long."
        )
    image, classifier = load_recorded(options, record)
    request = record.explain_request
    best = _best(options, request)
    (attribution,) = explain_and_save(image, classifier, request, options.out, [request.target], options.bands, best)
    same = attribution.record.result["sha256"] == record.result["sha256"]
    print("The map equals the recorded one bit for bit." if same else "The map DIFFERS from the recorded one.")
    return 0 if same else 1


def load_recorded(options: argparse.Namespace, record: Record) -> tuple[Image, Classifier]:
    """The image and the classifier of a record, or those that the options name, if they are the same."""
    import torch

    from napari_xai_med.oblique import oblique_section

    options.images = options.images or [record.image["source"], *record.image.get("others", ())]
    options.model = options.model or record.model["source"]
    volumes = [record.image["volume"], *record.image.get("other_volumes", ())]
    if options.volume is not None or len(volumes) != len(options.images):
        volumes = [options.volume if options.volume is not None else volumes[0]] * len(options.images)
    # Another number of threads adds in another order, which changes the last bits.
    torch.set_num_threads(int(record.software["threads"]))
    image, classifier = load(options, volumes)
    plane = record.image.get("oblique")
    if plane is not None:
        image = oblique_section(image, plane["point"], plane["normal"])[0]
    check_same("image", image.sha256, record.image["sha256"])
    check_same("classifier", classifier.sha256, record.model["sha256"])
    return image, classifier


def check_same(what: str, found: str, told: str) -> None:
    """Raise an `InputError` if a hash is not the recorded one."""
    if found != told:
        raise InputError(f"The {what} is not the one in the record; give the right one on the command line.")
