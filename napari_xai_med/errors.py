"""Errors whose message is one sentence: what was wrong with which input, and what to do."""

from __future__ import annotations


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
