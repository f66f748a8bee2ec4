"""The command line: napari-xai-med demo, predict, explain, evaluate, slices, channels, features and others.

Exit codes: 0 done, 1 a record was computed again and differs, 2 the command, the image or an option is
wrong, 3 the classifier can't be used, 4 a file was refused as untrusted, 130 stopped by the user.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from napari_xai_med.attribution import DISCLAIMER
from napari_xai_med.commands import channels, evaluate, explain, inside, pack, slices
from napari_xai_med.commands.common import add_common, asked, progress, show_prediction
from napari_xai_med.errors import Cancelled, InputError, ModelError, UntrustedError, XAIMedError

_DEMO_IMAGE, _DEMO_MODEL = "chest_ct_lesion", "chest_ct_3d"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        options = _parser(_kinds_in(words)).parse_args(words)
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


def _kinds_in(words: list[str]) -> argparse.Namespace:
    """The methods, the segmenter and the rule that the command names, which decide what options there are."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--method", default="")
    first.add_argument("--segments", default=explain.SEGMENTER)
    first.add_argument("--volume-method", default=explain.METHOD)
    first.add_argument("--rule", default=slices.RULE)
    return first.parse_known_args(words)[0]


def _parser(kinds: argparse.Namespace) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="napari-xai-med", description=f"Explain what a trained network says about a medical image. {DISCLAIMER}"
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    demo = commands.add_parser("demo", help="open napari with a sample classified and explained")
    demo.add_argument("--headless", action="store_true", help="write files instead of opening a window")
    demo.add_argument("--out", type=Path, default=Path("xai-med-demo"), help="folder for --headless (%(default)s)")
    demo.set_defaults(run=_demo)
    predict = commands.add_parser("predict", help="print the probabilities of all classes")
    add_common(predict)
    predict.set_defaults(run=_predict)
    layers = commands.add_parser("layers", help="list the layers that an explanation can use for this image")
    add_common(layers)
    layers.set_defaults(run=_layers)
    explain.add_command(commands, kinds.method or explain.METHOD, kinds.segments)
    slices.add_command(commands, kinds)
    channels.add_command(commands)
    evaluate.add_command(commands)
    inside.add_commands(commands)
    trust = commands.add_parser("trust", help="list the bundles that may run their author's code; add or revoke one")
    trust.add_argument("--add", type=Path, metavar="M", help="trust this bundle, as it is now, for good")
    trust.add_argument("--revoke", metavar="HASH", help="trust the bundle no more whose hash starts like this")
    trust.set_defaults(run=_trust)
    pack.add_command(commands)
    return parser


def _predict(options: argparse.Namespace) -> int:
    from napari_xai_med.pipeline import predict_request

    image, classifier, request = asked(options)
    show_prediction(image, classifier, predict_request(image, classifier, request, progress()))
    return 0


def _layers(options: argparse.Namespace) -> int:
    from napari_xai_med.pipeline import layers_for

    image, classifier, request = asked(options)
    layers, default = layers_for(image, classifier, request)
    for layer in layers:
        size = " x ".join(map(str, layer.shape))
        mark = "  (default)" if layer.name == default else ""
        print(f"{layer.name}  {layer.kind}  {layer.channels} maps of {size}{mark}")
    return 0


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
        explain.explain_and_save(image, classifier, ExplainRequest(), options.out)
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
