"""Python files that a trusted bundle brings for its network or its preprocessing."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

CODE_SUFFIXES = (".py", ".pyc", ".pyd", ".so")
"""Endings of files that Python can import."""

_INSTALLED = frozenset(("site-packages", "dist-packages"))


@contextmanager
def own_code(folder: Path) -> Iterator[None]:
    """Let a trusted bundle's files be imported, and forget them again: other bundles may name theirs alike.

    Parameters
    ----------
    folder : Path
        The bundle's folder; `network.py` in it is the module `network`.
    """
    own = (path for path in folder.iterdir() if path.is_dir() or path.suffix in CODE_SUFFIXES)
    names = {name for path in own if not _is_needed(name := path.name.partition(".")[0])}

    def loaded() -> dict[str, ModuleType]:
        return {name: module for name, module in sys.modules.items() if name.partition(".")[0] in names}

    others, writes_none = loaded(), sys.dont_write_bytecode
    for name in others:
        del sys.modules[name]
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    # Written there it would change the bundle, which is then trusted no more.
    sys.dont_write_bytecode = True
    try:
        yield
    finally:
        sys.dont_write_bytecode = writes_none
        sys.path.remove(str(folder))
        for name in loaded():
            del sys.modules[name]
        sys.modules.update(others)


def _is_needed(name: str) -> bool:
    """Whether this is a module of Python, of ours or of an installed package that is in use and can't be replaced."""
    if name in sys.stdlib_module_names or name == __name__.partition(".")[0]:
        return True
    file = getattr(sys.modules.get(name), "__file__", None)
    return file is not None and not _INSTALLED.isdisjoint(Path(file).parts)
