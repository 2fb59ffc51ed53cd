"""What the connections of one process have in common, whichever HTTP they speak. Pure."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import NamedTuple

from .head import Heads
from .rules import Limits
from .upload import Spool

LINGER_S = 2.0  # for a client to read why: a reset, which is what closing at once may be, takes it away
UNREAD_MAX = 512 * 1024  # of an answer in pieces: what one that was blocked leaves with, before it is blocked again
BANKED_S = 600.0  # of silence that a quick beginning buys at most: a large body must not lie on the disk for days


class Timeouts(NamedTuple):
    """Seconds; rates in bytes a second."""

    idle: float  # until a request begins
    head: float  # from its first byte to its last: dripping bytes does not prolong it
    body: float  # of grace, then `body_rate` on average
    body_rate: int
    write: float  # of grace once the kernel takes no more, then `write_rate` on average
    write_rate: int


class Shared(NamedTuple):
    """`date`: what a Date field says now (RFC 9110 6.6.1). `open_spool`: for a large body; may raise NoRoom. `new_id`:
    of a request that is refused before it has one. `heads`: those that came before. `streams`: of HTTP/2, at once.
    """

    limits: Limits
    timeouts: Timeouts
    date: Callable[[], bytes]
    open_spool: Callable[[], Spool]
    new_id: Callable[[], str]
    heads: Heads
    streams: int


class Patience:
    """With a reader: grace, then a rate on average, in however many stalls. `deadline`: inf while it reads."""

    __slots__ = ("deadline", "_grace", "_left", "_rate")

    def __init__(self, grace: float, rate: int) -> None:
        """Seconds, and bytes a second."""
        self.deadline = inf
        self._grace = self._left = grace
        self._rate = rate

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
