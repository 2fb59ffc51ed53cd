"""The body of a request as it comes in: in memory while it is small, in a spool when it is not. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ...common.limits import INLINE_MAX
from .rules import Rejected


class NoRoom(Exception):
    """A spool takes no more: its bound is reached, or its disk is full."""


class Spool(Protocol):
    """Where bytes wait that are too many for memory."""

    size: int

    def write(self, data: bytes) -> None:
        """All of it, or NoRoom and nothing."""

    def read(self, offset: int, size: int) -> bytes: ...

    def close(self) -> None:
        """Drop what there is."""


def contents(spool: Spool) -> bytes:
    """All that waits in it, which is closed. OSError: the disk fails."""
    try:
        return spool.read(0, spool.size)
    finally:
        spool.close()


class Upload:
    """One body."""

    __slots__ = ("size", "_data", "_inline", "_open", "_spool")

    def __init__(self, open_spool: Callable[[], Spool], inline: int = INLINE_MAX) -> None:
        """inline: bytes, from which on they go into a spool."""
        self.size = 0
        self._open = open_spool
        self._inline = inline
        self._data = bytearray()
        self._spool: Spool | None = None

    @property
    def in_memory(self) -> int:
        return len(self._data)

    def add(self, data: bytes | bytearray) -> None:
        """Raises Rejected when there is no room for it."""
        self.size += len(data)
        if self.size <= self._inline:
            self._data += data
            return
        try:
            if self._spool is None:
                self._spool = self._open()
                self._spool.write(bytes(self._data))
                self._data.clear()
            self._spool.write(bytes(data))
        except NoRoom:
            raise Rejected("no-room") from None

    def whole(self) -> bytes | Spool:
        """All has come: whose spool this is now closes it."""
        spool, self._spool = self._spool, None
        return bytes(self._data) if spool is None else spool

    def close(self) -> None:
        if self._spool is not None:
            self._spool.close()
