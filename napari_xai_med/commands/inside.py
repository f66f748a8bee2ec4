"""Commands that look inside a network; see `napari_xai_med.cli`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from napari_xai_med.attribution import DISCLAIMER
from napari_xai_med.commands.common import add_common, asked, progress
from napari_xai_med.commands.options import add_options, chosen_options, reader
from napari_xai_med.errors import InputError
from napari_xai_med.maximisation import Maximisation


def add_commands(commands: Any) -> None:
    """Add the commands to those of the command line."""
    features = commands.add_parser("features", help="write the feature maps of a layer, and a sheet of all of them")
    add_common(features)
    features.add_argument("--layer", default="", metavar="L", help="its name; the last convolution by default")
    features.add_argument("--out", type=Path, default=Path(), help="folder for the results (the current one)")
    features.set_defaults(run=_features)
    maximise = commands.add_parser("maximise", help="draw an input that the network finds most typical of a class")
    add_common(maximise, image_needed=False)
    maximise.add_argument("--target", required=True, metavar="CLASS", help="class to draw, by name or number")
    maximise.add_argument(
        "--shape",
        type=reader(()),
        default=(),
        metavar="C,N,N,N",
        help="of the network's input, channels first; that of the image or the metadata by default",
    )
    maximise.add_argument("--out", type=Path, default=Path(), help="folder for the results (the current one)")
    add_options(maximise.add_argument_group("how it is drawn"), Maximisation)
    maximise.set_defaults(run=_maximise)


def _features(options: argparse.Namespace) -> int:
    from napari_xai_med.inside import maps_of_layer
    from napari_xai_med.io.inside import save_maps

    image, classifier, request = asked(options)
    maps = maps_of_layer(image, classifier, options.layer, request, progress())
    size = " x ".join(map(str, maps.grid.shape))
    print(f"{maps.name}: {len(maps.data)} maps of {size}")
    for notice in maps.notices:
        print(f"Note: {notice}")
    for path in save_maps(maps, options.out):
        print(f"  {path}")
    print(DISCLAIMER)
    return 0


def _maximise(options: argparse.Namespace) -> int:
    from napari_xai_med.activation_maximisation import draw
    from napari_xai_med.io.inside import save_drawing
    from napari_xai_med.models import load_model
    from napari_xai_med.options import with_options

    if options.model is None:
        raise InputError("Give --model, the classifier that draws.")
    how = with_options(Maximisation, "A drawing", chosen_options(options))
    image, request = None, None
    if options.images:
        image, classifier, request = asked(options)
    else:
        classifier = load_model(options.model, trust=options.trust, device=options.device)
    drawing = draw(classifier, options.target, how, progress(), shape=options.shape, image=image, request=request)
    print(f"{drawing.image.name}: logit from {drawing.score_before:.2f} to {drawing.score_after:.2f}")
    width = max(map(len, drawing.probabilities))
    for name, value in drawing.probabilities.items():
        print(f"  {name:<{width}}  {value:8.4f}")
    for notice in (drawing.sentence, *drawing.notices):
        print(f"Note: {notice}")
    for path in save_drawing(drawing, options.out):
        print(f"  {path}")
    print(DISCLAIMER)
    return 0
