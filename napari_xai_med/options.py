"""Options of methods, architectures and preprocessing steps: fields of dataclasses that say what they may be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import Field, field, fields
from inspect import get_annotations
from math import isfinite
from typing import Any, TypeVar

from napari_xai_med.errors import InputError

Options = TypeVar("Options")

LAYERS = "layers"
"""As choices of an option: the names of the network's layers."""

FILES = "files"
"""As choices of an option: paths of image files."""


def option(
    default: Any,
    text: str,
    *,
    choices: str | Sequence[Any] = (),
    limits: tuple[float | None, float | None] = (None, None),
) -> Any:
    """A field of a dataclass that the user sets.

    Parameters
    ----------
    default : bool, int, float, str or tuple of numbers
        Its type is the option's.
    text : str
        What it does, for the widget's tooltip, the command line's help and the documentation.
    choices : sequence, or "layers" or "files"
        What it can be, if that is limited; "layers" stands for names of the network's layers, "files" for paths of
        images. Both need a tuple of texts.
    limits : (float or None, float or None)
        Smallest and largest number.
    """
    return field(default=default, metadata={"text": text, "choices": choices, "limits": limits})


def option_fields(kind: type) -> tuple[Field[Any], ...]:
    """The options of a dataclass, each with its default and, in its metadata, what `option` was given.

    A class's own come first and then those of its bases, from the nearest on.
    """
    known = {item.name: item for item in fields(kind) if "text" in item.metadata}
    order = dict.fromkeys(name for each in kind.__mro__ for name in get_annotations(each) if name in known)
    return tuple(known[name] for name in order)


def values_of(options: object) -> dict[str, Any]:
    """All options of an instance with their values."""
    return {item.name: getattr(options, item.name) for item in option_fields(type(options))}


def changed_of(options: object) -> str:
    """The options of an instance that are not at their defaults, such as ``"lower=0.3, shares=0.1 0.2"``."""
    changed = (item for item in option_fields(type(options)) if getattr(options, item.name) != item.default)
    return ", ".join(f"{item.name}={_shown(getattr(options, item.name))}" for item in changed)


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return " ".join(map(_shown, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def with_options(kind: type[Options], title: str, given: Mapping[str, Any]) -> Options:
    """An instance of an options dataclass, its values checked.

    Parameters
    ----------
    kind : type
        The dataclass.
    title : str
        How to call it in sentences.
    given : mapping
        Values by name; lists stand for tuples, as in JSON, and one text for a tuple of one.

    Raises
    ------
    InputError
        If there is no such option, or a value is not one that it can have.
    """
    known = {item.name: item for item in option_fields(kind)}
    values: dict[str, Any] = {}
    for key, value in given.items():
        if key not in known:
            raise InputError(f"{title} has no option {key!r}; it has {', '.join(sorted(known)) or 'none'}.")
        alone = isinstance(value, str) and entry_type(known[key]) is str and isinstance(known[key].default, tuple)
        values[key] = (value,) if alone else tuple(value) if isinstance(value, list) else value
        _check(known[key], values[key], title)
    return kind(**values)


def shared_options(kind: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Those of some values that an options dataclass can have as well, under the same names."""
    known = {item.name: item for item in option_fields(kind)}
    return {key: value for key, value in values.items() if key in known and _can_be(known[key], value)}


def check_options(options: object, title: str) -> None:
    """Raise an `InputError` if an option of an instance has a value that it can't have."""
    for item in option_fields(type(options)):
        _check(item, getattr(options, item.name), title)


def _check(item: Field[Any], value: Any, title: str) -> None:
    choices = item.metadata["choices"]
    if choices and choices not in (LAYERS, FILES) and value not in choices:
        allowed = ", ".join(map(repr, choices))
        raise InputError(f"{title} can't have {item.name} {value!r}; choose one of {allowed}.")
    if not _fits(value, item.default, entry_type(item)):
        raise InputError(f"{title} can't have {item.name} {value!r}; give it {_kind(item)}.")
    low, high = item.metadata["limits"]
    for number in value if isinstance(value, tuple) else (value,):
        if (low is not None and number < low) or (high is not None and number > high):
            most = "" if high is None else f" to {high:g}"
            raise InputError(f"{title} can't have {item.name} {value!r}; give it {_kind(item)} from {low:g}{most}.")


def _can_be(item: Field[Any], value: Any) -> bool:
    try:
        _check(item, value, "")
    except InputError:
        return False
    return True


def entry_type(item: Field[Any]) -> type:
    """The type of an option, or of the entries of a list."""
    if not isinstance(item.default, tuple):
        return type(item.default)
    if item.metadata["choices"] in (LAYERS, FILES):
        return str
    # An empty default tells nothing of the numbers: whole ones, since it stands for a shape.
    return type(item.default[0]) if item.default else int


def _fits(value: Any, default: Any, entry: type) -> bool:
    """Whether a value is of the kind that an option has; True is no number here."""
    if isinstance(default, tuple):
        return isinstance(value, tuple) and all(_fits(each, entry(), entry) for each in value)
    if isinstance(default, bool | str) or isinstance(value, bool):
        return type(value) is type(default)
    return isinstance(value, int) if isinstance(default, int) else isinstance(value, int | float) and isfinite(value)


def _kind(item: Field[Any]) -> str:
    kinds = {bool: "true or false", str: "a text", int: "a whole number", float: "a number"}
    if isinstance(item.default, tuple):
        return "a list of texts" if entry_type(item) is str else "a list of numbers"
    return kinds[type(item.default)]


def parse(text: str, default: Any, entry: type = int) -> Any:
    """The value that a text stands for, on the command line or in a line of a form.

    Parameters
    ----------
    text : str
        Numbers of a list are separated by commas or spaces, texts by commas.
    default : object
        The option's default, whose type the value gets.
    entry : type
        Of the entries of a list whose default is empty; see `entry_type`.

    Raises
    ------
    ValueError
        If the text is not of that type.
    """
    if isinstance(default, bool):
        known = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
        if text.strip().lower() not in known:
            raise ValueError(f"{text!r} is neither true nor false")
        return known[text.strip().lower()]
    if isinstance(default, tuple):
        kind = type(default[0]) if default else entry
        words = text.split(",") if kind is str else text.replace(",", " ").split()
        return tuple(kind(word.strip()) for word in words if word.strip())
    return type(default)(text)
