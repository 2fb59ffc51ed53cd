"""The frames of an HTTP/2 connection: cut out of its bytes, and what they cost. Pure.

So what a flood of them costs is known before they are read, and none is waited for that is too large.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import inf
from typing import NamedTuple

from h2.errors import ErrorCodes

FRAME_MAX = 16384  # bytes of one, either way: the size that all must take
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, GOAWAY, CONTINUATION = 0, 1, 3, 4, 7, 9
END_STREAM, END_HEADERS, ACK = 0x1, 0x4, 0x1
OVERHEAD = 9  # bytes in front of what a frame carries

# What a connection may cost beside its requests, in points: what a browser does in its worst second, several times.
POINTS = 10_000
POINTS_PER_S = 1_000
OF_FRAME = 10  # any that carries no request and next to no data: 1,000 at once, 100 a second
OF_RESET = 20  # of a stream, by either side: 500 at once, 50 a second
SMALL = 1024  # bytes of a piece of a body, from which on it costs nothing
EARNS = 4096  # bytes of an answer for which a client may say that it took them


class Broken(Exception):
    """The connection cannot go on."""

    def __init__(self, code: ErrorCodes) -> None:
        super().__init__(code)
        self.code = code


class Frame(NamedTuple):
    """`size`: bytes that it carries. `data`: those, and what is in front of them."""

    kind: int
    flags: int
    stream: int
    size: int
    data: bytes


class Frames:
    """`since`: when the first byte came of the frame, or the head in several frames, that is not whole; inf: all is.
    `in_head`: a head has begun, and its end has not come.
    """

    def __init__(self, head_max: int) -> None:
        """`head_max`: bytes of one head."""
        self.since = inf
        self._buffer = bytearray()
        self._head_max = head_max
        self._head = 0  # bytes of a head whose end has not come
        self._started = False  # its preface has come
        self._introduced = False  # and its settings

    @property
    def in_head(self) -> bool:
        return self._head > 0

    def feed(self, data: bytes, now: float) -> Iterator[Frame]:
        """Those that are whole now. Broken: there will be no proper one, whatever comes."""
        self._buffer += data
        while (frame := self._next()) is not None:
            yield frame
            if not self._head:
                self.since = inf
        if self._buffer or self._head:
            self.since = min(self.since, now)

    def part_of_body(self) -> tuple[int, int]:
        """The stream whose body the frame is of that is not whole, and how many bytes of it have come; (0, 0): none."""
        buffer = self._buffer
        if len(buffer) < OVERHEAD or buffer[3] != DATA or self._head:
            return 0, 0
        return _stream(buffer), len(buffer) - OVERHEAD

    def clear(self) -> None:
        self._buffer.clear()

    def _next(self) -> Frame | None:
        if not self._started and not self._start():
            return None
        buffer = self._buffer
        if len(buffer) < OVERHEAD:
            return None
        size = buffer[0] << 16 | buffer[1] << 8 | buffer[2]
        if size > FRAME_MAX:
            raise Broken(ErrorCodes.FRAME_SIZE_ERROR)
        end = OVERHEAD + size
        if len(buffer) < end:
            return None
        frame = Frame(buffer[3], buffer[4], _stream(buffer), size, bytes(buffer[:end]))
        del buffer[:end]
        self._check(frame)
        return frame

    def _start(self) -> bool:
        buffer, size = self._buffer, len(PREFACE)
        if not PREFACE.startswith(buffer[:size]):
            raise Broken(ErrorCodes.PROTOCOL_ERROR)
        if len(buffer) < size:
            return False
        del buffer[:size]
        self._started = True
        return True

    def _check(self, frame: Frame) -> None:
        if not self._introduced:
            if frame.kind != SETTINGS or frame.flags & ACK:
                raise Broken(ErrorCodes.PROTOCOL_ERROR)
            self._introduced = True
        if frame.kind in (HEADERS, CONTINUATION):
            self._head = 0 if frame.flags & END_HEADERS else self._head + len(frame.data)
            if self._head > self._head_max:
                raise Broken(ErrorCodes.ENHANCE_YOUR_CALM)


def _stream(frame: bytearray) -> int:
    return int.from_bytes(frame[5:9], "big") & 0x7FFFFFFF


class Purse:
    """What a connection has left to spend."""

    def __init__(self, now: float) -> None:
        self._points: float = POINTS
        self._at = now

    def pay(self, cost: int, now: float) -> None:
        """Broken: it has no more."""
        if cost:
            self._points = min(POINTS, self._points + (now - self._at) * POINTS_PER_S) - cost
            self._at = now
            if self._points < 0:
                raise Broken(ErrorCodes.ENHANCE_YOUR_CALM)

    def earn(self, size: int) -> None:
        """By taking so many bytes of answers."""
        self._points = min(POINTS, self._points + size * OF_FRAME / EARNS)
