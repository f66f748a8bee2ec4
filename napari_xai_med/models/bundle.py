"""Load a classifier from a MONAI bundle.

https://docs.monai.io/en/stable/mb_specification.html: `configs/metadata.json`, `configs/inference.json`
with `network_def` and `preprocessing`, and the network's file `models/model.*` in one of our formats.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_xai_med.errors import InputError, ModelError, one_line, told_as
from napari_xai_med.models.bundle_files import find_weights, opened, read_files
from napari_xai_med.models.classifier import Classifier
from napari_xai_med.models.config_files import check_content, config_bytes, find_config, parsed_config
from napari_xai_med.models.metadata import names_and_head, read_metadata
from napari_xai_med.models.own_code import own_code
from napari_xai_med.models.size_guard import SizeGuard
from napari_xai_med.models.trust import plain_values, without_code
from napari_xai_med.models.trusted import trusted_bundles
from napari_xai_med.preprocessing.base import (
    KEY,
    READING,
    READING_NAMES,
    REMOVED,
    AnyStep,
    applied,
    plain_name,
    read_steps,
)
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
    with opened(source) as folder, told_as(ModelError, f"{source} can't be loaded: {{}}"):
        files = read_files(folder)
        known = read_metadata(files.metadata, source.name)
        trusted = trust or files.sha256 in trusted_bundles()
        path, kind = find_weights(folder)
        network_key = "network_def" if "network_def" in files.inference else "network"
        config = _checked(files.inference, source, () if kind.has_architecture else (network_key,), trusted=trusted)
        kind_of_file = kind()
        with own_code(folder) if trusted else nullcontext():
            network = kind_of_file.load(path, lambda: _build(folder, source, config, network_key, path)).eval()
            preprocessing, key = _preprocessing(folder, source, config, files.metadata)
        return Classifier(
            name=known.name,
            network=network,
            preprocessing=preprocessing,
            steps=_steps(config, key),
            class_names=known.class_names,
            head=known.head,
            spatial_dims=known.spatial_dims,
            channels=known.channels,
            sha256=files.sha256,
            source=_source(source),
            output=known.output,
            facts=files.metadata,
            gives=kind_of_file.gives_of(network),
            trusted=trusted,
            windows=known.windows,
        )


def read_class_names(source: Path) -> tuple[str, ...]:
    """The class names in a bundle, without loading anything else of it."""
    with opened(source, only="configs") as folder:
        path = find_config(folder, "metadata")
        return names_and_head(parsed_config(config_bytes(path), path), source.name)[0]


def _checked(config: dict[str, Any], source: Path, network_key: tuple[str, ...], *, trusted: bool) -> dict[str, Any]:
    """The configuration, and if it is not trusted only what will be built of it."""
    needed = (*network_key, "preprocessing")
    for key in needed:
        if key not in config:
            raise ModelError(f"{source.name} has no {key} in configs/inference.json; add it.")
    config = _with_known_reading(config)
    return config if trusted else without_code(config, *needed)


def _with_known_reading(content: Any) -> Any:
    """A copy of a configuration with a step of reading that MONAI has in the place of those that it had once."""
    if isinstance(content, dict):
        target = content.get("_target_")
        if isinstance(target, str) and plain_name(target) in REMOVED:
            return dict(READING[1])
        return {key: _with_known_reading(value) for key, value in content.items()}
    return [_with_known_reading(value) for value in content] if isinstance(content, list) else content


def _build(folder: Path, source: Path, config: dict[str, Any], key: str, weights: Path | None = None) -> Any:
    """Build a part of the configuration; a network not larger than its weights."""
    from monai.bundle import ConfigParser

    parser = ConfigParser(config)
    # Resolved: MONAI takes a text that begins with $ for an expression.
    parser["bundle_root"] = str(folder.resolve())
    try:
        with SizeGuard.for_weights(weights.stat().st_size) if weights else nullcontext():
            return parser.get_parsed_content(key)
    except ModelError:
        raise
    except Exception as error:
        # MONAI tells the reason in another error than the one it raises.
        cause = next((e for e in _causes(error) if isinstance(e, ModelError)), None)
        if cause is not None:
            raise cause from None
        raise ModelError(f"{key} of {source.name} can't be built: {one_line(error.__cause__ or error)}.") from error


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _preprocessing(
    folder: Path, source: Path, config: dict[str, Any], metadata: dict[str, Any]
) -> tuple[Callable[[Tensor], Tensor], str]:
    """The bundle's transforms behind the reading of the file, which has been done, and what they call the image."""
    from monai.transforms import Compose, Transform

    transform = _build(folder, source, config, "preprocessing")
    if not isinstance(transform, Transform):
        raise ModelError(f"The preprocessing of {source.name} is no transform of MONAI; correct it.")
    steps = transform.flatten().transforms if isinstance(transform, Compose) else [transform]
    # The image is read already and has its channels first.
    steps = [step for step in steps if not type(step).__name__.startswith(READING_NAMES)]
    key = _image_key(steps, metadata, source.name)
    return applied(Compose(steps), source.name, key), key


def _image_key(steps: Sequence[Any], metadata: dict[str, Any], name: str) -> str:
    """What transforms of dictionaries call the image."""
    from monai.transforms import MapTransform

    used = {str(key) for step in steps if isinstance(step, MapTransform) for key in step.keys}
    if not used or KEY in used:
        return KEY
    if len(used) == 1:
        return used.pop()
    inputs = metadata.get("network_data_format", {}).get("inputs", {})
    if len(inputs) == 1 and used.issuperset(inputs):
        return str(next(iter(inputs)))
    raise ModelError(
        f"The preprocessing of {name} works on {', '.join(sorted(used))}, and which is the image is not told; call it "
        f"{KEY!r} in configs/inference.json."
    )


def _steps(config: dict[str, Any], key: str) -> tuple[AnyStep, ...] | None:
    """The preprocessing as steps that can be seen and changed; None if a configuration can't say it."""
    from monai.bundle import ConfigParser

    try:
        content = ConfigParser(plain_values(config)).get_parsed_content("preprocessing", instantiate=False)
        content = _plain(content, {})
        check_content(content, "preprocessing")
        json.dumps(content)
        entries = content.get("transforms", [content]) if str(content["_target_"]).endswith("Compose") else [content]
        return read_steps([_renamed(entry, key) for entry in entries])
    except (RuntimeError, TypeError, ValueError, KeyError, InputError):
        return None


def _renamed(entry: dict[str, Any], key: str) -> dict[str, Any]:
    """A transform of the image under our name for it."""
    return {k: KEY if k.endswith(("key", "keys")) and v in (key, [key]) else v for k, v in entry.items()}


def _plain(content: Any, made: dict[int, Any]) -> Any:
    """A resolved configuration as dicts and lists; what is in it twice is made once, however often it is meant."""
    from monai.bundle import ConfigItem

    content = content.get_config() if isinstance(content, ConfigItem) else content
    if id(content) in made:
        return made[id(content)]
    if isinstance(content, dict):
        made[id(content)] = {key: _plain(value, made) for key, value in content.items()}
    elif isinstance(content, list):
        made[id(content)] = [_plain(value, made) for value in content]
    return made.get(id(content), content)


def _source(folder: Path) -> str:
    """An embedded classifier is known by its name wherever the package is installed."""
    return folder.name if embedded_classifiers().get(folder.name) == folder else str(folder)
