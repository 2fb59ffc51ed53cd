"""What the master remembers of a client: its open requests, and every answer until it is acknowledged."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, NamedTuple

from ...common import wire

if TYPE_CHECKING:
    from .pool import Request


class Source(NamedTuple):
    """Where a connection comes from, for whoever may have to cut it: a descriptor, and who was at its other end."""

    fd: int = -1
    peer: str = "?"


@dataclass(slots=True, eq=False, repr=False)
class Session:
    """One client, over all its connections."""

    id: bytes
    heard_at: float
    route: bytes = b""  # b"": no connection that we know of
    source: Source = Source()
    born: int = 0
    token: int = 0
    epoch: int = 0  # in which it had been welcomed before we knew it; 0: it is new
    greeted_at: float = field(init=False)  # over its present connection
    asked: list[tuple[int, float]] = field(default_factory=list)  # requests from this number on are younger than this
    highest: int = 0  # request number; what is not above it and not RESENT is a replay
    open: dict[int, Request] = field(default_factory=dict)
    sequence: int = 0  # of the last answer
    acked: int = 0
    # Number and frame of every answer above `acked`, in sequence; b"" where the frame was dropped for its size.
    kept: deque[tuple[int, wire.Frame]] = field(default_factory=deque)
    kept_bytes: int = 0
    outgoing: list[wire.Frame] = field(default_factory=list)  # answers that the shell has not sent yet
    dropped: int = 0  # how many of those kept, from the oldest on, have lost their frame
    dropped_sizes: deque[int] = field(default_factory=deque)  # bytes that these had
    unsent: int = 0  # first sequence that the route did not take; 0: none

    def __post_init__(self) -> None:
        self.greeted_at = self.heard_at

    def asked_after(self, number: int) -> float:
        """A time at which this request was not sent yet, as far as its client has told; -inf if that is not known."""
        return max((after for first, after in self.asked if first <= number), default=-inf)

    def keep(self, number: int, frame: wire.Frame, bytes_max: int) -> None:
        """Remembers the answer with the sequence that was just given to it."""
        self.kept.append((number, frame))
        self.kept_bytes += len(frame)
        if self.kept_bytes > bytes_max:
            self._drop_oldest(bytes_max)

    def acknowledge(self, upto: int) -> None:
        """Forgets every answer up to this sequence. One that was never given is a lie: ignored."""
        if upto > self.sequence:
            return
        forget = self.kept.popleft
        self.kept_bytes -= sum([len(forget()[1]) for _ in range(upto - self.acked)])
        if self.dropped:
            gone = min(self.dropped, upto - self.acked)
            self.dropped -= gone
            for _ in range(gone):
                self.dropped_sizes.popleft()
        self.acked = upto

    def owed(self) -> int:
        """Bytes of all answers that it has not acknowledged, kept or not: its connection may hold as many."""
        return self.kept_bytes + sum(self.dropped_sizes)

    def recorded(self, number: int) -> tuple[int, bytes] | None:
        """Sequence and frame of the answer that this number got (b"" if it was dropped); None if there is none."""
        # A resend is rare and what is not acknowledged is little: no index for it.
        for sequence, (kept, frame) in enumerate(self.kept, self.acked + 1):
            if kept == number:
                return sequence, self.rehead(frame) if frame else b""
        return None

    def rehead(self, frame: wire.Frame) -> bytes:
        """A kept answer under the token of the present connection."""
        old = wire.parse_head(frame)
        head = wire.head(
            wire.ANSWER, self.token, old.epoch, old.time, old.number, old.upto, code=old.code, flags=wire.RESENT
        )
        return head + frame[old.head_len :]

    def _drop_oldest(self, bytes_max: int) -> None:
        while self.kept_bytes > bytes_max and self.dropped < len(self.kept):
            number, frame = self.kept[self.dropped]
            self.kept[self.dropped] = (number, b"")
            self.kept_bytes -= len(frame)
            self.dropped_sizes.append(len(frame))
            self.dropped += 1

    def drop_all(self) -> None:
        """Drops all answers that are kept; their numbers stay."""
        self._drop_oldest(0)
