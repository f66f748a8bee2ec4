"""Options of dataclasses as options of the command line; see `napari_xai_med.options`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from napari_xai_med.options import FILES, LAYERS, entry_type, option_fields, parse

PREFIX = "option_"
"""What the names of options begin with in what argparse gives."""


def add_options(group: Any, kind: type, prefix: str = "") -> None:
    """Add each option of a dataclass to a group of a parser; those that are not given are left out of the result.

    Parameters
    ----------
    group : argparse group
    kind : type
    prefix : str
        What their names begin with on the command line, to tell them from those of another dataclass.
    """
    for item in option_fields(kind):
        choices = item.metadata["choices"] if item.metadata["choices"] not in (LAYERS, FILES) else None
        entry = entry_type(item)
        extra: dict[str, Any] = (
            {"action": argparse.BooleanOptionalAction}
            if isinstance(item.default, bool)
            else {"type": reader(item.default, entry), "choices": choices or None}
        )
        if isinstance(item.default, tuple) and entry is str:
            # Given again it adds to what was given before.
            extra |= {"action": "extend", "metavar": "NAME,NAME" if item.metadata["choices"] == LAYERS else "FILE,FILE"}
        elif not isinstance(item.default, bool) and not choices:
            extra["metavar"] = "N,N" if isinstance(item.default, tuple) else {int: "N", float: "X", str: "TEXT"}[entry]
        group.add_argument(
            f"--{prefix}{item.name.replace('_', '-')}",
            dest=f"{prefix}{PREFIX}{item.name}",
            default=argparse.SUPPRESS,
            help=item.metadata["text"],
            **extra,
        )


def chosen_options(options: argparse.Namespace, prefix: str = "") -> dict[str, Any]:
    """The options that were given, by their names; `prefix` as for `add_options`."""
    start = prefix + PREFIX
    # What was given several times is a list.
    return {
        key.removeprefix(start): tuple(value) if isinstance(value, list) else value
        for key, value in vars(options).items()
        if key.startswith(start)
    }


def reader(default: Any, entry: type = int) -> Callable[[str], Any]:
    """What reads an option from the command line."""

    def read(text: str) -> Any:
        return parse(text, default, entry)

    # argparse says "invalid list of numbers value".
    read.__name__ = "list of numbers" if isinstance(default, tuple) else type(default).__name__
    return read
