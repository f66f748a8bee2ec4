"""The command line: napari-xai-med demo, predict, explain, layers, features, maximise.

Exit codes: 0 done, 1 a record was computed again and differs, 2 the command, the image or an option is
wrong, 3 the classifier can't be used, 4 a file was refused as untrusted, 130 stopped by the user.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_xai_med.attribution import DISCLAIMER
from napari_xai_med.cli_inside import add_commands
from napari_xai_med.cli_options import add_options, chosen_options, reader
from napari_xai_med.errors import Cancelled, InputError, ModelError, UntrustedError, XAIMedError
from napari_xai_med.image import PLANES

if TYPE_CHECKING:
    from napari_xai_med.attribution import Attribution
    from napari_xai_med.image import Image
    from napari_xai_med.job import Job
    from napari_xai_med.models.classifier import Classifier, Prediction
    from napari_xai_med.models.sliding_window import SlidingWindow
    from napari_xai_med.request import ExplainRequest

_DEMO_IMAGE, _DEMO_MODEL = "chest_ct_lesion", "chest_ct_3d"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        options = _parser(_method_in(words)).parse_args(words)
        code: int = options.run(options)
    except XAIMedError as error:
        print(f"napari-xai-med: {error}", file=sys.stderr)
        return _exit_code(error)
    except KeyboardInterrupt:
        print("napari-xai-med: stopped.", file=sys.stderr)
        return 130
    return code


def _exit_code(error: XAIMedError) -> int:
    codes = ((UntrustedError, 4), (ModelError, 3), (InputError, 2), (Cancelled, 130))
    return next((code for kind, code in codes if isinstance(error, kind)), 2)


def _method_in(words: list[str]) -> str:
    """The method that the command names, which decides what options there are."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--method", default="gradcam")
    return str(first.parse_known_args(words)[0].method)


