"""Errors whose message is one sentence: what was wrong with which input, and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

_LONGEST = 200
"""Letters of a library's message that are passed on."""


class XAIMedError(Exception):
    """Base of every error that this package raises on purpose."""


class InputError(XAIMedError):
    """The image, layer or option given can't be used."""


class ModelError(XAIMedError):
    """The classifier can't be loaded or can't be used for this image or method."""


class UntrustedError(ModelError):
    """Loading would run code that the user has not allowed."""


class Cancelled(XAIMedError):  # noqa: N818  # not an error: the user wished it
    """The user stopped the work; nothing was changed."""


def one_line(error: BaseException) -> str:
    """What a library says is wrong, as the end of a sentence: one line, not too long, without a full stop."""
    text = str(error).strip() or type(error).__name__
    if isinstance(error, KeyError):
        text = f"{text} is missing"
    first = " ".join(text.splitlines()[0].split())
    return (first if len(first) <= _LONGEST else f"{first[:_LONGEST]}…").rstrip(".: ")


@contextmanager
def told_as(kind: type[XAIMedError], sentence: str) -> Iterator[None]:
    """Turn whatever libraries raise at a broken file into one sentence.

    Parameters
    ----------
    kind : type of XAIMedError
    sentence : str
        Without a full stop; with "{}" in it where the library's own reason is to stand.

    Raises
    ------
    XAIMedError
        Of this kind; those that are raised inside pass as they are.
    """
    try:
        yield
    except XAIMedError:
        raise
    except Exception as error:
        # Parsers raise anything at damaged files: errors of their own, of zlib, of struct, too deep recursion.
        raise kind(f"{sentence.replace('{}', one_line(error))}.") from error
