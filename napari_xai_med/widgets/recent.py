"""What was found lately, so that coming back to it takes no time."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

Found = TypeVar("Found")


class Recent(Generic[Found]):
    """The results that were used last.

    Parameters
    ----------
    count : int
        How many at most.
    size : int
        How many bytes they may have together; the newest is kept however large it is.
    """

    def __init__(self, count: int, size: int) -> None:
        self._count, self._size = count, size
        self._found: OrderedDict[Hashable, tuple[Found, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._found)

    def get(self, key: Hashable) -> Found | None:
        """What is known, or None."""
        if key not in self._found:
            return None
        self._found.move_to_end(key)
        return self._found[key][0]

    def put(self, key: Hashable, found: Found, size: int) -> None:
        """Keep something of a size in bytes, in place of what was not used for longest."""
        self._found[key] = (found, size)
        self._found.move_to_end(key)
        while len(self._found) > 1 and (len(self._found) > self._count or self._bytes > self._size):
            self._found.popitem(last=False)

    @property
    def _bytes(self) -> int:
        return sum(size for _, size in self._found.values())

    def clear(self) -> None:
        """Forget all."""
        self._found.clear()
