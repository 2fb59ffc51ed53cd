"""One request of an HTTP/2 connection, and the answer that waits for its client."""

from __future__ import annotations

from collections import deque
from math import inf

from .connection import Timeouts
from .head import Head
from .response import Framing
from .upload import Spool, Upload


class Patience:
    """With a reader: grace, then a rate on average, in however many stalls."""

    __slots__ = ("deadline", "_grace", "_left", "_rate")

    def __init__(self, timeouts: Timeouts) -> None:
        self.deadline = inf
        self._grace = self._left = timeouts.write
        self._rate = timeouts.write_rate

    def stalls(self, now: float, size: int = 0) -> None:
        """It takes nothing. `size`: bytes that are on their way."""
        if self.deadline == inf:
            self.deadline = now + self._left + size / self._rate

    def goes_on(self, now: float) -> None:
        if self.deadline != inf:
            self._left = min(self._grace, max(self.deadline - now, 0.0))
            self.deadline = inf

    def took(self, size: int) -> None:
        self._left = min(self._grace, self._left + size / self._rate)


class Stream:
    """One request and its answer."""

    __slots__ = ("id", "head", "upload", "since", "deadline", "asked", "ended", "framing", "patience", "waiting",
                 "spool", "read", "over")  # fmt: skip

    def __init__(self, number: int, head: Head, upload: Upload, timeouts: Timeouts, now: float) -> None:
        self.id = number
        self.head = head
        self.upload: Upload | None = upload
        self.since = now
        self.deadline = inf  # of the body
        self.asked = False  # it was dispatched
        self.ended = False  # the client sends no more of it
        self.framing: Framing | None = None  # of an answer that has begun
        self.patience = Patience(timeouts)
        self.waiting: deque[bytes] = deque()  # of the answer; behind the spool, if there is one
        self.spool: Spool | None = None
        self.read = 0
        self.over = False  # nothing comes behind what waits

    @property
    def is_empty(self) -> bool:
        return self.spool is None and not self.waiting

    def next(self, most: int) -> bytes:
        """Up to so many bytes of what waits."""
        if self.spool is not None:
            data = self.spool.read(self.read, min(most, self.spool.size - self.read))
            self.read += len(data)
            if self.read == self.spool.size:
                self.spool.close()
                self.spool = None
            return data
        data = self.waiting.popleft()
        if len(data) > most:
            self.waiting.appendleft(data[most:])
            data = data[:most]
        return data

    def close(self) -> None:
        for spool in (self.upload, self.spool):
            if spool is not None:
                spool.close()
        self.upload = self.spool = None
        self.waiting.clear()
