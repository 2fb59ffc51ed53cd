"""Where the bytes of bodies wait that are too many for memory: a temporary file that has no name any more."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable

from .core.upload import NoRoom

MEMORY_MAX = 32 * 1024 * 1024  # of all spools of a process; beyond it even small ones are files


class Store:
    """What the spools of one process may hold together."""

    def __init__(
        self, most: int, memory: int, folder: str, tell: Callable[[str], object] = lambda sentence: None
    ) -> None:
        """most: bytes of all spools, in memory and on disk. memory: of one, before it becomes a file in `folder`.
        tell: is called with a sentence when files begin to fail.
        """
        self.held = 0
        self.in_memory = 0
        self.share = most // 4  # of one answer: it may go on for ever, and its reader always be a little behind
        self.memory = memory
        self.folder = folder
        self._most = most
        self._tell = tell
        self._failure = ""

    def open(self) -> FileSpool:
        return FileSpool(self)

    def admit(self, size: int) -> None:
        if self.held + size > self._most:
            raise NoRoom(f"{self.held} bytes wait already")
        self.held += size

    def wrote(self, failure: str = "") -> None:
        """To a file, or that it failed, and why: whoever sends is told only to come again."""
        if failure and failure != self._failure:
            self._tell(f"there is no room for large bodies in {self.folder} (http.spool_dir): {failure}")
        self._failure = failure


class FileSpool:
    """The spool of core/upload.py. Its files are read and written by the event loop: the system's cache has them."""

    __slots__ = ("size", "_data", "_fd", "_store")

    def __init__(self, store: Store) -> None:
        self.size = 0
        self._store = store
        self._data = bytearray()
        self._fd = -1

    def write(self, data: bytes) -> None:
        store, size = self._store, len(data)
        store.admit(size)
        if self._fd < 0 and self.size + size <= store.memory and store.in_memory + size <= MEMORY_MAX:
            self._data += data
            store.in_memory += size
        else:
            try:
                self._to_file(data)
                store.wrote()
            except OSError as error:
                store.wrote(error.strerror or str(error))
                store.held -= size
                raise NoRoom(str(error)) from None
        self.size += size

    def _to_file(self, data: bytes) -> None:
        if self._fd >= 0:
            _write_at(self._fd, data, self.size)
            return
        fd, name = tempfile.mkstemp(prefix="rota-", dir=self._store.folder)
        try:
            os.unlink(name)
            _write_at(fd, self._data, 0)
            _write_at(fd, data, self.size)
        except OSError:
            os.close(fd)
            raise
        self._fd = fd
        self._forget_memory()

    def _forget_memory(self) -> None:
        self._store.in_memory -= len(self._data)
        self._data = bytearray()

    def read(self, offset: int, size: int) -> bytes:
        """OSError if the disk fails."""
        if self._fd < 0:
            return bytes(memoryview(self._data)[offset : offset + size])
        data = os.pread(self._fd, size, offset)
        while len(data) < size and (more := os.pread(self._fd, size - len(data), offset + len(data))):
            data += more
        if len(data) < size:
            raise OSError(f"the spool has lost {size - len(data)} bytes")
        return data

    def close(self) -> None:
        """Empty again; a file is not kept for what may never come."""
        self._store.held -= self.size
        self.size = 0
        self._forget_memory()
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            with contextlib.suppress(OSError):
                os.close(fd)


def _write_at(fd: int, data: bytes | bytearray, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written