def _parser(method: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="napari-xai-med", description=f"Explain what a trained network says about a medical image. {DISCLAIMER}"
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    demo = commands.add_parser("demo", help="open napari with a sample classified and explained")
    demo.add_argument("--headless", action="store_true", help="write files instead of opening a window")
    demo.add_argument("--out", type=Path, default=Path("xai-med-demo"), help="folder for --headless (%(default)s)")
    demo.set_defaults(run=_demo)
    predict = commands.add_parser("predict", help="print the probabilities of all classes")
    _add_common(predict)
    predict.set_defaults(run=_predict)
    layers = commands.add_parser("layers", help="list the layers that an explanation can use for this image")
    _add_common(layers)
    layers.set_defaults(run=_layers)
    explain = commands.add_parser("explain", help="write heatmap, figure and record of an explanation")
    _add_common(explain, image_needed=False)
    _add_explain(explain, method)
    explain.set_defaults(run=_explain)
    add_commands(commands, _add_common, _asked, _progress)
    trust = commands.add_parser("trust", help="list the bundles that may run their author's code; add or revoke one")
    trust.add_argument("--add", type=Path, metavar="M", help="trust this bundle, as it is now, for good")
    trust.add_argument("--revoke", metavar="HASH", help="trust the bundle no more whose hash starts like this")
    trust.set_defaults(run=_trust)
    pack = commands.add_parser("pack", help="make a bundle of a network's file, its preprocessing and class names")
    _add_pack(pack)
    pack.set_defaults(run=_pack)
    return parser


def _add_pack(parser: argparse.ArgumentParser) -> None:
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


def _add_common(parser: argparse.ArgumentParser, *, image_needed: bool = True) -> None:
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
    parser.add_argument("--slice", type=int, help="number of that slice, from the head, the front or the right on")


def _add_explain(parser: argparse.ArgumentParser, method: str) -> None:
    from napari_xai_med.bands import DEFAULT_EDGES
    from napari_xai_med.explainers.base import explainers
    from napari_xai_med.models.precision import Precision
    from napari_xai_med.models.target import Quantity

    known = explainers()
    parser.add_argument("--method", choices=sorted(known), default="gradcam", help="explanation method (%(default)s)")
    classes = parser.add_mutually_exclusive_group()
    classes.add_argument(
        "--target",
        action="append",
        metavar="CLASS",
        help="class to explain, by name or number, the most probable one by default; several from one pass by giving "
        "it again",
    )
    classes.add_argument("--each-class", action="store_true", help="explain all classes, from one pass")
    parser.add_argument("--against", metavar="CLASS", help="explain the class rather than this one")
    parser.add_argument(
        "--quantity", choices=list(Quantity), default="logit", help="form in which the answer counts (%(default)s)"
    )
    parser.add_argument("--opposite", action="store_true", help="explain what speaks against the class")
    parser.add_argument(
        "--minus", choices=sorted(known), default="", metavar="METHOD", help="take the map of this method off"
    )
    parser.add_argument("--out", type=Path, default=Path(), help="folder for the results (the current one)")
    parser.add_argument("--record", type=Path, help="compute again what this record says, and compare")
    parser.add_argument(
        "--precision",
        choices=list(Precision),
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
    group = parser.add_argument_group(f"options of {method}")
    if method in known:
        add_options(group, known[method])


def _progress() -> Job:
    """Progress on one line of a terminal; nothing where the output goes to a file."""
    from napari_xai_med.job import Job

    if not sys.stderr.isatty():
        return Job()

    def show(done: float, text: str) -> None:
        print(f"\r{done:4.0%} {text:<40}", end="\n" if done >= 1 else "", file=sys.stderr, flush=True)

    return Job(show)


def _load(options: argparse.Namespace, volumes: Sequence[int | None] = ()) -> tuple[Image, Classifier]:
    """The image and the classifier; `volumes` says which of each file, where that is not the same for all."""
    from napari_xai_med.channels import stack_channels
    from napari_xai_med.io import read_image
    from napari_xai_med.models import load_model
    from napari_xai_med.samples import SAMPLES, sample_files

    paths = [sample_files(path)[0] if path in SAMPLES and not Path(path).exists() else path for path in options.images]
    chosen = volumes or [options.volume] * len(paths)
    image = stack_channels([read_image(path, volume) for path, volume in zip(paths, chosen, strict=True)])
    return image, load_model(options.model, trust=options.trust, device=options.device)


def _steps(options: argparse.Namespace, classifier: Classifier) -> tuple[dict[str, Any], ...] | None:
    from napari_xai_med.preprocessing.files import read_preprocessing

    if options.preprocessing is None:
        return None
    return tuple(step.config() for step in read_preprocessing(options.preprocessing, classifier.spatial_dims))


def _show_prediction(image: Image, classifier: Classifier, prediction: Prediction) -> None:
    print(f"{image.name} by {classifier.name}, {prediction.quantity} (on {classifier.device}):")
    width = max(len(name) for name in prediction.class_names)
    for name, value in prediction.ranked:
        print(f"  {name:<{width}}  {value:8.4f}")
    for notice in prediction.notices:
        print(f"Note: {notice}")
    print(DISCLAIMER)


def _asked(options: argparse.Namespace) -> tuple[Image, Classifier, ExplainRequest]:
    """What the common options ask for."""
    from napari_xai_med.request import ExplainRequest

    image, classifier = _load(options)
    steps = _steps(options, classifier)
    return image, classifier, ExplainRequest(plane=options.plane, slice=options.slice, preprocessing=steps)


def _predict(options: argparse.Namespace) -> int:
    from napari_xai_med.pipeline import predict_request

    image, classifier, request = _asked(options)
    _show_prediction(image, classifier, predict_request(image, classifier, request, _progress()))
    return 0


def _layers(options: argparse.Namespace) -> int:
    from napari_xai_med.pipeline import layers_for

    image, classifier, request = _asked(options)
    layers, default = layers_for(image, classifier, request)
    for layer in layers:
        size = " x ".join(map(str, layer.shape))
        mark = "  (default)" if layer.name == default else ""
        print(f"{layer.name}  {layer.kind}  {layer.channels} maps of {size}{mark}")
    return 0


def _explain(options: argparse.Namespace) -> int:
    from napari_xai_med.request import ExplainRequest

    if options.record is not None:
        return _rerun(options)
    if not options.images or options.model is None:
        raise InputError("Give an image and --model, or a --record to compute again.")
    image, classifier = _load(options)
    steps = _steps(options, classifier)
    request = ExplainRequest(
        options.method,
        chosen_options(options),
        against=options.against,
        quantity=options.quantity,
        opposite=options.opposite,
        minus=options.minus,
        precision=options.precision,
        plane=options.plane,
        slice=options.slice,
        preprocessing=steps,
    )
    _explain_and_save(image, classifier, request, options.out, _targets(options), options.bands)
    return 0


def _targets(options: argparse.Namespace) -> Sequence[str | None] | None:
    """Which classes to explain; None for all of them."""
    return None if options.each_class else options.target or [None]


def _explain_and_save(
    image: Image,
    classifier: Classifier,
    request: ExplainRequest,
    folder: Path,
    targets: Sequence[str | int | None] | None = (None,),
    bands: tuple[float, ...] = (),
) -> list[Attribution]:
    from napari_xai_med.explanation import explain_requests
    from napari_xai_med.io.results import save_results

    attributions = explain_requests(image, classifier, request, targets, _progress())
    prediction = attributions[0].prediction
    _show_prediction(image, classifier, prediction)
    told = set(prediction.notices)
    for attribution in attributions:
        for notice in attribution.notices:
            if notice not in told:
                print(f"Note: {notice}")
        told.update(attribution.notices)
        files = save_results(image, attribution, folder, bands)
        print(f"{attribution.title} for {attribution.about}:")
        for path in files.written:
            print(f"  {path}")
    return attributions


def _rerun(options: argparse.Namespace) -> int:
    """Compute a record again, from its own sources or those given, and say whether the map is the same."""
    import torch

    from napari_xai_med.record import Record

    record = Record.read(options.record)
    options.images = options.images or [record.image["source"], *record.image.get("others", ())]
    options.model = options.model or record.model["source"]
    volumes = [record.image["volume"], *record.image.get("other_volumes", ())]
    if options.volume is not None or len(volumes) != len(options.images):
        volumes = [options.volume if options.volume is not None else volumes[0]] * len(options.images)
    # Another number of threads adds in another order, which changes the last bits.
    torch.set_num_threads(int(record.software["threads"]))
    image, classifier = _load(options, volumes)
    for what, found, told in (
        ("image", image.sha256, record.image["sha256"]),
        ("classifier", classifier.sha256, record.model["sha256"]),
    ):
        if found != told:
            raise InputError(f"The {what} is not the one in the record; give the right one on the command line.")
    request = record.explain_request
    (attribution,) = _explain_and_save(image, classifier, request, options.out, [request.target], options.bands)
    same = attribution.record.result["sha256"] == record.result["sha256"]
    print("The map equals the recorded one bit for bit." if same else "The map DIFFERS from the recorded one.")
    return 0 if same else 1


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
    classifier = pack(replace(packing, preprocessing=(*steps, *resize)), options.out, _progress())
    print(f"{classifier.name} is packed in {options.out}: {', '.join(classifier.class_names)}.")
    for notice in classifier.range.notices(classifier.name):
        print(f"Note: {notice}")
    return 0


def _windows(options: argparse.Namespace) -> SlidingWindow | None:
    from napari_xai_med.models.sliding_window import SlidingWindow

    if options.window is None:
        return None
    return SlidingWindow(options.window, options.aggregate, options.overlap, options.window_batch)


def _trust(options: argparse.Namespace) -> int:
    from napari_xai_med.models import trust_bundle
    from napari_xai_med.models.trusted import revoke, trusted_bundles

    if options.add is not None:
        trust_bundle(options.add)
    if options.revoke is not None:
        print(f"{revoke(options.revoke)} is trusted no more.")
    for sha256, bundle in trusted_bundles().items():
        print(f"{sha256[:16]}  {bundle['since']}  {bundle['name']}")
    return 0


def _demo(options: argparse.Namespace) -> int:
    from napari_xai_med.io import read_image
    from napari_xai_med.models import load_model
    from napari_xai_med.request import ExplainRequest
    from napari_xai_med.samples import sample_files

    if options.headless:
        image, classifier = read_image(sample_files(_DEMO_IMAGE)[0]), load_model(_DEMO_MODEL)
        _explain_and_save(image, classifier, ExplainRequest(), options.out)
        return 0
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise InputError("There is no display to open napari on; use: napari-xai-med demo --headless --out DIR.")
    return _demo_window()


def _demo_window() -> int:
    import napari

    viewer = napari.Viewer(title=f"napari-xai-med demo. {DISCLAIMER}")
    viewer.open_sample("napari-xai-med", _DEMO_IMAGE)
    _, widget = viewer.window.add_plugin_dock_widget("napari-xai-med", "Explain a classifier")
    widget.explain(viewer.layers[_DEMO_IMAGE], _DEMO_MODEL)
    napari.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
