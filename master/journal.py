"""What must survive a restart of the master: an append-only file of records, fsynced by a thread of its own.

The loop never waits for a disk: it hands over bytes, and learns by an eventfd that they are durable. At each start, and
when it has grown, the journal is read, and a new file with the sum of all records put in its place. Only a new epoch is
waited for: it is durable before anything is done under it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import queue
import struct
import threading
from collections.abc import Iterable, Iterator
from mmap import ACCESS_READ, mmap
from pathlib import Path
from traceback import format_exc
from typing import NamedTuple
from zlib import crc32

import msgpack

from ..common import log
from .core.records import Restored

_FRAME = struct.Struct("<II")  # length and CRC-32 of a record
RECORD_MAX = 1 << 20
REWRITE_BYTES = 32 << 20  # of the file, or twice what the sum of its records takes: then it is rewritten
RISE_S = 5.0  # for one fsync; a disk that needs longer is no place for a master's memory


class _Append(NamedTuple):
    number: int  # 0: nobody asks whether it is durable
    data: bytes


class _StartOver(NamedTuple):
    number: int
    records: list[bytes]


_Work = _Append | _StartOver | threading.Event | None  # an event is set when all before it is written; None: the end


class JournalError(Exception):
    """The journal cannot be read or written; the sentence says what to do."""


class Journal:
    """`directory` None: nothing is written, everything counts as recorded at once."""

    def __init__(self, directory: Path | None) -> None:
        self.restored = Restored()
        self.epoch = 0  # of the last active master, and its name
        self.epoch_by = ""
        self.stood = 0  # the highest epoch that a master is known to have stood for
        self.wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.truncated = 0  # bytes at the end of the old file, from the first that is not of a whole record
        self.last = 0  # number that was handed over
        self._done = 0
        self._failure = ""
        self._file: int | None = None
        self._size = 0  # of the file
        self._rewrite_at = 0
        self._work: queue.SimpleQueue[_Work] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        if directory is not None:
            self._open(directory)
            self._thread = threading.Thread(target=self._write, name="journal", daemon=True)
            self._thread.start()

    def record(self, records: Iterable[tuple[int, bytes | list[bytes]]]) -> None:
        """Hands over numbered records; `recorded()` will say when they are durable. A list of records, with one number,
        takes the place of all that was recorded before (but the epoch).
        """
        for number, data in records:
            self.last = number
            if self._thread is None:
                self._done = number
                os.eventfd_write(self.wake_fd, 1)
            else:
                self._work.put(_StartOver(number, data) if isinstance(data, list) else _Append(number, data))

    def rise(self, epoch: int, by: str) -> None:
        """Makes an epoch durable before it returns. `by`: the name of the master that is active in it; "": it is only
        stood for. Raises JournalError.
        """
        self._note_epoch(epoch, by)
        if self._thread is None:
            return
        if self._failure:
            raise JournalError(self._failure)
        written = threading.Event()
        self._work.put(_Append(0, _epoch(epoch, by)))
        self._work.put(written)
        if not written.wait(RISE_S) or self._failure:
            raise JournalError(self._failure or f"the disk did not take a new epoch within {RISE_S:g} s")

    def _note_epoch(self, epoch: int, by: str) -> None:
        self.stood = max(self.stood, epoch)
        if by:
            self.epoch, self.epoch_by = epoch, by

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
            if self._file is not None:
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
            raise JournalError(
                f"--state {directory}: {error.strerror}; it must be a directory that this user may write to, with all "
                "files in it"
            ) from None
        self._path = directory / "journal"
        try:
            if self._path.exists():
                self._read(self._path)
            self._replace(self.restored.records())
        except OSError as error:
            raise JournalError(f"{self._path}: {error.strerror or error}; mend that and start again") from None
        except ValueError as error:
            raise JournalError(f"{self._path}: {error}") from None

    def _read(self, path: Path) -> None:
        data = path.read_bytes()
        whole = 0
        for record, end in _records(data):
            self._read_record(record)
            whole = end
        self.truncated = len(data) - whole
        if self.truncated:  # or is it a disk that forgets? Then somebody may want to know what was there
            path.with_suffix(".damaged").write_bytes(data)

    def _read_record(self, record: bytes) -> None:
        """Raises ValueError with a sentence: it is whole, so it is what was written."""
        try:
            value = msgpack.unpackb(record)
            if value["t"] == "epoch":
                self._note_epoch(value["epoch"], value.get("by", "?"))
            else:
                self.restored.read(record)
        except Exception as error:
            text = f"a record is not understood; was it a newer version that wrote it? Start that one ({error!r})"
            raise ValueError(text) from None

    def _replace(self, records: list[bytes]) -> None:
        fresh = self._path.with_suffix(".new")
        before = self._file
        self._file = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        if before is not None:
            os.close(before)
        self._size = 0
        self._append([_epoch(self.stood, ""), _epoch(self.epoch, self.epoch_by or "?"), *records])
        self._rewrite_at = max(REWRITE_BYTES, 2 * self._size)
        os.rename(fresh, self._path)
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        os.fsync(folder)
        os.close(folder)

    # ---- the thread ------------------------------------------------------------------------------

    def _append(self, records: list[bytes]) -> None:
        assert self._file is not None
        data = b"".join(_FRAME.pack(len(record), crc32(record)) + record for record in records)
        self._size += len(data)
        while data:
            data = data[os.write(self._file, data) :]
        os.fsync(self._file)
        if not os.fstat(self._file).st_nlink:  # whoever tidied up there would have made it forget, without a word
            raise FileNotFoundError(errno.ENOENT, "it was deleted")

    def _write(self) -> None:
        """What has come meanwhile is written together: one fsync for all of it."""
        ended = False
        while not ended:
            batch = [self._work.get()]
            while not self._work.empty():
                batch.append(self._work.get())
            ended = None in batch
            try:
                self._carry_out(batch)
            except Exception as error:  # whatever it is: who waits for the disk is not to wait for ever
                if isinstance(error, OSError):
                    why = error.strerror
                else:
                    why = f"{type(error).__name__}: {error}"
                    log.note(f"rota master: the journal failed:\n{format_exc()}")
                self._failure = f"the journal cannot be written: {why}; mend that and restart this master"
                ended = True
            for each in batch:
                if isinstance(each, threading.Event):
                    each.set()
            os.eventfd_write(self.wake_fd, 1)

    def _carry_out(self, batch: list[_Work]) -> None:
        together: list[bytes] = []
        for work in batch:
            if isinstance(work, _Append):
                together.append(work.data)
            elif isinstance(work, _StartOver):
                together.clear()  # it has all of that
                self._replace(work.records)
        if together:
            self._append(together)
        numbers = [work.number for work in batch if isinstance(work, _Append | _StartOver)]
        self._done = max([self._done, *numbers])
        if self._size > self._rewrite_at:
            os.eventfd_write(self.wake_fd, 1)  # nobody waits for what takes a second
            self._rewrite()

    def _rewrite(self) -> None:
        """Leaves out what is overtaken: nodes that flap, and requests that kill, lead to records as long as this master
        lives.
        """
        self._rewrite_at = 2 * self._size
        known, whole = Restored(), 0
        with open(self._path, "rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as data:
            for record, end in _records(data):
                if msgpack.unpackb(record)["t"] != "epoch":
                    known.read(record)
                whole = end
        if whole == self._size:  # else it is damaged: what comes behind that is not to be lost
            self._replace(known.records())


def _records(data: bytes | mmap) -> Iterator[tuple[bytes, int]]:
    """The records of a journal, each with where it ends, up to the first that is not whole: a write that a crash cut
    short, maybe into zeros; nobody was told that it was durable.
    """
    place = 0
    while place + _FRAME.size <= len(data):
        length, crc = _FRAME.unpack_from(data, place)
        record = data[place + _FRAME.size : place + _FRAME.size + length]
        if not 0 < length <= RECORD_MAX or len(record) < length or crc32(record) != crc:
            break
        place += _FRAME.size + length
        yield record, place


def _epoch(epoch: int, by: str) -> bytes:
    data: bytes = msgpack.packb({"t": "epoch", "epoch": epoch, "by": by})
    return data
