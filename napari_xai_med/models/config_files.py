"""Read a bundle's configurations: JSON and YAML of a size and depth that people write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from napari_xai_med.errors import ModelError, XAIMedError, told_as

LARGEST_CONFIG = 1_000_000
"""Bytes of a configuration; those of published bundles have some ten thousand."""

LARGEST_CONTENT = 100_000
"""Entries in a configuration, those counted twice that it refers to twice."""

_DEEPEST = 50


def find_config(folder: Path, name: str) -> Path:
    """The file of a configuration, JSON or YAML."""
    for suffix in (".json", ".yaml", ".yml"):
        path = folder / "configs" / f"{name}{suffix}"
        if path.is_file():
            return path
    raise ModelError(f"{folder} is not a MONAI bundle folder: configs/{name}.json is missing.")


def config_bytes(path: Path, kind: type[XAIMedError] = ModelError) -> bytes:
    """A configuration as it is on the disk: what is hashed has to be what is read.

    Raises
    ------
    XAIMedError
        Of this kind, if it can't be read or is too large.
    """
    with told_as(kind, f"{path} can't be read: {{}}"), path.open("rb") as file:
        content = file.read(LARGEST_CONFIG + 1)
    if len(content) > LARGEST_CONFIG:
        raise kind(f"{path} has more than {LARGEST_CONFIG // 1_000_000} MB, which no configuration needs.")
    return content


def parsed_config(content: bytes, path: Path) -> dict[str, Any]:
    """The content of a configuration.

    Parameters
    ----------
    content : bytes
    path : Path
        Where it is from; the suffix tells JSON from YAML.

    Raises
    ------
    ModelError
        If it is damaged, nested without end or not an object.
    """
    read, kind = (json.loads, "JSON") if path.suffix == ".json" else (_yaml, "YAML")
    with told_as(ModelError, f"{path} is not valid {kind}: {{}}"):
        parsed = read(content.decode("utf-8"))
    if not isinstance(parsed, dict):
        raise ModelError(f"{path} does not hold an object; see the MONAI bundle specification.")
    check_content(parsed, str(path))
    return parsed


def check_content(content: Any, where: str) -> None:
    """Raise a `ModelError` if dicts and lists in each other have no end that is near."""
    waiting = [(content, 0)]
    seen = 0
    while waiting:
        entry, depth = waiting.pop()
        seen += 1
        if isinstance(entry, dict | list):
            inside = list(entry.values()) if isinstance(entry, dict) else entry
            waiting.extend((part, depth + 1) for part in inside)
        if depth > _DEEPEST or seen + len(waiting) > LARGEST_CONTENT:
            raise ModelError(f"{where} is nested too deep or too large; write a plain configuration.")


def _yaml(text: str) -> Any:
    import yaml

    class Plain(yaml.SafeLoader):
        """Without aliases, a few of which stand for more than fits any memory."""

        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                raise yaml.YAMLError("it has an alias (*); write out what it stands for")
            return super().compose_node(parent, index)

    try:
        return yaml.load(text, Plain)
    except yaml.YAMLError as error:
        # Their messages have several lines.
        raise ValueError(" ".join(str(error).split())) from error
