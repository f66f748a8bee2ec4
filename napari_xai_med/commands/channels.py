"""The command channels: how much each channel of an image contributes to each class."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_xai_med.commands.common import add_common, load, progress, show_prediction, steps_of
from napari_xai_med.commands.explain import load_recorded
from napari_xai_med.commands.options import add_options, chosen_options
from napari_xai_med.errors import InputError

if TYPE_CHECKING:
    from napari_xai_med.channel_values import ChannelContributions
    from napari_xai_med.image import Image
    from napari_xai_med.models.classifier import Classifier


def add_command(commands: Any) -> None:
    """Add the command to those of the command line."""
    from napari_xai_med.channel_values import ChannelValues
    from napari_xai_med.models.target import Quantity

    parser = commands.add_parser("channels", help="exact Shapley values of an image's channels, such as T1 and FLAIR")
    parser.set_defaults(run=_channels)
    add_common(parser, image_needed=False)
    parser.add_argument(
        "--target", action="append", metavar="CLASS", help="a class, by name or number; again for more; all by default"
    )
    parser.add_argument("--against", metavar="CLASS", help="each class rather than this one")
    quantities = list(map(str, Quantity))
    parser.add_argument("--quantity", choices=quantities, default="logit", help="what of the answer (%(default)s)")
    parser.add_argument("--opposite", action="store_true", help="what speaks against the class")
    parser.add_argument("--name", action="append", default=[], metavar="NAME", help="of a channel; once for each")
    parser.add_argument("--out", type=Path, default=Path(), help="folder for the results (the current one)")
    parser.add_argument("--record", type=Path, help="compute again what this record says, and compare")
    add_options(parser.add_argument_group("how they are found"), ChannelValues)


def _channels(options: argparse.Namespace) -> int:
    from napari_xai_med.channel_values import METHOD, contributions
    from napari_xai_med.request import ExplainRequest

    if options.record is not None:
        return _rerun(options)
    if not options.images or options.model is None:
        raise InputError("Give an image for each channel and --model, or a --record to compute again.")
    image, classifier = load(options)
    request = ExplainRequest(
        METHOD,
        chosen_options(options),
        against=options.against,
        quantity=options.quantity,
        opposite=options.opposite,
        plane=options.plane,
        slice=options.slice,
        preprocessing=steps_of(options.preprocessing, classifier),
    )
    found = contributions(image, classifier, request, options.target, progress(), options.name)
    _tell(image, classifier, found, options.out)
    return 0


def _tell(image: Image, classifier: Classifier, found: ChannelContributions, folder: Path) -> None:
    from napari_xai_med.io.channels import save_channels

    show_prediction(image, classifier, found.prediction)
    width = max(map(len, found.channels))
    for about, values, empty, full in zip(found.classes, found.values, found.of_baseline, found.of_image, strict=True):
        print(f"{about}: {empty:.4f} without channels ({found.baseline}), {full:.4f} with all")
        for name, value in zip(found.channels, values, strict=True):
            print(f"  {name:<{width}}  {value:+9.4f}")
    for notice in found.notices[len(found.prediction.notices) :]:
        print(f"Note: {notice}")
    for path in save_channels(image, found, folder):
        print(f"  {path}")


def _rerun(options: argparse.Namespace) -> int:
    """Compute a record again, and say whether the contributions are the same."""
    from napari_xai_med.channel_values import METHOD, contributions
    from napari_xai_med.record import Record

    record = Record.read(options.record)
    if record.request["method"] != METHOD:
        raise InputError(f"{options.record} is a record of {record.request['method']}; compute it with explain.")
    image, classifier = load_recorded(options, record)
    classes, names = record.method["classes"], record.method["channels"]
    found = contributions(image, classifier, record.explain_request, classes, progress(), names)
    _tell(image, classifier, found, options.out)
    same = found.record.result["sha256"] == record.result["sha256"]
    print("The values equal the recorded ones bit for bit." if same else "The values DIFFER from the recorded ones.")
    return 0 if same else 1
