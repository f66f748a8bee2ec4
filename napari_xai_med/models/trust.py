"""What a bundle's configuration may name without running code that its author chose.

A MONAI configuration can name any Python callable as `_target_` and any expression after `$`. Here only
classes of networks and transforms are built, and only from the packages below.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pydoc import locate
from typing import Any

from napari_xai_med.errors import UntrustedError

TRUSTED_PACKAGES = ("monai.networks.", "monai.transforms.", "torch.nn.", "napari_xai_med.")

OWN_FUNCTIONS = ("napari_xai_med.models.architectures.build",)
"""Not a class, but ours: it builds networks by name, and only those of the registry."""

_HOW = "if you trust its author, say so: trust=True in Python, --trust on the command line, 'Trust' in the widget"
_POWERFUL_TRANSFORMS = re.compile(r"^(Rand)?(Save|Write|Lambda|TorchVision|TorchIO)")


def without_code(config: dict[str, Any], *roots: str) -> dict[str, Any]:
    """The parts of a configuration that will be built, if they can't run code.

    Parameters
    ----------
    config : dict
        The bundle's configuration.
    *roots : str
        Its keys that will be built; what they refer to is kept and checked with them.

    Returns
    -------
    dict
        Those keys only: nothing that was not checked reaches MONAI's parser.

    Raises
    ------
    UntrustedError
        At the first expression, macro or foreign class.
    """
    kept = _reachable(config, roots)
    for entry in _entries(kept):
        if isinstance(entry, dict):
            if "_mode_" in entry:
                _refuse(f"it sets _mode_ to {entry['_mode_']!r}")
            if "_target_" in entry:
                _check_target(entry["_target_"])
        elif entry.startswith(("$", "%")):
            _refuse(f"it holds the expression {entry!r}")
    return kept


def _reachable(config: dict[str, Any], roots: tuple[str, ...]) -> dict[str, Any]:
    """The roots, and the keys at the top that their references lead to."""
    kept: dict[str, Any] = {}
    waiting = list(roots)
    while waiting:
        key = waiting.pop()
        if key in config and key not in kept:
            kept[key] = config[key]
            references = " ".join(e for e in _entries(config[key]) if isinstance(e, str) and "@" in e)
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


def _check_target(target: Any) -> None:
    if target in OWN_FUNCTIONS:
        return
    found = locate_class(target) if isinstance(target, str) else None
    if found is None:
        _refuse(f"it builds {target!r}, which is not a network or transform of MONAI or PyTorch")
    elif _POWERFUL_TRANSFORMS.search(found.__name__):
        _refuse(f"it uses {found.__name__}, which can write files or run code")


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
    if isinstance(found, type) and issubclass(found, bases) and found.__module__.startswith(TRUSTED_PACKAGES):
        return found
    return None


def _refuse(what: str) -> None:
    raise UntrustedError(f"The bundle's configuration was refused because {what}; {_HOW}.")
