"""Load a classifier from a MONAI bundle folder.

https://docs.monai.io/en/stable/mb_specification.html: `configs/metadata.json`, `configs/inference.json`
with `network_def` and `preprocessing`, and a state dict in `models/model.pt`.
"""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_xai_med.errors import ModelError
from napari_xai_med.models.classifier import Classifier
from napari_xai_med.models.head import Head
from napari_xai_med.models.trust import refuse_untrusted
from napari_xai_med.samples import embedded_classifiers

if TYPE_CHECKING:
    from torch import Tensor, nn

_WEIGHTS = "models/model.pt"
_KEY = "image"


def load_bundle(folder: Path, *, trust: bool = False) -> Classifier:
    """Load the classifier in a bundle folder.

    Parameters
    ----------
    folder : Path
    trust : bool
        Allow what `napari_xai_med.models.trust` refuses: the bundle may then run its author's code.

    Raises
    ------
    ModelError
        If a file is missing or does not fit the others.
    UntrustedError
        If the configuration would run code and `trust` is False.
    """
    config = _read_json(folder / "configs" / "inference.json")
    metadata = _read_json(folder / "configs" / "metadata.json")
    own = metadata.get("napari_xai_med", {})
    network_key = "network_def" if "network_def" in config else "network"
    for key in (network_key, "preprocessing"):
        if key not in config:
            raise ModelError(f"{folder.name} has no {key} in configs/inference.json; add it.")
    if not trust:
        refuse_untrusted(config, network_key, "preprocessing")
    network = _build(folder, config, network_key)
    _load_weights(network, folder / _WEIGHTS)
    network.eval()
    names = _class_names(metadata, folder)
    inputs = _input_format(metadata, folder)
    return Classifier(
        name=str(metadata.get("name") or folder.name),
        network=network,
        preprocessing=_preprocessing(folder, config),
        class_names=names,
        head=_head(metadata, folder),
        spatial_dims=int(own.get("spatial_dims") or len(inputs.get("spatial_shape") or (0, 0, 0))),
        channels=int(inputs.get("num_channels", 1)),
        sha256=_hash(folder),
        source=_source(folder),
        output=own.get("output"),
        facts=metadata,
    )


def read_class_names(folder: Path) -> tuple[str, ...]:
    """The class names in a bundle folder, without loading anything else of it."""
    return _class_names(_read_json(folder / "configs" / "metadata.json"), folder)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        folder = path.parent.parent
        raise ModelError(f"{folder} is not a MONAI bundle folder: configs/{path.name} is missing.") from error
    except ValueError as error:
        raise ModelError(f"{path} is not valid JSON: {error}.") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path} does not hold a JSON object; see the MONAI bundle specification.")
    return content


def _build(folder: Path, config: dict[str, Any], key: str) -> Any:
    from monai.bundle import ConfigParser

    parser = ConfigParser(config)
    parser["bundle_root"] = str(folder)
    try:
        return parser.get_parsed_content(key)
    except (RuntimeError, TypeError, ValueError, KeyError, ImportError) as error:
        cause = error.__cause__ or error
        raise ModelError(f"{key} of {folder.name} can't be built: {cause}.") from error


def _preprocessing(folder: Path, config: dict[str, Any]) -> Callable[[Tensor], Tensor]:
    """The bundle's transforms behind the reading of the file, which has been done."""
    from monai.transforms import Compose

    transform = _build(folder, config, "preprocessing")
    steps = transform.transforms if isinstance(transform, Compose) else [transform]
    # The image is read already and has its channels first.
    reading = ("LoadImage", "EnsureChannelFirst")
    rest = Compose([step for step in steps if not type(step).__name__.startswith(reading)])

    def apply(image: Tensor) -> Tensor:
        try:
            result: Tensor = rest({_KEY: image})[_KEY]
        except (RuntimeError, KeyError, ValueError) as error:
            cause = error.__cause__ or error
            raise ModelError(f"The preprocessing of {folder.name} failed on this image: {cause}.") from error
        return result

    return apply


def _load_weights(network: nn.Module, path: Path) -> None:
    import torch

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ModelError(f"The bundle has no weights: {path} is missing.") from error
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise ModelError(
            f"{path} is not a plain state dict: save it with torch.save(network.state_dict(), ...)."
        ) from error
    for key in ("state_dict", "model", "net"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    try:
        network.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as error:
        first = str(error).splitlines()
        raise ModelError(f"The weights in {path} do not fit the network: {' '.join(first[:2]).strip()}.") from error


def _input_format(metadata: dict[str, Any], folder: Path) -> dict[str, Any]:
    inputs = metadata.get("network_data_format", {}).get("inputs", {})
    if not inputs:
        raise ModelError(
            f"{folder.name} does not say what its network takes; add network_data_format to metadata.json."
        )
    chosen = inputs.get(_KEY) or next(iter(inputs.values()))
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


def _hash(folder: Path) -> str:
    """Of everything that decides what the classifier answers."""
    digest = hashlib.sha256()
    for name in ("configs/inference.json", "configs/metadata.json", _WEIGHTS):
        digest.update((folder / name).read_bytes())
    return digest.hexdigest()


def _source(folder: Path) -> str:
    """An embedded classifier is known by its name wherever the package is installed."""
    return folder.name if embedded_classifiers().get(folder.name) == folder else str(folder)
