"""What must survive a restart of the master: an append-only file of records, fsynced by a thread of its own.

The loop never waits for a disk: it hands over bytes, and learns by an eventfd that they are durable. At each start the
journal is read, its epoch raised, and a new file with the sum of all records put in its place, durable before any
socket is bound.
"""

from __future__ import annotations

import fcntl
import os
import queue
import struct
import threading
from collections.abc import Iterable
from pathlib import Path
from zlib import crc32

import msgpack

from .core.records import Restored

_FRAME = struct.Struct("<II")  # length and CRC-32 of a record
RECORD_MAX = 1 << 20


class JournalError(Exception):
    """The journal cannot be read or written; the sentence says what to do."""


class Journal:
    """`directory` None: nothing is written, everything counts as recorded at once."""

    def __init__(self, directory: Path | None) -> None:
        self.restored = Restored()
        self.epoch = 1
        self.wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.truncated = 0  # bytes at the end of the old file that were not a whole record
        self._done = 0
        self._failure = ""
        self._work: queue.SimpleQueue[tuple[int, bytes] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        if directory is not None:
            self._open(directory)
            self._thread = threading.Thread(target=self._write, name="journal", daemon=True)
            self._thread.start()

    def record(self, records: Iterable[tuple[int, bytes]]) -> None:
        """Hands over numbered records; `recorded()` will say when they are durable."""
        for number, data in records:
            if self._thread is None:
                self._done = number
                os.eventfd_write(self.wake_fd, 1)
            else:
                self._work.put((number, data))

    def recorded(self) -> tuple[int, str]:
        """The highest durable number, and the sentence that says why there will be no more ("" = all is well)."""
        try:
            os.eventfd_read(self.wake_fd)
        except BlockingIOError:
            pass
        return self._done, self._failure

    def close(self) -> None:
        """Writes what was handed over, and lets another master have the directory."""
        if self._thread is not None:
            self._work.put(None)
            self._thread.join(5)
            os.close(self._file)
            os.close(self._lock)
        os.close(self.wake_fd)

    # ---- opening ---------------------------------------------------------------------------------

    def _open(self, directory: Path) -> None:
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise JournalError(f"another master uses {directory}: give each its own --state") from None
        except OSError as error:
            raise JournalError(f"the state directory {directory} cannot be used: {error.strerror}") from None
        path = directory / "journal"
        try:
            if path.exists():
                self._read(path)
            self._replace(path)
        except (OSError, ValueError) as error:
            raise JournalError(f"{path}: {error}") from None

    def _read(self, path: Path) -> None:
        data = path.read_bytes()
        place = 0
        while place + _FRAME.size <= len(data):
            length, crc = _FRAME.unpack_from(data, place)
            record = data[place + _FRAME.size : place + _FRAME.size + length]
            if length > RECORD_MAX or len(record) < length or crc32(record) != crc:
                break  # the write that a crash cut short: nobody was told that it was durable
            self._read_record(record)
            place += _FRAME.size + length
        self.truncated = len(data) - place

    def _read_record(self, record: bytes) -> None:
        value = msgpack.unpackb(record)
        if value.get("t") == "epoch":
            self.epoch = value["epoch"] + 1
        else:
            self.restored.read(record)

    def _replace(self, path: Path) -> None:
        fresh = path.with_suffix(".new")
        self._file = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        epoch = msgpack.packb({"t": "epoch", "epoch": self.epoch})
        self._append([epoch, *self.restored.records()])
        os.rename(fresh, path)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        os.fsync(folder)
        os.close(folder)

    # ---- the thread ------------------------------------------------------------------------------

    def _append(self, records: list[bytes]) -> None:
        data = b"".join(_FRAME.pack(len(record), crc32(record)) + record for record in records)
        while data:
            data = data[os.write(self._file, data) :]
        os.fsync(self._file)

    def _write(self) -> None:
        while (first := self._work.get()) is not None:
            batch = [first]
            while not self._work.empty():
                more = self._work.get()
                if more is None:
                    self._work.put(None)
                    break
                batch.append(more)
            try:
                self._append([data for _, data in batch])
            except OSError as error:
                self._failure = (
                    f"the journal cannot be written: {error.strerror}; free the disk and restart this master"
                )
                os.eventfd_write(self.wake_fd, 1)
                return
            self._done = batch[-1][0]
            os.eventfd_write(self.wake_fd, 1)
