"""The access log: a line a request on stdout, in the common format or as JSON. Never waits for its reader."""

from __future__ import annotations

import json
import os
import select
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import NamedTuple

from ..common.settings import COMMON, OFF

FLUSH_BYTES = 32 * 1024  # written at once when there is so much
KEPT_BYTES = 1024 * 1024  # of lines that nobody reads; beyond it they are dropped, and counted
LEFT_BYTES = 256  # of a target, an agent, or a referer, at least: three of them fit into a line, escaped or not


class Entry(NamedTuple):
    """One request. `seconds`: from its last byte to the end of the answer. `request_id`: fit for a line. `broken`: the
    answer had begun, and did not come to its end.
    """

    client: str
    method: str
    target: bytes
    version: str
    status: int
    size: int
    seconds: float
    request_id: str
    service: str
    agent: bytes
    referer: bytes
    broken: bool = False


class AccessLog:
    """`add` is nothing but a list's append; `flush` is called now and then, and at the end."""

    def __init__(self, form: str, fd: int = 1, clock: Callable[[], float] = time.time) -> None:
        self.wanted = form != OFF
        self._line = _common if form == COMMON else _json
        self._fd = fd
        self._clock = clock
        self._lines: deque[bytes] = deque()
        self._size = 0
        self._flush_at = FLUSH_BYTES
        self._unread = 0  # dropped behind those that are kept
        self._missing: Counter[str] = Counter()  # why → lines dropped before those that are kept
        self._stamp = (-1, b"")

    def add(self, entry: Entry) -> None:
        now = self._now()
        line = self._line(entry, now)
        while (over := len(line) - select.PIPE_BUF) > 0:
            entry = _cut(entry, over)
            line = self._line(entry, now)
        if self._size + len(line) > KEPT_BYTES:
            self._unread += 1
            return
        self._lines.append(line)
        self._size += len(line)
        if self._size >= self._flush_at:
            self.flush()

    def flush(self) -> None:
        """Writes what the reader takes now: whole lines, as a pipe with room takes PIPE_BUF bytes at once or none."""
        while self._lines and _has_room(self._fd):
            self._write()
        self._flush_at = self._size + FLUSH_BYTES
        if self._unread and not self._lines:
            self._missing["nobody read them"], self._unread = self._unread, 0
        if self._missing and not self._lines and _has_room(self._fd):
            self._write()

    def _write(self) -> None:
        """What is missing, and as many lines as fit."""
        notice = b"".join(b"# %d lines were dropped here: %s\n" % (n, why.encode()) for why, n in self._missing.items())
        chunk, room = [], select.PIPE_BUF - len(notice)
        while self._lines and len(self._lines[0]) <= room:
            chunk.append(self._lines.popleft())
            room -= len(chunk[-1])
        try:
            os.write(self._fd, notice + b"".join(chunk))
        except OSError as error:  # closed, or a full disk: no reason to stop what works
            if self._lines and not chunk:  # nor to try it for ever
                chunk.append(self._lines.popleft())
            if chunk:
                self._missing[os.strerror(error.errno or 0)] += len(chunk)
        else:
            self._missing.clear()
        self._size -= sum(map(len, chunk))

    def _now(self) -> bytes:
        second = int(self._clock())
        if second != self._stamp[0]:
            self._stamp = second, time.strftime("%d/%b/%Y:%H:%M:%S %z", time.localtime(second)).encode()
        return self._stamp[1]


def _has_room(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    return bool(poll.poll(0))


def _cut(entry: Entry, size: int) -> Entry:
    """With the longest of what came from outside so many bytes shorter, but not cut to nothing by its own escapes."""
    fields = entry._asdict()
    name = max(("target", "agent", "referer"), key=lambda name: len(fields[name]))
    fields[name] = fields[name][: max(len(fields[name]) - size, LEFT_BYTES)]
    return Entry(**fields)


def _common(entry: Entry, stamp: bytes) -> bytes:
    """The combined form of the common log, with the time in seconds and the request's id behind it."""
    return b'%s - - [%s] "%s %s HTTP/%s" %d %d "%s" "%s" %.6f %s%s\n' % (
        entry.client.encode(),
        stamp,
        entry.method.encode(),
        _quoted(entry.target),
        entry.version.encode(),
        entry.status,
        entry.size,
        _quoted(entry.referer) or b"-",
        _quoted(entry.agent) or b"-",
        entry.seconds,
        entry.request_id.encode(),
        b" broken" if entry.broken else b"",
    )


def _json(entry: Entry, stamp: bytes) -> bytes:
    fields = entry._asdict()
    for name in ("target", "agent", "referer"):
        fields[name] = fields[name].decode("latin-1")
    fields["seconds"] = round(entry.seconds, 6)
    return json.dumps({"time": stamp.decode(), **fields}).encode() + b"\n"


def _quoted(text: bytes) -> bytes:
    """Without what would end the quotes: what came from outside cannot write a line of its own."""
    return text.replace(b"\\", b"\\\\").replace(b'"', b'\\"') if b'"' in text or b"\\" in text else text
