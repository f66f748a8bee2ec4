"""Load a classifier from a MONAI bundle.

https://docs.monai.io/en/stable/mb_specification.html: `configs/metadata.json`, `configs/inference.json`
with `network_def` and `preprocessing`, and the network's file `models/model.*` in one of our formats.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from pydoc import ErrorDuringImport
from typing import TYPE_CHECKING, Any

from napari_xai_med.errors import InputError, ModelError
from napari_xai_med.models.bundle_files import content_hash, find_weights, opened, read_config
from napari_xai_med.models.classifier import Classifier
from napari_xai_med.models.head import Head
from napari_xai_med.models.own_code import own_code
from napari_xai_med.models.sliding_window import SlidingWindow
from napari_xai_med.models.trust import without_code
from napari_xai_med.models.trusted import trusted_bundles
from napari_xai_med.preprocessing.base import KEY, READING, AnyStep, applied, read_steps
from napari_xai_med.samples import embedded_classifiers

if TYPE_CHECKING:
    from torch import Tensor


def load_bundle(source: Path, *, trust: bool = False) -> Classifier:
    """Load the classifier in a bundle.

    Parameters
    ----------
    source : Path
        Its folder or zip archive.
    trust : bool
        Allow this once what `napari_xai_med.models.trust` refuses: the bundle may then run its author's
        code. Bundles that the user trusts for good are allowed it anyway.

    Raises
    ------
    ModelError
        If a file is missing or does not fit the others.
    UntrustedError
        If the configuration would run code and `trust` is False.
    """
    with ExitStack() as stack:
        folder = stack.enter_context(opened(source))
        config, metadata = read_config(folder, "inference"), read_config(folder, "metadata")
        path, kind = find_weights(folder)
        network_key = "network_def" if "network_def" in config else "network"
        needed = ("preprocessing",) if kind.has_architecture else (network_key, "preprocessing")
        for key in needed:
            if key not in config:
                raise ModelError(f"{source.name} has no {key} in configs/inference.json; add it.")
        sha256 = content_hash(folder)
        trusted = trust or sha256 in trusted_bundles()
        if trusted:
            stack.enter_context(own_code(folder))
        else:
            config = without_code(config, *needed)
        kind_of_file = kind()
        network = kind_of_file.load(path, lambda: _build(source, config, network_key)).eval()
        own, inputs = metadata.get("napari_xai_med", {}), _input_format(metadata, source)
        return Classifier(
            name=str(metadata.get("name") or source.name),
            network=network,
            preprocessing=_preprocessing(source, config),
            steps=_steps(config),
            class_names=_class_names(metadata, source),
            head=_head(metadata, source),
            spatial_dims=int(own.get("spatial_dims") or len(inputs.get("spatial_shape") or (0, 0, 0))),
            channels=int(own.get("image_channels", inputs.get("num_channels", 1))),
            sha256=sha256,
            source=_source(source),
            output=own.get("output"),
            facts=metadata,
            gives=kind_of_file.gives_of(network),
            trusted=trusted,
            windows=_windows(own, source),
        )


def read_class_names(source: Path) -> tuple[str, ...]:
    """The class names in a bundle, without loading anything else of it."""
    with opened(source) as folder:
        return _class_names(read_config(folder, "metadata"), source)


def _build(folder: Path, config: dict[str, Any], key: str) -> Any:
    from monai.bundle import ConfigParser

    parser = ConfigParser(config)
    parser["bundle_root"] = str(folder)
    try:
        return parser.get_parsed_content(key)
    except (RuntimeError, TypeError, ValueError, KeyError, ImportError, ErrorDuringImport) as error:
        cause = str(error.__cause__ or error).rstrip(".")
        raise ModelError(f"{key} of {folder.name} can't be built: {cause}.") from error


def _preprocessing(folder: Path, config: dict[str, Any]) -> Callable[[Tensor], Tensor]:
    """The bundle's transforms behind the reading of the file, which has been done."""
    from monai.transforms import Compose

    transform = _build(folder, config, "preprocessing")
    steps = transform.transforms if isinstance(transform, Compose) else [transform]
    # The image is read already and has its channels first.
    reading = tuple(str(entry["_target_"]).removesuffix("d") for entry in READING)
    return applied(Compose([step for step in steps if not type(step).__name__.startswith(reading)]), folder.name)


def _steps(config: dict[str, Any]) -> tuple[AnyStep, ...] | None:
    """The preprocessing as steps that can be seen and changed; None if a configuration can't say it."""
    from monai.bundle import ConfigParser

    try:
        content = _plain(ConfigParser(config).get_parsed_content("preprocessing", instantiate=False))
        json.dumps(content)
        entries = content.get("transforms", [content]) if str(content["_target_"]).endswith("Compose") else [content]
        return read_steps(entries)
    except (RuntimeError, TypeError, ValueError, KeyError, InputError):
        return None


def _plain(content: Any) -> Any:
    """A resolved configuration as dicts and lists."""
    from monai.bundle import ConfigItem

    content = content.get_config() if isinstance(content, ConfigItem) else content
    if isinstance(content, dict):
        return {key: _plain(value) for key, value in content.items()}
    return [_plain(value) for value in content] if isinstance(content, list) else content


def _input_format(metadata: dict[str, Any], folder: Path) -> dict[str, Any]:
    inputs = metadata.get("network_data_format", {}).get("inputs", {})
    if not inputs:
        raise ModelError(
            f"{folder.name} does not say what its network takes; add network_data_format to metadata.json."
        )
    chosen = inputs.get(KEY) or next(iter(inputs.values()))
    return dict(chosen)


def _output_names(metadata: dict[str, Any], folder: Path) -> tuple[str, ...]:
    outputs = metadata.get("network_data_format", {}).get("outputs", {})
    output: dict[str, Any] = outputs.get("pred") or next(iter(outputs.values()), {})
    names = output.get("channel_def", {})
    if not names:
        raise ModelError(f"{folder.name} has no class names; add outputs.pred.channel_def to metadata.json.")
    return tuple(str(names[key]) for key in sorted(names, key=int))


def _class_names(metadata: dict[str, Any], folder: Path) -> tuple[str, ...]:
    names = _output_names(metadata, folder)
    alone = len(names) == 1 and _head(metadata, folder) is Head.ONE_LOGIT
    return (f"not {names[0]}", names[0]) if alone else names


def _head(metadata: dict[str, Any], folder: Path) -> Head:
    """The stated head; without a statement one output is one logit, and more exclude each other."""
    stated = metadata.get("napari_xai_med", {}).get("head")
    if stated is None:
        return Head.ONE_LOGIT if len(_output_names(metadata, folder)) == 1 else Head.SOFTMAX
    try:
        return Head(stated)
    except ValueError as error:
        raise ModelError(f"There is no head {stated!r}; choose one of {', '.join(Head)}.") from error


def _windows(own: dict[str, Any], folder: Path) -> SlidingWindow | None:
    stated = own.get("sliding_window")
    try:
        return None if stated is None else SlidingWindow.from_dict(stated)
    except ModelError as error:
        raise ModelError(f"{folder.name} can't be used as its metadata.json says: {error}") from error


def _source(folder: Path) -> str:
    """An embedded classifier is known by its name wherever the package is installed."""
    return folder.name if embedded_classifiers().get(folder.name) == folder else str(folder)
