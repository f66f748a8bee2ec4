"""The command pack: a bundle of a network's file."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_xai_med.commands.common import progress
from napari_xai_med.commands.options import reader

if TYPE_CHECKING:
    from napari_xai_med.models.sliding_window import SlidingWindow


def add_command(commands: Any) -> None:
    """Add the command to those of the command line."""
    parser = commands.add_parser("pack", help="make a bundle of a network's file, its preprocessing and class names")
    parser.set_defaults(run=_pack)
    parser.add_argument("weights", type=Path, metavar="FILE", help="the network's file, with or without its layers")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the new bundle")
    parser.add_argument("--classes", nargs="+", required=True, metavar="NAME", help="in the order of the outputs")
    parser.add_argument("--architecture", default="", help="network that the weights belong to, such as densenet121")
    parser.add_argument(
        "--option", action="append", default=[], metavar="KEY=VALUE", help="of the architecture, such as spatial_dims=3"
    )
    parser.add_argument("--preprocessing", default="none", metavar="P", help="a preset, or a JSON file of transforms")
    parser.add_argument(
        "--resize",
        type=reader(()),
        default=(),
        metavar="N,N,N",
        help="voxels to which a last step resamples, in the order of the network's axes; -1 keeps an axis",
    )
    parser.add_argument("--head", default="auto", help="what the outputs mean; told by the classes by default")
    parser.add_argument("--output", default="", help="which of several outputs the classes belong to")
    parser.add_argument(
        "--input-shape",
        type=reader(()),
        default=(),
        metavar="C,N,N,N",
        help="of the network's input, channels first, "
        "then voxels in the order of the network's axes, behind the preprocessing",
    )
    parser.add_argument("--name", default="", help="of the classifier; that of the file by default")
    parser.add_argument("--modality", default="", help="such as CT or MR; CT warns of images without Hounsfield units")
    parser.add_argument(
        "--value-range", nargs=2, type=float, default=(), metavar=("LOW", "HIGH"), help="of the network's input"
    )
    parser.add_argument(
        "--spacing", nargs=2, type=float, default=(), metavar=("LOW", "HIGH"), help="of its images' voxels in mm"
    )
    windows = parser.add_argument_group("for a network of patches")
    windows.add_argument(
        "--window",
        type=reader(()),
        metavar="N,N,N",
        help="size of its sliding windows in voxels, in the order of the network's axes, behind the preprocessing",
    )
    windows.add_argument("--aggregate", default="", help="how their logits become one: max, mean or logsumexp")
    windows.add_argument("--overlap", type=float, default=0.5, help="share that two windows share (%(default)s)")
    windows.add_argument("--window-batch", type=int, default=4, metavar="N", help="windows at once (%(default)s)")


def _pack(options: argparse.Namespace) -> int:
    from napari_xai_med.models.architectures import find
    from napari_xai_med.models.pack import Packing, pack
    from napari_xai_med.preprocessing.files import read_preprocessing
    from napari_xai_med.preprocessing.steps import Resize

    resize = (Resize(spatial_size=options.resize),) if options.resize else ()
    texts = dict(word.partition("=")[::2] for word in options.option)
    chosen = find(options.architecture).read_options(texts) if options.architecture else texts
    packing = Packing(
        weights=options.weights,
        class_names=tuple(options.classes),
        architecture=options.architecture,
        options=chosen,
        preprocessing=resize,
        head=options.head,
        output=options.output,
        input_shape=options.input_shape,
        name=options.name,
        modality=options.modality,
        windows=_windows(options),
        value_range=tuple(options.value_range),
        spacing=tuple(options.spacing),
    )
    steps = read_preprocessing(options.preprocessing, packing.spatial_dims)
    classifier = pack(replace(packing, preprocessing=(*steps, *resize)), options.out, progress())
    print(f"{classifier.name} is packed in {options.out}: {', '.join(classifier.class_names)}.")
    for notice in classifier.range.notices(classifier.name):
        print(f"Note: {notice}")
    return 0


def _windows(options: argparse.Namespace) -> SlidingWindow | None:
    from napari_xai_med.models.sliding_window import SlidingWindow

    if options.window is None:
        return None
    return SlidingWindow(options.window, options.aggregate, options.overlap, options.window_batch)
