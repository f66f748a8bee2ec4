"""What a bundle's configuration may name without running code that its author chose.

A MONAI configuration can name any Python callable as `_target_` and any expression after `$`. Here only
classes of networks and transforms are built, and only from the packages below.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from inspect import signature
from pydoc import locate
from typing import Any, NoReturn

from napari_xai_med.errors import UntrustedError

TRUSTED_PACKAGES = (
    *("monai.networks.", "monai.transforms.", "torch.nn."),
    *("napari_xai_med.models.architectures.", "napari_xai_med.models.small_cnn."),
    "napari_xai_med.preprocessing.transforms.",
)

OWN_FUNCTIONS = ("napari_xai_med.models.architectures.build",)
"""Not a class, but ours: it builds networks by name, and only those of the registry."""

READERS = ("ITKReader", "NibabelReader", "NrrdReader", "NumpyReader", "PILReader", "PydicomReader")
"""What a step that reads files may name as its reader; MONAI would look any other name up and call it."""

_PLAIN_KEYS = ("_target_", "_disabled_", "_requires_")
"""Keys with a meaning for MONAI's parser that can't run anything; `_mode_` and `_debug_` start a debugger."""

_TYPES = {
    **{
        name: name for name in ("float16", "bfloat16", "float32", "float64", "uint8", "int8", "int16", "int32", "int64")
    },
    **{"half": "float16", "float": "float32", "double": "float64", "short": "int16", "int": "int32", "long": "int64"},
    "bool": "bool",
}
_TYPE = re.compile(r"\$\s*(?:torch|np|numpy)\.(\w+)\s*")
_DEVICE = re.compile(r"\$\s*torch\.device\((?:[^()]|\([^()]*\))*\)\s*")
_REFERENCE = re.compile(r"@[\w#:]+")

_HOW = "if you trust its author, say so: trust=True in Python, --trust on the command line, 'Trust' in the widget"
_LONGEST = 300
_POWERFUL = re.compile(r"^(Rand)?(Save|Write|Lambda|TorchVision|TorchIO|CuCIM)|^Transchex$")


def without_code(config: dict[str, Any], *roots: str, reading: bool = True) -> dict[str, Any]:
    """The parts of a configuration that will be built, if they can't run code.

    Parameters
    ----------
    config : dict
        The bundle's configuration.
    *roots : str
        Its keys that will be built; what they refer to is kept and checked with them.
    reading : bool
        Whether steps that read files may be there. Bundles begin with one, which is left out when they are used.

    Returns
    -------
    dict
        Those keys only: nothing that was not checked reaches MONAI's parser. Classes have the full names of
        those that were checked: to MONAI a short name may be that of another one.

    Raises
    ------
    UntrustedError
        At the first expression, macro or foreign class.
    """
    kept: dict[str, Any] = _reachable(plain_values(config), roots)
    for entry in _entries(kept):
        if isinstance(entry, dict):
            for key in entry:
                plain = key in _PLAIN_KEYS or (key == "_mode_" and entry[key] == "default")
                if key.startswith("_") and key.endswith("_") and not plain:
                    _refuse(f"it sets {key} to {entry[key]!r}")
            if "_target_" in entry:
                _check_target(entry, reading=reading)
        elif entry.startswith(("$", "%")):
            _refuse(f"it holds the expression {entry!r}")
    return kept


def plain_values(content: Any) -> Any:
    """A copy of a configuration with the expressions that published bundles write for plain values as these values.

    A type of numbers becomes its name, a device the processor, where images are prepared; descriptions are left out.
    """
    if isinstance(content, dict):
        return {key: plain_values(value) for key, value in content.items() if key != "_desc_"}
    if isinstance(content, list):
        return [plain_values(value) for value in content]
    if isinstance(content, str):
        found = _TYPE.fullmatch(content)
        if found and found[1] in _TYPES:
            return _TYPES[found[1]]
        return "cpu" if _DEVICE.fullmatch(content) else content
    return content


def _reachable(config: dict[str, Any], roots: tuple[str, ...]) -> dict[str, Any]:
    """The roots, and the keys at the top that their references lead to."""
    kept: dict[str, Any] = {}
    waiting = list(roots)
    while waiting:
        key = waiting.pop()
        if key in config and key not in kept:
            kept[key] = config[key]
            # To MONAI a text is a reference only as a whole, unless it is an expression, which is refused.
            texts = (e for e in _entries(config[key]) if isinstance(e, str))
            references = " ".join(text for text in texts if _REFERENCE.fullmatch(text))
            # A relative reference (@##name) may lead to the top as well, so that every part is followed.
            waiting += re.findall(r"\w+", references)
    return kept


def _entries(content: Any) -> Iterator[dict[str, Any] | str]:
    """Every dict and string in a configuration, keys included."""
    waiting = [content]
    while waiting:
        entry = waiting.pop()
        if isinstance(entry, dict | str):
            yield entry
        if isinstance(entry, dict):
            waiting.extend((*entry.keys(), *entry.values()))
        elif isinstance(entry, list):
            waiting.extend(entry)


def _check_target(entry: dict[str, Any], *, reading: bool) -> None:
    """Refuse what an entry builds, or put the class's full name in."""
    target = entry["_target_"]
    if target in OWN_FUNCTIONS:
        return
    found = locate_class(target) if isinstance(target, str) else None
    if found is None:
        _refuse(f"it builds {target!r}, which is not a network or transform of MONAI or PyTorch")
    if _POWERFUL.search(found.__name__):
        _refuse(f"it uses {found.__name__}, which can write files or run code")
    if found.__name__.startswith("LoadImage"):
        _check_reader(found.__name__, entry.get("reader"), reading=reading)
    _check_download(found, entry)
    entry["_target_"] = f"{found.__module__}.{found.__qualname__}"


def _check_reader(name: str, readers: Any, *, reading: bool) -> None:
    if not reading:
        _refuse(f"it uses {name} after the image was read")
    for reader in readers if isinstance(readers, list) else [readers]:
        if reader is not None and str(reader).removeprefix("monai.data.") not in READERS:
            _refuse(f"it reads files with {reader!r}, which is not one of {', '.join(READERS)}")


def _check_download(found: type, entry: dict[str, Any]) -> None:
    """Refuse weights from the internet: they are fetched when a network is built, and replaced right after."""
    from torch.nn import Module

    if not issubclass(found, Module):
        return
    defaults = {key: item.default for key, item in signature(found).parameters.items()}
    for key in {*defaults, *entry}:
        fetches = key.startswith("pretrained") or key == "weights"
        if fetches and entry.get(key, defaults.get(key)) not in (None, False):
            _refuse(f"{found.__name__} would download weights; its author should set {key} to false")


def locate_class(target: str) -> type | None:
    """The network or transform class that `target` names, if it is one of a trusted package."""
    import monai.networks.nets
    import monai.transforms
    import torch

    if "." in target:
        # Only trusted names are resolved at all: resolving imports, and importing runs code.
        found = locate(target) if target.startswith(TRUSTED_PACKAGES) else None
    else:
        found = getattr(monai.transforms, target, None) or getattr(monai.networks.nets, target, None)
    bases = (torch.nn.Module, monai.transforms.Transform)
    if isinstance(found, type) and issubclass(found, bases) and f"{found.__module__}.".startswith(TRUSTED_PACKAGES):
        return found if locate(f"{found.__module__}.{found.__qualname__}") is found else None
    return None


def _refuse(what: str) -> NoReturn:
    short = what if len(what) <= _LONGEST else f"{what[:_LONGEST]}…"
    raise UntrustedError(f"The bundle's configuration was refused because {short}; {_HOW}.")
