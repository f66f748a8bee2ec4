"""What several commands share: their image, their classifier, and what they print."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_xai_med.attribution import DISCLAIMER
from napari_xai_med.image import PLANES

if TYPE_CHECKING:
    from napari_xai_med.image import Image
    from napari_xai_med.job import Job
    from napari_xai_med.models.classifier import Classifier, Prediction
    from napari_xai_med.request import ExplainRequest


def add_common(parser: argparse.ArgumentParser, *, image_needed: bool = True, one_slice: bool = True) -> None:
    """Add the options of all commands that take an image and a classifier; the slice's number if one is asked about."""
    parser.add_argument(
        "images",
        metavar="IMAGE",
        nargs="+" if image_needed else "*",
        help="NIfTI, Analyze, PNG, JPEG or TIFF file, or the name of a sample; several are the channels of one image",
    )
    parser.add_argument(
        "--model", metavar="M", required=image_needed, help="bundle folder, or the name of an embedded classifier"
    )
    parser.add_argument("--device", default="auto", help="cpu, cuda, mps; the fastest there is by default")
    parser.add_argument(
        "--preprocessing",
        metavar="P",
        help="in place of the classifier's own: a preset's name, or a JSON file with a list of MONAI transforms",
    )
    parser.add_argument("--trust", action="store_true", help="allow the bundle this once to run its author's code")
    parser.add_argument("--volume", type=int, help="which volume of a 4D file")
    parser.add_argument(
        "--plane", choices=PLANES, default="axial", help="direction of the slice for a 2D classifier (%(default)s)"
    )
    if one_slice:
        parser.add_argument("--slice", type=int, help="number of that slice, from the head, the front or the right on")


def load(options: argparse.Namespace, volumes: Sequence[int | None] = ()) -> tuple[Image, Classifier]:
    """The image and the classifier; `volumes` says which of each file, where that is not the same for all."""
    from napari_xai_med.models import load_model

    return load_image(options, volumes), load_model(options.model, trust=options.trust, device=options.device)


def load_image(options: argparse.Namespace, volumes: Sequence[int | None] = ()) -> Image:
    """The image of one or several files; `volumes` as for `load`."""
    from napari_xai_med.channels import stack_channels
    from napari_xai_med.io import read_image
    from napari_xai_med.samples import SAMPLES, sample_files

    paths = [sample_files(path)[0] if path in SAMPLES and not Path(path).exists() else path for path in options.images]
    chosen = volumes or [options.volume] * len(paths)
    return stack_channels([read_image(path, volume) for path, volume in zip(paths, chosen, strict=True)])


def steps_of(preprocessing: str | None, classifier: Classifier) -> tuple[dict[str, Any], ...] | None:
    """The preprocessing that stands in for the classifier's own, if one was given."""
    from napari_xai_med.preprocessing.files import read_preprocessing

    if preprocessing is None:
        return None
    return tuple(step.config() for step in read_preprocessing(preprocessing, classifier.spatial_dims))


def asked(options: argparse.Namespace) -> tuple[Image, Classifier, ExplainRequest]:
    """What the common options ask for."""
    from napari_xai_med.request import ExplainRequest

    image, classifier = load(options)
    steps = steps_of(options.preprocessing, classifier)
    return image, classifier, ExplainRequest(plane=options.plane, slice=options.slice, preprocessing=steps)


def progress() -> Job:
    """Progress on one line of a terminal; nothing where the output goes to a file."""
    from napari_xai_med.job import Job

    if not sys.stderr.isatty():
        return Job()

    def show(done: float, text: str) -> None:
        print(f"\r{done:4.0%} {text:<40}", end="\n" if done >= 1 else "", file=sys.stderr, flush=True)

    return Job(show)


def show_prediction(image: Image, classifier: Classifier, prediction: Prediction) -> None:
    """Print the probabilities of all classes."""
    print(f"{image.name} by {classifier.name}, {prediction.quantity} (on {classifier.device}):")
    width = max(len(name) for name in prediction.class_names)
    for name, value in prediction.ranked:
        print(f"  {name:<{width}}  {value:8.4f}")
    for notice in prediction.notices:
        print(f"Note: {notice}")
    print(DISCLAIMER)
