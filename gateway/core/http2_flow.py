"""Whose turn it is to send on an HTTP/2 connection, and how long a reader may keep it waiting. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from math import inf
from typing import TYPE_CHECKING

from .http2_frames import FRAME_MAX
from .shared import UNREAD_MAX, Patience, Timeouts

if TYPE_CHECKING:
    from .http2_books import Books
    from .http2_stream import Stream


class Turns:
    """Of the streams that have something to send, and room for it. `patience`: with the connection. `unsent`: bytes
    since it was blocked the last time.
    """

    def __init__(self, books: Books, timeouts: Timeouts) -> None:
        self.is_blocked = False
        self.patience = Patience(timeouts.write, timeouts.write_rate)
        self.unsent = 0
        self._books = books
        self._ready: deque[Stream] = deque()

    def add(self, stream: Stream) -> None:
        self._ready.append(stream)

    def next(self, now: float) -> tuple[Stream, int] | None:
        """Who may send, and how many bytes."""
        books = self._books
        while self._ready:
            stream = self._ready[0]
            if stream.is_empty:  # it is closed
                self._ready.popleft()
                continue
            if books.outbound_flow_control_window <= 0:
                self.patience.stalls(now)
                return None
            self._ready.popleft()
            room = min(books.local_flow_control_window(stream.id), FRAME_MAX)
            if room > 0:
                return stream, room
            stream.patience.stalls(now)
        self.patience.goes_on(now)  # nobody waits for it
        return None

    def took(self, stream: Stream, size: int) -> None:
        """It has sent so many; if it has more its next turn comes."""
        stream.patience.took(size)
        self.patience.took(size)
        if not stream.is_empty:
            self._ready.append(stream)

    def room_of(self, streams: Iterable[Stream], now: float) -> None:
        """Their windows may have grown."""
        for stream in streams:
            if stream.patience.deadline != inf and not stream.is_empty:
                books = self._books
                if books.local_flow_control_window(stream.id) > 0 or books.outbound_flow_control_window <= 0:
                    stream.patience.goes_on(now)
                    self._ready.append(stream)

    def room(self, now: float) -> None:
        """The window of the connection has grown."""
        if not self.is_blocked:
            self.patience.goes_on(now)

    def wrote(self, size: int) -> None:
        self.unsent = min(self.unsent + size, UNREAD_MAX)

    def blocked(self, now: float) -> None:
        self.is_blocked = True
        self.patience.goes_on(now)
        self.patience.stalls(now, self.unsent)

    def written(self, now: float) -> None:
        self.is_blocked = False
        self.unsent = 0
        self.patience.goes_on(now)

    def clear(self) -> None:
        self._ready.clear()
