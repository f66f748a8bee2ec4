"""The one way in which methods, formats and architectures become known: by being in their folder."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pkgutil import iter_modules
from typing import Any, TypeVar

from napari_xai_med.errors import InputError
from napari_xai_med.options import with_options

Item = TypeVar("Item", bound=Any)


class Registry:
    """Classes or functions with a `name`, found in all files of one package.

    Parameters
    ----------
    package : str
        Its files are imported when the registry is first asked.
    """

    def __init__(self, package: str) -> None:
        self._package = package
        self._items: dict[str, Any] = {}
        self._complete = False

    def register(self, item: Item) -> Item:
        """Make an item known; a decorator."""
        self._items[item.name] = item
        return item

    def all(self) -> Mapping[str, Any]:
        """All items by name."""
        if not self._complete:
            for module in iter_modules(import_module(self._package).__path__):
                import_module(f"{self._package}.{module.name}")
            self._complete = True
        return self._items

    def make(self, what: str, name: str, options: Mapping[str, Any]) -> Any:
        """An instance of the class of a name, which has a `title`, with its options.

        Parameters
        ----------
        what : str
            How to call such a class in a sentence.
        name : str
        options : mapping

        Raises
        ------
        InputError
            If there is no such class or option.
        """
        known = self.all()
        if name not in known:
            raise InputError(f"There is no {what} {name!r}; choose one of {', '.join(known)}.")
        return with_options(known[name], known[name].title, options)
